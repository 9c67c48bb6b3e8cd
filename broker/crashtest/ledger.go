package crashtest

import (
	"fmt"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// Ledger is what is known of all messages of a test. It is not for concurrent use.
type Ledger struct {
	messages  map[string]*message
	unsettled map[*message]struct{} // not acknowledged, or owed to somebody
	clients   []*Client
	readers   []reader
	last      map[string]int // the youngest acknowledged number, by publisher
	order     map[stream]int // the youngest number that has arrived
	now       func() time.Time
	problems  []string
	tally     Tally
	mayLose   bool
}

// Tally counts what was put to the test.
type Tally struct {
	Acknowledged int // messages
	Wills        int // that were due
	Withdrawn    int // Wills that must never come
	Barred       int // messages that must not come to who had unsubscribed
	Outlived     int // Message Expiry Intervals that came counted down by more than the tolerance
	Expired      int // messages that were acknowledged, ran out, and came to nobody who was away
	Retained     int // Retained Messages that somebody new was to find
	Cleared      int // times that somebody new was to find none
	Again        int // messages of QoS 1 that came again with their Packet Identifiers
	Ended        int // Sessions whose time was over when their clients came back
}

// untried names what was never put to the test.
func (t Tally) untried() (list []string) {
	for name, n := range map[string]int{"message was acknowledged": t.Acknowledged, "Will was due": t.Wills, "Will was withdrawn": t.Withdrawn,
		"message was barred from anybody": t.Barred, "Message Expiry Interval was counted down": t.Outlived, "message expired": t.Expired,
		"message was found retained": t.Retained, "Retained Message was found cleared": t.Cleared, "message of QoS 1 came again": t.Again,
		"Session's time was over": t.Ended} {
		if n == 0 {
			list = append(list, "no "+name)
		}
	}
	return list
}

// reader is who gets a message once: a Session, or the members of a Shared Subscription.
type reader struct {
	name   string
	shared bool
}

type message struct {
	publisher string
	topic     string
	number    int
	qos       byte
	void      bool          // a Will that must not come
	will      bool          // it is one
	again     bool          // it was published more than once
	delay     time.Duration // of a Will
	interval  time.Duration // Message Expiry Interval, 0 for none
	sent      time.Time     // for the first time
	acked     time.Time     // zero: not yet
	copies    []copied      // by reader
}

// copied is what one reader is to get of a message, and has got.
type copied struct {
	owed, barred bool
	steady       bool // owed, and the subscription was not given up since
	arrived      int32
}

// stream is what keeps its order: the messages of one publisher at one QoS to one reader.
type stream struct {
	publisher string
	reader    int
	qos       byte
}

const (
	// briefMax is up to which Message Expiry Interval a message is owed to nobody: it may run out at any time.
	briefMax = time.Minute
	// tolerance is what is allowed for rounding to seconds and for the broker's clock, which is read once a turn.
	tolerance = time.Second
)

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger {
	return &Ledger{messages: map[string]*message{}, unsettled: map[*message]struct{}{}, last: map[string]int{}, order: map[stream]int{},
		now: time.Now}
}

// MayLose says that the disk lies: what was acknowledged, Sessions too, may be lost. Doubled or out of order it is still wrong.
func (l *Ledger) MayLose() { l.mayLose = true }

// add makes a Client known, and the reader that it is or is a member of.
func (l *Ledger) add(c *Client) {
	l.clients = append(l.clients, c)
	if c.Filter == "" {
		return
	}
	r := reader{name: c.ID}
	if rest, ok := strings.CutPrefix(c.Filter, "$share/"); ok {
		r.name, _, _ = strings.Cut(rest, "/")
		r.shared = true
	}
	for c.reader = range l.readers {
		if l.readers[c.reader] == r {
			return
		}
	}
	c.reader = len(l.readers)
	l.readers = append(l.readers, r)
}

func payloadOf(publisher string, number int) string { return fmt.Sprintf("%s:%d", publisher, number) }

// published notes a message before it is sent for the first time.
func (l *Ledger) published(m *message) *message {
	m.sent, m.copies = l.now(), make([]copied, len(l.readers))
	for i := range m.copies {
		m.copies[i].barred = true
	}
	for _, c := range l.clients {
		if !matches(c.Filter, m.topic) {
			continue
		}
		k := &m.copies[c.reader]
		k.owed = k.owed || c.sub == subscribed && !m.brief()
		k.steady = k.owed
		k.barred = k.barred && c.sub == unsubscribed && !m.will // what a Will matches is seen when it is due
		if k.barred {
			l.tally.Barred++
		}
	}
	l.messages[payloadOf(m.publisher, m.number)] = m
	l.unsettled[m] = struct{}{}
	return m
}

func (m *message) brief() bool { return m.interval > 0 && m.interval <= briefMax }

// acknowledged notes that the broker has taken a message on.
func (l *Ledger) acknowledged(publisher string, number int) {
	m := l.messages[payloadOf(publisher, number)]
	if !m.acked.IsZero() {
		return
	}
	m.acked = l.now()
	l.tally.Acknowledged++
	l.last[publisher] = max(l.last[publisher], number)
	for _, c := range l.clients {
		if c.wills.farewell != nil {
			c.hearFarewell()
		}
	}
}

// asks is called when a Client asks for its subscription: what is not acknowledged by then may match it.
func (l *Ledger) asks(c *Client) {
	for m := range l.unsettled {
		if (m.acked.IsZero() || m.will) && matches(c.Filter, m.topic) {
			m.copies[c.reader].barred = false
		}
	}
}

// gives is called when a Client gives its subscription up.
func (l *Ledger) gives(c *Client) {
	for m := range l.unsettled {
		m.copies[c.reader].release()
	}
}

// release says that a message may still come, but need not.
func (k *copied) release() { k.owed, k.steady = k.owed && k.arrived > 0, false }

// messageOf is the message that a payload is of; nil when nobody has published it.
func (l *Ledger) messageOf(c *Client, payload []byte) *message {
	name, _, _ := strings.Cut(string(payload), "|") // padding follows
	m := l.messages[name]
	if m == nil {
		l.problem("%s got %q, which nobody has published", c.ID, name)
	}
	return m
}

// arrivedAt notes that an application has been given a message.
func (l *Ledger) arrivedAt(c *Client, p *packet.Publish) {
	m := l.messageOf(c, p.Payload)
	if m == nil {
		return
	}
	k, r := &m.copies[c.reader], l.readers[c.reader]
	name := payloadOf(m.publisher, m.number)
	if (k.barred || m.void) && !l.mayLose {
		l.problem("%s got %s, which was not for it any more", r.name, name)
	}
	if k.arrived++; k.arrived > 1 {
		if m.qos == 2 && !(l.mayLose && p.Retain) { // What is retained a Session gets that took the place of one that is lost.
			l.problem("%s got %s twice", r.name, name)
		}
		return
	}
	l.judgeTime(c, m, p)
	if r.shared || m.will || !k.steady {
		return // In no order: what came before SUBSCRIBE did, or has run out, and is sent again after a crash is another message for this reader.
	}
	s := stream{m.publisher, c.reader, m.qos}
	if seen := l.order[s]; seen > m.number {
		l.problem("%s got %s after number %d", r.name, name, seen)
	}
	l.order[s] = max(l.order[s], m.number)
}

// judgeTime judges when a message has come, and its Message Expiry Interval.
func (l *Ledger) judgeTime(c *Client, m *message, p *packet.Publish) {
	name, now := payloadOf(m.publisher, m.number), l.now()
	if age := now.Sub(m.sent); m.will && age < m.delay {
		l.problem("%s got %s %v after its CONNECT, in spite of its delay", c.ID, name, age)
	}
	if m.interval == 0 {
		return
	}
	waited := time.Duration(0) // at least
	if !m.acked.IsZero() {
		waited = max(0, c.dialled.Sub(m.acked))
	}
	if m.sent.After(c.left) && waited > m.interval+tolerance {
		l.problem("%s connected %v after %s, which ran out after %v, was acknowledged, and got it", c.ID, waited, name, m.interval)
	}
	if c.Version != packet.V50 {
		return
	}
	left, most := time.Duration(p.Expiry)*time.Second, m.interval
	if waited > tolerance {
		most = max(0, most+tolerance-waited) // what was sent in time is sent again later, too
		l.tally.Outlived++
	}
	if least := m.interval - now.Sub(m.sent) - tolerance; !p.HasExpiry || left > most || left < least {
		l.problem("%s got %s with a Message Expiry Interval of %v, not between %v and %v", c.ID, name, left, least, most)
	}
}

func (l *Ledger) problem(format string, a ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, a...))
}

