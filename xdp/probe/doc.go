// Package probe finds out what this host and its network interfaces can carry, before anything is opened.
//
// # What it is
//
// Host and Interface read facts: plain data, nothing changed, nothing attached. Findings and Choose are pure functions over
// these facts and a Plan, so that what ringmq doctor says and what ringmq serve does under --mode auto is one text, tested
// by tables. A fact that cannot be read is unknown and says why; it is never guessed.
//
// # What it is not
//
// It knows neither package xdp nor package bpf. It opens no queue: whether a driver really binds is known when xdp.Open
// has done it, and only the kernel's own list of a driver's abilities (Linux 6.3) stands in for that here.
//
// # Words
//
// A Fact is a value or the reason why there is none. A Finding is one sentence about facts, with the command that changes
// them. A Mode is how segments would travel; the Plan says which are asked for and which are enough. A queue is bound when
// serve opens an AF_XDP socket on it.
//
// Facts about interfaces are those of the network namespace of the calling thread. Sysfs shows the namespace in which it was
// mounted: where that is another one, what only sysfs tells is unknown.
package probe
