//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

// ready is what a poller says of one descriptor: a connection, by its slot and generation, or one of the last 256
// slot numbers, which name what is not a connection.
type ready struct {
	index, generation uint32
	is                readiness
}

// listenerBase and above, by the listener's number, are listening sockets.
const listenerBase = ^uint32(255)

// readiness is a set of bits.
type readiness uint8

const (
	isReadable readiness = 1 << iota
	isWritable
	isBroken
)
