package crashtest

import (
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// Will is the Will of all of a Client's connections. Each has a payload of its own.
type Will struct {
	Topic string
	QoS   byte
	Delay uint32 // Will Delay Interval in seconds, for 5.0
}

// willing is what a Client knows of its Wills.
type willing struct {
	number  int
	current *message // of this connection, or of the last one
	before  *message // of the one before
	// withdrawn is one that DISCONNECT has withdrawn from the broker that runs.
	withdrawn *message
}

// append adds the Will to CONNECT.
func (c *Client) appendWill(p *packet.Connect) {
	w := &c.wills
	if w.before = w.current; w.before != nil && w.before.delay > 0 {
		c.ledger.releaseAll(w.before)
	}
	w.number++
	w.current = c.ledger.published(&message{publisher: c.ID + "-will", number: w.number, topic: c.Will.Topic, qos: c.Will.QoS, will: true,
		delay: time.Duration(c.Will.Delay) * time.Second})
	p.HasWill = true
	p.Will = packet.Will{QoS: c.Will.QoS, Topic: []byte(c.Will.Topic), DelayInterval: c.Will.Delay,
		Payload: []byte(payloadOf(w.current.publisher, w.number) + "|")}
}

// onConnected is for CONNACK, which says that Wills of earlier connections are not there any more.
func (w *willing) onConnected(l *Ledger) {
	if b := w.before; b != nil && (b == w.withdrawn || l.now().Before(b.sent.Add(b.delay))) {
		l.withdrawn(b)
	}
	w.withdrawn = nil
}

// releaseAll is for a Will that may be dropped from now on.
func (l *Ledger) releaseAll(m *message) {
	for i := range m.copies {
		m.copies[i].release()
	}
}

// due is for a Will whose connection has ended.
func (l *Ledger) due(m *message) {
	m.acked = l.now()
	l.tally.Wills++
}

// withdrawn is for a Will that must not come, and must not have come.
func (l *Ledger) withdrawn(m *message) {
	l.releaseAll(m)
	m.void = true
	l.tally.Withdrawn++
	for i := range m.copies {
		if m.copies[i].arrived > 0 && !l.mayLose {
			l.problem("%s got %s, which was withdrawn", l.readers[i].name, payloadOf(m.publisher, m.number))
		}
	}
}

// WillWaits says that the Will of the Client's last connection is due and has not come to everybody.
func (c *Client) WillWaits() bool {
	m := c.wills.current
	if m == nil || m.acked.IsZero() {
		return false
	}
	for i := range m.copies {
		if m.copies[i].owed && m.copies[i].arrived == 0 {
			return true
		}
	}
	return false
}
