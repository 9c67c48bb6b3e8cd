package load

import (
	"math/rand/v2"
	"testing"
)

// TestFlowAgainstNaive compares the gaps with a plain set, over shuffled, doubled and thinned sequences.
func TestFlowAgainstNaive(t *testing.T) {
	const sent = 300
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		var f flow
		seen, highest, duplicated, reordered := map[uint64]bool{}, -1, int64(0), int64(0)
		for i := range sent {
			for range random.IntN(3) {
				s := uint64(max(0, i-random.IntN(20)))
				switch {
				case seen[s]:
					duplicated++
				case int(s) < highest:
					reordered++
				}
				seen[s], highest = true, max(highest, int(s))
				if s == f.next {
					f.next++
				} else {
					f.outOfOrder(s)
				}
			}
		}
		if f.missing(sent) != int64(sent-len(seen)) || f.duplicated != duplicated || f.reordered != reordered {
			t.Fatalf("seed %d: missing %d, duplicated %d, reordered %d; want %d, %d, %d",
				seed, f.missing(sent), f.duplicated, f.reordered, sent-len(seen), duplicated, reordered)
		}
	}
}

func TestFlowBoundsItsGaps(t *testing.T) {
	var f flow
	for s := uint64(1); s < 4*gapsMax; s += 2 {
		f.outOfOrder(s)
	}
	if len(f.gaps) != gapsMax || f.writtenOff != gapsMax || f.missing(4*gapsMax) != 2*gapsMax {
		t.Errorf("%d gaps, %d written off, %d missing", len(f.gaps), f.writtenOff, f.missing(4*gapsMax))
	}
	f.outOfOrder(5 * gapsMax)
	for s := uint64(4*gapsMax + 1); s < 5*gapsMax-1; s += 2 { // each makes two gaps of one
		f.outOfOrder(s)
	}
	if len(f.gaps) != gapsMax {
		t.Errorf("%d gaps after splitting one", len(f.gaps))
	}
}

// TestNoAllocation runs the hot path without sockets: publish a batch, receive it.
func TestNoAllocation(t *testing.T) {
	for _, version := range []byte{Version311, Version5} {
		l := &loop{cfg: Config{Version: version}.withDefaults(), run: "lg00000000", receiveMaximum: windowMax}
		l.cfg.QoS = 1
		tr := newTraffic(l, &Result{})
		if err := tr.layOut(); err != nil {
			t.Fatal(err)
		}
		tr.applyReceiveMaximum()
		tr.publishing = true
		subscriber, publisher := &l.conns[0], tr.publishers[0].conn
		scratch := make([]byte, 0, writeBytes)
		turn := func() {
			l.now++
			l.sendTime = l.now
			scratch, _ = tr.fill(publisher, scratch[:0])
			if used, err := tr.take(subscriber, scratch); used != len(scratch) || used == 0 || err != nil {
				t.Fatal(used, err)
			}
			subscriber.out = subscriber.out[:0]
			tr.publishers[0].acknowledged = tr.publishers[0].sent
			if err := tr.turnEnds(); err != nil {
				t.Fatal(err)
			}
			for _, c := range l.dirty {
				c.dirty = false
			}
			l.dirty = l.dirty[:0]
		}
		turn()
		if allocated := testing.AllocsPerRun(1000, turn); allocated != 0 {
			t.Errorf("version %d: %v allocations in a turn", version, allocated)
		}
	}
}

func TestReceiveMaximum(t *testing.T) {
	rows := []struct {
		properties []byte
		want       int
	}{
		{nil, windowMax},
		{[]byte{0x21, 0, 20}, 20},
		{[]byte{0x11, 0, 0, 0, 9, 0x12, 0, 2, 'a', 'b', 0x26, 0, 1, 'k', 0, 1, 'v', 0x25, 1, 0x21, 1, 0}, 256},
		{[]byte{0x12, 0, 9, 'a'}, windowMax},  // cut short
		{[]byte{0x21, 0}, windowMax},          // cut short
		{[]byte{0x7f, 0x21, 0, 1}, windowMax}, // unknown
	}
	for _, row := range rows {
		if got := receiveMaximum(row.properties); got != row.want {
			t.Errorf("% x: %d, want %d", row.properties, got, row.want)
		}
	}
}

// FuzzTake gives take what a broken broker might send: it must refuse or count, never panic.
func FuzzTake(f *testing.F) {
	l := &loop{cfg: Config{}.withDefaults(), run: "lg00000000", receiveMaximum: windowMax}
	t := newTraffic(l, &Result{})
	if err := t.layOut(); err != nil {
		f.Fatal(err)
	}
	t.publishers[0].sent = 3
	message := t.publishers[0].template.append(nil, 0, 1)
	f.Add(message, byte(Version311))
	f.Add(append(message, 0x40, 2, 0, 1), byte(Version5))
	f.Add([]byte{0x32, 4, 0, 9, 'a', 0}, byte(Version5))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, byte(Version311))
	f.Add([]byte{0xe0, 1, 0x97}, byte(Version5))
	f.Fuzz(func(_ *testing.T, b []byte, version byte) {
		l.cfg.Version = version
		for _, i := range []int{0, len(l.conns) - 1} {
			l.conns[i].out = l.conns[i].out[:0]
			_, _ = t.take(&l.conns[i], b)
		}
	})
}
