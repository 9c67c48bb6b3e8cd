// Package broker is RingMQ's MQTT engine: sessions, routing, retained messages, wills and limits for MQTT 3.1, 3.1.1 and
// 5.0 over any plane that carries bytes.
//
// # What it is
//
// A Broker is a set of Shards. A Shard is a state machine for some of the connections: it is given bytes, ticks and
// messages from other shards, and gives slices to send. It never blocks, starts no goroutine and reads neither clock nor
// socket. A Loop drives one Shard on one Plane; it alone waits and tells the time. Planes are epoll or kqueue
// (broker/kernel), memory (broker/memnet, for tests) and netstack on AF_XDP. A connection belongs to one shard for life.
//
// # What it is not
//
// It knows no TLS, no WebSocket, no file and no password: those are goroutines beside the loops, reached through Host
// and Loop.Do. It has no goroutine of its own but one per Loop, started and awaited by Broker.Run.
//
// # How to read it
//
// The way of a PUBLISH: loop.go reads, inbound.go cuts packets (carry.go keeps what cannot be consumed yet), publish.go
// judges, stores and routes, cache.go knows the receivers, deliver.go gives each its copy (encode.go), pump.go sends what
// had to wait, outbound.go holds the bytes until loop.go writes them. Around it: conn.go,
// connect.go, auth.go and lifetime.go for connections and Sessions, session.go for their queues, subscribe.go and
// shared.go for subscriptions, retained.go for Retained Messages, alias.go for Topic Aliases. Between shards: ring.go
// carries messages, handover.go moves Sessions. Memory: limits.go adds it up, memory_unix.go reserves it, slots.go and
// arena.go deal it out, message.go stores messages in it, wheel.go keeps time.
//
// # Who owns what
//
// Everything of a Shard is touched by its Loop's goroutine only. What shards share is named in type shared, with its
// writer. Messages are immutable once routed, and counted; the arena's pages and the slots move between shards in batches.
package broker
