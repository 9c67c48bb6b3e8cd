// Package xdp gives one network interface as queues of Ethernet frames: AF_XDP sockets with their umem and rings, the
// steering program that feeds them, and the watch over both.
//
// # What it is
//
// Open attaches the program of package bpf with an empty XSKMAP and opens one socket with one umem per NIC queue; Start
// puts the sockets into the map. A Queue is the device of one netstack: it receives, reserves, sends and waits. An
// Interface watches link, MTU, addresses, queues and program by rtnetlink, repairs what it can and tells the rest as Events.
//
// # What it is not
//
// It knows no IP and no TCP; the frames go to package netstack as they are. It has no goroutine per queue: whoever calls a
// Queue lends it one. Open and every reopen go through github.com/asavie/xdp (open_linux.go); what happens after the bind
// is this package's own.
//
// # Words
//
// A frame is FrameSize bytes of umem; a descriptor names one by its address, the offset in the umem. The fill ring gives
// empty frames to the kernel, the RX ring brings them back full; the TX ring gives full frames to the kernel, the
// completion ring brings them back empty. The umem is cut once into receive frames, transmit frames and the broker's
// buffer, and no frame ever changes its region. A socket is one opening of a queue; a reopen gives the Queue a new one.
//
// # Who owns what
//
// The receive half of a Queue (Receive, Wait) belongs to one goroutine; the transmit half (Reserve, Commit, Discard, Kick) to
// one at a time, which the caller sees to. The two halves share the socket's descriptor and nothing else. The Interface's
// watcher, its only goroutine, may replace the socket under both: see the head of socket_linux.go. Close ends the watcher.
//
// Sockets, netlink and the program belong to the network namespace of the thread that calls Open, whichever it is.
package xdp
