package broker

import "testing"

// TestPacketIdentifiersInUse: a whole round later those of messages that are still unacknowledged are passed over
// [MQTT-2.3.1-4] [MQTT-2.2.1-4].
func TestPacketIdentifiersInUse(t *testing.T) {
	s := newBench(t, 1, nil).b.loops[0].shard
	sess := &Session{}
	send := func() uint32 {
		id := s.newEntry(0, 1, &receiver{})
		s.entries[id].pid = s.newPID(sess)
		s.enqueue(&sess.sent, id)
		return id
	}
	first, second, third := send(), send(), send()
	s.unqueue(&sess.sent, first, second)
	s.dropEntry(second)
	for want := uint32(4); want <= 1<<16+6; want++ {
		switch want {
		case 1 << 16, 1<<16 + 1, 1<<16 + 3: // 0 is none; 1 and 3 are under way
			continue
		case 1<<16 + 5: // the third has become the first
			s.unqueue(&sess.sent, 0, first)
			s.dropEntry(first)
		}
		if got := s.newPID(sess); got != uint16(want) {
			t.Fatalf("Packet Identifier %d; want %d", got, uint16(want))
		}
	}
	sess.lastPID = 2
	if got := s.newPID(sess); got != 4 {
		t.Errorf("Packet Identifier %d; want 4: 3 is under way", got)
	}
	s.unqueue(&sess.sent, 0, third)
	s.dropEntry(third)
}
