package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/ringmq/ringmq/netstack"
)

const (
	// ringFrames times SnapBytesMax is what a capture takes per device and direction: 4 MiB.
	ringFrames = 2048
	// SnapBytesMax is the longest copy of a frame.
	SnapBytesMax = 2048
	// interval is how often the rings are emptied: one holds 5 ms at 400,000 frames a second.
	interval = 2 * time.Millisecond
	// orderSlack is how long a frame may be on its way into a ring: what is younger waits for the next round, so that
	// frames of several rings come in the order of their times.
	orderSlack = time.Millisecond
)

// ErrBusy says that one capture is under way; more at a time would cost the data path more.
var ErrBusy = errors.New("another capture is under way: end that one first")

// Tap lets one capture at a time see the frames of all devices that it wraps.
type Tap struct {
	busy    atomic.Bool
	session atomic.Pointer[session] // nil while nobody captures; read by the data path
	devices []*device               // fixed before the first frame
}

// session is one capture.
type session struct {
	filter atomic.Pointer[Filter]
	rings  []*ring // by device, one for each direction
}

// The directions of a device's rings.
const (
	received = iota
	sent
	directions
)

// device is a wrapped Device.
type device struct {
	netstack.Device
	tap    *Tap
	number int
	name   string

	deliver func([]byte) // of the Receive that is under way; used by its goroutine only
	copying func([]byte) // copies, then delivers
	current *session     // of the Receive that is under way
}

// Wrap gives a device whose frames can be captured, under the name that the file is to show. Call it before any Capture.
func (t *Tap) Wrap(d netstack.Device, name string) netstack.Device {
	w := &device{Device: d, tap: t, number: len(t.devices), name: name}
	w.copying = func(frame []byte) {
		w.current.see(w.number*directions+received, frame)
		w.deliver(frame)
	}
	t.devices = append(t.devices, w)
	return w
}

// Receive is part of netstack.Device.
func (d *device) Receive(most int, deliver func([]byte)) int {
	s := d.tap.session.Load()
	if s == nil {
		return d.Device.Receive(most, deliver)
	}
	d.deliver, d.current = deliver, s
	n := d.Device.Receive(most, d.copying)
	d.deliver, d.current = nil, nil
	return n
}

// Commit is part of netstack.Device.
func (d *device) Commit(frame []byte, n int) {
	if s := d.tap.session.Load(); s != nil {
		s.see(d.number*directions+sent, frame[:n])
	}
	d.Device.Commit(frame, n)
}

func (s *session) see(ring int, frame []byte) {
	if r := s.rings[ring]; r != nil && s.filter.Load().wants(frame) {
		r.put(frame)
	}
}

// Request says what to capture and when to end.
type Request struct {
	Filter    func() Filter // asked at the start and once a second: a client that reconnects has another port
	Devices   []string      // names given to Wrap; none means all
	Count     int           // end after so many frames; 0: when the context ends
	SnapBytes int           // copy so much of a frame; 0 means SnapBytesMax, the most
}

// Outcome is what a capture has seen.
type Outcome struct {
	Written uint64
	Missed  uint64 // left out, so that the data path did not wait
}

// Capture writes pcapng to w until the context ends, Count is reached or w fails. It gives up the data path's frames before
// it returns. A context that ends is no error.
func (t *Tap) Capture(ctx context.Context, w io.Writer, r Request) (out Outcome, err error) {
	if !t.busy.CompareAndSwap(false, true) {
		return out, ErrBusy
	}
	defer t.busy.Store(false)
	if r.SnapBytes <= 0 || r.SnapBytes > SnapBytesMax {
		r.SnapBytes = SnapBytesMax
	}
	writer, err := t.open(w, r)
	if err != nil {
		return out, err
	}
	s := &session{}
	for _, d := range t.devices {
		for range directions {
			var one *ring // of a device that is not asked for
			if len(r.Devices) == 0 || slices.Contains(r.Devices, d.name) {
				one = newRing(ringFrames, r.SnapBytes)
			}
			s.rings = append(s.rings, one)
		}
	}
	filter := r.Filter()
	s.filter.Store(&filter)
	t.session.Store(s)
	defer t.session.Store(nil)
	return s.drain(ctx, writer, r)
}

// open begins the file, with one interface for each device.
func (t *Tap) open(w io.Writer, r Request) (*pcapgo.NgWriter, error) {
	if len(t.devices) == 0 {
		return nil, errors.New("nothing is steered past the kernel: tcpdump sees it all")
	}
	for _, name := range r.Devices {
		if !slices.ContainsFunc(t.devices, func(d *device) bool { return d.name == name }) {
			return nil, fmt.Errorf("interface %q is not steered by this broker", name)
		}
	}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "ringmq capture"}}
	var writer *pcapgo.NgWriter
	for i, d := range t.devices {
		about := pcapgo.NgInterface{Name: fmt.Sprintf("%s:%d", d.name, i), LinkType: layers.LinkTypeEthernet, SnapLength: uint32(r.SnapBytes), TimestampResolution: 9}
		var err error
		if i == 0 {
			writer, err = pcapgo.NewNgWriterInterface(w, about, options)
		} else {
			_, err = writer.AddInterface(about)
		}
		if err != nil {
			return nil, err
		}
	}
	return writer, writer.Flush()
}

// drain empties the rings until the end.
func (s *session) drain(ctx context.Context, writer *pcapgo.NgWriter, r Request) (out Outcome, err error) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	asked := time.Now()
	b := &batch{}
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case now := <-ticks.C:
			if now.Sub(asked) >= time.Second {
				filter := r.Filter()
				s.filter.Store(&filter)
				asked = now
			}
		}
		until := time.Now()
		if !ended {
			until = until.Add(-orderSlack)
		}
		b.fill(s.rings, until)
		n, err := b.write(writer, r.Count-int(out.Written), r.Count > 0)
		out.Written += uint64(n)
		out.Missed = s.missed()
		if err := errors.Join(err, writer.Flush()); err != nil || r.Count > 0 && out.Written >= uint64(r.Count) {
			return out, err
		}
	}
	return out, nil
}

func (s *session) missed() (n uint64) {
	for _, r := range s.rings {
		if r != nil {
			n += r.missed.Load()
		}
	}
	return n
}

// batch is what one round has taken out of the rings; its memory is used again.
type batch struct {
	bytes   []byte
	entries []entry
	frames  []frame
}

// frame is an entry with the place of its bytes.
type frame struct {
	entry
	device int
	from   int // in batch.bytes
}

// fill takes what came until a time out of every ring and brings it into order. What is put from now on is later.
func (b *batch) fill(rings []*ring, until time.Time) {
	b.bytes, b.frames = b.bytes[:0], b.frames[:0]
	for i, r := range rings {
		if r == nil {
			continue
		}
		from := len(b.bytes)
		b.entries = b.entries[:0]
		b.bytes, b.entries = r.take(b.bytes, b.entries, until)
		for _, e := range b.entries {
			b.frames = append(b.frames, frame{e, i / directions, from})
			from += e.kept
		}
	}
	slices.SortStableFunc(b.frames, func(a, b frame) int { return a.at.Compare(b.at) })
}

// write writes the batch, or its first most frames where that is a limit.
func (b *batch) write(writer *pcapgo.NgWriter, most int, limited bool) (n int, err error) {
	for _, f := range b.frames {
		if limited && n >= most {
			break
		}
		info := gopacket.CaptureInfo{Timestamp: f.at, CaptureLength: f.kept, Length: f.length, InterfaceIndex: f.device}
		if err := writer.WritePacket(info, b.bytes[f.from:f.from+f.kept]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
