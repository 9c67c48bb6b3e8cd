package capture

import (
	"fmt"
	"testing"

	"github.com/ringmq/ringmq/netstack"
)

// still is a device that delivers the same frame again and again, and sends nowhere.
type still struct {
	netstack.Device
	frame []byte
}

func (s *still) Receive(most int, deliver func([]byte)) int {
	for range most {
		deliver(s.frame)
	}
	return most
}

func (s *still) Commit([]byte, int) {}

// BenchmarkTap is what the data path pays for a frame that comes in and one that goes out: without a tap; with one that nobody
// uses, as in every broker; and while a capture runs that wants another client, the heads of frames, or all of them. The
// rings are emptied by hand, so that every frame wanted is copied.
func BenchmarkTap(b *testing.B) {
	client, broker := at("198.18.0.2:4000"), at("198.18.0.1:1883")
	for _, size := range []int{100, 1500} {
		frame := tcp(b, client, broker, 0, string(make([]byte, size-54)))
		for _, row := range []struct {
			name   string
			filter *Filter
			snap   int
		}{
			{"nobody captures", nil, 0},
			{"another client", &Filter{Remote: at("198.18.0.3:4000")}, SnapBytesMax},
			{"heads", &Filter{}, 96},
			{"all", &Filter{}, SnapBytesMax},
		} {
			b.Run(fmt.Sprintf("%s/%dB", row.name, size), func(b *testing.B) { benchmarkTap(b, frame, row.filter, row.snap) })
		}
		b.Run(fmt.Sprintf("no tap/%dB", size), func(b *testing.B) { pass(b, &still{frame: frame}, frame, nil) })
	}
}

func benchmarkTap(b *testing.B, frame []byte, filter *Filter, snap int) {
	var tap Tap
	device := tap.Wrap(&still{frame: frame}, "a0")
	if filter == nil {
		pass(b, device, frame, nil)
		return
	}
	s := &session{rings: []*ring{newRing(ringFrames, snap), newRing(ringFrames, snap)}}
	s.filter.Store(filter)
	tap.session.Store(s)
	pass(b, device, frame, s.rings)
	for _, r := range s.rings {
		if n := r.missed.Load(); n > 0 {
			b.Errorf("%d frames were missed", n)
		}
	}
}

// pass has frames come in by batches of 64 and as many go out.
func pass(b *testing.B, device netstack.Device, frame []byte, rings []*ring) {
	const batch = 64
	deliver := func([]byte) {}
	b.ReportAllocs()
	for n := 0; n < b.N; n += batch {
		device.Receive(batch, deliver)
		for range batch {
			device.Commit(frame, len(frame))
		}
		for _, r := range rings {
			r.head.Store(r.tail.Load())
		}
	}
}
