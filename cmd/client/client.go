// Package client is an MQTT client as ringmq pub and ringmq sub need one: connect, publish in order with many messages
// under way, subscribe, take messages one by one, and say in one error what ended the connection.
//
// # What it is
//
// One interface over two libraries: paho.golang for MQTT 5.0 (v5.go) and paho.mqtt.golang for 3.1.1 (v311.go). A Client
// is one Network Connection: it never reconnects. Who wants to, dials again, with the same Session.
//
// # What it is not
//
// It stores nothing on disk, knows no command line and prints nothing.
//
// # Who owns what
//
// One goroutine publishes at QoS 1 and 2, any at QoS 0, and one takes messages; they may be the same. The libraries'
// goroutines and one of this package's own live from Dial to the end of the connection; Close waits for them. A message
// of QoS 1 or 2 is acknowledged only when its taker has called Handled, and holds back the next one until then.
package client

import (
	"context"
	"fmt"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// Version is an MQTT protocol version, as the Protocol Level of a CONNECT gives it.
type Version byte

// The versions that Dial speaks.
const (
	V311 Version = 4
	V5   Version = 5
)

// String is the version as people write it.
func (v Version) String() string {
	if v == V5 {
		return "5.0"
	}
	return "3.1.1"
}

// Config says where and as whom to connect. Properties and the fields that name 5.0 are ignored in 3.1.1.
type Config struct {
	Version  Version
	Endpoint Endpoint
	// ClientID is the Client Identifier. Empty: the broker makes one, which needs CleanStart in 3.1.1.
	ClientID string
	// CleanStart is Clean Session in 3.1.1.
	CleanStart bool
	// KeepAlive is sent in whole seconds, at most 65535 of them. Zero: the connection is never probed.
	KeepAlive time.Duration
	// Username empty: there is none. Password nil: there is none; in 3.1.1 one needs a Username.
	Username string
	Password []byte
	// Will is nil where there is none.
	Will *Message
	// Properties are those of the CONNECT.
	Properties Properties
	// MaxInflight bounds the QoS 1 and 2 messages that wait for their acknowledgement, beside the broker's Receive
	// Maximum. Zero means 1.
	MaxInflight int
	// AckTimeout bounds how long Publish waits for room among those. Zero: for ever.
	AckTimeout time.Duration
	// Timeout bounds the connecting, and each wait for a SUBACK or UNSUBACK. It must be positive.
	Timeout time.Duration
	// Session, in 5.0, remembers between connections which QoS 2 messages were received. Nil: nothing is remembered.
	Session *Session
	// Debug, when not nil, is told of packets. Several goroutines call it.
	Debug func(format string, arguments ...any)
}

// Message is an Application Message, coming or going, or a Will.
type Message struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Duplicate  bool   // Only of messages that came.
	PacketID   uint16 // Only of messages that came, with QoS 1 or 2.
	Properties Properties

	handled, acknowledged chan struct{} // nil at QoS 0
}

// Handled lets a message that came be acknowledged. It must be called once, and does nothing at QoS 0.
func (m *Message) Handled() {
	if m.handled != nil {
		close(m.handled)
	}
}

// UserProperty is a pair of strings; names may repeat.
type UserProperty struct{ Name, Value string }

// Properties are the properties of MQTT 5.0 (section 2.2.2.2) that a Client sends or that come with a message. Nil and
// empty mean absent. Which may stand in which packet is for the caller to know: what a packet cannot have is not sent.
type Properties struct {
	// Of PUBLISH and Will.
	PayloadFormat   *byte
	MessageExpiry   *uint32 // seconds
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	// Of PUBLISH.
	TopicAlias *uint16
	// Of PUBLISH that came, and of SUBSCRIBE. Of several in one PUBLISH the library keeps the last.
	SubscriptionID *int
	// Of Will.
	WillDelay *uint32 // seconds
	// Of CONNECT; the first of DISCONNECT as well.
	SessionExpiry       *uint32 // seconds; 0xFFFFFFFF is for ever
	ReceiveMaximum      *uint16
	MaximumPacketSize   *uint32 // bytes
	TopicAliasMaximum   *uint16
	RequestProblemInfo  *bool
	RequestResponseInfo *bool
	AuthMethod          string
	AuthData            []byte
	// Of all of them.
	User []UserProperty
}

