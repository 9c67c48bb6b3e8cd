//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"
)

// TestPausedPublishers: hundreds of publishers of MQTT 3.1.1 begin messages that the broker's memory does not hold all together, so
// that most of them are paused, and send on. What is not read stays within receive_memory and the process within its plan, segments
// are dropped for it, and others are served all the time. When the others end, one that was paused goes on.
func TestPausedPublishers(t *testing.T) {
	publishers := 600
	if long() {
		publishers = 3000
	}
	const receiveMemory, messageBytes, sentBytes = 8 << 20, 1 << 20, 192 << 10
	s := newScene(t, 2)
	config := t.TempDir() + "/ringmq.toml"
	text := fmt.Sprintf("memory = \"256MiB\"\nmax_packet_size = \"2MiB\"\nmax_connections = %d\npacket_timeout = \"1m\"\n[xdp]\nreceive_memory = \"%d\"\n",
		publishers+1000, receiveMemory)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := s.serve("-c", config)
	reader, other := s.connect(s.Broker4, "reader"), s.connect(s.Broker4, "other")
	reader.subscribe("#", 0)
	var crowd []*client
	for i := range publishers {
		crowd = append(crowd, s.connect311(fmt.Sprintf("publisher%d", i)))
	}
	for _, c := range crowd {
		begin := append([]byte{0x32}, binary.AppendUvarint(nil, messageBytes)...) // PUBLISH, QoS 1
		begin = append(begin, 0, 1, 't', 0, 1)
		c.send(append(begin, make([]byte, sentBytes)...))
	}
	unread := func() uint64 { return b.lane().sum(func(q queueReport) uint64 { return q.TCP.UnreadBytes }) }
	limited := func() uint64 { return b.lane().sum(func(q queueReport) uint64 { return q.TCP.ReceiveLimited }) }
	eventually(t, "segments are dropped", func() bool { return limited() > 0 && unread() > receiveMemory/2 })
	var worst time.Duration
	var most int64
	var held uint64
	for range 100 {
		asked := time.Now()
		other.alive()
		worst, most, held = max(worst, time.Since(asked)), max(most, b.residentBytes()), max(held, unread())
	}
	plan := int64(b.status().MemoryBytes)
	t.Logf("%d publishers: at most %d bytes resident of %d planned, %d unread of %d; %d segments dropped; the worst PINGRESP took %v",
		publishers, most, plan, held, receiveMemory, limited(), worst)
	if most > plan {
		t.Errorf("%d bytes are resident, %d were planned", most, plan)
	}
	if held > receiveMemory {
		t.Errorf("%d bytes are not read; want at most %d", held, receiveMemory)
	}
	last := survivor(crowd)
	for _, c := range crowd {
		if c != last {
			_ = c.conn.SetLinger(0) // Otherwise the kernel goes on sending what they have begun.
			c.conn.Close()
		}
	}
	last.send(make([]byte, messageBytes-5-sentBytes))
	if got := reader.receive(); got.Topic != "t" || len(got.Payload) != messageBytes-5 {
		t.Errorf("%d bytes for topic %q come of a publisher that was paused; want %d", len(got.Payload), got.Topic, messageBytes-5)
	}
}

// survivor is the last of the clients whose connection the broker has not ended: it has no page left for what some have begun.
func survivor(crowd []*client) *client {
	for _, c := range slices.Backward(crowd) {
		_ = c.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			return c
		}
	}
	crowd[0].t.Fatal("the broker has ended all publishers")
	return nil
}

// connect311 connects a client of MQTT 3.1.1.
func (s *scene) connect311(id string) *client {
	s.t.Helper()
	c := s.silent()
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(id))}, id...)
	if _, err := c.conn.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		s.t.Fatal(err)
	}
	var ack [4]byte
	if _, err := io.ReadFull(c.in, ack[:]); err != nil || ack != [4]byte{0x20, 2} {
		s.t.Fatalf("client %s: % x, %v for a CONNACK", id, ack, err)
	}
	return c
}

// send writes bytes, without waiting for a broker that does not read them.
func (c *client) send(b []byte) {
	go func() { _, _ = c.conn.Write(b) }() // It ends with the connection.
}
