// Package conform plays conversations of the MQTT standards against a broker and says which normative statements hold.
//
// The conversations (conversations/*.txt) use only what a peer sees on the wire, so they play against any broker over TCP
// (TCP, ringmq conform) and against RingMQ's engine over the in-memory plane with injected time (package broker's tests):
// a Target is all that differs. Client Identifiers and topics are new in every run, so that a broker may have state, and each
// conversation clears what it left. What the standard leaves to a broker, the conversations leave open.
//
// A check is one conversation in one protocol version. It proves the statements that its head names; statements.md lists
// all statements of both standards, with everything that proves each, or the reason why a server cannot be tested for it.
// broker/testdata/README.md describes the language.
package conform
