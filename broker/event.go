package broker

import (
	"net/netip"

	"github.com/ringmq/ringmq/broker/packet"
)

// LogKind is what a LogEvent tells about.
type LogKind uint8

// What happened.
const (
	EventConnected    LogKind = iota
	EventDisconnected         // Text is the reason
	EventRefused              // a connection that did not get as far as a Session
	EventDropping             // messages are being dropped for a client; Text is the reason
	EventCaughtUp             // nothing waits for a client any more that had lost messages; Text is how many
	EventExhausted            // memory for messages was used up in the last second; Text is how often
	EventAcceptFailed         // a listener could not accept; Text is the reason
	EventBeyondLimit          // the store had more of something than its limit when the broker started; Text says of what
)

// LogEvent is something worth a log line. Shards hand them to the Host, which must not block.
type LogEvent struct {
	Kind      LogKind
	ClientID  string
	User      string
	Address   netip.AddrPort
	Text      string
	Reason    packet.Reason
	Version   packet.Version
	KeepAlive uint16
	Clean     bool
}

// Host is what a shard asks of the process around it. Neither method may block.
type Host interface {
	// Authenticate takes a request whose answer comes through Loop.Authenticated; false when too many wait.
	Authenticate(AuthRequest) bool
	// Log takes an event; false when it is lost because too many wait.
	Log(LogEvent) bool
}

func (s *Shard) event(e LogEvent) {
	if !s.host.Log(e) {
		s.counters[CounterEventsLost]++
	}
}
