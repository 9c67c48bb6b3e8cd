package netstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// echo serves a plane: what comes on a connection goes back, until its peer closes.
type echo struct {
	plane   *Plane
	waiting map[broker.Conn][]byte // what could not be written yet
	served  int
}

func (e *echo) turn(timeout time.Duration) error {
	events, err := e.plane.Wait(timeout)
	if err != nil {
		return err
	}
	for _, event := range events {
		if event.Kind&broker.Hangup != 0 {
			event.Conn.Close()
			continue
		}
		if event.Kind&broker.Readable != 0 {
			e.read(event.Conn)
		}
		if event.Kind&broker.Writable != 0 {
			e.write(event.Conn, e.waiting[event.Conn])
		}
	}
	e.plane.Flush()
	return nil
}

func (e *echo) read(c broker.Conn) {
	n, err := c.Read(e.plane.Buffer())
	switch {
	case errors.Is(err, io.EOF):
		e.served++
		c.Close()
	case err == nil:
		e.write(c, bytes.Clone(e.plane.Buffer()[:n]))
	}
}

// write pauses the connection until everything is written.
func (e *echo) write(c broker.Conn, b []byte) {
	n, err := c.Write([][]byte{b})
	if err != nil {
		c.Close()
		return
	}
	if n < len(b) {
		e.waiting[c] = b[n:]
		c.Pause()
		return
	}
	delete(e.waiting, c)
	c.Resume()
}

// serve runs an echo on every plane until stop is called.
func serve(t testing.TB, planes []*Plane) (stop func()) {
	var group sync.WaitGroup
	halt := make(chan struct{})
	for _, p := range planes {
		e := &echo{plane: p, waiting: map[broker.Conn][]byte{}}
		group.Go(func() {
			for {
				select {
				case <-halt:
					return
				default:
				}
				if err := e.turn(time.Second); err != nil {
					t.Errorf("turn: %v", err)
					return
				}
			}
		})
	}
	once := sync.OnceFunc(func() {
		close(halt)
		for _, p := range planes {
			p.Wake()
		}
		group.Wait()
	})
	t.Cleanup(once)
	return once
}

// talkPatience is long, because a handshake segment that is lost makes the stacks believe in a round trip of a second, and
// wait for several of those after each loss at the end of a window.
const talkPatience = 6 * patience

// talk sends n random bytes and checks that the same come back. It closes its side when they have: a stack that has sent
// its FIN sends no SACK blocks, and each loss then takes a timeout.
func talk(p *peer, random *rand.Rand, n int) error {
	if err := p.SetDeadline(time.Now().Add(talkPatience)); err != nil {
		return err
	}
	sent := make([]byte, n)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	failed := make(chan error, 1)
	go func() {
		for rest := sent; len(rest) > 0; {
			m, err := p.Write(rest[:min(len(rest), 1+random.IntN(4000))])
			if err != nil {
				failed <- err
				return
			}
			rest = rest[m:]
		}
		failed <- nil
	}()
	got := make([]byte, n)
	m, err := io.ReadFull(p, got)
	if err := errors.Join(err, <-failed); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", m, n, err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back, which are not those that were sent", n)
	}
	if err := p.CloseWrite(); err != nil {
		return err
	}
	if m, err := p.Read(got); m != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("having closed, it reads %d bytes, %w", m, err)
	}
	return p.Close()
}

// TestFaults has every byte arrive, in order, over cables that lose, duplicate, reorder and corrupt.
func TestFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for name, faults := range map[string]cable.Faults{
		"1% loss":      {Loss: 0.01},
		"5% loss":      {Loss: 0.05},
		"duplicates":   {Duplicate: 0.2},
		"reordering":   {Reorder: 0.2},
		"corruption":   {Corrupt: 0.05},
		"all together": {Loss: 0.01, Duplicate: 0.02, Reorder: 0.05, Corrupt: 0.01},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faults.Seed = seed
			t.Logf("seed %d", seed)
			c := cable.New(cable.Config{Queues: 2, Steer: byRemotePort(2)})
			config := testConfig()
			config.TCP.MinRTO = 5 * time.Millisecond
			g := mustOpen(t, config, c)
			stop := serve(t, g.Planes())
			k := newClient(t, c)
			c.SetFaults(faults)
			runTalks(t, k, seed)
			c.SetFaults(cable.Faults{})
			stop()
			k.stop()
			t.Logf("%+v", c.Counts())
			t.Logf("%+v", g.Counters())
			if sum := g.Counters(); sum.Panics != 0 {
				t.Errorf("%d panics", sum.Panics)
			}
		})
	}
}

// runTalks has several connections of both families talk at once.
func runTalks(t *testing.T, k *client, seed uint64) {
	t.Helper()
	const talks, each = 6, 60_000
	var group sync.WaitGroup
	for i := range uint64(talks) {
		group.Go(func() {
			p, err := dialPatiently(k, dialled(int(i%2)))
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			if err := talk(p, rand.New(rand.NewPCG(seed, i)), each); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	group.Wait()
}

// dialPatiently tries again: a handshake whose segments are lost takes a second for each.
func dialPatiently(k *client, to netip.AddrPort) (*peer, error) {
	var errs []error
	for range 5 {
		p, err := k.dial(to)
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
