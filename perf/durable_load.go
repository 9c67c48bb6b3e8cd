package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/load"
)

// durableLoad is publishers of QoS 1 in a closed loop, for Sessions that outlive their connections.
type durableLoad struct {
	publishers, window, payload int
	receivers                   string // absent, present or returning
	duration                    time.Duration
	rate                        float64 // messages per second of all publishers; 0: as fast as they are acknowledged
	pid                         int     // of the broker; 0: its processor time is not asked for
	begins                      func()  // called when what is measured begins; nil: nobody asks
}

// Where the clients of the Sessions are that messages are for.
const (
	present   = "present"
	returning = "returning" // away while messages come, and back then: what is measured
)

// noise is a payload that nothing can compress, the same each time.
func (l durableLoad) noise() []byte {
	b := make([]byte, l.payload)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// durableResult is what was acknowledged, or done, per second, and how long it took.
type durableResult struct {
	perSecond float64
	p50, p99  time.Duration
	late      time.Duration // a paced load: p99 of how late it was sent, which is counted in the others
	ratio     float64       // of its p99 to that of the bare disk in the same run; 0: not compared
	cpu       time.Duration // processor time of the broker, or of what else is measured, per message; 0: not measured
	machine   float64       // a paced load: the part of all processors that was busy
	kept      float64       // a paced load: the part of it that was acknowledged as fast as it came, the rest later
	resident  int64         // most bytes that the broker had resident; 0: not measured
}

// String is the result in a row of the table.
func (r durableResult) String() string {
	text := fmt.Sprintf("%10.0f %9v %9v", r.perSecond, r.p50.Round(time.Microsecond), r.p99.Round(time.Microsecond))
	if r.cpu > 0 {
		text += fmt.Sprintf("   %9v of processor time each", r.cpu.Round(10*time.Nanosecond))
	}
	if r.resident > 0 {
		text += fmt.Sprintf(", at most %d MiB resident", r.resident>>20)
	}
	if r.machine > 0 {
		text += fmt.Sprintf("   machine %.0f %% busy, kept up with %.0f %%", 100*r.machine, 100*r.kept)
	}
	if r.late > 0 {
		text += fmt.Sprintf("   sent late by %v (p99, counted)", r.late.Round(time.Microsecond))
	}
	if r.ratio > 0 {
		text += fmt.Sprintf(", %.2f times the bare fsync's p99", r.ratio)
	}
	return text
}

// durableSessions is how many Sessions the publishers share: each publisher's messages are for one.
const durableSessions = 10

// clients are connections that end together.
type clients []net.Conn

func (l clients) close() {
	for _, c := range l {
		_ = c.Close()
	}
}

// subscribe makes the Sessions that messages are for, and leaves their clients there or not. What it returns is to be closed even when
// it fails.
func (l durableLoad) subscribe(address netip.AddrPort) (connections clients, err error) {
	for i := range durableSessions {
		c, err := dialMQTT(address, l.session(i), false)
		if err != nil {
			return connections, err
		}
		topic := []packet.Subscription{{Filter: fmt.Appendf(nil, "%s/%d", l.prefix(), i), Options: packet.Options{QoS: 1}}}
		if _, err := c.Write(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, topic, packet.V311)); err != nil {
			return connections, err
		}
		if kind, _, err := readPacket(bufio.NewReader(c)); err != nil || kind != packet.SUBACK {
			return connections, fmt.Errorf("no SUBACK: %v %w", kind, err)
		}
		if l.receivers != present {
			_ = c.Close()
			continue
		}
		connections = append(connections, c)
		go acknowledgeAll(c, nil)
	}
	return connections, nil
}

// session is the Client Identifier of one of the Sessions.
func (l durableLoad) session(i int) string { return fmt.Sprint("kept-", l.prefix(), i) }

// returnPatience is how long a queue may take to be delivered.
const returnPatience = time.Minute

// comeBack has the clients of the Sessions return and take up at least so many messages.
func (l durableLoad) comeBack(address netip.AddrPort, messages int) (r durableResult, err error) {
	var connections clients
	defer func() { connections.close() }()
	var taken atomic.Int64
	used, start := l.processorTime(), time.Now()
	l.begin()
	for i := range durableSessions {
		c, err := dialMQTT(address, l.session(i), false)
		if err != nil {
			return r, err
		}
		connections = append(connections, c)
		go acknowledgeAll(c, &taken)
	}
	for int(taken.Load()) < messages {
		if time.Since(start) > returnPatience {
			return r, fmt.Errorf("%d of %d messages came in %v", taken.Load(), messages, returnPatience)
		}
		time.Sleep(time.Millisecond)
	}
	r.perSecond = float64(taken.Load()) / time.Since(start).Seconds()
	r.cpu = (l.processorTime() - used) / time.Duration(max(1, taken.Load()))
	r.resident, err = l.peakMemory()
	return r, err
}

