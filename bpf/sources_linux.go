//go:build amd64 || arm64

package bpf

import (
	"fmt"
	"net/netip"
)

// familyBits stand before the address in a prefix's key.
const familyBits = 32

// SetPrefixes replaces a list. Host bits are masked off. Each source is judged by the old list or by the new one, at any
// moment. When the three lists have more than Options.Prefixes different prefixes, the error is ErrFull and nothing changes.
func (p *Program) SetPrefixes(list List, given []netip.Prefix) error {
	return p.change(list, func(old prefixes) (prefixes, error) {
		return old.without(list, old.of(list)).with(list, given)
	})
}

// AddPrefixes adds to a list what is not in it yet, with the errors of SetPrefixes.
func (p *Program) AddPrefixes(list List, more ...netip.Prefix) error {
	return p.change(list, func(old prefixes) (prefixes, error) { return old.with(list, more) })
}

// RemovePrefixes takes from a list what is in it.
func (p *Program) RemovePrefixes(list List, less ...netip.Prefix) error {
	return p.change(list, func(old prefixes) (prefixes, error) { return old.without(list, less), nil })
}

// Prefixes gives a list in order, as a slice of the caller's own.
func (p *Program) Prefixes(list List) []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lists.of(list)
}

func (p *Program) change(list List, edit func(prefixes) (prefixes, error)) error {
	if list >= lists {
		return fmt.Errorf("change %s: there is no such list", list)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next, err := edit(p.lists)
	if err != nil {
		return err
	}
	if len(next) > p.options.Prefixes {
		return fmt.Errorf("change the %s list: %d prefixes in all lists, at most %d: %w", list, len(next), p.options.Prefixes, ErrFull)
	}
	if err := p.use(steerTableTABLE_SOURCES); err != nil {
		return err
	}
	for _, step := range changes(p.sources, next.flatten()) {
		if err := p.write(step); err != nil {
			return fmt.Errorf("change the %s list: %w", list, err)
		}
	}
	p.lists = next
	if len(next) > 0 {
		return nil
	}
	return p.setUse(steerTableTABLE_SOURCES, 0)
}

// write takes one step in the map, and in what we know of it, so that a later change starts from the truth.
func (p *Program) write(step change) error {
	key := prefixKey(step.prefix)
	if step.lists == 0 {
		if err := p.objects.Sources.Delete(key); err != nil {
			return fmt.Errorf("remove %s: %w", step.prefix, err)
		}
		delete(p.sources, step.prefix)
		return nil
	}
	if err := p.objects.Sources.Put(key, steerList(step.lists)); err != nil {
		return fmt.Errorf("enter %s: %w", step.prefix, err)
	}
	p.sources[step.prefix] = step.lists
	return nil
}

func prefixKey(prefix netip.Prefix) steerPrefix {
	return steerPrefix{Length: familyBits + uint32(prefix.Bits()), Address: addressKey(prefix.Addr())}
}
