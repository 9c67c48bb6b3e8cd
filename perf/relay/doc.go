// Package relay is the floor that brokers are measured against: one thread on epoll that passes PUBLISH bytes
// on as they came and does nothing else. It answers CONNECT, SUBSCRIBE, PINGREQ and the QoS 1 and 2 handshakes
// by fixed bytes; it knows no topics, no matching, no sessions and no limits on what it queues. It bounds what
// the kernel's TCP allows one core, so a broker's figure is quoted as a share of it.
//
// Whose bytes go where it takes from Client Identifiers as perf/load makes them: lgXXXXXXXX-p-12 is publisher
// 12, lgXXXXXXXX-s-12 subscriber 12.
//
// It can also be made to fail: to drop, double or swap every so manieth message, which proves that a meter
// behind it counts right. Everything belongs to the goroutine that calls Run, but for the count of faults.
package relay