// Subscription is one Topic Filter with its options; of these 3.1.1 knows QoS alone.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// Progress counts the messages given to Publish, from 1. Sent are those that were handed to the network; at QoS 1 and 2
// Acknowledged, and Refused (acknowledged with a failure, of which FirstRefused was the first, for Reason) are those
// that the broker has answered, and FirstOpen is the first that it has not, or 0.
type Progress struct {
	Sent, Acknowledged, Refused, FirstRefused, FirstOpen uint64

	Reason     packet.Reason
	ReasonText string // the broker's own words, if it gave any
}

// Client is a connection to a broker.
type Client interface {
	// Publish sends m, or keeps it in a buffer of 64 KiB until the next Flush. At QoS 1 and 2 it first waits while too
	// many messages wait for acknowledgement. m and its payload are the caller's again when it returns.
	Publish(ctx context.Context, m *Message) error
	// Flush hands everything published to the network.
	Flush() error
	// Drain flushes and then waits until no message waits for its acknowledgement.
	Drain(ctx context.Context) error
	// Progress says how far publishing has come.
	Progress() Progress
	// Subscribe returns a Reason Code per subscription, failures included; 3.1.1's one failure is UnspecifiedError.
	Subscribe(ctx context.Context, subscriptions []Subscription, p Properties) ([]packet.Reason, error)
	// Unsubscribe returns a Reason Code per filter; 3.1.1 has none but Success.
	Unsubscribe(ctx context.Context, filters []string, p Properties) ([]packet.Reason, error)
	// Messages are those that came, in their order. It is never closed: see Done.
	Messages() <-chan *Message
	// Done is closed when the connection has ended and all messages that came before are in Messages.
	Done() <-chan struct{}
	// Err says why, once Done is closed: Lost, or Refused after a DISCONNECT of the broker's.
	Err() error
	// SessionPresent says whether the broker had a Session.
	SessionPresent() bool
	// Interrupt makes a Publish or Flush fail soon that a broker holds up by not reading. Only Close may follow.
	Interrupt()
	// Close sends a DISCONNECT, waits at most linger for the broker to take everything and close its side, and ends
	// the connection. Messages that nobody has taken are not acknowledged.
	Close(p Properties, linger time.Duration)
}

// Dial connects. Errors are Unreachable, Lost or Refused, or ctx's.
func Dial(ctx context.Context, cfg Config) (Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, errTimeout)
	defer cancel()
	raw, err := cfg.Endpoint.dial(ctx)
	if err != nil {
		return nil, err
	}
	cfg.debug("connected to %s from %s", cfg.Endpoint, raw.LocalAddr())
	if cfg.Version == V5 {
		return dialV5(ctx, cfg, raw)
	}
	if cfg.Version == V311 {
		return dialV311(ctx, cfg, raw)
	}
	_ = raw.Close()
	return nil, fmt.Errorf("protocol version %d: want %d or %d", cfg.Version, V311, V5)
}

func (c *Config) debug(format string, arguments ...any) {
	if c.Debug != nil {
		c.Debug(format, arguments...)
	}
}

func (c *Config) debugPublish(m *Message) {
	if c.Debug != nil { // Not in debug: its arguments would be put on the heap for each message.
		c.Debug("PUBLISH to %s, QoS %d, retain %v, %d bytes", m.Topic, m.QoS, m.Retain, len(m.Payload))
	}
}

func (c *Config) keepAliveSeconds() uint16 {
	return uint16(min(c.KeepAlive/time.Second, 65535))
}
