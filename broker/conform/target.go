package conform

import (
	"context"
	"errors"
	"net"
	"time"
)

// Target is a broker to be tried. One check uses it at a time, unless it says Parallel.
type Target interface {
	// Dial opens a Network Connection.
	Dial(ctx context.Context) (Conn, error)
	// Pass lets time pass: as much on the broker's clock as on the caller's.
	Pass(ctx context.Context, d time.Duration) error
}

// Conn is the client's end of a Network Connection.
type Conn interface {
	// Write sends all of b or fails.
	Write(b []byte) error
	// Read waits for bytes at most that long: os.ErrDeadlineExceeded says that none came. Any other error is the end.
	Read(b []byte, wait time.Duration) (int, error)
	// Close ends the connection in good order, Reset without.
	Close() error
	Reset() error
}

// TCP is a broker at an address, in real time.
type TCP struct {
	Address string        // host:port
	Timeout time.Duration // for connecting and for each write
}

var _ Target = TCP{}

// Dial opens a TCP connection.
func (t TCP) Dial(ctx context.Context) (Conn, error) {
	d := net.Dialer{Timeout: t.Timeout}
	c, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, err
	}
	tcp, isTCP := c.(*net.TCPConn)
	if !isTCP {
		_ = c.Close()
		return nil, errors.New("the connection is not TCP")
	}
	return &tcpConn{TCPConn: tcp, timeout: t.Timeout}, nil
}

// Pass sleeps.
func (t TCP) Pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type tcpConn struct {
	*net.TCPConn
	timeout time.Duration
}

func (c *tcpConn) Write(b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.TCPConn.Write(b)
	return err
}

func (c *tcpConn) Read(b []byte, wait time.Duration) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	return c.TCPConn.Read(b)
}

// Reset makes Close send RST.
func (c *tcpConn) Reset() error {
	_ = c.SetLinger(0)
	return c.Close()
}
