package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// wire is a remote that sends exactly the segments that a test wants: no TCP, and no allocation.
type wire struct {
	t          testing.TB
	end        *cable.End
	plane      *Plane
	local      netip.AddrPort // the wire's own
	remote     netip.AddrPort // the plane's
	link       linkAddr       // the plane's, and the VLAN tags to send
	mac        [6]byte        // the wire's own
	extensions []byte         // IPv6 extension headers to send, the first a destination options header
	options    []byte         // of TCP, in every segment
	seq, ack   uint32
	acked      uint32 // what the plane last acknowledged
	window     uint16
	buffer     [2048]byte
	heard      []heard
	onFrame    func([]byte)
}

// heard is a segment of the plane.
type heard struct {
	flags    uint8
	seq, ack uint32
	window   uint16
	payload  int
	options  int
	link     linkAddr
	to       [6]byte
	bytes    int // of the IP packet
}

func newWire(t testing.TB, c *cable.Cable, p *Plane, local, remote netip.AddrPort) *wire {
	w := &wire{t: t, end: c.Far(), plane: p, local: local, remote: remote, mac: c.Far().HardwareAddr(), seq: 1000, window: 65535}
	w.link.mac = p.device.HardwareAddr()
	w.onFrame = w.hear
	return w
}

// newWireV4 is a wire over a clean cable to a plane of its own.
func newWireV4(t testing.TB, config Config) *wire {
	c := cable.New(cable.Config{})
	g := mustOpen(t, config, c)
	return newWire(t, c, g.Planes()[0], netip.MustParseAddrPort("198.18.0.9:5000"), dialled(0))
}

// frame builds a segment with valid checksums; it is valid until the next one.
func (w *wire) frame(flags uint8, payload []byte) []byte {
	b := w.buffer[:]
	clear(b[:128])
	etherType := uint16(etherTypeIPv4)
	if w.local.Addr().Is6() {
		etherType = etherTypeIPv6
	}
	n := putLinkHeader(b, w.link, w.mac, etherType)
	tcpBytes := tcpHeaderBytes + len(w.options) + len(payload)
	ip := b[n:]
	source, destination := w.local.Addr().AsSlice(), w.remote.Addr().AsSlice()
	if etherType == etherTypeIPv4 {
		ip[0], ip[8], ip[9] = 0x45, 64, protocolTCP
		binary.BigEndian.PutUint16(ip[2:], uint16(ipv4HeaderBytes+tcpBytes))
		copy(ip[12:], source)
		copy(ip[16:], destination)
		binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip[:ipv4HeaderBytes], 0))
		n += ipv4HeaderBytes
	} else {
		ip[0], ip[6], ip[7] = 0x60, protocolTCP, 64
		if len(w.extensions) > 0 {
			ip[6] = 60
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(len(w.extensions)+tcpBytes))
		copy(ip[8:], source)
		copy(ip[24:], destination)
		n += ipv6HeaderBytes
		n += copy(b[n:], w.extensions)
	}
	t := b[n : n+tcpBytes]
	binary.BigEndian.PutUint16(t, w.local.Port())
	binary.BigEndian.PutUint16(t[2:], w.remote.Port())
	binary.BigEndian.PutUint32(t[4:], w.seq)
	binary.BigEndian.PutUint32(t[8:], w.ack)
	t[12], t[13] = byte(tcpHeaderBytes+len(w.options))<<2, flags
	binary.BigEndian.PutUint16(t[14:], w.window)
	copy(t[tcpHeaderBytes:], w.options)
	copy(t[tcpHeaderBytes+len(w.options):], payload)
	sum := checksum.Checksum(source, checksum.Checksum(destination, 0))
	t[16], t[17] = 0, 0
	binary.BigEndian.PutUint16(t[16:], ^checksum.Checksum(t, fold(uint32(sum)+protocolTCP+uint32(tcpBytes))))
	return b[:n+tcpBytes]
}

// put sends a frame as it is.
func (w *wire) put(frame []byte) {
	room := w.end.Reserve()
	if room == nil {
		w.t.Fatal("the cable has no frame")
	}
	w.end.Commit(room, copy(room, frame))
	w.end.Kick()
}

// send sends a segment and counts its bytes as sent.
func (w *wire) send(flags uint8, payload []byte) {
	w.put(w.frame(flags, payload))
	w.seq += uint32(len(payload))
	if flags&(tcpSyn|tcpFin) != 0 {
		w.seq++
	}
}

// hear notes a frame of the plane for this wire.
func (w *wire) hear(frame []byte) {
	var r received
	if r.parse(frame, [6]byte(frame[:6])) != keep || r.isICMP || r.key.localAddr() != w.local {
		return
	}
	t := frame[r.transport:r.end]
	header := int(t[12]>>4) * 4
	w.heard = append(w.heard, heard{flags: r.flags, seq: r.seq, ack: r.ack, window: binary.BigEndian.Uint16(t[14:]),
		payload: len(t) - header, options: header - tcpHeaderBytes, link: r.link, to: [6]byte(frame[:6]), bytes: r.end - r.network})
}

