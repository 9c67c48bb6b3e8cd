//go:build amd64 || arm64

package bpf

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// portsPerWord is how many ports share a word of the map.
const portsPerWord = 64

// portSet has a bit for each port, as the map has.
type portSet [65536 / portsPerWord]uint64

// SetAddresses replaces the addresses whose TCP segments are steered: those that the interface has, 4-in-6 or not, at most
// MaxAddresses. A tagged frame is steered like an untagged one, so that addresses of VLAN sub-interfaces must stand here if,
// and only if, they are to be served. More than MaxAddresses is ErrFull.
func (p *Program) SetAddresses(addresses []netip.Addr) error {
	next := make(map[netip.Addr]struct{}, len(addresses))
	for _, given := range addresses {
		address, err := unicast(given)
		if err != nil {
			return fmt.Errorf("set the addresses to steer: %w", err)
		}
		next[address] = struct{}{}
	}
	if len(next) > MaxAddresses {
		return fmt.Errorf("set the addresses to steer: %d addresses, at most %d: %w", len(next), MaxAddresses, ErrFull)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for address := range next {
		if err := p.addAddress(address); err != nil {
			return err
		}
	}
	for address := range p.addresses {
		if _, stays := next[address]; stays {
			continue
		}
		if err := p.objects.Addresses.Delete(addressKey(address)); err != nil {
			return fmt.Errorf("stop steering %s: %w", address, err)
		}
		delete(p.addresses, address)
	}
	return nil
}

func (p *Program) addAddress(address netip.Addr) error {
	if _, there := p.addresses[address]; there {
		return nil
	}
	if err := p.objects.Addresses.Update(addressKey(address), uint32(0), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("steer %s: %w", address, err)
	}
	p.addresses[address] = struct{}{}
	return nil
}

func addressKey(address netip.Addr) steerAddress {
	family, word := words(address)
	return steerAddress{Family: family, Word: word}
}

// SetPorts replaces the TCP ports that are steered.
func (p *Program) SetPorts(ports []uint16) error {
	var next portSet
	for _, port := range ports {
		if port == 0 {
			return fmt.Errorf("set the ports to steer: 0 is no port that a connection can have")
		}
		next[port/portsPerWord] |= 1 << (port % portsPerWord)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	both := p.ports
	for i, word := range next {
		both[i] |= word
	}
	if err := p.writePorts(&both); err != nil {
		return err
	}
	return p.writePorts(&next)
}

func (p *Program) writePorts(next *portSet) error {
	for i, word := range next {
		if word == p.ports[i] {
			continue
		}
		if err := p.objects.Ports.Put(uint32(i), word); err != nil {
			return fmt.Errorf("set the ports %d to %d: %w", i*portsPerWord, (i+1)*portsPerWord-1, err)
		}
		p.ports[i] = word
	}
	return nil
}
