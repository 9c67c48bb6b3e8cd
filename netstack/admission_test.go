package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/ringmq/ringmq/netstack/cable"
)

// TestOnlyOurs: what is not TCP for a listening address gets no answer, and is counted.
func TestOnlyOurs(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *wire, frame []byte) []byte
		count  func(c Counters) uint64
	}{
		"ARP":             {func(_ *wire, f []byte) []byte { f[12], f[13] = 8, 6; return f }, func(c Counters) uint64 { return c.NotOurs }},
		"ICMP echo":       {icmpEcho, func(c Counters) uint64 { return c.NotOurs }},
		"UDP":             {withProtocol(17), func(c Counters) uint64 { return c.NotOurs }},
		"fragment":        {func(_ *wire, f []byte) []byte { f[20] |= 0x20; return f }, func(c Counters) uint64 { return c.NotOurs }},
		"broadcast":       {func(_ *wire, f []byte) []byte { copy(f, "\xff\xff\xff\xff\xff\xff"); return f }, func(c Counters) uint64 { return c.NotOurs }},
		"another host":    {func(_ *wire, f []byte) []byte { f[5] ^= 1; return f }, func(c Counters) uint64 { return c.NotOurs }},
		"another port":    {to("198.18.0.1:22"), func(c Counters) uint64 { return c.NotOurs }},
		"another address": {to("198.18.0.7:1883"), func(c Counters) uint64 { return c.NotOurs }},
		"address gone":    {to("[2001:2::7]:1883"), func(c Counters) uint64 { return c.AddressGone }},
		"from itself":     {from("198.18.0.1:5000"), func(c Counters) uint64 { return c.NotOurs }},
		"from loopback":   {from("127.0.0.1:5000"), func(c Counters) uint64 { return c.NotOurs }},
		"from multicast":  {from("224.0.0.1:5000"), func(c Counters) uint64 { return c.NotOurs }},
		"cut short":       {func(_ *wire, f []byte) []byte { return f[:40] }, func(c Counters) uint64 { return c.Malformed }},
		"three VLAN tags": {threeTags, func(c Counters) uint64 { return c.Malformed }},
		"TCP checksum":    {func(_ *wire, f []byte) []byte { f[50] ^= 1; return f }, func(c Counters) uint64 { return c.ChecksumErrors }},
		"IP checksum":     {func(_ *wire, f []byte) []byte { f[24] ^= 1; return f }, func(c Counters) uint64 { return c.ChecksumErrors }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWireV4(t, testConfig())
			w.put(test.change(w, w.frame(tcpSyn, nil)))
			if got := w.quiet(); len(got) != 0 {
				t.Errorf("the plane answers %+v", got)
			}
			if sum := w.plane.Counters(); test.count(sum) != 1 || sum.FramesOut != 0 || sum.Flows != 0 || sum.Remotes != 0 {
				t.Errorf("counters: %+v", sum)
			}
		})
	}
}

func withProtocol(n byte) func(*wire, []byte) []byte {
	return func(_ *wire, f []byte) []byte {
		f[ethernetBytes+9] = n
		return f
	}
}

func icmpEcho(w *wire, f []byte) []byte {
	f[ethernetBytes+9] = protocolICMP
	f[ethernetBytes+ipv4HeaderBytes] = 8
	return f
}

func to(address string) func(*wire, []byte) []byte {
	return func(w *wire, _ []byte) []byte {
		w.remote = netip.MustParseAddrPort(address)
		if w.remote.Addr().Is6() {
			w.local = netip.MustParseAddrPort("[2001:2::9]:5000")
		}
		return w.frame(tcpSyn, nil)
	}
}

func from(address string) func(*wire, []byte) []byte {
	return func(w *wire, _ []byte) []byte {
		w.local = netip.MustParseAddrPort(address)
		return w.frame(tcpSyn, nil)
	}
}

func threeTags(_ *wire, f []byte) []byte {
	tagged := append([]byte(nil), f[:12]...)
	for range 3 {
		tagged = append(tagged, 0x81, 0, 0, 1)
	}
	return append(tagged, f[12:]...)
}

// TestUnknownFlowIsReset: clients of a broker that was started anew must learn that their connections are gone.
func TestUnknownFlowIsReset(t *testing.T) {
	w := newWireV4(t, testConfig())
	w.ack = 77
	w.send(tcpAck, ask())
	h := w.untilHeard(func(h heard) bool { return true })
	if h.flags != tcpRst || h.seq != 77 || h.to != w.mac {
		t.Errorf("a segment of no connection is answered with %+v", h)
	}
}

