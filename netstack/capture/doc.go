// Package capture copies frames that pass netstack's devices into pcapng files: tcpdump and ss do not see them, for they
// never meet the kernel's network stack.
//
// A Tap wraps devices for good and costs one load of a pointer per batch while nobody captures. While somebody does, each
// frame that the Filter wants is copied, with one reading of the clock, into a ring of fixed size that its device has for
// each direction; when the ring is full, the frame is left out and counted, and the data path goes on: it never waits for a
// capture. A goroutine of Capture's caller empties the rings, brings frames of several devices into order and writes them.
package capture
