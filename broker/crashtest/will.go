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
	// withdrawn is one that DISCONNECT has withdrawn from the broker that runs, farewell what says so when no CONNACK does; both
	// nil: none.
	withdrawn *message
	farewell  *farewell
}

// farewell counts the rounds, since a connection ended with DISCONNECT, in each of which every publisher has had an acknowledgement of
// something that it sent in that round. The shard that took DISCONNECT has written it with or before what its own publishers were then
// acknowledged; one without publishers may have had a batch under way that the first round waited for, too.
type farewell struct {
	rounds int
	sent   []int // numbers before the round, by Client
}

// farewellRounds is how many of them are enough, two with one to spare.
const farewellRounds = 3

// appendWill adds the Will to CONNECT.
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
	w.withdrawn, w.farewell = nil, nil
}

// sayFarewell is for the end of a connection with DISCONNECT.
func (c *Client) sayFarewell() { c.wills.farewell = &farewell{sent: c.ledger.numbersSent()} }

func (l *Ledger) numbersSent() []int {
	list := make([]int, len(l.clients))
	for i, c := range l.clients {
		list[i] = c.next
	}
	return list
}

// hearFarewell is for each acknowledgement.
func (c *Client) hearFarewell() {
	f := c.wills.farewell
	for i, p := range c.ledger.clients {
		if p.Topic != "" && !p.Rare && c.ledger.last[p.ID] <= f.sent[i] {
			return
		}
	}
	f.sent = c.ledger.numbersSent()
	if f.rounds++; f.rounds == farewellRounds {
		c.ledger.withdrawn(c.wills.withdrawn)
		c.wills.withdrawn, c.wills.farewell = nil, nil
	}
}

// Gone says that the Client has said DISCONNECT to the broker that runs, and has not come again. If it stays away for long enough, that
// must be durable although no CONNACK says so.
func (c *Client) Gone() bool { return c.leaving && !c.doubt }

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
