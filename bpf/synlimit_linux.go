//go:build amd64 || arm64

package bpf

import (
	"encoding/binary"
	"fmt"
)

// SetSYNLimit replaces the limits, both at once. Buckets keep what they owe, up to what the new limits allow.
func (p *Program) SetSYNLimit(limit SYNLimit) error {
	limit, err := limit.complete()
	if err != nil {
		return err
	}
	value := limitValue(limit)
	p.mu.Lock()
	defer p.mu.Unlock()
	next := 1 - p.synCurrent
	if err := p.objects.SynLimits.Put(next, value); err != nil {
		return fmt.Errorf("set the SYN limit: %w", err)
	}
	if err := p.objects.SynCurrent.Put(uint32(0), next); err != nil {
		return fmt.Errorf("set the SYN limit: %w", err)
	}
	p.synCurrent, p.synLimit = next, limit
	return nil
}

// SYNLimit gives the limits in force, with what zero meant filled in.
func (p *Program) SYNLimit() SYNLimit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.synLimit
}

func limitValue(limit SYNLimit) steerSynLimit {
	var value steerSynLimit
	value.Source.Interval, value.Source.Capacity = limit.PerSource.interval(), limit.PerSource.capacity()
	value.Gate.Interval, value.Gate.Capacity = limit.Gate.interval(), limit.Gate.capacity()
	mask4, mask6 := limit.mask4(), limit.mask6()
	value.Mask4 = binary.NativeEndian.Uint32(mask4[:])
	for i := range value.Mask6 {
		value.Mask6[i] = binary.NativeEndian.Uint32(mask6[4*i:])
	}
	return value
}
