package probe

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel's generic netlink family netdev (Documentation/netlink/specs/netdev.yaml), since Linux 6.3; queues and NAPI
// instances since 6.8.
const (
	netdevFamily       = "netdev"
	netdevVersion      = 1
	netdevDeviceGet    = 1  // NETDEV_CMD_DEV_GET
	netdevQueueGet     = 10 // NETDEV_CMD_QUEUE_GET
	netdevNAPIGet      = 11 // NETDEV_CMD_NAPI_GET
	deviceIndex        = 1  // NETDEV_A_DEV_IFINDEX
	deviceFeatures     = 3  // NETDEV_A_DEV_XDP_FEATURES
	deviceZeroCopySegs = 4  // NETDEV_A_DEV_XDP_ZC_MAX_SEGS
	queueNumber        = 1  // NETDEV_A_QUEUE_ID
	queueIndex         = 2  // NETDEV_A_QUEUE_IFINDEX
	queueType          = 3  // NETDEV_A_QUEUE_TYPE, 0 for RX
	queueNAPI          = 4  // NETDEV_A_QUEUE_NAPI_ID
	queueSocket        = 7  // NETDEV_A_QUEUE_XSK, there when an AF_XDP socket is bound (6.15)
	napiIndex          = 1  // NETDEV_A_NAPI_IFINDEX
	napiID             = 2  // NETDEV_A_NAPI_ID
	napiIRQ            = 3  // NETDEV_A_NAPI_IRQ

	actBasic          = 1 << 0 // NETDEV_XDP_ACT_*
	actRedirect       = 1 << 1
	actZeroCopy       = 1 << 3
	actOffload        = 1 << 4
	actReceiveScatter = 1 << 5
)

type attributes map[uint16]syscall.NetlinkRouteAttr

// parseAttributes takes the flags (NLA_F_NESTED) off the kinds of attributes.
func parseAttributes(data []byte) (attributes, error) {
	// The library, v1.3.1, reads over the end of a last attribute without padding.
	data = append(slices.Clip(data), make([]byte, -len(data)&3)...)
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, fmt.Errorf("netlink message: %w", err)
	}
	found := attributes{}
	for _, a := range list {
		found[a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a
	}
	return found, nil
}

// number reads an attribute of 4 or 8 bytes: the kernel's uint grows as needed.
func (a attributes) number(kind uint16) (uint64, bool) {
	value := a[kind].Value
	switch len(value) {
	case 4:
		return uint64(nl.NativeEndian().Uint32(value)), true
	case 8:
		return nl.NativeEndian().Uint64(value), true
	}
	return 0, false
}

// genericHead is struct genlmsghdr: command, version, and two bytes that must be zero. The library's own type leaves in them
// whatever lies behind it in memory, which this family refuses.
type genericHead [4]byte

// Len and Serialize make it a part of a request.
func (h genericHead) Len() int          { return len(h) }
func (h genericHead) Serialize() []byte { return h[:] }

// answerTimeoutSeconds bounds the wait for the kernel, which answers at once.
const answerTimeoutSeconds = 5

// netdev asks the family; a dump gives every object of the interface. The library's own way of asking ends a dump at the
// first object: this family does not set NLM_F_MULTI.
func netdev(command uint8, flags int, kind, index int) ([]attributes, error) {
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return nil, err
	}
	socket, err := nl.Subscribe(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	request := nl.NewNetlinkRequest(int(family.ID), flags|unix.NLM_F_ACK)
	request.AddData(genericHead{command, netdevVersion})
	request.AddData(nl.NewRtAttr(kind, nl.Uint32Attr(uint32(index))))
	if err := socket.SetReceiveTimeout(&unix.Timeval{Sec: answerTimeoutSeconds}); err != nil {
		return nil, err
	}
	if err := socket.Send(request); err != nil {
		return nil, err
	}
	return readObjects(socket)
}

// readObjects reads until the kernel says that this was all, which NLM_F_ACK asks for where there is no dump.
func readObjects(socket *nl.NetlinkSocket) ([]attributes, error) {
	var objects []attributes
	for {
		messages, _, err := socket.Receive()
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == unix.NLMSG_DONE || m.Header.Type == unix.NLMSG_ERROR:
				return objects, lastError(m.Data)
			case len(m.Data) < nl.SizeofGenlmsg:
				return nil, errors.New("netlink message too short")
			}
			object, err := parseAttributes(m.Data[nl.SizeofGenlmsg:])
			if err != nil {
				return nil, err
			}
			objects = append(objects, object)
		}
	}
}

// lastError reads the error number with which an answer ends, negative, or 0 for none.
func lastError(data []byte) error {
	if len(data) < 4 {
		return errors.New("netlink message too short")
	}
	if code := int32(nl.NativeEndian().Uint32(data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

func readFeatures(index int) Fact[Features] {
	objects, err := netdev(netdevDeviceGet, 0, deviceIndex, index)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return unknown[Features]("kernels before Linux 6.3 do not list what a driver can do")
	}
	if err == nil && len(objects) != 1 {
		err = fmt.Errorf("the kernel lists %d devices of this number", len(objects))
	}
	if err != nil {
		return unknown[Features](why(err))
	}
	bits, found := objects[0].number(deviceFeatures)
	if !found {
		return unknown[Features]("the kernel's answer has no XDP features")
	}
	segments, _ := objects[0].number(deviceZeroCopySegs)
	return known(Features{
		Basic: bits&actBasic != 0, Redirect: bits&actRedirect != 0, ZeroCopy: bits&actZeroCopy != 0,
		Offload: bits&actOffload != 0, ReceiveScatter: bits&actReceiveScatter != 0, ZeroCopySegments: int(segments),
	})
}

// netdevQueue is what the kernel knows of an RX queue.
type netdevQueue struct {
	irq    int // -1 when the driver has not told
	socket bool
}

// readNetdevQueues gives RX queues by number, as far as the kernel tells; before Linux 6.8 none.
func readNetdevQueues(index int) map[int]netdevQueue {
	queues, err := netdev(netdevQueueGet, unix.NLM_F_DUMP, queueIndex, index)
	if err != nil {
		return nil
	}
	napis, _ := netdev(netdevNAPIGet, unix.NLM_F_DUMP, napiIndex, index)
	found := map[int]netdevQueue{}
	for _, q := range queues {
		number, isQueue := q.number(queueNumber)
		kind, hasKind := q.number(queueType)
		if !isQueue || !hasKind || kind != 0 {
			continue
		}
		_, socket := q[queueSocket]
		found[int(number)] = netdevQueue{irq: interruptOf(q, napis), socket: socket}
	}
	return found
}

func interruptOf(queue attributes, napis []attributes) int {
	id, found := queue.number(queueNAPI)
	at := slices.IndexFunc(napis, func(n attributes) bool {
		other, ok := n.number(napiID)
		return found && ok && other == id
	})
	if at < 0 {
		return -1
	}
	irq, found := napis[at].number(napiIRQ)
	if !found {
		return -1
	}
	return int(irq)
}
