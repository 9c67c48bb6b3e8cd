package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// followMTU has connections send smaller segments once the interface's MTU has become smaller: the stack looks at it when they begin.
// When it grows again, they keep to what they have.
func (p *Plane) followMTU() {
	mtu := p.device.MTU()
	if mtu < p.mtu {
		p.slab.each(func(c *conn) {
			if c.flags&untouchable != 0 || c.isBroken() {
				return
			}
			ipBytes := ipv4HeaderBytes
			if c.flow.isV6 {
				ipBytes = ipv6HeaderBytes
			}
			c.endpoint.HandleError(tooBig(max(0, mtu-ipBytes)), nil)
		})
	}
	p.mtu = mtu
}

// tooBig says as an ICMP error would how many bytes an IP packet may carry.
type tooBig uint32

func (tooBig) Kind() stack.TransportErrorKind { return stack.PacketTooBigTransportError }
func (tooBig) Origin() tcpip.SockErrOrigin    { return tcpip.SockExtErrorOriginLocal }
func (tooBig) Type() uint8                    { return 0 }
func (tooBig) Code() uint8                    { return 0 }
func (t tooBig) Info() uint32                 { return uint32(t) }

var _ stack.TransportError = tooBig(0)
