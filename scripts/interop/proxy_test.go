package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// The kinds of packets that the proxy looks for, as the high half of their first byte.
const (
	connect     = 1
	connack     = 2
	publish     = 3
	unsubscribe = 10
	pingreq     = 12
	disconnect  = 14
)

// packet is a whole Control Packet on its way through the proxy.
type packet struct {
	bytes []byte
	head  int // bytes of the fixed header
	count int // PUBLISH packets that went this way before, for a PUBLISH
	five  bool
}

func (p packet) kind() byte { return p.bytes[0] >> 4 }

func (p packet) qos() byte { return p.bytes[0] >> 1 & 3 }

// topic is that of a PUBLISH.
func (p packet) topic() string {
	n := int(binary.BigEndian.Uint16(p.bytes[p.head:]))
	return string(p.bytes[p.head+2 : p.head+2+n])
}

// flaw is what a broken broker does to a packet: it gives what is sent instead, and may hang up with false.
type flaw func(p packet) (instead [][]byte, stay bool)

// proxy stands between clients and a broker and has a flaw in each direction; nil is none.
type proxy struct {
	listener           net.Listener
	broker             string
	toClient, toBroker flaw
	done               sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// startProxy runs a proxy on loopback until the test ends.
func startProxy(t *testing.T, broker string, toClient, toBroker flaw) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, broker: broker, toClient: toClient, toBroker: toBroker}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.done.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", p.broker)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, broker)
		p.mu.Unlock()
		five := make(chan bool, 1) // The version, from CONNECT, for the other direction.
		p.done.Go(func() { pass(broker, client, p.toBroker, five, nil) })
		p.done.Go(func() { pass(client, broker, p.toClient, nil, five) })
	}
}

// pass carries packets until one side ends, and then ends the other.
func pass(to, from net.Conn, spoil flaw, says chan<- bool, asks <-chan bool) {
	defer to.Close()
	defer from.Close()
	in := bufio.NewReader(from)
	count, five := 0, false
	for first := true; ; first = false {
		p, err := readPacket(in)
		if err != nil {
			return
		}
		if first && says != nil {
			five = p.kind() == connect && len(p.bytes) > p.head+6 && p.bytes[p.head+6] == 5
			says <- five
		} else if first {
			five = <-asks
		}
		p.five, p.count = five, count
		if p.kind() == publish {
			count++
		}
		out, stay := [][]byte{p.bytes}, true
		if spoil != nil {
			out, stay = spoil(p)
		}
		if _, err := to.Write(bytes.Join(out, nil)); err != nil || !stay {
			return
		}
	}
}

func readPacket(in *bufio.Reader) (packet, error) {
	first, err := in.ReadByte()
	if err != nil {
		return packet{}, err
	}
	length, err := binary.ReadUvarint(in) // Remaining Length is written the same way.
	if err != nil {
		return packet{}, err
	}
	head := binary.AppendUvarint([]byte{first}, length)
	rest := make([]byte, length)
	_, err = io.ReadFull(in, rest)
	return packet{bytes: append(head, rest...), head: len(head)}, err
}

// framed gives a packet of that first byte a new body.
func framed(first byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

// only applies a change to packets of one kind.
func only(kind byte, change func(p packet) [][]byte) flaw {
	return func(p packet) ([][]byte, bool) {
		if p.kind() != kind {
			return [][]byte{p.bytes}, true
		}
		return change(p), true
	}
}

// replaced applies a change of bytes to packets of one kind.
func replaced(kind byte, old, with string) flaw {
	return only(kind, func(p packet) [][]byte { return [][]byte{bytes.Replace(p.bytes, []byte(old), []byte(with), 1)} })
}

// withoutProperties takes the properties out of a PUBLISH of 5.0.
func withoutProperties(p packet) [][]byte {
	if !p.five {
		return [][]byte{p.bytes}
	}
	start := p.head + 2 + len(p.topic())
	if p.qos() > 0 {
		start += 2
	}
	length, n := binary.Uvarint(p.bytes[start:])
	body := append(bytes.Clone(p.bytes[p.head:start]), 0)
	return [][]byte{framed(p.bytes[0], append(body, p.bytes[start+n+int(length):]...))}
}

// swapped holds every other PUBLISH of a connection back until the next.
func swapped() flaw {
	var mu sync.Mutex
	held := map[string][]byte{}
	return only(publish, func(p packet) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		before := held[p.topic()]
		delete(held, p.topic())
		if before == nil {
			held[p.topic()] = p.bytes
			return nil
		}
		return [][]byte{p.bytes, before}
	})
}