func (l durableLoad) begin() {
	if l.begins != nil {
		l.begins()
	}
}

// run loads the broker at an address as fast as it acknowledges.
func (l durableLoad) run(address netip.AddrPort) (durableResult, error) {
	connections, err := l.subscribe(address)
	defer func() { connections.close() }() // with the publishers that join them
	if err != nil {
		return durableResult{}, err
	}
	took := make([]func() []time.Duration, l.publishers)
	var begin, end atomic.Bool
	var work sync.WaitGroup
	for i := range took {
		c, err := dialMQTT(address, fmt.Sprint("pub", i), true)
		if err != nil {
			return durableResult{}, err
		}
		connections = append(connections, c)
		took[i] = l.publisher(i, c, &work, &begin, &end)
	}
	time.Sleep(500 * time.Millisecond)
	if l.receivers != returning {
		l.begin()
	}
	used := l.processorTime()
	begin.Store(true)
	start := time.Now()
	time.Sleep(l.duration)
	end.Store(true)
	length := time.Since(start)
	used = l.processorTime() - used
	for _, c := range connections {
		_ = c.SetDeadline(time.Now().Add(time.Second))
	}
	work.Wait()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t()...)
	}
	if l.receivers == returning {
		return l.comeBack(address, len(all))
	}
	r := resultOf(all, length)
	r.cpu = used / time.Duration(max(1, len(all)))
	r.resident, err = l.peakMemory()
	return r, err
}

func (l durableLoad) peakMemory() (int64, error) {
	if l.pid == 0 {
		return 0, nil
	}
	return load.PeakMemory(l.pid)
}

// processorTime is what the broker has used so far; 0 when that is not known.
func (l durableLoad) processorTime() time.Duration {
	used, err := load.ProcessorTime(l.pid)
	if l.pid == 0 || err != nil {
		return 0
	}
	return used
}

// prefix keeps the Sessions of a load at a fixed rate apart from those of the load before it, whose queues may be long.
func (l durableLoad) prefix() string {
	if l.rate > 0 {
		return "paced"
	}
	return "d"
}

// publisher starts one of the publishers; what it returns has its figures when work is done.
func (l durableLoad) publisher(i int, c net.Conn, work *sync.WaitGroup, begin, end *atomic.Bool) func() []time.Duration {
	m := &publishMeter{conn: c, topic: fmt.Sprintf("%s/%d", l.prefix(), i%durableSessions), payload: l.noise()}
	work.Go(func() { m.run(l.window, begin, end) })
	return func() []time.Duration { return m.took }
}

func resultOf(all []time.Duration, took time.Duration) durableResult {
	r := durableResult{perSecond: float64(len(all)) / took.Seconds()}
	if len(all) > 0 {
		slices.Sort(all)
		r.p50, r.p99 = all[len(all)/2], all[len(all)*99/100]
	}
	return r
}

// publishMeter is one publisher.
type publishMeter struct {
	conn    net.Conn
	topic   string
	payload []byte
	took    []time.Duration
	sent    [1 << 16]time.Time
	pid     uint16
	out     []byte
}

func (m *publishMeter) publish(now time.Time) {
	m.pid = m.pid%65535 + 1
	m.sent[m.pid] = now
	h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte(m.topic), PacketID: m.pid, PayloadSize: len(m.payload)}
	m.out = packet.AppendPublish(m.out, &h, m.payload, packet.V311)
}

func (m *publishMeter) run(window int, begin, end *atomic.Bool) {
	for range window {
		m.publish(time.Now())
	}
	in := bufio.NewReaderSize(m.conn, 4096)
	for !end.Load() {
		if len(m.out) > 0 && in.Buffered() == 0 {
			if _, err := m.conn.Write(m.out); err != nil {
				return
			}
			m.out = m.out[:0]
		}
		kind, body, err := readPacket(in)
		if err != nil {
			return
		}
		if kind == packet.PUBACK && len(body) >= 2 {
			now := time.Now()
			if begin.Load() && !end.Load() {
				m.took = append(m.took, now.Sub(m.sent[binary.BigEndian.Uint16(body)]))
			}
			m.publish(now)
		}
	}
}

