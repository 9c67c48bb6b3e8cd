package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// More reasons, beside those of parse.
const (
	addressGone dropReason = iota + notOurs + 1
	icmpRefused
	inboxFull
	poisoned
	damaged
	unreadFull
	dropReasons
)

const (
	// receiveBatch bounds the frames that are taken from the device before the stack gets to process them.
	receiveBatch = 64

	// Path MTUs below these are refused: Linux's ip_rt_min_pmtu, and RFC 8200, section 5. Smaller ones are attacks.
	mtuMinIPv4 = 552
	mtuMinIPv6 = 1280
)

// onFrame takes one received frame from the device. A panic on the way costs the connection, not the process.
func (p *Plane) onFrame(frame []byte) {
	defer p.recoverFrame()
	p.counters.framesIn.Add(1)
	p.counters.bytesIn.Add(uint64(len(frame)))
	r := &p.received
	if why := r.parse(frame, p.device.HardwareAddr()); why != keep {
		p.counters.drops[why].Add(1)
		return
	}
	if r.isAttempt() && p.attempts.put(frame) {
		return
	}
	if why := p.admit(r, frame, true); why != keep {
		p.counters.drops[why].Add(1)
	}
}

// onTakenOver takes a frame that another plane has received.
func (p *Plane) onTakenOver(frame []byte) {
	defer p.recoverFrame()
	p.counters.takenOver.Add(1)
	p.admitAgain(frame, false)
}

// admitAgain is admit for a frame that has waited. That it is for us was seen before.
func (p *Plane) admitAgain(frame []byte, mayHandOver bool) {
	r := &p.received
	why := r.parse(frame, [6]byte(frame[:6]))
	if why == keep {
		why = p.admit(r, frame, mayHandOver)
	}
	if why != keep {
		p.counters.drops[why].Add(1)
	}
}

// recoverFrame gives up the connection whose frame has made the stack panic. The stack may have left locks of that
// connection taken: nothing touches it any more.
func (p *Plane) recoverFrame() {
	if recover() == nil {
		return
	}
	p.counters.panics.Add(1)
	p.link.mu.Lock()
	f := p.link.flows.find(&p.received.key)
	if f != nil {
		f.isPoisoned = true
	}
	p.link.mu.Unlock()
	if f != nil {
		p.poison(f)
	}
}

// admit decides on a frame and gives it to the stack or to its owner.
func (p *Plane) admit(r *received, frame []byte, mayHandOver bool) dropReason {
	known, c, why := p.admitKnown(r, frame)
	switch {
	case why != keep:
		return why
	case c != nil && r.isPlain(frame):
		p.injectInto(c, r, frame)
		return keep
	case !known:
		if why, done := p.handOver(r, frame, mayHandOver); done {
			return why
		}
		if why, done := p.admitStranger(r, frame); done {
			return why
		}
	}
	p.inject(r, frame)
	return keep
}

// admitKnown looks at a frame of a flow of this plane; known is false when there is none. If a connection has come of the flow, and
// no SYN since that may have begun another, it is c.
func (p *Plane) admitKnown(r *received, frame []byte) (known bool, c *conn, why dropReason) {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flows.find(&r.key)
	switch {
	case f == nil:
		return false, nil, keep
	case f.isPoisoned:
		return true, nil, poisoned
	case r.isICMP:
		if !f.plausible(r) || r.mtu < mtuMinIPv4 || r.isV6 && r.mtu < mtuMinIPv6 || r.mtu > l.device.MTU() {
			return true, nil, icmpRefused
		}
		return true, nil, keep
	default:
		if f.link != r.link {
			p.relearn(f, r, frame)
		}
		f.isReborn = f.isReborn || f.isLive && r.isAttempt()
		f.hear(r, &p.budget)
		if r.payload > 0 && !p.mayTake(f, r) {
			return true, nil, unreadFull
		}
		if r.payload > 0 {
			f.unacked = min(f.unacked+1, heldMessages)
			f.judge(l.clock.elapsed())
		}
		if f.isReborn {
			return true, nil, keep
		}
		return true, f.conn, keep
	}
}

// relearn changes the link address of a flow, if the segment is beyond doubt the remote's. The link's mutex is held.
func (p *Plane) relearn(f *flow, r *received, frame []byte) {
	to := p.believed(r)
	if to == f.link {
		return
	}
	if to != r.link || !f.acceptable(r, p.config.TCP.ReceiveBufferBytes) || !r.isIntact(frame) {
		p.counters.linkRefused.Add(1)
		return
	}
	f.link = to
	p.counters.linkChanged.Add(1)
}

// believed is the link address that a remote is answered at: what the kernel says of its neighbours, else where the
// frame came from.
func (p *Plane) believed(r *received) linkAddr {
	if p.config.Neighbour == nil {
		return r.link
	}
	mac, ok := p.config.Neighbour(netip.AddrFrom16(r.key.remote).Unmap())
	if !ok || mac == r.link.mac {
		return r.link
	}
	return linkAddr{mac: mac, tags: r.link.tags}
}

