//go:build !linux || !(amd64 || arm64)

package bpf

import "net/netip"

// Program cannot be had here: Load always fails with ErrUnsupported.
type Program struct{}

func Load(Options) (*Program, error)                        { return nil, ErrUnsupported }
func Inspect(int) (Attachment, error)                       { return Attachment{}, ErrUnsupported }
func Installed() (Objects, error)                           { return Objects{}, ErrUnsupported }
func (*Program) Attach(int, Mode) error                     { return ErrUnsupported }
func (*Program) Detach() error                              { return ErrUnsupported }
func (*Program) Close() error                               { return ErrUnsupported }
func (*Program) Attachment() (Attachment, error)            { return Attachment{}, ErrUnsupported }
func (*Program) SetSocket(int, int) error                   { return ErrUnsupported }
func (*Program) ClearSocket(int) error                      { return ErrUnsupported }
func (*Program) SetDrain(int, bool) error                   { return ErrUnsupported }
func (*Program) SetHold(int, bool) error                    { return ErrUnsupported }
func (*Program) SetAddresses([]netip.Addr) error            { return ErrUnsupported }
func (*Program) SetPorts([]uint16) error                    { return ErrUnsupported }
func (*Program) AddKernelFlows(...Flow) error               { return ErrUnsupported }
func (*Program) RemoveKernelFlows(...Flow) error            { return ErrUnsupported }
func (*Program) KernelFlows() int                           { return 0 }
func (*Program) SetPrefixes(List, []netip.Prefix) error     { return ErrUnsupported }
func (*Program) AddPrefixes(List, ...netip.Prefix) error    { return ErrUnsupported }
func (*Program) RemovePrefixes(List, ...netip.Prefix) error { return ErrUnsupported }
func (*Program) Prefixes(List) []netip.Prefix               { return nil }
func (*Program) SetSYNLimit(SYNLimit) error                 { return ErrUnsupported }
func (*Program) SYNLimit() SYNLimit                         { return SYNLimit{} }
func (*Program) Counters() (Counters, error)                { return Counters{}, ErrUnsupported }
