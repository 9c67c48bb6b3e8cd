package netstack

import (
	"crypto/sha1" // the stack's choice for SYN cookies
	"encoding/binary"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// cookies makes the SYN cookies of one listener of the stack (RFC 4987, section 3.6; accept.go of the stack's TCP), so that the flood
// is answered before the stack: one SYN costs it as much as a message. What comes back, the stack checks.
type cookies struct {
	nonces [2][sha1.BlockSize]byte
	isOurs bool // nonces are the listener's
	mss    uint16
	window seqnum.Size
}

const (
	// cookiesFrom is from how many handshakes under way on SYN cookies are sent, even if Config.Backlog has room for more: each
	// handshake costs the stack some 30 µs, which clients feel when thousands begin at once. 5,000 clients a second that are
	// 200 ms away stay below; beyond, connections have no SACK.
	cookiesFrom = 1024

	cookieTimeShift = 24                     // of the time in a cookie
	cookieHashMask  = 1<<cookieTimeShift - 1 // below it: the hash and which MSS the client has
	cookieTimeMask  = 0xff
	cookieTick      = 64 * time.Second

	synAckBytes = tcpHeaderBytes + header.TCPOptionMSSLength
	ttl         = 64 // the stack's default, and Linux's
)

// cookieMSS are the values that a cookie has room for.
var cookieMSS = [...]uint16{536, 1300, 1440, 1460}

// make returns the initial sequence number that proves later that the SYN in hand was answered.
func (c *cookies) make(key *flowKey, isV6 bool, seq uint32, mss uint16, now time.Duration) uint32 {
	room := uint32(0)
	for i, most := range cookieMSS {
		if mss >= most {
			room = uint32(i)
		}
	}
	at := uint32(now/cookieTick) & cookieTimeMask
	return c.hash(key, isV6, 0, 0) + seq + at<<cookieTimeShift + (c.hash(key, isV6, at, 1)+room)&cookieHashMask
}

func (c *cookies) hash(key *flowKey, isV6 bool, at uint32, nonce int) uint32 {
	var block [8 + sha1.BlockSize + 2*16]byte
	binary.BigEndian.PutUint16(block[0:], key.localPort)
	binary.BigEndian.PutUint16(block[2:], key.remotePort)
	binary.BigEndian.PutUint32(block[4:], at)
	n := 8 + copy(block[8:], c.nonces[nonce][:])
	local, remote := key.local[:], key.remote[:]
	if !isV6 {
		local, remote = local[12:], remote[12:]
	}
	n += copy(block[n:], local)
	n += copy(block[n:], remote)
	sum := sha1.Sum(block[:n])
	return binary.BigEndian.Uint32(sum[:])
}

// answerFlood answers a SYN with a cookie without giving it to the stack; false: it cannot. The link's mutex is held.
func (p *Plane) answerFlood(r *received, frame []byte, to linkAddr) bool {
	i := p.listenerOf(r)
	if i == nil || !i.cookies.isOurs {
		return false
	}
	l := p.link
	ipBytes := ipv4HeaderBytes
	if r.isV6 {
		ipBytes = ipv6HeaderBytes
	}
	out, isDevice := l.frameFor(linkHeaderMax + ipBytes + synAckBytes)
	if out == nil {
		l.counters.overflowDropped.Add(1)
		return true // As if the network had lost it.
	}
	options := header.ParseSynOptions(frame[r.transport+tcpHeaderBytes:r.end-r.payload], false)
	n := i.cookies.write(out, r, to, l.device.HardwareAddr(), i.cookies.make(&r.key, r.isV6, r.seq, options.MSS, l.clock.elapsed()))
	l.commit(out, n, isDevice)
	l.counters.cookies.Add(1)
	return true
}

// listenerOf is the stack's listener that a segment is for.
func (p *Plane) listenerOf(r *received) *listener {
	for _, l := range p.listeners {
		if l.port == r.key.localPort && l.isV6 == r.isV6 {
			return l
		}
	}
	return nil
}

// write makes the SYN-ACK: like the stack's, but without timestamps, for which the stack has another secret.
func (c *cookies) write(frame []byte, r *received, to linkAddr, from [6]byte, cookie uint32) int {
	id := r.key.endpointID(r.isV6)
	var n int
	if r.isV6 {
		n = putLinkHeader(frame, to, from, etherTypeIPv6)
		header.IPv6(frame[n:]).Encode(&header.IPv6Fields{PayloadLength: synAckBytes, TransportProtocol: header.TCPProtocolNumber, HopLimit: ttl,
			SrcAddr: id.LocalAddress, DstAddr: id.RemoteAddress})
		n += ipv6HeaderBytes
	} else {
		n = putLinkHeader(frame, to, from, etherTypeIPv4)
		ip := header.IPv4(frame[n : n+ipv4HeaderBytes])
		ip.Encode(&header.IPv4Fields{TotalLength: ipv4HeaderBytes + synAckBytes, Flags: header.IPv4FlagDontFragment, TTL: ttl, Protocol: protocolTCP,
			SrcAddr: id.LocalAddress, DstAddr: id.RemoteAddress})
		ip.SetChecksum(^ip.CalculateChecksum())
		n += ipv4HeaderBytes
	}
	t := header.TCP(frame[n : n+synAckBytes])
	t.Encode(&header.TCPFields{SrcPort: id.LocalPort, DstPort: id.RemotePort, SeqNum: cookie, AckNum: r.seq + 1, DataOffset: synAckBytes,
		Flags: header.TCPFlagSyn | header.TCPFlagAck, WindowSize: uint16(min(c.window, 0xffff))})
	header.EncodeMSSOption(uint32(c.mss), t[tcpHeaderBytes:])
	t.SetChecksum(^t.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, id.LocalAddress, id.RemoteAddress, synAckBytes)))
	return n + synAckBytes
}

// cookiesOf takes over what the stack drew for a listener last: two nonces.
func (p *Plane) cookiesOf(drawn [][sha1.BlockSize]byte, isV6 bool) cookies {
	c := cookies{mss: uint16(p.device.MTU() - ipv4HeaderBytes - tcpHeaderBytes), window: seqnum.Size(p.config.TCP.ReceiveBufferBytes)}
	if isV6 {
		c.mss = uint16(p.device.MTU() - ipv6HeaderBytes - tcpHeaderBytes)
	}
	if c.isOurs = len(drawn) == len(c.nonces); c.isOurs {
		c.nonces = [2][sha1.BlockSize]byte(drawn)
	}
	return c
}
