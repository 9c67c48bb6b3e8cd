package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/ringmq/ringmq/netstack"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frame builds a TCP segment by a library that is not ours.
func tcp(t testing.TB, source, destination netip.AddrPort, tags int, payload string) []byte {
	t.Helper()
	ethernet := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}
	segment := &layers.TCP{SrcPort: layers.TCPPort(source.Port()), DstPort: layers.TCPPort(destination.Port())}
	kind := layers.EthernetTypeIPv4
	var ip gopacket.SerializableLayer
	if source.Addr().Is4() {
		v4 := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: source.Addr().AsSlice(), DstIP: destination.Addr().AsSlice()}
		_ = segment.SetNetworkLayerForChecksum(v4)
		ip = v4
	} else {
		kind = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: source.Addr().AsSlice(), DstIP: destination.Addr().AsSlice()}
		_ = segment.SetNetworkLayerForChecksum(v6)
		ip = v6
	}
	list := []gopacket.SerializableLayer{ethernet}
	ethernet.EthernetType = kind
	for range tags {
		list = append(list, &layers.Dot1Q{VLANIdentifier: 7, Type: kind})
		for _, l := range list[:len(list)-1] {
			switch l := l.(type) {
			case *layers.Ethernet:
				l.EthernetType = layers.EthernetTypeDot1Q
			case *layers.Dot1Q:
				l.Type = layers.EthernetTypeDot1Q
			}
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append(list, ip, segment, gopacket.Payload(payload))...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

func TestFilter(t *testing.T) {
	for _, pair := range [][2]string{{"198.18.0.2:4000", "198.18.0.1:1883"}, {"[2001:2::2]:4000", "[2001:2::1]:1883"}} {
		client, broker := at(pair[0]), at(pair[1])
		for tags := range 3 {
			in, out := tcp(t, client, broker, tags, "x"), tcp(t, broker, client, tags, "y")
			for _, row := range []struct {
				filter Filter
				want   bool
			}{
				{Filter{}, true},
				{Filter{Port: 1883}, true},
				{Filter{Port: 4000}, true},
				{Filter{Port: 1884}, false},
				{Filter{Remote: client}, true},
				{Filter{Remote: client, Port: 1883}, true},
				{Filter{Remote: client, Port: 1}, false},
				{Filter{Remote: netip.AddrPortFrom(client.Addr(), 4001)}, false},
				{Filter{Remote: at("198.18.0.9:4000")}, false},
			} {
				if got := row.filter.wants(in); got != row.want {
					t.Errorf("%v, %d tags, %+v: %v", pair, tags, row.filter, got)
				}
				if got := row.filter.wants(out); got != row.want {
					t.Errorf("%v, %d tags, back, %+v: %v", pair, tags, row.filter, got)
				}
			}
			for n := range in { // Cut short, it is no segment, and nothing reads beyond it.
				if f := (Filter{Port: 1884}); f.wants(in[:n:n]) {
					t.Errorf("a frame cut to %d bytes is wanted", n)
				}
			}
		}
	}
	if f := (Filter{Port: 1883}); f.wants(make([]byte, 60)) {
		t.Error("what is no TCP is wanted")
	}
}

// fake is a device that delivers what it is given.
type fake struct {
	netstack.Device
	frames [][]byte
	sent   [][]byte
}

func (f *fake) Receive(most int, deliver func([]byte)) int {
	n := min(most, len(f.frames))
	for _, frame := range f.frames[:n] {
		deliver(frame)
	}
	f.frames = f.frames[n:]
	return n
}

func (f *fake) Commit(frame []byte, n int) { f.sent = append(f.sent, frame[:n]) }

// pipe collects a file, and tells when something was written.
type pipe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *pipe) frames(t *testing.T) (frames [][]byte, names []string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := pcapgo.NewNgReader(bytes.NewReader(p.b.Bytes()), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	last := time.Time{}
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, names
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Timestamp.Before(last) {
			t.Error("frames out of the order of their times")
		}
		last = info.Timestamp
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		frames, names = append(frames, data), append(names, i.Name)
	}
}

func numbered(t testing.TB, n int) []byte {
	return tcp(t, at("198.18.0.2:4000"), at("198.18.0.1:1883"), 0, string(binary.BigEndian.AppendUint32(nil, uint32(n))))
}

// capturing starts a capture of a Tap, waits until it sees frames, and returns what ends it.
func capturing(t *testing.T, tap *Tap, w io.Writer, r Request) (end func() (Outcome, error)) {
	t.Helper()
	if r.Filter == nil {
		r.Filter = func() Filter { return Filter{} }
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out Outcome
	done := make(chan error, 1)
	go func() {
		var err error
		out, err = tap.Capture(ctx, w, r)
		done <- err
	}()
	for tap.session.Load() == nil {
		select {
		case err := <-done:
			done <- err
			return func() (Outcome, error) { cancel(); return out, <-done }
		default:
		}
	}
	return func() (Outcome, error) { cancel(); err := <-done; return out, err }
}

// TestCapture: both directions of two devices, whole and in order; what passes before and after is not in the file, and
// the devices carry everything.
func TestCapture(t *testing.T) {
	tap := &Tap{}
	a, b := &fake{}, &fake{}
	first, second := tap.Wrap(a, "eth0"), tap.Wrap(b, "eth1")
	delivered := 0
	pass := func(d netstack.Device, f *fake, n int) {
		f.frames = append(f.frames, numbered(t, n))
		d.Receive(64, func([]byte) { delivered++ })
		reply := append(numbered(t, n+1000), make([]byte, 100)...)
		d.Commit(reply, len(reply)-100)
	}
	pass(first, a, 1)
	file := &pipe{}
	end := capturing(t, tap, file, Request{})
	if _, err := tap.Capture(t.Context(), io.Discard, Request{Filter: func() Filter { return Filter{} }}); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	for n := 2; n < 200; n++ {
		pass(first, a, n)
		pass(second, b, n+100_000)
	}
	out, err := end()
	pass(first, a, 5000)
	frames, names := file.frames(t)
	if err != nil || out.Written != 4*198 || out.Missed != 0 || len(frames) != 4*198 {
		t.Fatalf("%+v, %v, %d frames", out, err, len(frames))
	}
	if delivered != 2*198+2 || len(a.sent) != 200 || len(b.sent) != 198 {
		t.Errorf("delivered %d, sent %d and %d", delivered, len(a.sent), len(b.sent))
	}
	for i, want := range []struct {
		frame []byte
		name  string
	}{{numbered(t, 2), "eth0:0"}, {numbered(t, 1002), "eth0:0"}, {numbered(t, 100_002), "eth1:1"}, {numbered(t, 101_002), "eth1:1"}} {
		if !bytes.Equal(frames[i], want.frame) || names[i] != want.name {
			t.Errorf("frame %d: %x on %s", i, frames[i], names[i])
		}
	}
}

// TestBounds: a count, a length, one interface, and a writer that does not take what comes.
func TestBounds(t *testing.T) {
	tap := &Tap{}
	a, b := &fake{}, &fake{}
	first, second := tap.Wrap(a, "eth0"), tap.Wrap(b, "eth1")
	file := &pipe{}
	end := capturing(t, tap, file, Request{Count: 3, SnapBytes: 60, Devices: []string{"eth1"}})
	for n := range 10 {
		a.frames, b.frames = append(a.frames, numbered(t, n)), append(b.frames, numbered(t, 100+n))
		first.Receive(1, func([]byte) {})
		second.Receive(1, func([]byte) {})
	}
	for tap.busy.Load() {
		time.Sleep(time.Millisecond) // The count ends it.
	}
	out, err := end()
	frames, names := file.frames(t)
	if err != nil || out.Written != 3 || len(frames) != 3 || names[0] != "eth1:1" || len(frames[0]) != min(60, len(numbered(t, 0))) {
		t.Errorf("%+v, %v, %d frames, %v", out, err, len(frames), names)
	}

	blocked, release := make(chan struct{}), make(chan struct{})
	end = capturing(t, tap, slow{blocked, release}, Request{})
	a.frames = [][]byte{numbered(t, 0)}
	first.Receive(1, func([]byte) {})
	<-blocked
	for n := range 2 * ringFrames { // Nobody waits, and what does not fit is counted.
		first.Commit(numbered(t, n), 58)
	}
	close(release)
	out, err = end()
	if err != nil || out.Missed < ringFrames-1 || out.Written+out.Missed != 2*ringFrames+1 {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := tap.Capture(t.Context(), io.Discard, Request{Devices: []string{"wlan0"}, Filter: func() Filter { return Filter{} }}); err == nil {
		t.Error("an interface that is not there is captured")
	}
}

// slow takes the file's head, then tells of the next write and waits.
type slow struct{ blocked, release chan struct{} }

func (s slow) Write(b []byte) (int, error) {
	if len(b) > 300 || bytes.Contains(b, []byte{198, 18, 0, 2}) {
		select {
		case s.blocked <- struct{}{}:
		case <-s.release:
		}
		<-s.release
	}
	return len(b), nil
}

// TestNoCostIdle: nothing is allocated or copied while nobody captures.
func TestNoCostIdle(t *testing.T) {
	tap := &Tap{}
	f := &fake{}
	d := tap.Wrap(f, "eth0")
	frame := [][]byte{numbered(t, 1)}
	deliver := func([]byte) {}
	if n := testing.AllocsPerRun(100, func() {
		f.frames = frame
		d.Receive(64, deliver)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