// listen takes what the plane has sent so far, and counts it as received.
func (w *wire) listen() []heard {
	w.heard = w.heard[:0]
	for w.end.Receive(receiveBatch, w.onFrame) > 0 {
	}
	for _, h := range w.heard {
		w.acked = h.ack
		next := h.seq + uint32(h.payload)
		if h.flags&(tcpSyn|tcpFin) != 0 {
			next++
		}
		if h.flags&tcpRst == 0 && (int32(next-w.ack) > 0 || h.flags&tcpSyn != 0) {
			w.ack = next
		}
	}
	return w.heard
}

// turn has the plane take one turn and returns its events, as a copy.
func (w *wire) turn() []broker.Event {
	w.t.Helper()
	events, err := w.plane.Wait(0)
	if err != nil {
		w.t.Fatal(err)
	}
	return append([]broker.Event(nil), events...)
}

// until turns the plane until f is content with the events of a turn.
func (w *wire) until(f func(broker.Event) bool) broker.Event {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, e := range w.turn() {
			if f(e) {
				return e
			}
		}
	}
	w.t.Fatalf("it did not happen in %v", patience)
	return broker.Event{}
}

// untilHeard turns and flushes the plane until it has sent a segment that f wants.
func (w *wire) untilHeard(f func(heard) bool) heard {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		w.turn()
		w.plane.Flush()
		for _, h := range w.listen() {
			if f(h) {
				return h
			}
		}
	}
	w.t.Fatalf("the plane did not send it in %v", patience)
	return heard{}
}

// quiet turns the plane for a while and returns all that it sent.
func (w *wire) quiet() (all []heard) {
	for deadline := time.Now().Add(20 * time.Millisecond); time.Now().Before(deadline); {
		w.turn()
		w.plane.Flush()
		all = append(all, w.listen()...)
	}
	return all
}

// sendSyn sends a SYN that offers a maximum segment size of 1440 bytes.
func (w *wire) sendSyn() {
	options := w.options
	w.options = append([]byte{2, 4, 1440 >> 8, 1440 & 0xff}, options...)
	w.send(tcpSyn, nil)
	w.options = options
}

// connect shakes hands and returns the connection.
func (w *wire) connect() broker.Conn {
	w.t.Helper()
	w.sendSyn()
	w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	w.send(tcpAck, nil)
	e := w.until(func(e broker.Event) bool { return e.Kind == broker.Accepted })
	e.Conn.SetToken(uint64(w.local.Port()))
	w.plane.Flush()
	return e.Conn
}

// exchange sends bytes, has the plane read and answer them in one turn, and takes the answer.
func (w *wire) exchange(conn broker.Conn, ask []byte, answer [][]byte) {
	w.send(tcpAck, ask)
	for read := 0; read < len(ask); {
		events, err := w.plane.Wait(patience)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind&broker.Readable == 0 {
				continue
			}
			n, err := e.Conn.Read(w.plane.Buffer())
			if err != nil {
				w.t.Fatal(err)
			}
			read += n
		}
	}
	if _, err := conn.Write(answer); err != nil {
		w.t.Fatal(err)
	}
	w.plane.Flush()
	w.listen()
}

func clientAddrPort() netip.AddrPort   { return netip.MustParseAddrPort("198.18.0.9:5000") }
func clientAddrPortV6() netip.AddrPort { return netip.MustParseAddrPort("[2001:2::9]:5000") }

// connectPastEvents shakes hands while events of other connections may come: those are closed.
func (w *wire) connectPastEvents() broker.Conn {
	w.t.Helper()
	w.sendSyn()
	w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	w.send(tcpAck, nil)
	e := w.until(func(e broker.Event) bool {
		if e.Kind == broker.Accepted && e.Conn.RemoteAddr() == w.local {
			return true
		}
		e.Conn.Close()
		return false
	})
	return e.Conn
}

// mend makes the checksums of a TCP segment right.
func (w *wire) mend(frame []byte) {
	var r received
	if r.parse(frame, w.link.mac) != keep || r.isICMP {
		return
	}
	ip, t := frame[r.network:r.transport], frame[r.transport:r.end]
	if !r.isV6 {
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
	}
	addresses := ip[12:20]
	if r.isV6 {
		addresses = ip[8:40]
	}
	t[16], t[17] = 0, 0
	sum := checksum.Checksum(addresses, fold(protocolTCP+uint32(len(t))))
	binary.BigEndian.PutUint16(t[16:], ^checksum.Checksum(t, sum))
}
