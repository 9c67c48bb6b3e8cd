package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// heldMax bounds the transmit frames that hold ACKs back, per plane: a quarter of what a queue has.
	heldMax = 1024

	// heldFramesMax bounds how long an ACK is held within one turn, in frames sent meanwhile: a millisecond or so.
	heldFramesMax = 1024

	// heldSegments is from how many full segments on an ACK is not held (RFC 5681, section 4.2).
	heldSegments = 2
)

// link is the sending half of a plane: the stack's link endpoint and its queueing discipline in one. It writes packets
// straight into transmit frames, under one mutex, because the stack's timers and its processor send, too.
type link struct {
	device     Device
	neighbour  func(netip.Addr) ([6]byte, bool)
	address    tcpip.LinkAddress
	dispatcher stack.NetworkDispatcher // set by Attach, before any frame
	counters   *counterSet

	mu       sync.Mutex // guards everything below, and the device's transmit methods
	flows    flowTable
	remotes  remoteTable
	overflow overflow
	holding  []*flow   // flows that held an ACK since the last release
	heldAge  int       // frames committed since the first of them
	heldAt   time.Time // end of the turn in which the first of them was held; zero: that turn is not over
	ackDelay time.Duration

	// isTurn says that the plane's owner is between Wait and Flush: it will flush soon. Outside, everything is sent at
	// once.
	isTurn   bool
	isDirty  bool // frames were committed since the last kick
	isClosed bool
}

var (
	_ stack.LinkEndpoint       = (*link)(nil)
	_ stack.QueueingDiscipline = (*link)(nil)
)

// MTU is part of stack.LinkEndpoint, as are the methods up to WritePackets. The stack has no link addresses, resolves
// none and writes no link header: that is done here.
func (l *link) MTU() uint32 { return uint32(l.device.MTU()) }

// SetMTU does nothing: the device knows.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength is zero: the Ethernet header is not part of the stack's packets.
func (l *link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress is the interface's MAC address when the plane was opened.
func (l *link) LinkAddress() tcpip.LinkAddress { return l.address }

// SetLinkAddress does nothing.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities leaves all checksums to the stack.
func (l *link) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }

// Attach takes the stack's side of the link.
func (l *link) Attach(d stack.NetworkDispatcher) { l.dispatcher = d }

// IsAttached says whether Attach was called.
func (l *link) IsAttached() bool { return l.dispatcher != nil }

// Wait has no goroutine to wait for.
func (l *link) Wait() {}

// ARPHardwareType is that of a link without ARP.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader does nothing: send writes the Ethernet header.
func (l *link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader does nothing: received frames are parsed before the stack sees them.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close is part of both interfaces.
func (l *link) Close() {}

// SetOnCloseAction does nothing.
func (l *link) SetOnCloseAction(func()) {}

// WritePackets is for stacks without a queueing discipline.
func (l *link) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for i, packet := range packets.AsSlice() {
		if err := l.WritePacket(packet); err != nil {
			return i, err
		}
	}
	return packets.Len(), nil
}

// outgoing is what the link has to know of a packet of the stack.
type outgoing struct {
	packet    *stack.PacketBuffer
	tcp       header.TCP // empty in fragments behind the first
	key       flowKey
	isV6      bool
	etherType uint16
	bytes     int // of the IP packet
	payload   int // of the TCP segment
}

// WritePacket is part of stack.QueueingDiscipline. The packet stays the caller's.
func (l *link) WritePacket(packet *stack.PacketBuffer) tcpip.Error {
	var o outgoing
	if !o.parse(packet) {
		l.counters.notTCP.Add(1)
		return nil // As if the network had lost it.
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return &tcpip.ErrClosedForSend{}
	}
	err := l.send(&o)
	if !l.isTurn {
		l.transmit()
	}
	return err
}