// TestVLAN: answers go where the connection came from, with its tags.
func TestVLAN(t *testing.T) {
	for name, tags := range map[string][vlanTagsMax]uint32{
		"one tag":  {etherTypeVLAN<<16 | 42},
		"two tags": {etherTypeQinQ<<16 | 7, etherTypeVLAN<<16 | 42},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWireV4(t, testConfig())
			w.link.tags = tags
			conn := w.connect()
			w.link.tags[0] |= 0xe000 // With a priority, which is not the connection's.
			w.send(tcpAck, ask())
			w.readAll(conn, len(ask()))
			if _, err := conn.Write(answer()); err != nil {
				t.Fatal(err)
			}
			w.plane.Flush()
			got := w.listen() // On a slow machine an acknowledgement of its own stands before the answer.
			if len(got) == 0 || got[len(got)-1].payload == 0 {
				t.Errorf("the answer is %+v", got)
			}
			for _, h := range got {
				if h.link.tags != tags || h.to != w.mac {
					t.Errorf("answered with %+v; want tags %x", h, tags)
				}
			}
		})
	}
}

// TestExtensionHeaders: IPv6 with extension headers in every packet.
func TestExtensionHeaders(t *testing.T) {
	c := cable.New(cable.Config{})
	g := mustOpen(t, testConfig(), c)
	w := newWire(t, c, g.Planes()[0], netip.MustParseAddrPort("[2001:2::9]:5000"), dialled(1))
	w.extensions = []byte{60, 0, 1, 4, 0, 0, 0, 0, protocolTCP, 0, 1, 4, 0, 0, 0, 0} // Two, each one PadN option.
	conn := w.connect()
	w.exchange(conn, ask(), answer())
	w.exchange(conn, ask(), answer())
	if conn.RemoteAddr() != w.local || conn.LocalAddr() != w.remote {
		t.Errorf("addresses %v, %v; want %v, %v", conn.LocalAddr(), conn.RemoteAddr(), w.remote, w.local)
	}
}

// tooBig is the ICMP error that a router sends about the wire's answer from sequence number seq on.
func (w *wire) tooBig(mtu int, seq uint32) []byte {
	quoted := make([]byte, 8)
	binary.BigEndian.PutUint16(quoted, w.remote.Port())
	binary.BigEndian.PutUint16(quoted[2:], w.local.Port())
	binary.BigEndian.PutUint32(quoted[4:], seq)
	local, remote := w.local.Addr().AsSlice(), w.remote.Addr().AsSlice()
	if w.local.Addr().Is4() {
		ip := make([]byte, ipv4HeaderBytes, 64)
		ip[0], ip[8], ip[9] = 0x45, 64, protocolTCP
		copy(ip[12:], remote)
		copy(ip[16:], local)
		m := append(append([]byte{icmpUnreachable, icmpFragmentationNeed, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, ip...), quoted...)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		outer := append([]byte(nil), ip...)
		outer[9] = protocolICMP
		binary.BigEndian.PutUint16(outer[2:], uint16(len(outer)+len(m)))
		copy(outer[12:], []byte{198, 18, 0, 254}) // A router.
		copy(outer[16:], remote)
		binary.BigEndian.PutUint16(outer[10:], ^checksum.Checksum(outer, 0))
		return w.etherFrame(etherTypeIPv4, append(outer, m...))
	}
	ip := make([]byte, ipv6HeaderBytes, 64)
	ip[0], ip[6], ip[7] = 0x60, protocolTCP, 64
	copy(ip[8:], remote)
	copy(ip[24:], local)
	m := append(append([]byte{icmpv6PacketTooBig, 0, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, ip...), quoted...)
	outer := append([]byte(nil), ip...)
	outer[6] = protocolICMPv6
	binary.BigEndian.PutUint16(outer[4:], uint16(len(m)))
	copy(outer[8:], netip.MustParseAddr("2001:2::fe").AsSlice())
	copy(outer[24:], remote)
	sum := checksum.Checksum(outer[8:40], fold(protocolICMPv6+uint32(len(m))))
	binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, sum))
	return w.etherFrame(etherTypeIPv6, append(outer, m...))
}

func (w *wire) etherFrame(etherType uint16, packet []byte) []byte {
	frame := make([]byte, ethernetBytes, ethernetBytes+len(packet))
	putLinkHeader(frame, w.link, w.mac, etherType)
	return append(frame, packet...)
}

// TestPathMTU: "too big" reaches TCP, which sends what was lost again in smaller pieces.
func TestPathMTU(t *testing.T) {
	for family, mtu := range map[int]int{0: 600, 1: 1300} {
		c := cable.New(cable.Config{})
		g := mustOpen(t, testConfig(), c)
		local := netip.MustParseAddrPort("198.18.0.9:5000")
		if family == 1 {
			local = netip.MustParseAddrPort("[2001:2::9]:5000")
		}
		w := newWire(t, c, g.Planes()[0], local, dialled(family))
		conn := w.connect()
		if _, err := conn.Write([][]byte{make([]byte, 4000)}); err != nil {
			t.Fatal(err)
		}
		w.plane.Flush()
		first := w.untilHeard(func(h heard) bool { return h.payload > 1200 })
		w.put(w.tooBig(mtu, first.seq))
		again := w.untilHeard(func(h heard) bool { return h.seq == first.seq && h.payload > 0 })
		if again.bytes > mtu {
			t.Errorf("after MTU %d the segment is sent again with %d bytes", mtu, again.bytes)
		}
		if sum := w.plane.Counters(); sum.ICMPRefused != 0 {
			t.Errorf("%d ICMP errors refused", sum.ICMPRefused)
		}
	}
}