// Tally is what was put to the test so far.
func (l *Ledger) Tally() Tally {
	t := l.tally
	for _, m := range l.messages {
		if m.brief() && !m.acked.IsZero() && m.unread() {
			t.Expired++
		}
	}
	return t
}

// unread says that a message has not come to some reader that may have it.
func (m *message) unread() bool {
	for i := range m.copies {
		if k := &m.copies[i]; !k.barred && k.arrived == 0 {
			return true
		}
	}
	return false
}

// missing yields what is owed and has not arrived.
func (l *Ledger) missing(yield func(m *message, reader string)) {
	for m := range l.unsettled {
		if m.acked.IsZero() {
			continue
		}
		settled := true
		for i := range m.copies {
			if k := &m.copies[i]; k.owed && k.arrived == 0 {
				settled = false
				yield(m, l.readers[i].name)
			}
		}
		if settled {
			delete(l.unsettled, m)
		}
	}
}

// Missing is how often an acknowledged message has not come to who is to get it.
func (l *Ledger) Missing() (n int) {
	l.missing(func(*message, string) { n++ })
	return n
}

// Problems says what went wrong, when every reader has had the time to get everything.
func (l *Ledger) Problems() []string {
	list := l.problems
	if l.mayLose {
		return list
	}
	l.missing(func(m *message, reader string) {
		list = append(list, fmt.Sprintf("%s (QoS %d) was acknowledged and never got to %s", payloadOf(m.publisher, m.number), m.qos, reader))
	})
	return list
}

// matches says whether a Topic Filter, which may be a Shared Subscription's, matches a Topic Name. It is not the broker's own.
func matches(filter, topic string) bool {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, _ = strings.Cut(rest, "/")
	}
	if filter == "" {
		return false
	}
	levels := strings.Split(topic, "/")
	for i, f := range strings.Split(filter, "/") {
		if f == "#" {
			return true
		}
		if i == len(levels) || f != "+" && f != levels[i] {
			return false
		}
	}
	return strings.Count(filter, "/") == len(levels)-1
}
