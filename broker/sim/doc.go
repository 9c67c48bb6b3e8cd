// Package sim plays whole brokers from a seed: several shards over the in-memory plane, dozens of clients that do what a
// Script says, time and chance out of numbers, one goroutine. A model of MQTT that knows nothing of the engine checks every
// packet that a client gets, and at the end what each Session was promised.
//
// # Words
//
// A Script is a list of Ops, each a line of text. Generate makes one from a seed; Play plays one and returns a Result: the
// first Violation, if any, and the hash of everything that every client heard. The same Script gives the same hash,
// whatever it is. Shrink makes a Script that violates a rule shorter, as long as the rule stays violated: an Op that has
// no sense any more (a PUBLISH of a client that is not connected) does nothing, so any part of a Script is a Script.
//
// # How to read it
//
// script.go is the text, generate.go and hop.go the chances, world.go the broker with its clock and its turns, late.go a plane that the
// broker cannot trust to show bytes in the order in which they were sent, ops.go, subscribe.go, crash.go and stop.go what the
// Ops do, client.go and link.go the client's half of the protocol, hear.go what a client makes of the packets it gets,
// authenticator.go and exchange.go who is let in and how a client proves who it is, intruder.go who must not be let in,
// settle.go the calm end of a run. The model is model.go (what is known of messages, subscriptions and Sessions), check.go
// and properties.go (what a delivery must keep to), will.go (when a Will is due), goodbye.go (which Reason Code a connection may end with),
// limits.go, rate.go and memory.go (what a limit explains), judge.go and judge_retained.go (what must have come by the end).
//
// # What the model promises itself
//
// It never knows when the broker handled a packet, only between which steps: a subscription may match from its
// SUBSCRIBE on and must match from its SUBACK on. A rule speaks where both bounds agree. So it never accuses wrongly, and what
// it cannot tell is left to other seeds.
//
// # Worlds with a store
//
// One seed of four has a store (disk.go) that commits when chance says so, stands still, is full, and crashes (crash.go): what is not
// committed is lost, another broker starts on what is there, and the clients come back. Two of three limit what may wait on it. What was
// acknowledged must still come, nothing of QoS 2 twice, Sessions resume, Wills of kept Sessions come, and at the end nothing is left on
// the disk. What the standard or a crash leaves open is not judged: broker/testdata/README.md lists it, with the reasons.
//
// Played with Options.Threaded, loops run on goroutines of their own, for the race detector; then nothing is reproducible.
package sim