// parse returns false for what the kernel and not we should send.
func (o *outgoing) parse(packet *stack.PacketBuffer) bool {
	*o = outgoing{packet: packet, bytes: packet.Size(), tcp: header.TCP(packet.TransportHeader().Slice())}
	ip := packet.NetworkHeader().Slice()
	switch packet.NetworkProtocolNumber {
	case header.IPv4ProtocolNumber:
		if len(ip) < ipv4HeaderBytes || ip[9] != protocolTCP {
			return false
		}
		o.etherType = etherTypeIPv4
		o.key.local, o.key.remote = mapped(ip[12:16]), mapped(ip[16:20])
	case header.IPv6ProtocolNumber:
		if len(ip) < ipv6HeaderBytes || packet.TransportProtocolNumber != header.TCPProtocolNumber {
			return false
		}
		o.isV6, o.etherType = true, etherTypeIPv6
		o.key.local, o.key.remote = [16]byte(ip[8:24]), [16]byte(ip[24:40])
	default:
		return false
	}
	if len(o.tcp) >= tcpHeaderBytes {
		o.key.localPort, o.key.remotePort = o.tcp.SourcePort(), o.tcp.DestinationPort()
		o.payload = packet.Data().Size()
	}
	return true
}

// send writes one packet, or holds it, or queues it, or drops it and says so.
func (l *link) send(o *outgoing) tcpip.Error {
	f := l.flows.find(&o.key)
	to, ok := l.linkOf(f, o)
	if !ok {
		l.counters.noLinkAddress.Add(1)
		return &tcpip.ErrHostUnreachable{}
	}
	frame := l.frameFor(f, o)
	if frame == nil {
		frame = l.overflow.reserve(o.bytes + linkHeaderMax)
		if frame == nil {
			l.counters.overflowDropped.Add(1)
			return &tcpip.ErrNoBufferSpace{}
		}
		l.overflow.commit(o.write(frame, to, l.device.HardwareAddr()))
		l.counters.overflowQueued.Add(1)
		l.note(f, o)
		return nil
	}
	if len(frame) < o.bytes+linkHeaderMax {
		l.device.Discard(frame)
		l.counters.tooLong.Add(1)
		return &tcpip.ErrMessageTooLong{}
	}
	n := o.write(frame, to, l.device.HardwareAddr())
	if l.mayHold(f, o) {
		l.hold(f, frame, n, o.tcp.AckNumber())
		return nil
	}
	l.note(f, o)
	l.commit(frame, n)
	return nil
}

// linkOf finds the way to a packet's remote.
func (l *link) linkOf(f *flow, o *outgoing) (linkAddr, bool) {
	if f != nil {
		return f.link, true
	}
	if to, ok := l.remotes.find(&o.key.remote); ok {
		return to, true
	}
	if l.neighbour == nil {
		return linkAddr{}, false
	}
	mac, ok := l.neighbour(netip.AddrFrom16(o.key.remote).Unmap())
	return linkAddr{mac: mac}, ok
}

// frameFor finds room for a packet: the frame of the ACK that it supersedes, or a new one. Nil means none, or that
// other frames wait already.
func (l *link) frameFor(f *flow, o *outgoing) []byte {
	if f != nil && f.held != nil {
		frame := f.held
		if int32(o.tcp.AckNumber()-f.heldAck) < 0 && o.tcp.Flags()&header.TCPFlagRst == 0 {
			l.releaseFlow(f) // The newer packet knows less: an old segment is sent again.
		} else {
			f.held = nil
			l.counters.superseded.Add(1)
			if l.overflow.isEmpty() {
				return frame
			}
			l.device.Discard(frame)
		}
	}
	if !l.overflow.isEmpty() {
		return nil
	}
	if frame := l.device.Reserve(); frame != nil {
		return frame
	}
	l.releaseAll() // The frames are needed, and it is time to say something.
	l.device.Kick()
	l.isDirty = false
	return l.device.Reserve()
}

// write makes a frame of the packet and returns its length.
func (o *outgoing) write(frame []byte, to linkAddr, from [6]byte) int {
	n := putLinkHeader(frame, to, from, o.etherType)
	views, skip := o.packet.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		n += copy(frame[n:], b[skip:])
		skip = 0
	}
	return n
}

// mayHold tells whether a packet is a pure ACK of an established flow that says no more than that bytes have come in
// order, and that may wait for data to carry it, or for another that says more. Duplicate ACKs, SACK blocks and window
// updates never wait.
func (l *link) mayHold(f *flow, o *outgoing) bool {
	if f == nil || !f.isLive || !f.answered || !l.isTurn || len(l.holding) >= heldMax {
		return false
	}
	t := o.tcp
	if o.payload != 0 || uint8(t.Flags()) != tcpAck || len(t) > tcpHeaderBytes+timestampOptionBytes {
		return false
	}
	news := t.AckNumber() - f.acked
	return int32(news) > 0 && int(news) < heldSegments*(l.device.MTU()-ipv6HeaderBytes-tcpHeaderBytes) && f.window != 0
}

