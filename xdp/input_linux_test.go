package xdp

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringmq/ringmq/bpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestBadInput has one clear line for each, and nothing left attached.
func TestBadInput(t *testing.T) {
	l := newLab(t, 2)
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "xdpifb"
	ok(t, netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attributes}))
	ok(t, netlink.LinkSetUp(l.link("xdpifb")))
	plainlyOpened := l.config()
	for _, c := range [...]struct {
		name string
		with func(*Config)
		says string
	}{
		{"no interface", func(c *Config) { c.Interface = "" }, "no interface is named"},
		{"no such interface", func(c *Config) { c.Interface = "xdpnothere" }, "no such interface: name one of: ip link show"},
		{"no native mode", func(c *Config) { c.Interface = "xdpifb" }, "native mode is required and cannot be had"},
		{"queue out of range", func(c *Config) { c.Queues = []int{0, 2} }, "there is no queue 2: the interface has RX queues 0 to 1"},
		{"queue twice", func(c *Config) { c.Queues = []int{1, 1} }, "name each queue once"},
		{"frame size", func(c *Config) { c.FrameSize = 1024 }, "use 2048 or 4096"},
		{"few frames", func(c *Config) { c.ReceiveFrames = 1 }, "use 64 to 1048576"},
		{"small buffer", func(c *Config) { c.BufferBytes = 1 }, "use at least 65536"},
		{"no port", func(c *Config) { c.Ports = nil }, "give at least one"},
		{"zero-copy required", func(c *Config) { c.Limit, c.Require = ZeroCopy, ZeroCopy }, "zerocopy mode is required and cannot be had"},
		{"limit under what is required", func(c *Config) { c.Limit, c.Require = Generic, Native }, "require no more than the limit"},
	} {
		config := plainlyOpened
		c.with(&config)
		refused(t, l, c.name, config, c.says)
	}

	ok(t, netlink.LinkSetMTU(l.link(nearName), 2000))
	refused(t, l, "MTU", plainlyOpened, "hold packets of up to 1770, and the MTU is 2000: use frames of 4096 bytes, or ip link set dev xdpnear mtu 1500")
	ok(t, netlink.LinkSetMTU(l.link(nearName), 5000))
	refused(t, l, "larger MTU", plainlyOpened, "hold packets of up to 1770, and the MTU is 5000: ip link set dev xdpnear mtu 1770")
	ok(t, netlink.LinkSetMTU(l.link(nearName), 1500))

	ok(t, netlink.LinkSetDown(l.link(nearName)))
	refused(t, l, "down", plainlyOpened, "the interface is down: ip link set dev xdpnear up")
	ok(t, netlink.LinkSetUp(l.link(nearName)))

	without(t, func() { refused(t, l, "no CAP_NET_RAW", plainlyOpened, "CAP_NET_RAW is missing") }, unix.CAP_NET_RAW)
	without(t, func() { refused(t, l, "no CAP_BPF", plainlyOpened, "give the capabilities CAP_BPF") }, unix.CAP_BPF, unix.CAP_SYS_ADMIN)
	without(t, func() {
		var before unix.Rlimit
		ok(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before))
		ok(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 64 << 10, Max: before.Max}))
		defer func() { ok(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before)) }()
		refused(t, l, "locked memory", plainlyOpened, "the locked-memory limit is too low for a umem of 2304 KiB per queue: raise it (ulimit -l")
	}, unix.CAP_IPC_LOCK)
}

func refused(t *testing.T, l *lab, name string, c Config, says string) {
	t.Helper()
	i, err := Open(c)
	if err == nil {
		t.Errorf("%s: opened", name)
		ok(t, i.Close())
		return
	}
	t.Logf("%s: %v", name, err)
	if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.Interface) {
		t.Errorf("%s: %q, want one line with %q", name, err, says)
	}
	if xdp := l.link(nearName).Attrs().Xdp; xdp != nil && xdp.Attached {
		t.Errorf("%s: program %d is left on the interface", name, xdp.ProgId)
	}
	if left := must(ringMappings())(t); len(left) != 0 {
		t.Errorf("%s: mappings are left: %v", name, left)
	}
}

// without runs f without capabilities: they are the thread's, and the test's goroutine holds it.
func without(t *testing.T, f func(), capabilities ...int) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	ok(t, unix.Capget(&header, &before[0]))
	after := before
	for _, capability := range capabilities {
		after[capability/32].Effective &^= 1 << (capability % 32)
	}
	ok(t, unix.Capset(&header, &after[0]))
	defer func() { ok(t, unix.Capset(&header, &before[0])) }()
	f()
}

// TestOpenFailuresLeakNoDescriptor opens in vain, often.
func TestOpenFailuresLeakNoDescriptor(t *testing.T) {
	l := newLab(t, 1)
	c := l.config()
	c.Limit, c.Require = ZeroCopy, ZeroCopy
	open := func() {
		if i, err := Open(c); err == nil {
			t.Error(i.Close())
		}
	}
	open()
	first := must(unix.Dup(0))(t)
	ok(t, unix.Close(first))
	for range 10 {
		open()
	}
	last := must(unix.Dup(0))(t)
	ok(t, unix.Close(last))
	if last > first {
		t.Errorf("the next free descriptor is %d, was %d", last, first)
	}
}

