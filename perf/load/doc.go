// Package load drives an MQTT broker with many connections from one thread and measures what comes back:
// throughput, latency, and exactly which messages were lost, doubled or overtaken. `ringmq bench` and the
// comparison in perf are built on it. It is not an MQTT client: it knows no sessions, no TLS, no reconnect.
//
// Vocabulary. A publisher and a subscriber are one connection each. A flow is what one publisher sends to one
// subscriber. A turn is one wait for readiness, one read of each ready connection, and one write of each
// connection that has something to send. In a closed loop a publisher has at most Window messages under way; in
// an open loop messages fall due at a fixed rate whatever the broker does, and latency counts from the moment
// a message was due, so a slow broker cannot hide by slowing the generator (coordinated omission).
//
// Run starts one goroutine, locks it to its thread and waits for it; everything here belongs to that goroutine,
// Progress calls included. The clock is read twice in a turn, never for a message.
//
// Clients call themselves lgXXXXXXXX-p-12 and lgXXXXXXXX-s-12 (eight hexadecimal digits drawn for the run), from
// which the relay in perf/relay knows whose bytes go where.
package load