// TestPathMTURefused: errors that nobody on the path can have sent change nothing.
func TestPathMTURefused(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	if _, err := conn.Write([][]byte{make([]byte, 1400)}); err != nil {
		t.Fatal(err)
	}
	w.plane.Flush()
	first := w.untilHeard(func(h heard) bool { return h.payload > 1200 })
	w.put(w.tooBig(68, first.seq))           // Too small.
	w.put(w.tooBig(9000, first.seq))         // Larger than the link's.
	w.put(w.tooBig(1000, first.seq-(1<<30))) // Never sent.
	w.local = netip.MustParseAddrPort("198.18.0.9:5001")
	w.put(w.tooBig(1000, first.seq)) // Of no connection.
	w.turn()
	if sum := w.plane.Counters(); sum.ICMPRefused != 4 {
		t.Errorf("%d ICMP errors refused; want 4", sum.ICMPRefused)
	}
}

// TestSYNFlood: half-open connections and what is tracked of them are bounded, and somebody still gets in.
func TestSYNFlood(t *testing.T) {
	config := testConfig()
	config.Backlog = 16
	w := newWireV4(t, config)
	for i := range 500 {
		w.local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), 6000)
		w.sendSyn()
		w.turn()
		w.plane.Flush()
		w.listen()
	}
	sum := w.plane.Counters()
	if sum.HalfOpen > 16 || sum.Flows > 16 {
		t.Errorf("%d handshakes tracked; want at most 16", sum.HalfOpen)
	}
	w.local = netip.MustParseAddrPort("198.18.0.9:5000")
	w.ack = 0
	conn := w.connect() // By a SYN cookie.
	w.exchange(conn, ask(), answer())
}

// TestMaxConnections: beyond the bound connections are reset.
func TestMaxConnections(t *testing.T) {
	config := testConfig()
	config.MaxConnections = 2
	w := newWireV4(t, config)
	for port := range uint16(2) {
		w.local = netip.AddrPortFrom(w.local.Addr(), 5000+port)
		w.connect()
	}
	w.local = netip.AddrPortFrom(w.local.Addr(), 5002)
	w.sendSyn()
	w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	w.send(tcpAck, nil)
	w.untilHeard(func(h heard) bool { return h.flags&tcpRst != 0 })
	if sum := w.plane.Counters(); sum.AcceptRefused != 1 || sum.Connections != 2 {
		t.Errorf("%d refused, %d connections; want 1, 2", sum.AcceptRefused, sum.Connections)
	}
}

// TestAddressChange: connections on an address that is gone live on, new ones get no answer, and come back with it.
func TestAddressChange(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	g := w.plane.group
	if err := g.SetAddresses([]netip.Prefix{hostV6()}); err != nil {
		t.Fatal(err)
	}
	w.exchange(conn, ask(), answer())
	w.local = netip.MustParseAddrPort("198.18.0.9:5001")
	w.sendSyn()
	if got := w.quiet(); len(got) != 0 {
		t.Errorf("a SYN for an address that is gone is answered: %+v", got)
	}
	if sum := w.plane.Counters(); sum.AddressGone != 1 {
		t.Errorf("%d segments for an address that is gone; want 1", sum.AddressGone)
	}
	if err := g.SetAddresses([]netip.Prefix{hostV4()}); err != nil {
		t.Fatal(err)
	}
	w.seq, w.ack = 5, 0
	other := w.connect()
	w.exchange(other, ask(), answer())
	other.Close()
	w.untilHeard(func(h heard) bool { return h.flags&tcpFin != 0 })
}

// TestAddressTwice: an interface may have one address with several lengths of its prefix, or several peers.
func TestAddressTwice(t *testing.T) {
	config := testConfig()
	longer := netip.PrefixFrom(hostV4().Addr(), hostV4().Bits()+8)
	config.HostAddresses = append(config.HostAddresses, longer, longer)
	w := newWireV4(t, config)
	w.exchange(w.connect(), ask(), answer())
	for i, addresses := range [][]netip.Prefix{{longer}, {longer, hostV4(), longer}, {hostV4()}} {
		if err := w.plane.group.SetAddresses(addresses); err != nil {
			t.Error(err)
		}
		w.local, w.seq, w.ack = netip.AddrPortFrom(w.local.Addr(), uint16(6000+i)), 5, 0
		w.exchange(w.connect(), ask(), answer())
	}
}
