//go:build linux

package lab

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// port is an AF_PACKET socket on an interface. A one-way port does not hear what is sent on this side.
type port struct{ fd int }

func openPort(t *testing.T, namespace, name string, oneWay bool) *port {
	t.Helper()
	ignore := 0
	if oneWay {
		ignore = 1
	}
	p, err := within(namespace, func() (*port, error) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil, err
		}
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, ignore); err != nil {
			return nil, err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return nil, err
		}
		return &port{fd}, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// receive gives a frame, valid until the next, or nil when none has come for a while.
func (p *port) receive(buffer []byte, patience time.Duration) []byte {
	wait := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(wait, int(patience.Milliseconds())); err != nil || n == 0 {
		return nil
	}
	n, _, err := unix.Recvfrom(p.fd, buffer, unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	return buffer[:n]
}

// send loses the frame when the interface is full: that is what links do.
func (p *port) send(frame []byte) { _, _ = unix.Write(p.fd, frame) }

func (p *port) close() { _ = unix.Close(p.fd) }

// record lets f cause traffic on an interface and gives the TCP segments of the clients' side among it.
func (s *scene) record(f func()) (frames [][]byte) {
	s.t.Helper()
	p := openPort(s.t, s.Client, s.ClientIf, false)
	defer p.close()
	f()
	for buffer := make([]byte, 1<<16); ; {
		frame := p.receive(buffer, 200*time.Millisecond)
		if frame == nil {
			return frames
		}
		if at := tcpAt(frame); at > 0 && binary.BigEndian.Uint16(frame[at+2:]) == 1883 {
			frames = append(frames, append([]byte(nil), frame...))
		}
	}
}

const (
	ethernetBytes = 14
	ipv4Bytes     = 20
	ipv6Bytes     = 40
	tcpBytes      = 20
	protocolTCP   = 6
)

// tcpAt is where the TCP header begins: 0 in frames that are none of TCP over IPv4 or IPv6 without options.
func tcpAt(frame []byte) int {
	switch {
	case len(frame) >= ethernetBytes+ipv4Bytes+tcpBytes && frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == protocolTCP:
		return ethernetBytes + ipv4Bytes
	case len(frame) >= ethernetBytes+ipv6Bytes+tcpBytes && frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == protocolTCP:
		return ethernetBytes + ipv6Bytes
	}
	return 0
}

// seal sets the checksums of a TCP segment right.
func seal(frame []byte) {
	at := tcpAt(frame)
	if at == 0 {
		return
	}
	addresses := frame[at-8 : at]
	if at == ethernetBytes+ipv6Bytes {
		addresses = frame[at-32 : at]
	} else {
		ip := frame[ethernetBytes:at]
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))
	}
	segment := frame[at:]
	segment[16], segment[17] = 0, 0
	binary.BigEndian.PutUint16(segment[16:], ^sum(sum(uint16(protocolTCP+len(segment)), addresses), segment))
}

// sum is the Internet checksum (RFC 1071) before its complement, from a start that counts in.
func sum(start uint16, data []byte) uint16 {
	total := uint64(start)
	for i := 0; i+1 < len(data); i += 2 {
		total += uint64(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		total += uint64(data[len(data)-1]) << 8
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
