package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	nearName, farName       = "xdpnear", "xdpfar"
	nearAddress, farAddress = "198.18.7.1", "198.18.7.2"
	steeredPort             = 1883
)

// lab is a veth pair between two network namespaces without names, which end with the test. The test's goroutine holds a
// thread that is in the near one.
type lab struct {
	t         testing.TB
	near, far netns.NsHandle
	queues    int
	peer      *peer
}

// newLab skips without the privilege and fails without the feature.
func newLab(t testing.TB, queues int) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_SYS_ADMIN for network namespaces")
	}
	runtime.LockOSThread() // For ever: the thread must not be used again.
	l := &lab{t: t, queues: queues}
	l.far = must(netns.New())(t)
	l.near = must(netns.New())(t)
	t.Cleanup(func() {
		l.near.Close()
		l.far.Close()
	})
	l.plug()
	return l
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		ok(t, err)
		return value
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plug makes the veth pair, up and with addresses.
func (l *lab) plug() {
	l.t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.NumTxQueues, attributes.NumRxQueues = nearName, l.queues, l.queues
	ok(l.t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attributes, PeerName: farName, PeerNamespace: netlink.NsFd(int(l.far)),
		PeerNumTxQueues: uint32(l.queues), PeerNumRxQueues: uint32(l.queues),
	}))
	l.up(nearName, nearAddress)
	l.inFar(func() { l.up(farName, farAddress) })
	if l.peer != nil {
		l.peer.close()
	}
	l.inFar(func() { l.peer = newPeer(l.t) })
	l.t.Cleanup(l.peer.close)
	l.peer.to = l.link(nearName).Attrs().HardwareAddr
}

func (l *lab) up(name, address string) {
	l.t.Helper()
	link := l.link(name)
	ok(l.t, netlink.AddrAdd(link, must(netlink.ParseAddr(address+"/24"))(l.t)))
	ok(l.t, netlink.LinkSetUp(link))
}

func (l *lab) link(name string) netlink.Link {
	l.t.Helper()
	return must(netlink.LinkByName(name))(l.t)
}

// inFar runs f in the far namespace.
func (l *lab) inFar(f func()) {
	l.t.Helper()
	ok(l.t, netns.Set(l.far))
	defer func() { ok(l.t, netns.Set(l.near)) }()
	f()
}

// config opens all queues with small regions.
func (l *lab) config() Config {
	return Config{Interface: nearName, ReceiveFrames: 512, TransmitFrames: 512, Ports: []uint16{steeredPort}, Limit: Native, Require: Native}
}

// open is Open and Start; Close comes with the end of the test, and conservation is checked before.
func (l *lab) open(c Config) *Interface {
	l.t.Helper()
	i := must(Open(c))(l.t)
	l.t.Cleanup(func() {
		for _, q := range i.Queues() {
			conserved(l.t, q)
		}
		if err := i.Close(); err != nil {
			l.t.Error(err)
		}
	})
	ok(l.t, i.Start())
	return i
}

func conserved(t testing.TB, q *Queue) {
	t.Helper()
	c := q.Conservation()
	checkConservation(t, c)
}

// recorder collects Events.
type recorder struct{ events chan Event }

func newRecorder() *recorder { return &recorder{make(chan Event, 1024)} }

func (r *recorder) add(e Event) { r.events <- e }

// awaitAll skips Events until each of these kinds has come.
func (r *recorder) awaitAll(t testing.TB, kinds ...EventKind) (last Event) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-r.events:
			t.Log(e)
			if kinds = slices.DeleteFunc(kinds, func(k EventKind) bool { return k == e.Kind }); len(kinds) == 0 {
				return e
			}
		case <-timeout:
			t.Fatalf("no events of kinds %d", kinds)
		}
	}
}

// await skips Events until one of this kind.
func (r *recorder) await(t testing.TB, kind EventKind) Event {
	t.Helper()
	return r.awaitAll(t, kind)
}

// peer sends and receives Ethernet frames at the far end, by AF_PACKET.
type peer struct {
	t    testing.TB
	fd   int
	from net.HardwareAddr
	to   net.HardwareAddr
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	link := must(netlink.LinkByName(farName))(t)
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // Network order.
	p := &peer{t: t, fd: must(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all))(t), from: link.Attrs().HardwareAddr}
	ok(t, unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}))
	ok(t, unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}))
	ok(t, unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	return p
}

func (p *peer) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// etherTypeTest marks what tests send from the near end ("local experimental").
const etherTypeTest = 0x88b5

// send sends a TCP segment for the steered port, with a number as its payload. It waits while the veth is full.
func (p *peer) send(number uint64) {
	p.t.Helper()
	for {
		_, err := unix.Write(p.fd, segment(p.from, p.to, farAddress, nearAddress, number))
		if err == nil {
			return
		}
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			p.t.Fatal(err)
		}
	}
}

// receive gives the payload of the next test frame that arrives.
func (p *peer) receive() []byte {
	p.t.Helper()
	var frame [4096]byte
	for {
		n, err := unix.Read(p.fd, frame[:])
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue
		}
		ok(p.t, err)
		if n >= 14 && binary.BigEndian.Uint16(frame[12:]) == etherTypeTest {
			return frame[14:n]
		}
	}
}

// segment is Ethernet, IPv4 and TCP (PSH, ACK) without TCP checksum, which the program does not look at.
func segment(from, to net.HardwareAddr, source, destination string, number uint64) []byte {
	f := append(append([]byte{}, to...), from...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
	ip := []byte{0x45, 0, 0, 48, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0}
	ip = append(ip, netip.MustParseAddr(source).AsSlice()...)
	ip = append(ip, netip.MustParseAddr(destination).AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	f = append(f, ip...)
	f = binary.BigEndian.AppendUint16(f, 40000+uint16(number%1000))
	f = binary.BigEndian.AppendUint16(f, steeredPort)
	f = append(f, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint64(f, number)
}

// numberOf is the payload of a segment.
func numberOf(frame []byte) uint64 { return binary.BigEndian.Uint64(frame[len(frame)-8:]) }

// sendNear sends a test frame with this payload from the near end.
func sendNear(t testing.TB, q *Queue, payload string) {
	t.Helper()
	frame := q.Reserve()
	if frame == nil {
		t.Fatal("no transmit frame")
	}
	q.Commit(frame, copy(frame, nearFrame(payload)))
	q.Kick()
}

func nearFrame(payload string) []byte {
	f := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1}
	return append(binary.BigEndian.AppendUint16(f, etherTypeTest), fmt.Sprintf("%-46s", payload)...)
}

// receiveNumbers takes n segments from the queue.
func receiveNumbers(t testing.TB, q *Queue, n int) []uint64 {
	t.Helper()
	var numbers []uint64
	deadline := time.Now().Add(patience)
	for len(numbers) < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d segments have come; %+v", len(numbers), n, q.Stats())
		}
		q.Receive(64, func(frame []byte) { numbers = append(numbers, numberOf(frame)) })
		if len(numbers) < n {
			ok(t, q.Wait(time.Second))
		}
	}
	return numbers
}
