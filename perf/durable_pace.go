package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/epoll"
	"github.com/ringmq/ringmq/perf/load"
)

const (
	pacedIDs      = 4096             // messages of one publisher that may wait for their acknowledgement
	pacedSlice    = time.Second / 2  // how long the broker is loaded before the bare disk has its turn, and the other way round
	pacedPatience = 10 * time.Second // for acknowledgements that are overdue
	pacedEvents   = 1024
)

// pacer is publishers of QoS 1 at a fixed rate: a burst of messages at a time, as many as a publisher of the load at full speed has
// under way. One by one, each would cost the broker and this program a system call that they do not cost there, and half of the
// messages would be the whole load.
//
// One thread does everything, by the kernel's timer: Go's own timers and its scheduler are late by a millisecond at times, which would be
// counted as the broker's. How late the pacer itself has sent is in late.
type pacer struct {
	poll        *epoll.Poller
	publishers  []pacedPublisher
	burst       int
	payload     []byte
	every       time.Duration // between two bursts, each of the next publisher
	sent, acked int
	in          [64 << 10]byte
	count       bool            // the warming up is over
	took, late  []time.Duration // per message, from when it was due; per burst
	loaded      time.Duration   // how long the load has run while it counted,
	busy, wall  time.Duration   // what all processors were busy then, and how long it took
}

// pacedPublisher is one connection.
type pacedPublisher struct {
	fd      int
	token   int32
	topic   []byte
	due     []time.Time // by Packet Identifier less one; zero: free
	next    int         // Packet Identifier less one
	out     []byte      // what the socket did not take yet
	rest    []byte      // the beginning of an acknowledgement
	blocked bool
}

// runPaced loads the broker at the load's rate, in slices; between calls the connections are idle.
func (l durableLoad) runPaced(address netip.AddrPort, between func() error) (durableResult, error) {
	there, err := l.subscribe(address)
	defer there.close()
	if err != nil {
		return durableResult{}, err
	}
	type outcome struct {
		r   durableResult
		err error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		epoll.Urge()
		r, err := l.pace(address, between)
		done <- outcome{r, err}
	}()
	o := <-done
	return o.r, o.err
}

func (l durableLoad) pace(address netip.AddrPort, between func() error) (durableResult, error) {
	p := pacer{burst: l.window, payload: l.noise(), every: time.Duration(float64(l.window) / l.rate * float64(time.Second))}
	var err error
	if p.poll, err = epoll.New(pacedEvents); err != nil {
		return durableResult{}, err
	}
	defer p.close()
	// Room for all of it, and no collection: either would be the pacer's time, counted as the broker's.
	room := int(l.rate * (l.duration + 2*pacedSlice).Seconds())
	p.took, p.late = make([]time.Duration, 0, room), make([]time.Duration, 0, room/l.window+1)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for i := range l.publishers {
		if err := p.connect(address, i, fmt.Sprintf("%s/%d", l.prefix(), i%durableSessions)); err != nil {
			return durableResult{}, err
		}
	}
	for p.loaded < l.duration {
		if err := p.slice(pacedSlice); err != nil {
			return durableResult{}, err
		}
		if err := between(); err != nil {
			return durableResult{}, err
		}
		p.count = true
	}
	r := resultOf(p.took, p.loaded)
	r.late = resultOf(p.late, p.loaded).p99
	r.kept = p.loaded.Seconds() / p.wall.Seconds()
	r.machine = p.busy.Seconds() / p.wall.Seconds() / float64(runtime.NumCPU())
	return r, nil
}

func (p *pacer) close() {
	for i := range p.publishers {
		epoll.Close(p.publishers[i].fd)
	}
	p.poll.Close()
}

// connect opens a publisher's connection and waits for CONNACK.
func (p *pacer) connect(address netip.AddrPort, i int, topic string) error {
	fd, err := epoll.Connect(netip.Addr{}, address, true)
	if err != nil {
		return err
	}
	p.publishers = append(p.publishers, pacedPublisher{fd: fd, token: int32(i), topic: []byte(topic), due: make([]time.Time, pacedIDs)})
	connect := packet.AppendConnect(nil, &packet.Connect{Version: packet.V311, CleanStart: true, ClientID: fmt.Append(nil, "paced", i)})
	err = patiently(func() error { _, err := epoll.Write(fd, connect); return err })
	var connack [4]byte
	n := 0
	if err == nil {
		err = patiently(func() (err error) { n, err = epoll.Read(fd, connack[:]); return err })
	}
	if err != nil || n != len(connack) || packet.Kind(connack[0]>>4) != packet.CONNACK || connack[3] != 0 {
		return fmt.Errorf("no CONNACK for publisher %d: %w", i, err)
	}
	return p.poll.Add(fd, int32(i), epoll.Readable)
}

