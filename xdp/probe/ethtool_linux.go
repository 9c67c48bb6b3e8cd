package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool asks a driver through SIOCETHTOOL (include/uapi/linux/ethtool.h). The newer way by netlink has no flow rules, and
// RSS only since Linux 6.3. None of the questions asked here needs a privilege.
type ethtool struct {
	fd   int
	name [unix.IFNAMSIZ]byte
}

func openEthtool(name string) (*ethtool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	e := &ethtool{fd: fd}
	copy(e.name[:len(e.name)-1], name)
	return e, nil
}

func (e *ethtool) close() { _ = unix.Close(e.fd) }

// ifreq is struct ifreq with a pointer in its union (include/uapi/linux/if.h).
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ask sends a command with its buffer, which starts with the command's number, and leaves the answer in it. The buffer is of
// 32-bit words: that is how the kernel's structures are aligned.
func (e *ethtool) ask(buffer []uint32) error {
	request := ifreq{name: e.name, data: unsafe.Pointer(&buffer[0])}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(buffer)
	if errno != 0 {
		return errno
	}
	return nil
}

func (e *ethtool) driver() (driver, version, bus string) {
	info, err := unix.IoctlGetEthtoolDrvinfo(e.fd, unix.ByteSliceToString(e.name[:]))
	if err != nil {
		return "", "", ""
	}
	return unix.ByteSliceToString(info.Driver[:]), unix.ByteSliceToString(info.Version[:]), unix.ByteSliceToString(info.Bus_info[:])
}

// channels asks for struct ethtool_channels.
func (e *ethtool) channels() Fact[Channels] {
	b := make([]uint32, 9)
	b[0] = unix.ETHTOOL_GCHANNELS
	err := e.ask(b)
	return factOf(Channels{
		MaxReceive: int(b[1]), MaxTransmit: int(b[2]), MaxCombined: int(b[4]),
		Receive: int(b[5]), Transmit: int(b[6]), Combined: int(b[8]),
	}, err)
}

// rings asks for struct ethtool_ringparam.
func (e *ethtool) rings() Fact[Rings] {
	b := make([]uint32, 9)
	b[0] = unix.ETHTOOL_GRINGPARAM
	err := e.ask(b)
	return factOf(Rings{MaxReceive: int(b[1]), MaxTransmit: int(b[4]), Receive: int(b[5]), Transmit: int(b[8])}, err)
}

// rss asks for struct ethtool_rxfh, first for the sizes of its tables and then for them.
func (e *ethtool) rss(queues int) Fact[RSS] {
	const headWords, tableMaxBytes = 6, 1 << 20
	b := make([]uint32, headWords)
	b[0] = unix.ETHTOOL_GRSSH
	if err := e.ask(b); err != nil {
		return unknown[RSS](why(err))
	}
	slots, keyBytes := int(b[2]), int(b[3])
	if slots > tableMaxBytes || keyBytes > tableMaxBytes {
		return unknown[RSS]("the driver gives impossible sizes")
	}
	b = make([]uint32, headWords+slots+(keyBytes+3)/4)
	b[0], b[2], b[3] = unix.ETHTOOL_GRSSH, uint32(slots), uint32(keyBytes)
	if err := e.ask(b); err != nil {
		return unknown[RSS](why(err))
	}
	if slots == 0 {
		return unknown[RSS]("the driver does not tell")
	}
	return known(RSS{
		Slots: countSlots(b[headWords:headWords+slots], queues), HashKeyBytes: keyBytes, HashFunction: hashFunction(b[4]),
	})
}

// countSlots counts the slots of an indirection table by queue.
func countSlots(table []uint32, queues int) []int {
	const queuesMax = 1 << 16 // of the kernel's rings; a driver's slip must not fill the memory
	counts := make([]int, queues)
	for _, queue := range table {
		if queue >= queuesMax {
			continue
		}
		for int(queue) >= len(counts) {
			counts = append(counts, 0)
		}
		counts[queue]++
	}
	return counts
}

// hashFunction names the lowest byte of the word that has it: ETH_RSS_HASH_*.
func hashFunction(word uint32) string {
	var bytes [4]byte
	binary.NativeEndian.PutUint32(bytes[:], word)
	for bit, name := range [...]string{"toeplitz", "xor", "crc32"} {
		if bytes[0]>>bit&1 != 0 {
			return name
		}
	}
	return ""
}

// The layout of struct ethtool_rxnfc in words and, for what the network's byte order has, in bytes.
const (
	flowWords      = 48 // sizeof(struct ethtool_rxnfc) / 4
	flowTypeBytes  = 16 // fs.flow_type
	flowValueBytes = 20 // fs.h_u
	flowMaskBytes  = 92 // fs.m_u
	flowCookie     = 168
	flowLocation   = 176
	flowCountWord  = 46 // rule_cnt
	flowRulesMax   = 4096
	flowTCP4       = 0x01
	flowTCP6       = 0x05
	flowTypeMask   = 1<<29 - 1 // without FLOW_EXT, FLOW_MAC_EXT and FLOW_RSS
	flowPortOf4    = 10        // pdst in struct ethtool_tcpip4_spec
	flowPortOf6    = 34        // pdst in struct ethtool_tcpip6_spec
	flowQueueMask  = 1<<32 - 1 // ETHTOOL_RX_FLOW_SPEC_RING
	flowNoQueue    = 1<<64 - 2 // RX_CLS_FLOW_WAKE; one more is RX_CLS_FLOW_DISC
)

