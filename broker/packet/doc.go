// Package packet is the codec of MQTT Control Packets: all fifteen kinds, in both directions, in the versions 3.1
// (Protocol Name MQIsdp), 3.1.1 and 5.0.
//
// # What it is
//
// A Decode method turns the body of one packet (the bytes that Remaining Length counts) into a struct whose slices
// alias that body: they are valid as long as the body's memory is, and no longer. An Append function writes one
// whole packet behind dst. Both directions work without allocation as long as dst has room, and neither panics on
// anything a peer can send.
//
// Decode says Success or the Reason Code that the standard gives for the first violation found: MalformedPacket where
// the packet cannot be parsed, ProtocolError where it can but says something forbidden, a more precise one where
// the standard names one. A struct whose Decode failed holds nothing of use.
//
// Where the direction of flow matters, Decode is what a Server does with a Client's packet and DecodeFromServer what
// a Client does.
//
// # What it is not
//
// It does no I/O, starts no goroutine, reads no clock and remembers nothing from one packet to the next. Whatever
// needs a Session, a limit or a peer's earlier packet to judge is the broker's: packets out of order, Topic Aliases
// above the maximum, unknown Packet Identifiers, No Local on a Shared Subscription. It does not judge the syntax of
// Topic Names and Topic Filters (package topic does); the one field that it does not even check for UTF-8 is the
// Topic Name of a PUBLISH, see Publish.Decode.
//
// # Vocabulary
//
// A section is the Properties of a packet without the Property Length. A raw section is those bytes as received.
// A field of type []byte for an optional property is nil when the property is absent, and empty but not nil when it
// is there with a length of zero.
//
// An Append function panics on what the wire cannot carry (a string above 65,535 bytes, a packet above 268,435,455):
// that is a mistake of the caller, never of a peer.
package packet