// patiently tries again while a socket has nothing to say.
func patiently(try func() error) error {
	for deadline := time.Now().Add(pacedPatience); ; time.Sleep(time.Millisecond) {
		if err := try(); !errors.Is(err, epoll.ErrAgain) || time.Now().After(deadline) {
			return err
		}
	}
}

// slice publishes for a while and waits for all acknowledgements.
func (p *pacer) slice(length time.Duration) error {
	start := time.Now()
	used, err := load.MachineTime()
	if err != nil {
		return err
	}
	end, next := start.Add(length), start
	for now := start; next.Before(end) || p.acked < p.sent; now = time.Now() {
		for ; next.Before(end) && !next.After(now); next = next.Add(p.every) {
			if err := p.publish(next); err != nil {
				return err
			}
		}
		if next.Before(end) {
			if err := p.poll.Arm(max(time.Until(next), 1)); err != nil {
				return err
			}
		} else if now.Sub(end) > pacedPatience {
			return fmt.Errorf("%d messages were not acknowledged within %v", p.sent-p.acked, pacedPatience)
		}
		if err := p.wait(); err != nil {
			return err
		}
	}
	if p.count {
		now, err := load.MachineTime()
		if err != nil {
			return err
		}
		p.loaded, p.busy, p.wall = p.loaded+length, p.busy+now-used, p.wall+time.Since(start)
	}
	return nil
}

// publish sends the next publisher's burst.
func (p *pacer) publish(due time.Time) error {
	c := &p.publishers[(p.sent/p.burst)%len(p.publishers)]
	for range p.burst {
		if !c.due[c.next].IsZero() {
			return fmt.Errorf("a publisher waits for %d acknowledgements", pacedIDs)
		}
		c.due[c.next] = due
		h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: c.topic, PacketID: uint16(c.next + 1), PayloadSize: len(p.payload)}
		c.out = packet.AppendPublish(c.out, &h, p.payload, packet.V311)
		c.next = (c.next + 1) % pacedIDs
	}
	p.sent += p.burst
	if p.count {
		p.late = append(p.late, time.Since(due))
	}
	return p.flush(c)
}

// flush writes what the socket takes, and has the poller say when it takes more.
func (p *pacer) flush(c *pacedPublisher) error {
	n, err := epoll.Write(c.fd, c.out)
	if err != nil && !errors.Is(err, epoll.ErrAgain) {
		return err
	}
	c.out = c.out[:copy(c.out, c.out[max(n, 0):])]
	if blocked := len(c.out) > 0; blocked != c.blocked {
		c.blocked = blocked
		ready := epoll.Readable
		if blocked {
			ready |= epoll.Writable
		}
		return p.poll.Change(c.fd, c.token, ready)
	}
	return nil
}

// wait takes what has come.
func (p *pacer) wait() error {
	n, err := p.poll.Wait(pacedPatience)
	if err != nil {
		return err
	}
	for i := range n {
		token, ready := p.poll.Event(i)
		if token < 0 {
			continue
		}
		c := &p.publishers[token]
		if ready.CanWrite() {
			if err := p.flush(c); err != nil {
				return err
			}
		}
		if ready.CanRead() {
			if err := p.read(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// read takes acknowledgements.
func (p *pacer) read(c *pacedPublisher) error {
	kept := copy(p.in[:], c.rest)
	n, err := epoll.Read(c.fd, p.in[kept:])
	if errors.Is(err, epoll.ErrAgain) {
		return nil
	}
	if err != nil || n == 0 {
		return fmt.Errorf("the broker has closed a publisher's connection: %v", err)
	}
	now, in := time.Now(), p.in[:kept+n]
	for ; len(in) >= 4; in = in[4:] {
		id := int(binary.BigEndian.Uint16(in[2:])) - 1
		if packet.Kind(in[0]>>4) != packet.PUBACK || in[1] != 2 || id < 0 || id >= pacedIDs || c.due[id].IsZero() {
			return fmt.Errorf("% x instead of a PUBACK that is due", in[:4])
		}
		if p.count {
			p.took = append(p.took, now.Sub(c.due[id]))
		}
		c.due[id] = time.Time{}
		p.acked++
	}
	c.rest = append(c.rest[:0], in...)
	return nil
}
