//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// inboxMax bounds how many connections may wait for a plane that is busy. Beyond it the accepting plane keeps them.
const inboxMax = 256

// arrival is an accepted connection that is not yet a plane's.
type arrival struct {
	remote   endpoint
	fd       int32
	listener int32
}

// inbox is where siblings put connections for a plane.
type inbox struct {
	mu       sync.Mutex
	waiting  [inboxMax]arrival
	count    int
	isClosed bool

	// filled is written under mu, and read by the owner without it, in every Wait: the mutex is for when it is true.
	filled atomic.Bool
}

// push returns false if the inbox is full or closed; the arrival is the caller's still.
func (b *inbox) push(a arrival) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed || b.count == inboxMax {
		return false
	}
	b.waiting[b.count] = a
	b.count++
	b.filled.Store(true)
	return true
}

// take moves all that waits into dst.
func (b *inbox) take(dst *[inboxMax]arrival) []arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := copy(dst[:], b.waiting[:b.count])
	b.count = 0
	b.filled.Store(false)
	return dst[:n]
}

// close refuses what comes later and closes what is there.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isClosed = true
	for _, a := range b.waiting[:b.count] {
		_ = unix.Close(int(a.fd)) // Nothing was ever written to it.
	}
	b.count = 0
	b.filled.Store(false)
}
