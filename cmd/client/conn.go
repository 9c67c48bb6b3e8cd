package client

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// bufferBytes is the size of a connection's two buffers. One write of this size takes the kernel hardly longer than one
// of a single message.
const bufferBytes = 64 << 10

// conn is a Network Connection that reads in pieces of bufferBytes and gathers what is published until Flush.
//
// paho.golang takes a Conn's Lock around each packet it writes (packets.ControlPacket.WriteTo); Unlock sends the packet,
// unless the connection is corked. paho.mqtt.golang knows no such lock, see wholePackets. The mutex is held during
// writes to the network: it is what keeps packets of several goroutines apart.
type conn struct {
	net.Conn
	in   *bufio.Reader             // the library's reading goroutine only, like left
	left int                       // bytes of the packet that the library is reading
	look func(packet.Header) error // judges a packet that begins, beside what Read does; set before the first read, or nil

	mu     sync.Mutex // guards out, corked and what is written
	out    *bufio.Writer
	corked bool

	sent, received atomic.Bool // something went either way since the pinger has looked

	closeOnce sync.Once
	closed    atomic.Bool
	linger    atomic.Int64 // time.Duration: how long Close waits for the peer to close
	onClose   func()       // set before the first read; called by the first Close
}

func newConn(raw net.Conn) *conn {
	return &conn{Conn: raw, in: bufio.NewReaderSize(raw, bufferBytes), out: bufio.NewWriterSize(raw, bufferBytes), onClose: func() {}}
}

// errMalformed is what a broker has done that sends what the libraries would believe.
var errMalformed = errors.New("it sent a malformed packet")

// Read is called by the library, of which neither looks at what the protocol forbids in a fixed header, a QoS of 3 for instance.
func (c *conn) Read(b []byte) (int, error) {
	if c.left == 0 {
		h, err := c.nextPacket()
		if err != nil {
			return 0, err
		}
		c.left = h.Size + h.Remaining
	}
	n, err := c.in.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// nextPacket waits for the fixed header of a packet, and leaves it to be read.
func (c *conn) nextPacket() (h packet.Header, err error) {
	for size := 2; ; size++ {
		head, err := c.in.Peek(size)
		if err != nil {
			return h, err
		}
		h, reason := packet.ParseHeader(head)
		switch {
		case reason != packet.Success, h.Kind == packet.PUBLISH && h.Flags>>1&3 == 3: // [MQTT-3.3.1-4]
			return h, errMalformed
		case h.Size > 0 && c.look != nil:
			return h, c.look(h)
		case h.Size > 0:
			return h, nil
		}
	}
}

// Lock makes conn a sync.Locker.
func (c *conn) Lock() { c.mu.Lock() }

// Unlock ends a packet of the library's. A failed write stays in out and comes back from the next one, and the library's
// reader meets the broken connection too.
func (c *conn) Unlock() {
	if !c.corked {
		_ = c.out.Flush()
		c.sent.Store(true)
	}
	c.mu.Unlock()
}

// Write is called by the library, with the lock held.
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }

// cork makes room for a packet of size bytes, and keeps what the library writes in the buffer until the next flush. flushed
// says that everything before it is on its way. Whoever corks flushes before waiting for anything.
func (c *conn) cork(size int) (flushed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
	return c.makeRoom(size)
}

func (c *conn) uncork() {
	c.mu.Lock()
	c.corked = false
	c.mu.Unlock()
}

// makeRoom needs the lock.
func (c *conn) makeRoom(size int) (flushed bool, err error) {
	if c.out.Available() >= size+headerBytes {
		return false, nil
	}
	c.sent.Store(true)
	err = c.out.Flush()
	return err == nil, err
}

// headerBytes is more than a PUBLISH has beside topic, payload and properties.
const headerBytes = 16

// enqueue lets write put one packet of size bytes into the buffer. flushed says that everything before it is on its way.
func (c *conn) enqueue(size int, write func(w io.Writer) error) (flushed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if flushed, err = c.makeRoom(size); err != nil {
		return false, err
	}
	return flushed, write(c.out)
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.Buffered() > 0 {
		c.sent.Store(true)
	}
	return c.out.Flush()
}

// Close ends the connection. After say-goodbye it first lets the peer take what is on its way: closing a socket whose
// peer still sends resets the connection, which can cost the peer what it has not read yet.
func (c *conn) Close() error {
	var err error
	c.closeOnce.Do(func() {
		if d := time.Duration(c.linger.Load()); d > 0 {
			c.awaitPeer(d)
		}
		err = c.Conn.Close()
		c.closed.Store(true)
		c.onClose()
	})
	return err
}

func (c *conn) awaitPeer(d time.Duration) {
	_ = c.Conn.SetDeadline(time.Now().Add(d))
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_, _ = io.Copy(io.Discard, c.Conn)
}

// hurry gives a writer that the peer holds up d to end, so that Close gets its turn.
func (c *conn) hurry(d time.Duration) { _ = c.Conn.SetWriteDeadline(time.Now().Add(d)) }

// wholePackets is conn for paho.mqtt.golang, which writes each packet with one Write and without a lock.
type wholePackets struct{ *conn }

// Write sends one packet.
func (c wholePackets) Write(b []byte) (int, error) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	n, err := c.out.Write(b)
	if err != nil {
		return n, err
	}
	c.sent.Store(true)
	return n, c.out.Flush()
}
