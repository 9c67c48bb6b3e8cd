//go:build !linux

package epoll

import (
	"net/netip"
	"time"
)

// Poller stands for the Linux one, so that what uses it compiles.
type Poller struct{}

// Readable, Writable: what to watch for.
const (
	Readable Ready = 1
	Writable Ready = 4
	broken   Ready = 8
)

// New always fails: see ErrUnsupported. No other function here is reached without a Poller.
func New(int) (*Poller, error) { return nil, ErrUnsupported }

func (p *Poller) Close()                          {}
func (p *Poller) Wake()                           {}
func (p *Poller) Arm(time.Duration) error         { return ErrUnsupported }
func (p *Poller) Add(int, int32, Ready) error     { return ErrUnsupported }
func (p *Poller) Change(int, int32, Ready) error  { return ErrUnsupported }
func (p *Poller) Wait(time.Duration) (int, error) { return 0, ErrUnsupported }
func (p *Poller) Event(int) (int32, Ready)        { return -1, 0 }

func Read(int, []byte) (int, error)  { return 0, ErrUnsupported }
func Write(int, []byte) (int, error) { return 0, ErrUnsupported }
func Close(int)                      {}
func LimitReceiveBuffer(int, int)    {}
func ResetOnClose(int)               {}
func Accept(int) (int, error)        { return -1, ErrUnsupported }
func Pin(int) (func(), error)        { return nil, ErrUnsupported }
func Urge()                          {}
func ThreadCPU() time.Duration       { return 0 }

func Connect(netip.Addr, netip.AddrPort, bool) (int, error) { return -1, ErrUnsupported }

func Listen(at netip.AddrPort) (int, netip.AddrPort, error) { return -1, at, ErrUnsupported }
