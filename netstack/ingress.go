package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
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
	if why := p.admit(r, frame, true); why != keep {
		p.counters.drops[why].Add(1)
	}
}

// onTakenOver takes a frame that another plane has received.
func (p *Plane) onTakenOver(frame []byte) {
	defer p.recoverFrame()
	p.counters.takenOver.Add(1)
	r := &p.received
	if why := r.parse(frame, [6]byte(frame[:6])); why != keep { // The other plane has checked the address.
		p.counters.drops[why].Add(1)
		return
	}
	if why := p.admit(r, frame, false); why != keep {
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
	known, why := p.admitKnown(r, frame)
	if why != keep {
		return why
	}
	if !known {
		if why, done := p.handOver(r, frame, mayHandOver); done {
			return why
		}
		if why := p.admitStranger(r, frame); why != keep {
			return why
		}
	}
	p.inject(r, frame)
	return keep
}

// admitKnown looks at a frame of a flow of this plane; known is false when there is none.
func (p *Plane) admitKnown(r *received, frame []byte) (known bool, why dropReason) {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flows.find(&r.key)
	switch {
	case f == nil:
		return false, keep
	case f.isPoisoned:
		return true, poisoned
	case r.isICMP:
		if !f.plausible(r) || r.mtu < mtuMinIPv4 || r.isV6 && r.mtu < mtuMinIPv6 || r.mtu > l.device.MTU() {
			return true, icmpRefused
		}
	default:
		if f.link != r.link {
			p.relearn(f, r, frame)
		}
		f.isReborn = f.isReborn || f.isLive && r.flags&(tcpSyn|tcpAck|tcpRst|tcpFin) == tcpSyn
		f.hear(r)
	}
	return true, keep
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

// admitStranger looks at a frame of no flow that anyone knows: a SYN, or something that the stack answers with RST.
func (p *Plane) admitStranger(r *received, frame []byte) dropReason {
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
	to := p.believed(r)
	if to != r.link {
		p.counters.linkRefused.Add(1)
	}
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remotes.learn(&r.key.remote, to)
	p.counters.linkLearned.Add(1)
	if r.flags&(tcpSyn|tcpAck|tcpRst|tcpFin) == tcpSyn {
		p.addFlow(&r.key, r.isV6, to)
	}
	return keep
}

// addFlow begins to track a handshake. The link's mutex is held.
func (p *Plane) addFlow(key *flowKey, isV6 bool, to linkAddr) *flow {
	f, evicted, hasEvicted := p.link.flows.add(key, isV6, to)
	if hasEvicted {
		p.group.owners.remove(&evicted, p)
	}
	p.group.owners.add(key, p)
	return f
}

// inject copies the packet out of the frame, the one time that received bytes are copied before the broker's buffer,
// and gives it to the stack.
func (p *Plane) inject(r *received, frame []byte) {
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
		Payload: buffer.MakeWithView(buffer.NewViewWithData(frame[r.network:r.end])),
	})
	defer packet.DecRef()
	if r.isV6 {
		p.link.dispatcher.DeliverNetworkPacket(header.IPv6ProtocolNumber, packet)
		return
	}
	p.link.dispatcher.DeliverNetworkPacket(header.IPv4ProtocolNumber, packet)
}
