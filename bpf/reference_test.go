package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// reference decides as the head of steer.c says, in the same order, without a clock: a SYN that is remembered never gets old.
type reference struct {
	addresses               []netip.Addr
	ports                   []uint16
	deny, allow, exempt     []netip.Prefix
	flows                   []Flow
	remembered              map[Flow]bool
	noSocket, drain, hold   bool
	sourceEmpty, gateClosed bool // no token is left, for whomever
}

func u16(b []byte) int { return int(binary.BigEndian.Uint16(b)) }

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (r *reference) judge(frame []byte) Verdict {
	kind, at := u16(frame[12:]), 14
	for tags := 0; (kind == tag8021Q || kind == tag8021AD) && tags < 2; tags++ {
		if len(frame) < at+4 {
			return PassedMalformed
		}
		kind, at = u16(frame[at+2:]), at+4
	}
	group := frame[0]&1 == 1
	switch kind {
	case etherIPv4:
		return r.ipv4(frame[at:], group)
	case etherIPv6:
		return r.ipv6(frame[at:], group)
	}
	return PassedNotIP
}

func (r *reference) ipv4(p []byte, group bool) Verdict {
	if len(p) < 20 || p[0]>>4 != 4 || p[0]&15 < 5 || u16(p[2:]) < int(p[0]&15)*4 || u16(p[2:]) > len(p) {
		return PassedMalformed
	}
	p = p[:u16(p[2:])]
	switch {
	case u16(p[6:])&0x3fff != 0:
		return PassedFragment
	case p[0]&15 != 5:
		return PassedIPOptions
	}
	return r.transport(int(p[9]), address(p[12:16]), address(p[16:20]), p[20:], group)
}

func (r *reference) ipv6(p []byte, group bool) Verdict {
	if len(p) < 40 || p[0]>>4 != 6 || 40+u16(p[4:]) > len(p) {
		return PassedMalformed
	}
	p = p[:40+u16(p[4:])]
	protocol, rest := int(p[6]), p[40:]
	extends := func() bool {
		return slices.Contains([]int{protocolHopByHop, protocolRouting, protocolDestination}, protocol)
	}
	for i := 0; i < 6 && extends(); i++ {
		if len(rest) < 8 || len(rest) < 8*(int(rest[1])+1) {
			return PassedMalformed
		}
		if protocol == protocolHopByHop && i > 0 || protocol == protocolRouting && rest[3] > 0 {
			return PassedExtensionHeaders
		}
		protocol, rest = int(rest[0]), rest[8*(int(rest[1])+1):]
	}
	switch {
	case extends():
		return PassedExtensionHeaders
	case protocol == protocolFragment:
		return PassedFragment
	}
	return r.transport(protocol, address(p[8:24]), address(p[24:40]), rest, group)
}

func (r *reference) transport(protocol int, from, to netip.Addr, p []byte, group bool) Verdict {
	ours := !group && slices.Contains(r.addresses, to)
	switch {
	case protocol == protocolTCP:
		return r.tcp(from, to, p, ours)
	case protocol == protocolICMP && from.Is4():
		return r.icmp(from, to, p, ours, 28, []byte{3, 4})
	case protocol == protocolICMPv6 && from.Is6():
		return r.icmp(from, to, p, ours, 48, []byte{2})
	}
	return PassedOtherProtocol
}

func (r *reference) tcp(from, to netip.Addr, p []byte, ours bool) Verdict {
	if !ours {
		return PassedOtherAddress
	}
	if len(p) < 20 || p[12]>>4 < 5 || len(p) < int(p[12]>>4)*4 {
		return PassedMalformed
	}
	flow := Flow{netip.AddrPortFrom(to, uint16(u16(p[2:]))), netip.AddrPortFrom(from, uint16(u16(p)))}
	switch {
	case !slices.Contains(r.ports, flow.Local.Port()):
		return PassedOtherPort
	case p[13]&(flagSYN|flagACK) == flagSYN|flagACK:
		return PassedSYNACK
	}
	return r.admit(flow, from, p[13]&flagSYN != 0, Redirected)
}

// icmp is given how long the quote must be and how the message must begin.
func (r *reference) icmp(from, to netip.Addr, p []byte, ours bool, quoted int, begins []byte) Verdict {
	if !ours || len(p) < 8+quoted || !slices.Equal(p[:len(begins)], begins) {
		return PassedICMP
	}
	q, ports := p[8:], p[8+quoted-8:]
	flow := Flow{}
	if from.Is4() {
		if q[0] != 0x45 || q[9] != protocolTCP || u16(q[6:])&0x3fff != 0 || address(q[12:16]) != to {
			return PassedICMP
		}
		flow.Remote = netip.AddrPortFrom(address(q[16:20]), uint16(u16(ports[2:])))
	} else {
		if q[0]>>4 != 6 || q[6] != protocolTCP || address(q[8:24]) != to {
			return PassedICMP
		}
		flow.Remote = netip.AddrPortFrom(address(q[24:40]), uint16(u16(ports[2:])))
	}
	flow.Local = netip.AddrPortFrom(to, uint16(u16(ports)))
	if !slices.Contains(r.ports, flow.Local.Port()) {
		return PassedICMP
	}
	return r.admit(flow, from, false, RedirectedICMP)
}

func (r *reference) admit(flow Flow, source netip.Addr, syn bool, redirected Verdict) Verdict {
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(source) })
	}
	switch limited := syn && !in(r.exempt); {
	case in(r.deny) && !in(r.allow):
		return DroppedDenied
	case limited && r.sourceEmpty:
		return DroppedSYNSource
	case limited && r.gateClosed:
		return DroppedSYNGate
	case slices.Contains(r.flows, flow) || r.remembered[flow]:
		return PassedKernelFlow
	case !r.noSocket && !(syn && r.drain):
		return redirected
	case syn:
		r.remembered[flow] = true
	case r.hold:
		return DroppedHeld
	}
	if syn && r.drain {
		return PassedDrain
	}
	return PassedNoSocket
}
