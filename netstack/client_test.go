package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ringmq/ringmq/netstack/cable"
)

const (
	patience     = 20 * time.Second
	clientBuffer = 256 << 10
)

// The addresses in tests are those for benchmarks (RFC 2544, RFC 5180).
func hostV4() netip.Prefix   { return netip.MustParsePrefix("198.18.0.1/16") }
func hostV6() netip.Prefix   { return netip.MustParsePrefix("2001:2::1/64") }
func clientV4() netip.Prefix { return netip.MustParsePrefix("198.18.0.2/16") }
func clientV6() netip.Prefix { return netip.MustParsePrefix("2001:2::2/64") }

// client is a TCP/IP stack at the far end of a cable, as the clients' hosts.
type client struct {
	t       testing.TB
	end     *cable.End
	stack   *stack.Stack
	link    *clientLink
	stopped chan struct{}
	halt    atomic.Bool
}

// clientLink is the client's link endpoint: it writes frames at once.
type clientLink struct {
	end        *cable.End
	dispatcher stack.NetworkDispatcher
	mu         sync.Mutex // guards what follows and the end's transmit methods
	to         linkAddr   // with the VLAN tags to send
	from       [6]byte
	received   atomic.Uint64
	tcpOnly    atomic.Uint64 // frames received that were not TCP over IP with the link header expected
}

func (l *clientLink) MTU() uint32                                  { return uint32(l.end.MTU()) }
func (l *clientLink) SetMTU(uint32)                                {}
func (l *clientLink) MaxHeaderLength() uint16                      { return 0 }
func (l *clientLink) LinkAddress() tcpip.LinkAddress               { return tcpip.LinkAddress(l.from[:]) }
func (l *clientLink) SetLinkAddress(tcpip.LinkAddress)             {}
func (l *clientLink) Capabilities() stack.LinkEndpointCapabilities { return 0 }
func (l *clientLink) Attach(d stack.NetworkDispatcher)             { l.dispatcher = d }
func (l *clientLink) IsAttached() bool                             { return l.dispatcher != nil }
func (l *clientLink) Wait()                                        {}
func (l *clientLink) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (l *clientLink) AddHeader(*stack.PacketBuffer)                {}
func (l *clientLink) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (l *clientLink) Close()                                       {}
func (l *clientLink) SetOnCloseAction(func())                      {}

func (l *clientLink) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, packet := range packets.AsSlice() {
		frame := l.end.Reserve()
		if frame == nil {
			return 0, &tcpip.ErrNoBufferSpace{}
		}
		o := outgoing{packet: packet, etherType: uint16(packet.NetworkProtocolNumber)}
		l.end.Commit(frame, o.write(frame, l.to, l.from))
	}
	l.end.Kick()
	return packets.Len(), nil
}

func (l *clientLink) onFrame(frame []byte) {
	l.received.Add(1)
	var r received
	if why := r.parse(frame, l.from); why != keep {
		l.tcpOnly.Add(1)
		return
	}
	l.mu.Lock()
	if r.link.mac != l.to.mac || r.link.tags != l.to.tags {
		l.tcpOnly.Add(1)
	}
	l.mu.Unlock()
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
		Payload: buffer.MakeWithView(buffer.NewViewWithData(frame[r.network:r.end])),
	})
	defer packet.DecRef()
	if r.isV6 {
		l.dispatcher.DeliverNetworkPacket(header.IPv6ProtocolNumber, packet)
		return
	}
	l.dispatcher.DeliverNetworkPacket(header.IPv4ProtocolNumber, packet)
}

// newClient starts a client; it stops when the test ends.
func newClient(t testing.TB, c *cable.Cable) *client {
	t.Helper()
	end := c.Far()
	link := &clientLink{end: end, from: end.HardwareAddr(), to: linkAddr{mac: c.Near()[0].HardwareAddr()}}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: clientBuffer, Max: clientBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: clientBuffer, Max: clientBuffer}
	timeWait := tcpip.TCPTimeWaitTimeoutOption(time.Millisecond)
	noRACK := tcpip.TCPRecovery(0) // See TCPConfig.RACK.
	for _, o := range []tcpip.SettableTransportProtocolOption{&receive, &send, &timeWait, &noRACK} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CreateNIC(nicID, link); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []netip.Prefix{clientV4(), clientV6()} {
		protocol := ipv4.ProtocolNumber
		if prefix.Addr().Is6() {
			protocol = ipv6.ProtocolNumber
		}
		a := tcpip.ProtocolAddress{Protocol: protocol, AddressWithPrefix: tcpip.AddressWithPrefix{Address: stackAddr(prefix.Addr()), PrefixLen: prefix.Bits()}}
		if err := s.AddProtocolAddress(nicID, a, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}, {Destination: header.IPv6EmptySubnet, NIC: nicID}})
	k := &client{t: t, end: end, stack: s, link: link, stopped: make(chan struct{})}
	go k.run()
	t.Cleanup(k.stop)
	return k
}

func (k *client) run() {
	defer close(k.stopped)
	for !k.halt.Load() {
		if k.end.Receive(receiveBatch, k.link.onFrame) == 0 {
			if err := k.end.Wait(-1); err != nil {
				return
			}
		}
	}
}

func (k *client) stop() {
	if k.halt.Swap(true) {
		return
	}
	k.end.Wake()
	<-k.stopped
	k.stack.Destroy()
}

// peer is a connection of the client.
type peer struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
}

func (p *peer) Reset() error {
	p.endpoint.Abort()
	return p.Close()
}

func (p *peer) Local() netip.AddrPort  { return p.LocalAddr().(*net.TCPAddr).AddrPort() }
func (p *peer) Remote() netip.AddrPort { return p.RemoteAddr().(*net.TCPAddr).AddrPort() }

// dial connects to a listener.
func (k *client) dial(to netip.AddrPort) (*peer, error) { return k.dialFor(to, patience) }

func (k *client) dialFor(to netip.AddrPort, timeout time.Duration) (*peer, error) {
	return k.dialFrom(netip.AddrPort{}, to, timeout)
}

func (k *client) dialFrom(from, to netip.AddrPort, timeout time.Duration) (*peer, error) {
	queue := new(waiter.Queue)
	protocol := ipv4.ProtocolNumber
	if to.Addr().Is6() {
		protocol = ipv6.ProtocolNumber
	}
	endpoint, terr := k.stack.NewEndpoint(tcp.ProtocolNumber, protocol, queue)
	if terr != nil {
		return nil, fmt.Errorf("new endpoint: %v", terr)
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	if from.IsValid() {
		if terr := endpoint.Bind(tcpip.FullAddress{Addr: stackAddr(from.Addr()), Port: from.Port()}); terr != nil {
			endpoint.Close()
			return nil, fmt.Errorf("bind: %v", terr)
		}
	}
	terr = endpoint.Connect(tcpip.FullAddress{NIC: nicID, Addr: stackAddr(to.Addr()), Port: to.Port()})
	if _, started := terr.(*tcpip.ErrConnectStarted); !started {
		endpoint.Close()
		return nil, fmt.Errorf("connect: %v", terr)
	}
	select {
	case <-connected:
	case <-time.After(timeout):
		endpoint.Close()
		return nil, errors.New("connect: no answer")
	}
	if terr := endpoint.LastError(); terr != nil {
		endpoint.Close()
		return nil, fmt.Errorf("connect: %v", terr)
	}
	return &peer{gonet.NewTCPConn(queue, endpoint), endpoint}, nil
}
