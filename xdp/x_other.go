//go:build !linux

package xdp

import (
	"errors"
	"net/netip"
	"time"

	"github.com/ringmq/ringmq/bpf"
)

var ErrClosed = errors.New("the XDP interface is closed")

var errNotLinux = errors.New("AF_XDP is Linux's: use standard mode")

type Interface struct{}

type Queue struct{}

func Open(Config) (*Interface, error)               { return nil, errNotLinux }
func (*Interface) Start() error                     { return errNotLinux }
func (*Interface) Detach() error                    { return errNotLinux }
func (*Interface) Close() error                     { return nil }
func (*Interface) Name() string                     { return "" }
func (*Interface) Queues() []*Queue                 { return nil }
func (*Interface) Program() *bpf.Program            { return nil }
func (*Interface) Mode() Mode                       { return 0 }
func (*Interface) FallbackReasons() []string        { return nil }
func (*Interface) Addresses() []netip.Prefix        { return nil }
func (*Interface) KernelFlows() ([]bpf.Flow, error) { return nil, errNotLinux }
func (*Queue) Number() int                          { return 0 }
func (*Queue) Receive(int, func([]byte)) int        { return 0 }
func (*Queue) Reserve() []byte                      { return nil }
func (*Queue) Commit([]byte, int)                   {}
func (*Queue) Discard([]byte)                       {}
func (*Queue) Kick()                                {}
func (*Queue) Wait(time.Duration) error             { return ErrClosed }
func (*Queue) Wake()                                {}
func (*Queue) Buffer() []byte                       { return nil }
func (*Queue) MTU() int                             { return 0 }
func (*Queue) HardwareAddr() [6]byte                { return [6]byte{} }
func (*Queue) Stats() Stats                         { return Stats{} }
func (*Queue) Conservation() Conservation           { return Conservation{} }