func TestFallsBack(t *testing.T) {
	l := newLab(t, 1)
	c := l.config()
	c.Limit, c.Require = 0, 0
	i := l.open(c)
	if reasons := i.FallbackReasons(); i.Mode() != Native || len(reasons) != 1 || !strings.HasPrefix(reasons[0], "no zerocopy mode: queue 0: ") {
		t.Errorf("mode %v, %q", i.Mode(), reasons)
	}
	exchange(t, l, i.Queues()[0], 1)
}

func TestGenericMode(t *testing.T) {
	l := newLab(t, 1)
	c := l.config()
	c.Limit, c.Require = Generic, Generic
	i := l.open(c)
	if i.Mode() != Generic {
		t.Errorf("mode %v", i.Mode())
	}
	exchange(t, l, i.Queues()[0], 1)
}

func TestLargeFrames(t *testing.T) {
	l := newLab(t, 1)
	ok(t, netlink.LinkSetMTU(l.link(nearName), 3000))
	l.inFar(func() { ok(t, netlink.LinkSetMTU(l.link(farName), 3000)) })
	c := l.config()
	c.FrameSize = 4096
	q := l.open(c).Queues()[0]
	if q.MTU() != 3000 || len(q.Buffer()) != 256<<10 {
		t.Errorf("MTU %d, buffer of %d bytes", q.MTU(), len(q.Buffer()))
	}
	exchange(t, l, q, 1)
	sendNear(t, q, strings.Repeat("x", 3000))
	if got := len(l.peer.receive()); got != 3000 {
		t.Errorf("%d bytes, want 3000", got)
	}
}

func TestBusyPoll(t *testing.T) {
	l := newLab(t, 1)
	c := l.config()
	c.BusyPoll = 50
	exchange(t, l, l.open(c).Queues()[0], 1)
}

// TestQueueIsReleasedLate has another socket on the queue, without a program, that goes while Open waits for it.
func TestQueueIsReleasedLate(t *testing.T) {
	l := newLab(t, 1)
	c := must(l.config().complete())(t)
	other := must((&openings[0]).openSocket(c, l.link(nearName).Attrs().Index, 0, Native))(t)
	time.AfterFunc(100*time.Millisecond, func() { unix.Close(other.fd) })
	exchange(t, l, l.open(c).Queues()[0], 1)
	ok(t, syscall.Munmap(other.umem))
}

// TestKernelKeepsItsConnections: one that was there before Start goes on through the kernel. One in TIME-WAIT takes no place.
func TestKernelKeepsItsConnections(t *testing.T) {
	l := newLab(t, 1)
	listener := must(net.Listen("tcp", net.JoinHostPort(nearAddress, "1883")))(t)
	defer listener.Close()
	var client net.Conn
	l.inFar(func() { client = must(net.Dial("tcp", listener.Addr().String()))(t) })
	defer client.Close()
	server := must(listener.Accept())(t)
	defer server.Close()

	i := must(Open(l.config()))(t)
	defer func() { ok(t, i.Close()) }()
	inTimeWait(t, l, i, listener)
	flows := must(i.KernelFlows())(t)
	want := bpf.Flow{Local: netip.MustParseAddrPort(server.LocalAddr().String()), Remote: netip.MustParseAddrPort(server.RemoteAddr().String())}
	if len(flows) != 1 || flows[0] != want {
		t.Errorf("flows %v, want %v", flows, want)
	}
	ok(t, i.Start())
	for range 10 {
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		ok(t, server.SetReadDeadline(time.Now().Add(patience)))
		if n, err := server.Read(make([]byte, 100)); err != nil || n != 5 {
			t.Fatal(n, err)
		}
	}
	exchange(t, l, i.Queues()[0], 1)
}

// TestDrainedConnectionsAreKnown: a connection that a draining queue has left to the kernel becomes one that the program passes whatever
// comes later, until it ends.
func TestDrainedConnectionsAreKnown(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	listener := must(net.Listen("tcp", net.JoinHostPort(nearAddress, "1883")))(t)
	defer listener.Close()
	ok(t, i.Program().SetDrain(bpf.AllQueues, true))
	var client net.Conn
	l.inFar(func() { client = must(net.Dial("tcp", listener.Addr().String()))(t) })
	server := must(listener.Accept())(t)
	for want := range 2 {
		for deadline := time.Now().Add(patience); i.Program().KernelFlows() != 1-want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the program passes %d connections; want %d", i.Program().KernelFlows(), 1-want)
			}
		}
		client.Close()
		server.Close()
	}
}

// inTimeWait has the kernel keep a connection in TIME-WAIT.
func inTimeWait(t *testing.T, l *lab, i *Interface, listener net.Listener) {
	t.Helper()
	var client net.Conn
	l.inFar(func() { client = must(net.Dial("tcp", listener.Addr().String()))(t) })
	ok(t, must(listener.Accept())(t).Close())
	ok(t, client.Close())
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		sockets := must(i.kernel.sockets(unix.AF_INET))(t)
		if slices.ContainsFunc(sockets, func(s *netlink.Socket) bool { return s.State == tcpTimeWait }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no connection is in TIME-WAIT")
		}
	}
}