// dialMQTT opens a connection of MQTT 3.1.1, as patiently as a client would.
func dialMQTT(address netip.AddrPort, id string, clean bool) (c net.Conn, err error) {
	for range 10 {
		if c, err = dialOnce(address, id, clean); err == nil {
			return c, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, err
}

func dialOnce(address netip.AddrPort, id string, clean bool) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", address.String(), 10*time.Second)
	if err != nil {
		return nil, err
	}
	_, err = c.Write(packet.AppendConnect(nil, &packet.Connect{Version: packet.V311, CleanStart: clean, ClientID: []byte(id)}))
	if err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var connack [4]byte // and not a byte more: what was queued may follow at once
	if _, err := io.ReadFull(c, connack[:]); err != nil || packet.Kind(connack[0]>>4) != packet.CONNACK || connack[3] != 0 {
		return nil, errors.Join(fmt.Errorf("no CONNACK for %s", id), err, c.Close())
	}
	return c, c.SetReadDeadline(time.Time{})
}

// readPacket reads one packet; the body is valid until the next call on the same reader.
func readPacket(in *bufio.Reader) (packet.Kind, []byte, error) {
	first, err := in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, nil, err
	}
	body := make([]byte, size)
	for n := 0; n < len(body); {
		k, err := in.Read(body[n:])
		if err != nil {
			return 0, nil, err
		}
		n += k
	}
	return packet.Kind(first >> 4), body, nil
}

// acknowledgeAll is a subscriber that is there. It counts what it takes, where that is asked for.
func acknowledgeAll(c net.Conn, taken *atomic.Int64) {
	in := bufio.NewReaderSize(c, 64<<10)
	var out []byte
	var p packet.Publish
	for {
		kind, body, err := readPacket(in)
		if err != nil {
			return
		}
		if kind == packet.PUBLISH && p.DecodeFromServer(2, body, packet.V311) == packet.Success {
			out = packet.AppendAck(out, packet.PUBACK, p.PacketID, packet.Success, packet.V311)
			if taken != nil {
				taken.Add(1)
			}
		}
		if in.Buffered() == 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

// measureDisk writes and syncs a plain file, one write after the other.
func measureDisk(dir string, size int, duration time.Duration) (durableResult, error) {
	f, err := os.Create(filepath.Join(dir, "plain"))
	if err != nil {
		return durableResult{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var all []time.Duration
	block := durableLoad{payload: size}.noise()
	start := time.Now()
	for at := start; at.Sub(start) < duration; {
		if _, err := f.Write(block); err != nil {
			return durableResult{}, err
		}
		if err := f.Sync(); err != nil {
			return durableResult{}, err
		}
		now := time.Now()
		all = append(all, now.Sub(at))
		at = now
	}
	return resultOf(all, time.Since(start)), nil
}

// measurePebble has as many goroutines as there are messages under way write a record of the same size each, as fast as Pebble takes them.
func measurePebble(dir string, publishers int, l durableLoad, sync bool) (durableResult, error) {
	at := filepath.Join(dir, "bare")
	defer os.RemoveAll(at)
	db, err := pebble.Open(at, &pebble.Options{MemTableSize: 16 << 20, Logger: quiet{}})
	if err != nil {
		return durableResult{}, err
	}
	option := pebble.NoSync
	if sync {
		option = pebble.Sync
	}
	writers := min(publishers*l.window, 1000)
	took := make([][]time.Duration, writers)
	done := make(chan error, writers)
	l.pid = os.Getpid()
	used, start := l.processorTime(), time.Now()
	for w := range writers {
		go func() {
			key, value := make([]byte, 17), append(l.noise(), make([]byte, 40)...)
			for n := uint64(0); time.Since(start) < l.duration/2; n++ {
				binary.BigEndian.PutUint64(key, uint64(w))
				binary.BigEndian.PutUint64(key[8:], n)
				from := time.Now()
				if err := db.Set(key, value, option); err != nil {
					done <- err
					return
				}
				took[w] = append(took[w], time.Since(from))
			}
			done <- nil
		}()
	}
	for range writers {
		err = errors.Join(err, <-done)
	}
	all := slices.Concat(took...)
	r := resultOf(all, time.Since(start))
	err = errors.Join(err, db.Close())
	r.cpu = (l.processorTime() - used) / time.Duration(max(1, len(all)))
	return r, err
}

// quiet is a logger for Pebble.
type quiet struct{}

// Infof drops a line.
func (quiet) Infof(string, ...any) {}

// Errorf drops a line.
func (quiet) Errorf(string, ...any) {}

// Fatalf ends the program, as Pebble expects.
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
