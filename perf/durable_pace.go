package main

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// pacedIDs is how many messages of a paced publisher may wait for their acknowledgement; beyond that it falls behind, which its
// figures show: time counts from when a message was due.
const pacedIDs = 1024

// pacedMeter is a publisher of QoS 1 at a fixed rate: a burst of messages at a time, as many as a publisher of the load at full speed has
// under way. One by one, each would cost the broker and this program a system call that they do not cost there, and half of the
// messages would be the whole load.
type pacedMeter struct {
	conn    net.Conn
	burst   int
	topic   string
	payload []byte
	due     [pacedIDs]atomic.Int64 // unix nanoseconds at which a Packet Identifier's message was to be sent; 0: free
	took    []time.Duration        // the reader's
}

// run publishes a burst every interval until end.
func (m *pacedMeter) run(offset, interval time.Duration, begin, end *atomic.Bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.read(begin, end)
	}()
	next, pid := time.Now().Add(offset), 0
	var out []byte
	for !end.Load() {
		now := time.Now()
		for ; !next.After(now) && m.due[(pid+m.burst-1)%pacedIDs].Load() == 0; next = next.Add(interval) {
			for range m.burst {
				m.due[pid].Store(next.UnixNano())
				h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte(m.topic), PacketID: uint16(pid + 1), PayloadSize: len(m.payload)}
				out = packet.AppendPublish(out, &h, m.payload, packet.V311)
				pid = (pid + 1) % pacedIDs
			}
		}
		if len(out) > 0 {
			if _, err := m.conn.Write(out); err != nil {
				break
			}
			out = out[:0]
		}
		time.Sleep(max(time.Until(next), 100*time.Microsecond))
	}
	<-done
}

func (m *pacedMeter) read(begin, end *atomic.Bool) {
	in := bufio.NewReaderSize(m.conn, 4096)
	for !end.Load() {
		kind, body, err := readPacket(in)
		if err != nil {
			return
		}
		if kind != packet.PUBACK || len(body) < 2 {
			continue
		}
		pid := binary.BigEndian.Uint16(body) - 1
		due := m.due[pid%pacedIDs].Swap(0)
		if begin.Load() && !end.Load() {
			m.took = append(m.took, time.Duration(time.Now().UnixNano()-due))
		}
	}
}
