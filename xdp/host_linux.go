package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is what the kernel says about the interface.
type host struct {
	index     int
	up        bool // Administratively.
	running   bool // And with a carrier.
	mtu       int
	mac       [6]byte
	queues    int // RX queues in use.
	program   uint32
	addresses []netip.Prefix // Sorted.
}

// kernel asks the kernel, in the network namespace of the thread that made it.
type kernel struct {
	handle *netlink.Handle
	ioctl  int // A socket for ethtool.
}

func newKernel() (*kernel, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	return &kernel{handle, fd}, nil
}

func (k *kernel) close() error {
	k.handle.Close()
	return unix.Close(k.ioctl)
}

var errNoInterface = errors.New("no such interface")

// look gives the state of the interface of this name, or errNoInterface.
func (k *kernel) look(name string) (host, error) {
	link, err := k.handle.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return host{}, errNoInterface
	}
	if err != nil {
		return host{}, fmt.Errorf("ask about the interface: %w", err)
	}
	attributes := link.Attrs()
	h := host{
		index:   attributes.Index,
		up:      attributes.Flags&net.FlagUp != 0,
		running: attributes.Flags&net.FlagUp != 0 && attributes.RawFlags&unix.IFF_RUNNING != 0,
		mtu:     attributes.MTU,
		queues:  k.channels(name, attributes.NumRxQueues),
	}
	copy(h.mac[:], attributes.HardwareAddr)
	if attributes.Xdp != nil {
		h.program = attributes.Xdp.ProgId
	}
	h.addresses, err = k.addresses(link)
	return h, err
}

func (k *kernel) addresses(link netlink.Link) ([]netip.Prefix, error) {
	found, err := dump(func() ([]netlink.Addr, error) { return k.handle.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("ask for the interface's addresses: %w", err)
	}
	var all []netip.Prefix
	for _, a := range found {
		address, ok := netip.AddrFromSlice(a.IP)
		if !ok || address.IsMulticast() {
			continue // A group's (ip address add … autojoin).
		}
		ones, _ := a.Mask.Size()
		all = append(all, netip.PrefixFrom(address.Unmap(), ones))
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all, nil
}

// dump repeats one that the kernel could not make in one piece, for what it lists has changed meanwhile. The last one has to do.
func dump[T any](ask func() ([]T, error)) (list []T, err error) {
	const attemptsMax = 5
	for range attemptsMax {
		if list, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, nil
}

// elsewhere gives the addresses of all interfaces but one.
func (k *kernel) elsewhere(index int) (all []netip.Addr, err error) {
	found, err := dump(func() ([]netlink.Addr, error) { return k.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("ask for the host's addresses: %w", err)
	}
	for _, a := range found {
		if address, ok := netip.AddrFromSlice(a.IP); ok && a.LinkIndex != index {
			all = append(all, address.Unmap())
		}
	}
	return all, nil
}

// ethtoolChannels is struct ethtool_channels of linux/ethtool.h.
type ethtoolChannels struct {
	command                                     uint32
	maxRX, maxTX, maxOther, maxCombined         uint32
	rxCount, txCount, otherCount, combinedCount uint32
}

// ifreqData is struct ifreq of linux/if.h with its union as a pointer.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

const ethtoolGetChannels = 0x3c // ETHTOOL_GCHANNELS

// channels is the number of RX queues in use, which may be less than the driver has allocated: that is all that netlink
// tells, and the answer for a driver that does not tell either.
func (k *kernel) channels(name string, allocated int) int {
	c := ethtoolChannels{command: ethtoolGetChannels}
	request := ifreqData{data: unsafe.Pointer(&c)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.ioctl), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if n := int(c.rxCount + c.combinedCount); errno == 0 && n > 0 {
		return n
	}
	return max(allocated, 1)
}