// admitStranger looks at a frame of no flow that anyone knows: a SYN, or something that the stack answers with RST. The stack does
// not get it if done.
func (p *Plane) admitStranger(r *received, frame []byte) (why dropReason, done bool) {
	if why := p.refuseStranger(r, frame); why != keep {
		return why, true
	}
	to := p.believed(r)
	if to != r.link {
		p.counters.linkRefused.Add(1)
	}
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	isAttempt := r.isAttempt()
	isTracked := isAttempt && l.flows.mayTrack(l.clock.elapsed())
	if isAttempt && (!isTracked || l.flows.halfOpen >= cookiesFrom) && p.answerFlood(r, frame, to) {
		return keep, true
	}
	l.remotes.learn(&r.key.remote, to)
	p.counters.linkLearned.Add(1)
	if isTracked {
		p.addFlow(&r.key, r.isV6, to)
	}
	return keep, false
}

// refuseStranger says why a frame of no flow that anyone knows is none for the stack.
func (p *Plane) refuseStranger(r *received, frame []byte) dropReason {
	if r.isICMP {
		return icmpRefused
	}
	isListening, isHost := p.group.hears(&r.key)
	switch {
	case !isListening:
		return notOurs
	case !isHost:
		return addressGone
	case p.group.isHost(r.key.remote):
		return notOurs // It claims to be from this very host.
	case !r.isIntact(frame):
		return damaged
	}
	return keep
}

// addFlow begins to track a handshake. The link's mutex is held.
func (p *Plane) addFlow(key *flowKey, isV6 bool, to linkAddr) *flow {
	f, evicted, hasEvicted := p.link.flows.add(key, isV6, to)
	if hasEvicted {
		p.group.owners.remove(&evicted, p)
	}
	f.handshake = p.link.clock.elapsed()
	p.group.owners.add(key, p)
	return f
}

// segmentQueuer is the part of the stack's TCP that takes a segment whose endpoint is known already.
type segmentQueuer interface {
	QueuePacket(to stack.TransportEndpoint, id stack.TransportEndpointID, segment *stack.PacketBuffer)
}

// isPlain tells whether a segment needs nothing of the stack's IP: no options, no extension headers, a header that is intact, and
// nothing that begins or resets a connection.
func (r *received) isPlain(frame []byte) bool {
	if r.flags&(tcpSyn|tcpRst|tcpAck) != tcpAck {
		return false
	}
	if r.isV6 {
		return r.transport-r.network == ipv6HeaderBytes
	}
	return r.transport-r.network == ipv4HeaderBytes && checksum.Checksum(frame[r.network:r.transport], 0) == 0xffff
}

// injectInto copies the packet out of the frame, the one time that received bytes are copied before the broker's buffer, and
// gives it to its connection. What the stack would do before that is done: the addresses, ports and lengths were looked at, and
// the flow's table has said whose it is. Passing the stack's own look at all of it by took a tenth off the processor time per
// message of 1000 pairs.
func (p *Plane) injectInto(c *conn, r *received, frame []byte) {
	p.warmed += p.warmth.warm(c.endpoint)
	packet := r.packet(frame)
	defer packet.DecRef()
	packet.NICID, packet.InputNICID = nicID, nicID
	packet.NetworkProtocolNumber, packet.TransportProtocolNumber = r.protocol(), header.TCPProtocolNumber
	_, hasIP := packet.NetworkHeader().Consume(r.transport - r.network)
	_, hasTCP := packet.TransportHeader().Consume(r.end - r.transport - r.payload)
	if hasIP && hasTCP {
		p.tcp.QueuePacket(c.endpoint, r.key.endpointID(r.isV6), packet)
	}
}

// inject is injectInto for what the stack has to find out about.
func (p *Plane) inject(r *received, frame []byte) {
	packet := r.packet(frame)
	defer packet.DecRef()
	p.link.dispatcher.DeliverNetworkPacket(r.protocol(), packet)
}

// packet copies an IP packet out of a frame.
func (r *received) packet(frame []byte) *stack.PacketBuffer {
	return stack.NewPacketBuffer(stack.PacketBufferOptions{
		Payload: buffer.MakeWithView(buffer.NewViewWithData(frame[r.network:r.end])),
	})
}

func (r *received) protocol() tcpip.NetworkProtocolNumber { return networkProtocol(r.isV6) }

func networkProtocol(isV6 bool) tcpip.NetworkProtocolNumber {
	if isV6 {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

// endpointID is how the stack names a connection.
func (k *flowKey) endpointID(isV6 bool) stack.TransportEndpointID {
	id := stack.TransportEndpointID{LocalPort: k.localPort, RemotePort: k.remotePort}
	if isV6 {
		id.LocalAddress, id.RemoteAddress = tcpip.AddrFrom16(k.local), tcpip.AddrFrom16(k.remote)
		return id
	}
	id.LocalAddress, id.RemoteAddress = tcpip.AddrFrom4([4]byte(k.local[12:])), tcpip.AddrFrom4([4]byte(k.remote[12:]))
	return id
}
