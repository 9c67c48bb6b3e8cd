package relay

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/ringmq/ringmq/perf/epoll"
)

const (
	eventsMax = 2048
	// readBytes is one read's buffer; a longer packet makes its connection's own buffer grow.
	readBytes = 256 << 10
	// clientsMax bounds the numbers in Client Identifiers, which index a table.
	clientsMax = 1 << 20
)

// Config says how to relay.
type Config struct {
	// Listen is the IPv4 address to listen on; port zero is any free one.
	Listen netip.AddrPort
	// All joins every publisher to every subscriber; otherwise publisher i is joined to subscriber i.
	All bool
	// Fault is what is done to every FaultEvery-th PUBLISH. Zero: nothing.
	Fault      Fault
	FaultEvery int
}

// Relay is a listening relay.
type Relay struct {
	cfg         Config
	poll        *epoll.Poller
	listener    int
	address     netip.AddrPort
	conns       []*conn // by descriptor
	subscribers []*conn // by number; nil where there is none
	dirty       []*conn
	in          []byte
	published   int          // PUBLISH packets since the last fault
	faults      atomic.Int64 // written by Run's goroutine, read by any
}

// conn is one client.
type conn struct {
	fd      int
	role    byte
	number  int
	version byte
	dirty   bool
	full    bool // waits until the socket takes more
	out     []byte
	partial []byte // the front of a packet
}

// New listens.
func New(cfg Config) (*Relay, error) {
	listener, address, err := epoll.Listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, listener: listener, address: address, in: make([]byte, readBytes)}
	if r.poll, err = epoll.New(eventsMax); err == nil {
		err = r.poll.Add(listener, int32(listener), epoll.Readable)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// Addr is where it listens.
func (r *Relay) Addr() netip.AddrPort { return r.address }

// Faults is how many messages have been dropped, doubled or swapped.
func (r *Relay) Faults() int64 { return r.faults.Load() }

// Run relays until ctx ends and closes everything then.
func (r *Relay) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer r.close()
	defer context.AfterFunc(ctx, r.poll.Wake)()
	for ctx.Err() == nil {
		n, err := r.poll.Wait(-1)
		if err != nil {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for i := range n {
			if token, ready := r.poll.Event(i); token >= 0 {
				r.serve(int(token), ready)
			}
		}
		r.flushAll()
	}
	return nil
}

func (r *Relay) close() {
	for _, c := range r.conns {
		if c != nil {
			epoll.Close(c.fd)
		}
	}
	epoll.Close(r.listener)
	if r.poll != nil {
		r.poll.Close()
	}
}

func (r *Relay) serve(fd int, ready epoll.Ready) {
	if fd == r.listener {
		r.accept()
		return
	}
	c := r.conns[fd]
	if c == nil {
		return
	}
	if ready.CanWrite() {
		c.full = false
		_ = r.poll.Change(fd, int32(fd), epoll.Readable)
		r.flush(c)
	}
	if ready.CanRead() && c.fd >= 0 {
		r.read(c)
	}
}

func (r *Relay) accept() {
	for {
		fd, err := epoll.Accept(r.listener)
		if err != nil {
			return
		}
		for fd >= len(r.conns) {
			r.conns = append(r.conns, nil)
		}
		r.conns[fd] = &conn{fd: fd}
		if r.poll.Add(fd, int32(fd), epoll.Readable) != nil {
			r.drop(r.conns[fd])
		}
	}
}

// drop forgets a connection.
func (r *Relay) drop(c *conn) {
	if c.fd < 0 {
		return
	}
	if c.role == 's' && r.subscribers[c.number] == c {
		r.subscribers[c.number] = nil
	}
	epoll.Close(c.fd)
	r.conns[c.fd] = nil
	c.fd, c.out = -1, nil
}

// put queues bytes for c; they are written once at the end of the turn.
func (r *Relay) put(c *conn, b ...byte) {
	c.out = append(c.out, b...)
	if !c.dirty {
		c.dirty = true
		r.dirty = append(r.dirty, c)
	}
}

func (r *Relay) flushAll() {
	for _, c := range r.dirty {
		c.dirty = false
		if c.fd >= 0 && !c.full {
			r.flush(c)
		}
	}
	r.dirty = r.dirty[:0]
}

func (r *Relay) flush(c *conn) {
	if len(c.out) == 0 {
		return
	}
	n, err := epoll.Write(c.fd, c.out)
	if err != nil && err != epoll.ErrAgain {
		c.out = c.out[:0] // the read that follows sees the end
		return
	}
	c.out = append(c.out[:0], c.out[max(n, 0):]...)
	if len(c.out) > 0 {
		c.full = true
		_ = r.poll.Change(c.fd, int32(c.fd), epoll.Readable|epoll.Writable)
	}
}

// enrol takes a role from a Client Identifier.
func (r *Relay) enrol(c *conn, clientID string) {
	parts := strings.Split(clientID, "-")
	if len(parts) != 3 || len(parts[1]) != 1 {
		return
	}
	number, err := strconv.Atoi(parts[2])
	if err != nil || number < 0 || number >= clientsMax {
		return
	}
	c.role, c.number = parts[1][0], number
	if c.role != 's' {
		return
	}
	for number >= len(r.subscribers) {
		r.subscribers = append(r.subscribers, nil)
	}
	r.subscribers[number] = c
}
