//go:build linux

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// client is one MQTT 5.0 client whose every packet the test sends and reads itself.
type client struct {
	t    *testing.T
	conn *net.TCPConn
	in   *bufio.Reader
	next uint16 // Packet Identifier
}

// dial opens a connection from a namespace.
func dial(namespace, host string) (*net.TCPConn, error) {
	return within(namespace, func() (*net.TCPConn, error) {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, "1883"), patience)
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	})
}

// connect dials from the clients' namespace and exchanges CONNECT and CONNACK.
func (s *scene) connect(host, id string) *client {
	s.t.Helper()
	return connectFrom(s.t, s.Client, host, id)
}

func connectFrom(t *testing.T, namespace, host, id string) *client {
	t.Helper()
	c, err := tryConnect(t, namespace, host, id)
	if err != nil {
		t.Fatalf("client %s: %v", id, err)
	}
	return c
}

func tryConnect(t *testing.T, namespace, host, id string) (*client, error) {
	conn, err := dial(namespace, host)
	if err != nil {
		return nil, err
	}
	return greet(t, conn, id)
}

// greet exchanges CONNECT and CONNACK.
func greet(t *testing.T, conn *net.TCPConn, id string) (*client, error) {
	c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
	t.Cleanup(func() { conn.Close() })
	hello := packets.NewControlPacket(packets.CONNECT)
	content := hello.Content.(*packets.Connect)
	content.ClientID, content.CleanStart = id, true
	if err := c.write(hello); err != nil {
		return nil, err
	}
	answer, err := c.read()
	if err != nil {
		return nil, err
	}
	if ack, isAck := answer.Content.(*packets.Connack); !isAck || ack.ReasonCode != packets.ConnackSuccess {
		return nil, fmt.Errorf("%v for a CONNACK", answer)
	}
	return c, nil
}

func (c *client) write(p *packets.ControlPacket) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := p.WriteTo(c.conn)
	return err
}

func (c *client) read() (*packets.ControlPacket, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return packets.ReadPacket(c.in)
}

// get reads a packet of a type and fails at any other.
func get[T any](c *client) T {
	c.t.Helper()
	p, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for %T: %v", *new(T), err)
	}
	content, is := p.Content.(T)
	if !is {
		c.t.Fatalf("waiting for %T: %v", *new(T), p)
	}
	return content
}

func (c *client) put(p *packets.ControlPacket) {
	c.t.Helper()
	if err := c.write(p); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.next++
	p := packets.NewControlPacket(packets.SUBSCRIBE)
	content := p.Content.(*packets.Subscribe)
	content.PacketID, content.Subscriptions = c.next, []packets.SubOptions{{Topic: filter, QoS: qos}}
	c.put(p)
	if ack := get[*packets.Suback](c); len(ack.Reasons) != 1 || ack.Reasons[0] != qos {
		c.t.Fatalf("SUBACK %v", ack)
	}
}

// publish sends an Application Message of QoS 0 or 1 and does not wait for PUBACK.
func (c *client) publish(topic string, qos byte, payload []byte) {
	c.t.Helper()
	p := packets.NewControlPacket(packets.PUBLISH)
	content := p.Content.(*packets.Publish)
	content.Topic, content.QoS, content.Payload = topic, qos, payload
	if qos > 0 {
		c.next++
		content.PacketID = c.next
	}
	c.put(p)
}

// alive sends a PINGREQ, which shows that the connection lives both ways.
func (c *client) alive() {
	c.t.Helper()
	if err := c.ping(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ping() error {
	if err := c.write(packets.NewControlPacket(packets.PINGREQ)); err != nil {
		return err
	}
	answer, err := c.read()
	if err != nil {
		return err
	}
	if _, is := answer.Content.(*packets.Pingresp); !is {
		return fmt.Errorf("%v for a PINGRESP", answer)
	}
	return nil
}

// receive reads the next Application Message.
func (c *client) receive() *packets.Publish {
	c.t.Helper()
	return get[*packets.Publish](c)
}

// broken waits until the connection ends, and says how.
func (c *client) broken() error {
	c.t.Helper()
	for {
		_, err := c.read()
		if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() {
			c.t.Fatalf("the connection does not end: %v", err)
		}
		if err != nil {
			return err
		}
	}
}

// local is the client's address as ss writes it.
func (c *client) local() string { return c.conn.LocalAddr().String() }

// echo serves one TCP connection or many on another port of the broker's namespace, by the kernel.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // Until the peer closes.
		}()
	}
}
