//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// TestCloseAtOnce lists the closes that keep nothing: no byte was written, or the peer has closed.
func TestCloseAtOnce(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()})
	p := g.Planes()[0]
	silent, _ := accept(t, g)
	silent.Close()
	if p.slab.open != 0 {
		t.Error("a connection that was never written to lingers")
	}
	done, client := accept(t, g)
	if _, err := done.Write([][]byte{[]byte("goodbye")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, g.Planes(), func(_ *Plane, e broker.Event) bool { return e.Kind&broker.Readable != 0 })
	// The two packets may come apart; the end of input is what Close must find.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := done.Read(p.Buffer()); err != nil && err != broker.ErrWouldBlock {
			break
		}
	}
	done.Close()
	if p.slab.open != 0 {
		t.Error("a connection whose peer has closed lingers")
	}
}

// TestLingerTime: a peer that never closes does not keep the descriptor.
func TestLingerTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes lingerTime")
	}
	before := openDescriptors(t)
	g := mustOpen(t, Config{Addresses: loopback()})
	p := g.Planes()[0]
	c, client := accept(t, g)
	if _, err := c.Write([][]byte{[]byte("goodbye")}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	c.Close()
	for p.slab.open > 0 && time.Since(start) < patience {
		if events, err := p.Wait(patience); len(events) != 0 || err != nil {
			t.Fatalf("Wait = %+v, %v", events, err)
		}
	}
	if took := time.Since(start); p.slab.open > 0 || took < lingerTime {
		t.Errorf("%d connections are left after %v", p.slab.open, took)
	}
	if p.lingerers.count != 0 {
		t.Errorf("%d entries are left in the queue", p.lingerers.count)
	}
	_, _ = client.Close(), g.Close()
	if err := sameDescriptors(before, openDescriptors(t)); err != nil {
		t.Error(err)
	}
}

// TestLingerMax: more connections than may linger are closed, one after another, and all peers stay silent.
func TestLingerMax(t *testing.T) {
	const more = 30
	g := mustOpen(t, Config{Addresses: loopback()[:1]})
	p := g.Planes()[0]
	var conns []broker.Conn
	clients(t, g, lingerMax+more)
	until(t, g.Planes(), func(_ *Plane, e broker.Event) bool {
		conns = append(conns, e.Conn)
		return len(conns) == lingerMax+more
	})
	for _, c := range conns {
		if _, err := c.Write([][]byte{[]byte("goodbye")}); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if p.slab.open != lingerMax {
		t.Errorf("%d connections linger; want %d", p.slab.open, lingerMax)
	}
	p.finishLingerers()
	if p.slab.open != 0 {
		t.Errorf("%d connections linger after all were told to end", p.slab.open)
	}
}
