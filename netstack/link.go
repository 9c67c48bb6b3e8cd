package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// kickFrames is how many frames are committed before the kernel is told, without waiting for the end of the turn: as many as one call
// sends in copy mode. So a wide fan-out goes through a few dozen frames, over and over, and not through all there are.
const kickFrames = 32

// link is the sending half of a plane: the stack's link endpoint and its queueing discipline in one. It writes packets
// straight into transmit frames, under one mutex, because the stack's processor sends, too.
type link struct {
	device     Device
	neighbour  func(netip.Addr) ([6]byte, bool)
	address    tcpip.LinkAddress
	dispatcher stack.NetworkDispatcher // set by Attach, before any frame
	counters   *counterSet
	clock      *turnClock

	mu       sync.Mutex // guards everything below, and the device's transmit methods
	flows    flowTable
	remotes  remoteTable
	overflow overflow
	holder   holder
	ackDelay time.Duration

	// isBusy says that the plane worked for most of the last busyWindow, which ended at watchedFrom. Since then it has rested for
	// restTime.
	isBusy      bool
	watchedFrom time.Duration
	restTime    time.Duration

	// isTurn says that the plane's owner is between Wait and Flush: it will flush soon. Outside, everything is sent at
	// once.
	isTurn   bool
	unkicked int // frames committed since the last kick
	isClosed bool
}

var (
	_ stack.LinkEndpoint       = (*link)(nil)
	_ stack.QueueingDiscipline = (*link)(nil)
	_ stack.GSOEndpoint        = (*link)(nil)
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

// GSOMaxSize and SupportedGSO implement stack.GSOEndpoint: the stack's TCP handles what one Write leaves as one segment, and cuts
// it into packets last.
func (l *link) GSOMaxSize() uint32 { return stack.GVisorGSOMaxSize }

// SupportedGSO is the stack's own.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.GVisorGSOSupported }

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
	f := l.flowOf(o)
	if f != nil && f.answered && o.isAgain(f) {
		l.follow(f)
	}
	to, ok := l.linkOf(f, o)
	if !ok {
		l.counters.noLinkAddress.Add(1)
		return &tcpip.ErrHostUnreachable{}
	}
	if l.mayHold(f, o) {
		l.hold(f, to, o)
		return nil
	}
	if f != nil && f.held != nil {
		l.supersede(f, o)
	}
	frame, isDevice := l.frameFor(o.bytes + linkHeaderMax)
	switch {
	case frame == nil:
		l.counters.overflowDropped.Add(1)
		return &tcpip.ErrNoBufferSpace{}
	case len(frame) < o.bytes+linkHeaderMax:
		l.device.Discard(frame)
		l.counters.tooLong.Add(1)
		return &tcpip.ErrMessageTooLong{}
	}
	n := o.write(frame, to, l.device.HardwareAddr())
	l.note(f, o)
	l.commit(frame, n, isDevice)
	return nil
}

// put sends a frame that is written already.
func (l *link) put(bytes []byte) {
	frame, isDevice := l.frameFor(len(bytes))
	if frame == nil {
		l.counters.overflowDropped.Add(1)
		return
	}
	l.commit(frame, copy(frame, bytes), isDevice)
}

// flowOf is the flow of a packet: the one that its endpoint was given, if it is still that, or the one that the table has.
func (l *link) flowOf(o *outgoing) *flow {
	if f, ok := o.packet.Owner.(*flow); ok && f.isListed && f.key == o.key {
		return f
	}
	return l.flows.find(&o.key)
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

// frameFor finds room for a frame of n bytes: of the device, or, if that has none or others wait already, in the overflow
// queue. Nil means none.
func (l *link) frameFor(n int) (frame []byte, isDevice bool) {
	if l.overflow.isEmpty() {
		if frame := l.device.Reserve(); frame != nil {
			return frame, true
		}
		l.kick() // What it sends, it may have back.
		if frame := l.device.Reserve(); frame != nil {
			return frame, true
		}
	}
	return l.overflow.reserve(n), false
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

// takes is how much of the sequence space a segment takes.
func (o *outgoing) takes() uint32 {
	if o.tcp.Flags()&(header.TCPFlagSyn|header.TCPFlagFin) != 0 {
		return uint32(o.payload) + 1
	}
	return uint32(o.payload)
}

// isAgain tells whether all of a segment was sent before.
func (o *outgoing) isAgain(f *flow) bool {
	n := o.takes()
	return n > 0 && int32(o.tcp.SequenceNumber()+n-f.sent) <= 0
}

// follow asks the kernel where the remote is now: what is sent again may have gone to a link address that is the remote's no
// longer, and from the other a remote that only listens sends nothing, for it has got nothing to acknowledge.
func (l *link) follow(f *flow) {
	if l.neighbour == nil {
		return
	}
	mac, ok := l.neighbour(netip.AddrFrom16(f.key.remote).Unmap())
	if !ok || mac == f.link.mac {
		return
	}
	f.link.mac = mac
	l.counters.linkChanged.Add(1)
}

// note remembers what was last sent.
func (l *link) note(f *flow, o *outgoing) {
	if f == nil {
		return
	}
	end := o.tcp.SequenceNumber() + o.takes()
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
	f.acked, f.window, f.answered, f.unacked = o.tcp.AckNumber(), o.tcp.WindowSize(), true, 0
}

// commit sends a frame that frameFor gave.
func (l *link) commit(frame []byte, n int, isDevice bool) {
	if !isDevice {
		l.overflow.commit(n)
		l.counters.overflowQueued.Add(1)
		return
	}
	l.device.Commit(frame, n)
	if l.unkicked++; l.unkicked >= kickFrames {
		l.kick()
	}
	l.counters.framesOut.Add(1)
	l.counters.bytesOut.Add(uint64(n))
}

func (l *link) kick() {
	l.device.Kick()
	l.unkicked = 0
}

// transmit sends everything that has gathered but held ACKs, as far as the device takes it.
func (l *link) transmit() {
	l.drainOverflow()
	if l.unkicked > 0 {
		l.kick()
	}
	if !l.overflow.isEmpty() {
		l.drainOverflow()
		l.kick()
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
		l.commit(frame, n, true)
	}
}

// beginTurn says that a flush will follow soon.
func (l *link) beginTurn() {
	l.clock.freeze()
	l.mu.Lock()
	l.isTurn = true
	if now := l.clock.elapsed(); now-l.watchedFrom >= busyWindow {
		l.isBusy = l.restTime < (now-l.watchedFrom)/busyShare
		l.watchedFrom, l.restTime = now, 0
	}
	l.mu.Unlock()
}

// endTurn sends what the turn has gathered, and the held ACKs that are due. It returns how long the plane may rest at most
// before the next endTurn, on behalf of frames and ACKs that wait; negative: for ever.
func (l *link) endTurn() (rest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isTurn = false
	if l.isClosed {
		return -1
	}
	rest = l.releaseDue(l.clock.elapsed())
	l.transmit()
	l.clock.thaw()
	if !l.overflow.isEmpty() {
		return sooner(rest, blockedPause)
	}
	return rest
}

// rested says that the plane has slept.
func (l *link) rested(d time.Duration) {
	l.mu.Lock()
	l.restTime += d
	l.mu.Unlock()
}

// forget removes a flow and the ACK that it holds.
func (l *link) forget(f *flow) {
	l.discardHeld(f)
	l.flows.remove(f)
}

// close sends what is left and gives every frame back.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows.each(func(f *flow) {
		if f.held != nil {
			l.release(f)
		}
	})
	l.transmit()
	l.isClosed = true
}
