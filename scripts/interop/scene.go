package main

import (
	"fmt"
	"slices"
	"strings"
)

// scene is a row of the table.
type scene struct {
	name string
	text string // what is run
	only string // the one protocol version that has it; "" is both
	long bool   // takes seconds, because an interval of the protocol must pass
}

// cross is the scene in which each client publishes for all others.
const cross = "cross"

func scenes() []scene {
	return []scene{
		{name: "qos0", text: "500 messages of QoS 0: each once, in order"},
		{name: "qos1", text: "500 messages of QoS 1: each once, in order"},
		{name: "qos2", text: "500 messages of QoS 2: each once, in order"},
		{name: "large", text: "1 MiB of noise at QoS 0, 1 and 2, compared by SHA-256"},
		{name: "unicode", text: "Topic Names in many scripts; empty payloads, zero bytes, bytes that are not UTF-8"},
		{name: "wildcards", text: "`+` and `#` in all places; `#` and `$` topics"},
		{name: "unsubscribe", text: "UNSUBSCRIBE ends one subscription of two"},
		{name: "retained", text: "retained: live without RETAIN, later with it, replaced, cleared"},
		{name: "options", text: "No Local, Retain As Published, Retain Handling 0, 1 and 2", only: v5},
		{name: "shared", text: "Shared Subscription of two: 400 messages, each to one of them"},
		{name: "properties", text: "all properties of a PUBLISH: binary Correlation Data, User Properties in order, Subscription Identifiers", only: v5},
		{name: "expiry", text: "Message Expiry: counted down, and at its end not delivered", only: v5, long: true},
		{name: "request", text: "request and response: 20 by Response Topic and Correlation Data", only: v5},
		{name: "session", text: "a Session waits with 100 messages of QoS 1 and 2: each once, in order; Clean Start ends it"},
		{name: "session-expiry", text: "a Session ends with its Session Expiry Interval, not before", only: v5, long: true},
		{name: "reconnect", text: "both sockets cut amid 300 messages of QoS 2, the library reconnects: each once"},
		{name: "will", text: "Will: sent when the socket is cut, not after DISCONNECT"},
		{name: "will-delay", text: "Will Delay: waits, and is cancelled by who comes back", only: v5, long: true},
		{name: "will-disconnect", text: "DISCONNECT with 0x04 sends the Will", only: v5},
		{name: "takeover", text: "the same Client Identifier again: the first is disconnected, in 5.0 with 0x8E"},
		{name: "keepalive", text: "idle for more than two Keep Alives: stays connected", long: true},
		{name: "close", text: "DISCONNECT: no Will, and nothing of a clean Session stays"},
		{name: "alias-out", text: "Topic Aliases from the client", only: v5},
		{name: "alias-in", text: "Topic Aliases to the client", only: v5},
		{name: "receive-maximum", text: "the client's Receive Maximum of 3 holds the broker back", only: v5},
		{name: "send-quota", text: "the broker's Receive Maximum with 300 messages of QoS 1 and 2 at once", only: v5},
		{name: cross, text: "to all other clients: retained, 100 messages of QoS 2, properties"},
	}
}

// chosen gives the scenes of those names in the order of the table; no names are all of them.
func chosen(names []string) ([]scene, error) {
	all := scenes()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, s := range all {
		known = append(known, s.name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("there is no scene %q; the scenes are %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s scene) bool { return !slices.Contains(names, s.name) }), nil
}
