package netstack

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/ringmq/ringmq/broker"
)

// nicID is the number of a stack's only interface.
const nicID tcpip.NICID = 1

// newPlane builds the stack on a device. The caller has set GOMAXPROCS to one.
func newPlane(g *Group, device Device) (*Plane, error) {
	p := &Plane{group: g, config: &g.config, device: device}
	p.deliver, p.warmth = p.onFrame, endpointExtent()
	p.attempts = newAttempts(attemptsMax)
	p.budget = newBudget(p.config, &p.counters)
	p.unread = newUnreadBudget(p.config, device.MTU())
	p.events = make([]broker.Event, 0, eventsMax+acceptBatch)
	mac := device.HardwareAddr()
	p.link = &link{device: device, neighbour: g.config.Neighbour, address: tcpip.LinkAddress(mac[:]), counters: &p.counters,
		clock: newTurnClock(g.secrets.base, p.stir), ackDelay: g.config.TCP.AckDelay, flows: newFlowTable(g.config.Backlog), remotes: remoteTable{seed: maphash.MakeSeed()},
		overflow: overflow{max: g.config.OverflowBytes, highTide: &p.counters.overflowHighTide}}
	random := g.secrets.random()
	p.stack = stack.New(stack.Options{
		// No address detection, no router solicitation, no multicast reports: the kernel does all that.
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
		Clock:              p.link.clock,
		SecureRNG:          random,
	})
	var ok bool
	if p.tcp, ok = p.stack.TransportProtocolInstance(tcp.ProtocolNumber).(segmentQueuer); !ok {
		panic("netstack: this version of the stack takes no segments for an endpoint that is known")
	}
	if err := p.build(random); err != nil {
		p.StopAccepting()
		p.stack.Destroy()
		return nil, err
	}
	random.isBuilt.Store(true)
	return p, nil
}

func (p *Plane) build(random *random) error {
	if err := p.setOptions(); err != nil {
		return err
	}
	if err := p.stack.CreateNICWithOptions(nicID, p.link, stack.NICOptions{QDisc: p.link}); err != nil {
		return fmt.Errorf("create the stack's interface: %v", err)
	}
	// Connections whose address the host has lost live on. What may come in at all is decided before the stack.
	if err := p.stack.SetPromiscuousMode(nicID, true); err != nil {
		return fmt.Errorf("accept all addresses: %v", err)
	}
	if err := p.stack.SetSpoofing(nicID, true); err != nil {
		return fmt.Errorf("send from all addresses: %v", err)
	}
	p.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID}, {Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	if err := p.setAddresses(nil, p.config.HostAddresses); err != nil {
		return err
	}
	for _, port := range p.group.ports() {
		if err := p.listen(port, random); err != nil {
			return fmt.Errorf("listen on port %d: %w", port.port, err)
		}
	}
	return nil
}

// setOptions gives the stack its TCP options; their reasons stand in TCPConfig.
func (p *Plane) setOptions() error {
	t := &p.config.TCP
	sack, recovery := tcpip.TCPSACKEnabled(!t.NoSACK), tcpip.TCPRecovery(0)
	if t.RACK {
		recovery = tcpip.TCPRACKLossDetection
	}
	congestion := tcpip.CongestionControlOption(t.CongestionControl)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: t.ReceiveBufferBytes, Default: t.ReceiveBufferBytes, Max: t.ReceiveBufferBytes}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: t.SendBufferBytes, Default: t.SendBufferBytes, Max: t.SendBufferBytes}
	noTuning := tcpip.TCPModerateReceiveBufferOption(false)
	minRTO, timeWait := tcpip.TCPMinRTOOption(t.MinRTO), tcpip.TCPTimeWaitTimeoutOption(t.TimeWait)
	finWait2 := tcpip.TCPLingerTimeoutOption(t.CloseTimeout)
	noNagle := tcpip.TCPDelayEnabled(false) // Nagle waits for the ACK that a peer delays: the 40 ms cliff.
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&sack, &recovery, &congestion, &receive, &send, &noTuning, &minRTO, &timeWait, &finWait2, &noNagle,
	} {
		if err := p.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("TCP option %T: %v", option, err)
		}
	}
	return nil
}

// listen opens the stack's endpoint for a port, on all addresses of its family.
func (p *Plane) listen(port numberedPort, random *random) error {
	l := &listener{plane: p, number: port.number, port: port.port, isV6: port.isV6}
	protocol := ipv4.ProtocolNumber
	if port.isV6 {
		protocol = ipv6.ProtocolNumber
	}
	endpoint, err := p.stack.NewEndpoint(tcp.ProtocolNumber, protocol, &l.queue)
	if err != nil {
		return fmt.Errorf("new endpoint: %v", err)
	}
	l.endpoint = endpoint
	endpoint.SocketOptions().SetV6Only(port.isV6)
	if err := endpoint.Bind(tcpip.FullAddress{Port: port.port}); err != nil {
		endpoint.Close()
		return fmt.Errorf("bind: %v", err)
	}
	l.entry.Init(l, connMask)
	l.queue.EventRegister(&l.entry)
	p.listeners = append(p.listeners, l)
	drawn := len(random.blocks)
	if err := endpoint.Listen(p.config.Backlog); err != nil {
		return fmt.Errorf("%v", err)
	}
	l.cookies = p.cookiesOf(random.blocks[drawn:], port.isV6)
	return nil
}

// setAddresses tells the stack which addresses have come and gone.
func (p *Plane) setAddresses(before, after []netip.Prefix) error {
	for _, prefix := range before {
		if !slices.Contains(after, prefix) {
			if err := p.stack.RemoveAddress(nicID, stackAddr(prefix.Addr())); err != nil {
				return fmt.Errorf("remove address %v: %v", prefix, err)
			}
		}
	}
	for _, prefix := range after {
		if slices.Contains(before, prefix) {
			continue
		}
		address := tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: stackAddr(prefix.Addr()), PrefixLen: prefix.Bits()},
		}
		if prefix.Addr().Is6() {
			address.Protocol = ipv6.ProtocolNumber
		}
		if err := p.stack.AddProtocolAddress(nicID, address, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("add address %v: %v", prefix, err)
		}
	}
	return nil
}

func stackAddr(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.WithZone("").As16())
}