func (l *link) hold(f *flow, frame []byte, n int, ack uint32) {
	f.held, f.heldBytes, f.heldAck = frame, n, ack
	if !f.isListed {
		if len(l.holding) == 0 {
			l.heldAge = 0
		}
		f.isListed = true
		l.holding = append(l.holding, f)
	}
	l.counters.held.Add(1)
}

// note remembers what was last sent.
func (l *link) note(f *flow, o *outgoing) {
	if f == nil {
		return
	}
	end := o.tcp.SequenceNumber() + uint32(o.payload)
	if o.tcp.Flags()&(header.TCPFlagSyn|header.TCPFlagFin) != 0 {
		end++
	}
	if !f.answered {
		f.start = o.tcp.SequenceNumber()
		if o.tcp.Flags()&header.TCPFlagSyn != 0 {
			f.start++
		}
		f.peerAck = f.start
	}
	if !f.answered || int32(end-f.sent) > 0 {
		f.sent = end
	}
	f.acked, f.window, f.answered = o.tcp.AckNumber(), o.tcp.WindowSize(), true
}

func (l *link) commit(frame []byte, n int) {
	l.device.Commit(frame, n)
	l.isDirty = true
	l.counters.framesOut.Add(1)
	l.counters.bytesOut.Add(uint64(n))
	if l.heldAge++; l.heldAge >= heldFramesMax && len(l.holding) > 0 {
		l.releaseAll()
	}
}

// releaseAll sends the ACKs that nothing has superseded.
func (l *link) releaseAll() {
	list := l.holding
	l.holding, l.heldAge, l.heldAt = l.holding[:0], 0, time.Time{}
	for i, f := range list {
		f.isListed = false
		l.releaseFlow(f)
		list[i] = nil
	}
}

func (l *link) releaseFlow(f *flow) {
	if f.held == nil {
		return
	}
	frame := f.held
	f.held, f.acked = nil, f.heldAck
	l.commit(frame, f.heldBytes)
}

// transmit sends everything that has gathered but held ACKs, as far as the device takes it.
func (l *link) transmit() {
	l.drainOverflow()
	if l.isDirty {
		l.device.Kick()
		l.isDirty = false
	}
	if !l.overflow.isEmpty() {
		l.drainOverflow()
		l.device.Kick()
		l.isDirty = false
	}
}

// drainOverflow moves waiting frames into the device.
func (l *link) drainOverflow() {
	for !l.overflow.isEmpty() {
		frame := l.device.Reserve()
		if frame == nil {
			return
		}
		n := copy(frame, l.overflow.first())
		l.overflow.drop()
		l.commit(frame, n)
	}
}

// beginTurn says that a flush will follow soon.
func (l *link) beginTurn() {
	l.mu.Lock()
	l.isTurn = true
	l.mu.Unlock()
}

// endTurn sends what the turn has gathered, and the held ACKs when the first of them has waited long enough. It returns how
// long the plane may rest at most before the next endTurn, on behalf of frames and ACKs that wait; negative: for ever.
func (l *link) endTurn() (rest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isTurn = false
	if l.isClosed {
		return -1
	}
	rest = l.tendHeld()
	l.transmit()
	if !l.overflow.isEmpty() {
		return sooner(rest, blockedPause)
	}
	return rest
}

// tendHeld releases ACKs that have waited for ackDelay since the end of their turn, and says how long the others may.
func (l *link) tendHeld() (rest time.Duration) {
	if len(l.holding) == 0 {
		return -1
	}
	if l.ackDelay > 0 {
		now := time.Now()
		if l.heldAt.IsZero() {
			l.heldAt = now
		}
		if left := l.ackDelay - now.Sub(l.heldAt); left > 0 {
			return left
		}
	}
	l.releaseAll()
	return -1
}

// forget removes a flow and the ACK that it holds.
func (l *link) forget(f *flow) {
	l.discardHeld(f)
	l.flows.remove(f)
}

func (l *link) discardHeld(f *flow) {
	if f.held != nil {
		l.device.Discard(f.held)
		f.held = nil
	}
}

// close sends what is left and gives every frame back.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releaseAll()
	l.transmit()
	l.isClosed = true
}
