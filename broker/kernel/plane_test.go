//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

// This file uses package unsafe: to tell the size of a connection's slot.

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/broker"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// until has the planes wait in turn until f, which is given each event, says that it has seen enough.
func until(t testing.TB, planes []*Plane, f func(*Plane, broker.Event) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, p := range planes {
			events, err := p.Wait(time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if f(p, e) {
					return
				}
			}
		}
	}
	t.Fatalf("it did not happen in %v", patience)
}

// clients dials the first listener n times; the kernel accepts on the planes' behalf.
func clients(t testing.TB, g *Group, n int) []*net.TCPConn {
	t.Helper()
	var list []*net.TCPConn
	for range n {
		conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(g.Addresses()[0]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // The test may have closed it.
		list = append(list, conn)
	}
	return list
}

// accept makes one connection and returns both ends.
func accept(t testing.TB, g *Group) (*conn, *net.TCPConn) {
	t.Helper()
	client := clients(t, g, 1)[0]
	var c *conn
	until(t, g.Planes(), func(_ *Plane, e broker.Event) bool {
		if e.Kind&broker.Accepted != 0 {
			c = e.Conn.(*conn)
		}
		return c != nil
	})
	return c, client
}

func TestSlotSize(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 64 {
		t.Errorf("a connection takes %d bytes; want at most 64", size)
	}
}

func TestSocketOptions(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()})
	c, _ := accept(t, g)
	if on, err := unix.GetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); on == 0 || err != nil {
		t.Errorf("TCP_NODELAY of an accepted connection = %d, %v", on, err)
	}
	if on, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); on == 0 || err != nil {
		t.Errorf("SO_KEEPALIVE of an accepted connection = %d, %v", on, err)
	}
	if flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 || err != nil {
		t.Errorf("flags of an accepted connection = %#x, %v; want O_NONBLOCK", flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
		t.Errorf("flags of an accepted descriptor = %#x, %v; want FD_CLOEXEC", flags, err)
	}
}

func TestDealtOutEvenly(t *testing.T) {
	const planes, each = 3, 40
	g := mustOpen(t, Config{Addresses: loopback(), Planes: planes})
	clients(t, g, planes*each)
	count, all := map[*Plane]int{}, 0
	until(t, g.Planes(), func(p *Plane, e broker.Event) bool {
		count[p]++
		all++
		return all == planes*each
	})
	for _, p := range g.Planes() {
		if count[p] != each {
			t.Errorf("a plane has %d connections; want %d", count[p], each)
		}
	}
}

// TestBusySibling: a plane that is not waiting gets what its inbox holds, and the accepting plane keeps the rest.
func TestBusySibling(t *testing.T) {
	const rest = 20
	g := mustOpen(t, Config{Addresses: loopback()[:1], Planes: 2})
	clients(t, g, 2*inboxMax+2*rest)
	all := 0
	count := func(*Plane, broker.Event) bool { all++; return all == inboxMax+2*rest }
	until(t, g.Planes()[:1], count)
	all = 2 * rest
	until(t, g.Planes()[1:], count)
}

// TestStorm: one Wait accepts no more than its share.
func TestStorm(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()[:1]})
	clients(t, g, 2*acceptBatch)
	for range 2 {
		events, err := g.Planes()[0].Wait(patience)
		if len(events) != acceptBatch || err != nil {
			t.Errorf("Wait accepts %d connections, error %v; want %d", len(events), err, acceptBatch)
		}
	}
}

// TestNoDescriptors takes all descriptors away while a connection waits to be accepted.
func TestNoDescriptors(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()})
	p := g.Planes()[0]
	clients(t, g, 1)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	defer restore()
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	failures, returns, start := 0, 0, time.Now()
	for failures < 2 && time.Since(start) < patience {
		events, err := p.Wait(patience)
		if err != nil {
			t.Fatal(err)
		}
		returns++
		for _, e := range events {
			if e.Kind != broker.AcceptFailed || e.Conn != nil || e.Listener != 0 || !errors.Is(e.Err, unix.EMFILE) {
				t.Fatalf("event %+v; want AcceptFailed with EMFILE", e)
			}
			failures++
		}
	}
	if took := time.Since(start); failures != 2 || took < acceptPause || returns > 6 {
		t.Errorf("%d failures in %v and %d turns; want one in %v", failures, took, returns, acceptPause)
	}
	restore()
	until(t, g.Planes(), func(_ *Plane, e broker.Event) bool { return e.Kind == broker.Accepted })
	if p.resting != 0 {
		t.Errorf("%d listeners rest after a success", p.resting)
	}
}

// TestDescriptorsMax: connections leave the process the descriptors from a number on.
func TestDescriptorsMax(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()[:1], DescriptorsMax: 1})
	client := clients(t, g, 1)[0]
	before := openDescriptors(t)
	refused := func(_ *Plane, e broker.Event) bool {
		if e.Kind != broker.AcceptFailed || !errors.Is(e.Err, unix.EMFILE) {
			t.Fatalf("event %+v; want AcceptFailed with EMFILE", e)
		}
		return true
	}
	until(t, g.Planes(), refused)
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the client reads %d bytes, %v; want the end", n, err)
	}
	if err := sameDescriptors(before, openDescriptors(t)); err != nil {
		t.Error(err)
	}
	var next [2]int // the descriptors of a client and of its connection
	for i := range next {
		var err error
		if next[i], err = unix.Dup(0); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = unix.Close(next[0]), unix.Close(next[1])
	g.Planes()[0].numberMax = next[1] + 1
	clients(t, g, 1)
	until(t, g.Planes(), func(_ *Plane, e broker.Event) bool { return e.Kind == broker.Accepted })
	clients(t, g, 1)
	until(t, g.Planes(), refused)
}

// TestHangupSaysWhy also checks that bytes from before the reset are delivered first.
func TestHangupSaysWhy(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()})
	for _, paused := range []bool{false, true} {
		c, client := accept(t, g)
		if paused {
			c.Pause()
		} else if _, err := client.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
			t.Fatal(err)
		}
		var read []byte
		until(t, g.Planes(), func(p *Plane, e broker.Event) bool {
			if e.Kind&broker.Readable != 0 {
				n, err := c.Read(p.Buffer()[:4])
				if err != nil {
					t.Fatal(err)
				}
				read = append(read, p.Buffer()[:n]...)
			}
			if e.Kind&broker.Hangup != 0 && !errors.Is(e.Err, syscall.ECONNRESET) {
				t.Errorf("Hangup with error %v; want connection reset", e.Err)
			}
			return e.Kind&broker.Hangup != 0
		})
		c.Close()
		if !paused && string(read) != "last words" {
			t.Errorf("read %q before the Hangup", read)
		}
	}
}

func TestAfterClose(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()})
	c, _ := accept(t, g)
	c.Close()
	c.Close()
	c.Pause()
	c.Resume()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := c.Write([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if c.LocalAddr().IsValid() {
		t.Error("LocalAddr is valid after Close")
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Planes()[0].Wait(0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Wait after Close: %v", err)
	}
}
