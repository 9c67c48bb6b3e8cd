//go:build linux

package lab

import (
	"bytes"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// TestBypass: a million messages pass. The program has counted exactly the frames that the peer's driver has sent, all but
// neighbour discovery redirected; the broker has got as many messages as were sent; the kernel's TCP has seen nothing of it,
// in no counter that it has; ss shows no connection while 100 are there; and all frames of the umem are where they belong.
func TestBypass(t *testing.T) {
	for _, row := range []struct{ mode, family string }{{"native", "4"}, {"native", "6"}, {"generic", "4"}} {
		t.Run(row.mode+"/IPv"+row.family, func(t *testing.T) {
			s := newScene(t, 1)
			host := map[string]string{"4": s.Broker4, "6": s.Broker6}[row.family]
			b := s.serve("--xdp-require", "any", "--xdp-limit", row.mode)
			if mode := b.lane().Mode; mode != row.mode && mode != row.mode+" copy" {
				t.Fatalf("the mode is %q", mode)
			}
			before, unseen := kernelCounters(t, s.Broker), unseenFrames(t, s, b)
			run := s.startBench(host, "-n", "50", "--count", "1000000")
			eventually(t, "100 connections in XDP mode", func() bool { return b.lane().established() == 100 || !run.isRunning() })
			if shown := s.broker("ss -Htn"); strings.TrimSpace(shown) != "" {
				t.Errorf("ss shows connections:\n%s", shown)
			}
			r := run.clean()
			if moved := before.moved(kernelCounters(t, s.Broker)); len(moved) > 0 {
				t.Errorf("the kernel's TCP has counted: %q", moved)
			}
			checkFrames(t, s, b, unseen)
			eventually(t, "the broker has counted every message", func() bool {
				return b.status().Counters["publish_received"] == uint64(r.Published)
			})
			checkConservation(t, b.lane())
			b.stop()
		})
	}
}

// unseenFrames is how many frames the peer had sent before the program was attached.
func unseenFrames(t *testing.T, s *scene, b *process) (n uint64) {
	t.Helper()
	eventually(t, "the peer is silent for a moment", func() bool {
		sent := framesSent(t, s.Client, s.ClientIf)
		n = sent - b.lane().frames()
		return framesSent(t, s.Client, s.ClientIf) == sent
	})
	return n
}

// checkFrames compares the program's counters with the peer's driver's. Frames from before the program was attached are
// unseen.
func checkFrames(t *testing.T, s *scene, b *process, unseen uint64) {
	t.Helper()
	var counted, sent uint64
	if !becomes(func() bool { // The last ACKs are on their way.
		counted, sent = b.lane().frames(), framesSent(t, s.Client, s.ClientIf)-unseen
		return counted == sent
	}) {
		t.Errorf("the peer has sent %d frames, the program has counted %d", sent, counted)
	}
	lane := b.lane()
	for _, name := range lane.verdicts() {
		n := lane.verdict(name)
		t.Logf("%s %d", name, n)
		if !slices.Contains([]string{"redirected", "passed_not_ip", "passed_icmp", "passed_extension_headers"}, name) || name != "redirected" && n > 100 {
			t.Errorf("%d frames are %s", n, name)
		}
	}
	received := lane.sum(func(q queueReport) uint64 { return q.Rings.FramesReceived })
	if redirected := lane.verdict("redirected"); received != redirected {
		t.Errorf("%d frames were redirected, the rings had %d", redirected, received)
	}
}

// checkConservation counts the frames of every umem.
func checkConservation(t *testing.T, lane laneReport) {
	t.Helper()
	for _, q := range lane.Queues {
		r, s := q.Frames.Receive, q.Frames.Transmit
		if r.FillRing+r.RXRing+r.Held+r.Lost != r.Frames || r.Lost != 0 {
			t.Errorf("queue %d: receive frames %+v", q.Queue, r)
		}
		if s.Free+s.Reserved+s.TXRing+s.Held+s.CompletionRing+s.Lost != s.Frames || s.Lost != 0 {
			t.Errorf("queue %d: transmit frames %+v", q.Queue, s)
		}
	}
}

// TestRestIsTheKernels: ping, ARP, neighbour discovery, UDP and TCP on another port go on as without the program, and so do
// clients on loopback, which the kernel's shard serves on the same port at the same time as the rings serve others.
func TestRestIsTheKernels(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	s.client("ip neighbour flush all")
	ping(t, s.Client, "ip4:icmp", s.Broker4)
	ping(t, s.Client, "ip6:ipv6-icmp", s.Broker6)
	ping(t, s.Broker, "ip4:icmp", s.Client4)
	for _, host := range []string{s.Broker4, s.Broker6} {
		if shown := s.client("ip neighbour show to %s", host); !strings.Contains(shown, "lladdr") {
			t.Errorf("ARP or neighbour discovery: %q", shown)
		}
		checkEcho(t, s, "tcp", host)
		checkEcho(t, s, "udp", host)
	}
	far := s.connect(s.Broker4, "far")
	near := connectFrom(t, s.Broker, "127.0.0.1", "near")
	near6 := connectFrom(t, s.Broker, "::1", "near6")
	for _, c := range []*client{far, near, near6} {
		c.subscribe("all", 0)
	}
	far.publish("all", 0, []byte("from the rings"))
	near.publish("all", 0, []byte("from the kernel"))
	for _, c := range []*client{far, near, near6} {
		got := []string{string(c.receive().Payload), string(c.receive().Payload)}
		slices.Sort(got)
		if !slices.Equal(got, []string{"from the kernel", "from the rings"}) {
			t.Errorf("a client has got %q", got)
		}
	}
	if n := b.lane().established(); n != 1 {
		t.Errorf("%d connections are on the rings, want 1", n)
	}
	if shown := s.broker("ss -Htn state established sport = :1883"); strings.Count(shown, "\n") != 2 {
		t.Errorf("ss shows\n%s\nwant two connections of loopback", shown)
	}
	for _, name := range []string{"passed_not_ip", "passed_icmp", "passed_other_protocol", "passed_other_port", "redirected"} {
		if b.lane().verdict(name) == 0 {
			t.Errorf("no frame is %s", name)
		}
	}
}

// checkEcho has bytes come back from port 7 of the broker's host.
func checkEcho(t *testing.T, s *scene, network, host string) {
	t.Helper()
	address := net.JoinHostPort(host, "7")
	closer, err := within(s.Broker, func() (io.Closer, error) {
		if network == "udp" {
			c, err := net.ListenPacket(network, address)
			if err == nil {
				go echoPackets(c)
			}
			return c, err
		}
		l, err := net.Listen(network, address)
		if err == nil {
			go echo(l)
		}
		return l, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	c, err := within(s.Client, func() (net.Conn, error) { return net.DialTimeout(network, address, patience) })
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	defer c.Close()
	answer := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "hello" {
		t.Errorf("%s to %s: %q, %v", network, address, answer, err)
	}
}

func echoPackets(c net.PacketConn) {
	var buffer [64]byte
	for {
		n, from, err := c.ReadFrom(buffer[:])
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buffer[:n], from) // The peer misses it.
	}
}

// ping sends an echo request and reads the answer.
func ping(t *testing.T, namespace, network, host string) {
	t.Helper()
	c, err := within(namespace, func() (net.Conn, error) { return net.Dial(network, host) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: 1, Data: []byte("hello")}}
	if network != "ip4:icmp" {
		request.Type = ipv6.ICMPTypeEchoRequest // The kernel fills the checksum in.
	}
	data, err := request.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for buffer := make([]byte, 1500); ; {
		n, err := c.Read(buffer)
		if err != nil {
			t.Fatalf("ping %s: %v", host, err)
		}
		if bytes.Contains(buffer[:n], data[4:]) && !bytes.Contains(buffer[:n], data[:4]) {
			return
		}
	}
}
