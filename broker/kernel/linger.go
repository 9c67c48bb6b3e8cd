//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lingerTime is how long a peer has to close its side after we closed ours: a few round trips on a bad link.
	lingerTime = 2 * time.Second

	// lingerMax bounds the descriptors that closed connections hold, per plane.
	lingerMax = 1024

	// drainReadsMax bounds the work that closing one connection may cause at once: 4 reads of the scratch buffer.
	drainReadsMax = 4

	// scratchBytes is the size of the buffer for bytes nobody wants. The read buffer will not do: when the broker
	// closes a connection it may not have finished with what it read there.
	scratchBytes = 16 << 10
)

// lingerQueue lists connections in the order in which they were closed, which is that of their deadlines. An entry
// whose connection is gone already stays until it comes first: generations tell.
type lingerQueue struct {
	entries [lingerMax]lingerEntry
	first   int
	count   int
}

type lingerEntry struct {
	deadline          time.Time
	index, generation uint32
}

func (q *lingerQueue) push(e lingerEntry) {
	q.entries[(q.first+q.count)%lingerMax] = e
	q.count++
}

func (q *lingerQueue) pop() lingerEntry {
	e := q.entries[q.first]
	q.first = (q.first + 1) % lingerMax
	q.count--
	return e
}

// linger keeps a connection that the broker has closed until its peer closes too; false means that there is nothing
// to wait for.
func (p *Plane) linger(c *conn) bool {
	if p.drain(c) {
		return false
	}
	if err := unix.Shutdown(int(c.fd), unix.SHUT_WR); err != nil {
		return false // It is broken: there is nobody to wait for.
	}
	if p.lingerers.count == lingerMax {
		p.finishOldest()
	}
	c.state = lingering
	c.watch(toRead)
	p.lingerers.push(lingerEntry{time.Now().Add(lingerTime), c.index, c.generation})
	return true
}

// drain reads away what has come, within bounds, and tells whether that was all that will ever come.
func (p *Plane) drain(c *conn) (finished bool) {
	for range drainReadsMax {
		n, errno := readSocket(c.fd, p.scratch[:])
		if errno == syscall.EAGAIN {
			return false
		}
		if n <= 0 {
			return true
		}
	}
	return false
}

// finishOldest closes the connection that has lingered longest, if it still does.
func (p *Plane) finishOldest() {
	e := p.lingerers.pop()
	if c := p.slab.find(e.index, e.generation); c != nil {
		p.drain(c)
		p.release(c)
	}
}

// finishLingerers closes all of them: their descriptors are needed.
func (p *Plane) finishLingerers() {
	for p.lingerers.count > 0 {
		p.finishOldest()
	}
}

// nextLingerDeadline forgets the entries whose connections are gone and returns the first of the others' deadlines.
func (p *Plane) nextLingerDeadline() (time.Time, bool) {
	q := &p.lingerers
	for q.count > 0 {
		e := q.entries[q.first]
		if p.slab.find(e.index, e.generation) != nil {
			return e.deadline, true
		}
		q.pop()
	}
	return time.Time{}, false
}
