// Package netstack is the XDP mode's plane: a gVisor TCP/IP stack on each queue of frames, whose connections a broker's
// loop reads and writes. It knows Ethernet frames and TCP endpoints; it knows neither AF_XDP (a Device is whatever
// carries frames: package xdp, or package cable in tests) nor MQTT.
//
// Vocabulary: a Group is everything that Open made; a Plane is one device's stack with its connections, a broker.Plane;
// a flow is what frames show of one connection; a turn lasts from Wait to Flush.
//
// # How to read it
//
// The way of a received frame: plane.go takes it in Wait, frame.go parses it, ingress.go decides whether it is ours
// (handover.go: another plane's), learns where it came from (flow.go, remotes.go), and injects it, straight into its
// connection if that is known; the stack's processor goroutine works on it and tells ready.go, which makes events; conn.go
// reads. The way back: conn.go writes, the stack sends through link.go, which writes the packet into a transmit frame, holds
// pure ACKs back (hold.go), and lets frames wait in overflow.go when the device is full. Around it: group.go opens, stack.go
// builds, clock.go tells it the time and timer.go when it has passed, accept.go and linger.go begin and end connections, slab.go deals out their slots, mtu.go has them follow the
// interface's MTU.
//
// # Who runs what
//
// The package starts no goroutine; each stack has one of its own, its processor. Every method of a Plane and its connections
// belongs to the one goroutine that calls Wait, except Wake and Counters. That goroutine runs to completion: it takes up to 64
// frames, yields so that the processor works on them, takes what has become ready, runs the stack's timers that are due once the
// device has no more frames, and returns what is ready. Without Wait, nothing is sent again. It should not be locked to a thread:
// each yield would be a futex. The stack calls back from its processor and from timers, with its locks held; what it calls only
// takes notes (conn.pending, readyList) and wakes the plane if it sleeps, or sends (link, under its mutex).
//
// # What comes in
//
// Only TCP segments for an address and port that is listened on, and ICMP errors about the size of packets of ours. All
// else is the kernel's, and dropped here should it slip in: no ARP, no echo, no fragment. What belongs to no connection
// is answered with RST, as the clients of a broker that was started anew need it. IP and TCP checksums are always
// verified, by the stack. ICMP errors must quote what was sent lately, and say a size that a path can have.
//
// # Link addresses
//
// The stack resolves no link addresses. A flow is answered where its SYN came from: MAC address and VLAN tags. If the
// kernel's neighbour table knows the remote (it is on the link), its MAC address is believed instead. A flow's link
// address changes only for a segment whose sequence and acknowledgement numbers lie within the window and whose
// checksums are right, and to nothing else than the kernel says: who cannot read the connection cannot divert it, and a
// new router is found by the first segment that comes through it. What is sent outside any flow goes where the remote
// was last heard from, or where the kernel says, or nowhere, which is counted.
//
// # Acknowledgements
//
// netstack acknowledges at once. A pure ACK that says only that bytes have come in order is held, and the next segment of its
// connection takes its place: data that answers, or an ACK that says more. What nothing replaces is sent after
// TCPConfig.AckDelay, or later where that costs the remote nothing (holder). Duplicate ACKs, SACK blocks, window updates, and ACKs
// of two full segments or of a few small ones are never held.
//
// # More than one queue
//
// A frame whose connection lives on another queue's plane is copied into that plane's inbox, which is bounded, and the
// plane is woken. A table that all planes share, striped, says who owns what; it is asked only for frames that the
// receiving plane does not know, from the SYN on.
//
// # Close
//
// As in package kernel: a connection that was written to, and whose peer has not closed its side, gets FIN and is read
// away until the peer closes, too, for lingerTime at most; anything else would be RST, and RST destroys bytes under way.
// Then the stack goes on sending by itself, and keeps TIME-WAIT, for TCPConfig.CloseTimeout at most. Both are bounded in
// number: the former by lingerMax, both together by Config.MaxConnections.
//
// # Turns
//
// One turn takes a batch of frames, a few of the SYNs that wait (attempts), and writes a bounded part of what is large (ration):
// what one connection asks for in bulk goes round in small pieces, between which everybody else is served.
//
// # Copies and allocations
//
// A received byte is copied twice: from the frame into the stack's memory, for the frame goes back to the device at
// once, and from there into the broker's buffer, a part of the umem. A sent byte is copied twice: from the broker's
// slices into the stack's memory, where it waits to be acknowledged, and from there into the transmit frame. No message
// allocates: the stack's buffers come from pools, which only the collector empties.
//
// # Panics
//
// A panic of the stack while a frame is injected costs the connection of that frame: it is reported as broken and never
// touched again, for the stack may have left its locks taken. A panic on the stack's processor goroutine ends the
// process; FuzzLinkEndpoint looks for those.
package netstack
