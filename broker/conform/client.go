package conform

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

const (
	// packetMax is the largest packet in bytes that a conversation can give a broker a reason to send.
	packetMax = 1 << 20
	// readMax bounds what a broker that does not stop talking can make us read on one connection.
	readMax = 16 << 20
	// readBytes is the size of the buffer for one read.
	readBytes = 32 << 10
)

// client is one Network Connection of a conversation.
type client struct {
	name    string
	conn    Conn
	version packet.Version
	in      []byte  // read, and not yet a whole packet
	held    []byte  // said with "+": goes out with what is said next
	queue   []heard // whole packets that no expectation has taken
	read    int     // bytes so far

	accepted   bool // CONNACK said yes
	isOver     bool // we have closed it, or have seen its end
	ended      bool // the broker has closed it
	maxPacket  int  // what CONNECT allowed, 0 for any
	aliasMax   int
	aliases    map[int]string // Topic Names that the broker has given a Topic Alias on this connection
	window     int            // of QoS > 0 messages that the broker takes at once
	lacks      string         // of the bystander: the feature that its check needs and the broker has not
	foreign    func(topic string) (own string, isOurs bool)
	transcribe func(format string, values ...any)
}

// errEnded says that the broker has closed the connection, errNothing that nothing came in time.
var (
	errEnded   = errors.New("the broker has closed the connection")
	errNothing = errors.New("nothing")
)

// next takes the next packet, waiting at most that long.
func (c *client) next(wait time.Duration) (heard, error) {
	deadline := time.Now().Add(wait)
	for {
		if len(c.queue) > 0 {
			h := c.queue[0]
			c.queue = c.queue[1:]
			return h, nil
		}
		left := time.Until(deadline)
		if err := c.pull(max(left, time.Millisecond)); err != nil {
			return heard{}, err
		}
		if len(c.queue) == 0 && left <= 0 {
			return heard{}, errNothing
		}
	}
}

// pull reads once and queues the whole packets.
func (c *client) pull(wait time.Duration) error {
	if c.ended {
		return errEnded
	}
	if c.isOver {
		return fmt.Errorf("the conversation has closed the connection of %s", c.name)
	}
	b := make([]byte, readBytes)
	n, err := c.conn.Read(b, wait)
	if c.read += n; c.read > readMax {
		return fmt.Errorf("the broker sent more than %d MiB", readMax>>20)
	}
	c.in = append(c.in, b[:n]...)
	if problem := c.cut(); problem != nil {
		return problem
	}
	switch {
	case err == nil, n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		if len(c.in) > 0 {
			return fmt.Errorf("%w but the beginning of a packet: % x", errNothing, c.in[:min(len(c.in), shownBytes)])
		}
		return errNothing
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		c.ended = true
		c.transcribe("%s is closed by the broker", c.name)
		if len(c.in) > 0 {
			return fmt.Errorf("the connection ends in the middle of a packet: % x", c.in[:min(len(c.in), shownBytes)])
		}
		return errEnded
	}
	return err
}

// cut takes whole packets off what was read.
func (c *client) cut() error {
	for {
		h, r := packet.ParseHeader(c.in)
		if r != packet.Success {
			return fmt.Errorf("the broker sent what is no packet: % x", c.in[:min(len(c.in), shownBytes)])
		}
		total := h.Size + h.Remaining
		if h.Size == 0 {
			return nil
		}
		if total > packetMax {
			return fmt.Errorf("the broker announces a %s of %d bytes", h.Kind, total)
		}
		if len(c.in) < total {
			return nil
		}
		heard, err := hear(h, c.in[h.Size:total], c.version)
		c.in = c.in[total:]
		c.transcribe("%s < %s", c.name, heard.text)
		if err != nil {
			return err
		}
		if err := c.judge(&heard, total); err != nil {
			return err
		}
	}
}

// judge queues a packet, after looking at what holds for every one.
func (c *client) judge(h *heard, size int) error {
	if c.maxPacket > 0 && size > c.maxPacket {
		return fmt.Errorf("%s of %d bytes is above the Maximum Packet Size of %d", h.text, size, c.maxPacket)
	}
	switch h.kind {
	case packet.CONNACK:
		if c.accepted {
			return errors.New("a second CONNACK")
		}
		c.accepted = !h.reason.Failed() && h.words[0] == "0x00"
		c.window = windowMax
		if n, err := strconv.Atoi(first(h.facts["recvmax"])); err == nil && c.version == packet.V50 {
			c.window = min(n, windowMax)
		}
	case packet.AUTH:
	case packet.PUBLISH:
		if err := c.resolve(h); err != nil {
			return err
		}
		own, isOurs := c.foreign(h.words[0])
		if !isOurs {
			return nil // A filter at the root matches what others publish.
		}
		h.words[0] = own
		fallthrough
	default:
		if !c.accepted {
			return fmt.Errorf("%s comes before CONNACK has accepted the connection", h.text)
		}
	}
	c.queue = append(c.queue, *h)
	return nil
}

// resolve replaces an empty Topic Name by that of the Topic Alias, or remembers the alias.
func (c *client) resolve(h *heard) error {
	alias, _ := strconv.Atoi(first(h.facts["alias"]))
	switch name := h.words[0]; {
	case alias > c.aliasMax:
		return fmt.Errorf("%s: the Topic Alias Maximum is %d", h.text, c.aliasMax)
	case alias == 0:
	case name != "":
		if c.aliases == nil {
			c.aliases = map[int]string{}
		}
		c.aliases[alias] = name
	default:
		known, ok := c.aliases[alias]
		if !ok {
			return fmt.Errorf("%s: nobody has said on this connection what Topic Alias %d stands for", h.text, alias)
		}
		h.words[0] = known
	}
	return nil
}

// windowMax is how many messages of QoS > 0 a conversation has on their way to the broker at once.
const windowMax = 16

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// await takes the first packet of a kind, and of an identifier unless that is empty, and leaves others in the queue.
func (c *client) await(kind packet.Kind, id string, wait time.Duration) (heard, error) {
	deadline := time.Now().Add(wait)
	for at := 0; ; {
		for ; at < len(c.queue); at++ {
			if h := c.queue[at]; h.kind == kind && (id == "" || h.id == id) {
				c.queue = append(c.queue[:at:at], c.queue[at+1:]...)
				return h, nil
			}
		}
		left := time.Until(deadline)
		if left <= 0 {
			return heard{}, errNothing
		}
		if err := c.pull(left); err != nil {
			return heard{}, err
		}
	}
}

func (c *client) close() {
	if !c.isOver {
		c.isOver = true
		_ = c.conn.Close()
	}
}