// flowRules asks for the locations of all rules and then for each.
func (e *ethtool) flowRules() Fact[[]FlowRule] {
	b := make([]uint32, flowWords)
	b[0] = unix.ETHTOOL_GRXCLSRLCNT
	if err := e.ask(b); err != nil {
		return unknown[[]FlowRule](why(err))
	}
	count := min(int(b[flowCountWord]), flowRulesMax)
	all := make([]uint32, flowWords+count)
	all[0], all[flowCountWord] = unix.ETHTOOL_GRXCLSRLALL, uint32(count)
	if count > 0 {
		if err := e.ask(all); err != nil {
			return unknown[[]FlowRule](why(err))
		}
	}
	var rules []FlowRule
	for _, location := range all[flowCountWord+1:][:count] { // rule_locs follows rule_cnt without padding
		rule, err := e.flowRule(location)
		if errors.Is(err, unix.ENOENT) {
			continue // Gone meanwhile.
		}
		if err != nil {
			return unknown[[]FlowRule](why(err))
		}
		rules = append(rules, rule)
	}
	return known(rules)
}

func (e *ethtool) flowRule(location uint32) (FlowRule, error) {
	b := make([]uint32, flowWords)
	b[0], b[flowLocation/4] = unix.ETHTOOL_GRXCLSRULE, location
	if err := e.ask(b); err != nil {
		return FlowRule{}, err
	}
	data := make([]byte, 0, 4*len(b))
	for _, word := range b {
		data = binary.NativeEndian.AppendUint32(data, word)
	}
	return parseFlowRule(data), nil
}

// parseFlowRule reads struct ethtool_rxnfc.
func parseFlowRule(data []byte) FlowRule {
	rule := FlowRule{Location: int(binary.NativeEndian.Uint32(data[flowLocation:])), Queue: -1}
	if cookie := binary.NativeEndian.Uint64(data[flowCookie:]); cookie < flowNoQueue {
		rule.Queue = int(cookie & flowQueueMask)
	}
	port := 0
	switch binary.NativeEndian.Uint32(data[flowTypeBytes:]) & flowTypeMask {
	case flowTCP4:
		port = flowPortOf4
	case flowTCP6:
		port = flowPortOf6
	default:
		return rule
	}
	if binary.BigEndian.Uint16(data[flowMaskBytes+port:]) == 0xffff {
		value := binary.BigEndian.Uint16(data[flowValueBytes+port:])
		rule.Ports = []PortRange{{value, value}}
	}
	return rule
}

// offloads asks for the names of all features and then which are on.
func (e *ethtool) offloads() Fact[Offloads] {
	active, err := e.features()
	if err != nil {
		return unknown[Offloads](why(err))
	}
	check := active["tx-checksum-ip-generic"]
	if !check.On {
		check = active["tx-checksum-ipv4"]
	}
	return known(Offloads{
		LRO: active["rx-lro"], GROHardware: active["rx-gro-hw"], VLANReceive: active["rx-vlan-hw-parse"], ReceiveFCS: active["rx-fcs"],
		TransmitCheck: check,
	})
}

func (e *ethtool) features() (map[string]Offload, error) {
	const set, nameBytes, namesMax = 4, 32, 1024 // ETH_SS_FEATURES, ETH_GSTRING_LEN
	info := []uint32{unix.ETHTOOL_GSSET_INFO, 0, 0, 0, 0}
	binary.NativeEndian.PutUint64(wordsAsBytes(info[2:4]), 1<<set)
	if err := e.ask(info); err != nil {
		return nil, err
	}
	count := int(info[4])
	if count > namesMax {
		return nil, errors.New("the kernel gives an impossible number of features")
	}
	names := make([]uint32, 3+count*nameBytes/4)
	names[0], names[1], names[2] = unix.ETHTOOL_GSTRINGS, set, uint32(count)
	if err := e.ask(names); err != nil {
		return nil, err
	}
	blocks := (count + 31) / 32
	bits := make([]uint32, 2+4*blocks) // of each block: available, requested, active, never changed
	bits[0], bits[1] = unix.ETHTOOL_GFEATURES, uint32(blocks)
	if err := e.ask(bits); err != nil {
		return nil, err
	}
	found := map[string]Offload{}
	text := wordsAsBytes(names[3:])
	for i := range count {
		name := text[i*nameBytes : (i+1)*nameBytes]
		is := func(word int) bool { return bits[2+i/32*4+word]>>(i%32)&1 != 0 }
		found[string(name[:max(0, bytes.IndexByte(name, 0))])] = Offload{On: is(2), Fixed: !is(0) || is(3)}
	}
	return found, nil
}

// wordsAsBytes aliases the words' memory.
func wordsAsBytes(words []uint32) []byte {
	if len(words) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 4*len(words))
}
