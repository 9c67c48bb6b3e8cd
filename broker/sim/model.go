package sim

import (
	"fmt"
	"strings"
)

// moment is when something happened: the step of the Script and the broker's clock in milliseconds.
type moment struct {
	step  int
	ms    int64
	turns int // of the shard that has had most
}

// message is one Application Message, of a PUBLISH or of a Will, as its publisher knows it. Its payload names it.
type message struct {
	serial int
	from   *client
	topic  string
	seq    int // counts the publisher's messages to the topic
	qos    uint8
	retain bool
	clears bool // empty payload: forgets the Retained Message
	size   int  // of the pattern behind the name
	props  []byte
	plain  bool // sent again in a version that has no properties
	expiry int  // seconds, 0: none
	bare   bool // sent again in a version that has no expiry
	sent   moment
	acked  moment // step 0: not yet
	tries  int    // PUBLISH packets
	will   *will  // whose message it is

	refused bool // by a Reason Code of failure
	stored  bool // it surely was the Retained Message of its topic
}

// String is the message's name, the same in each run of a seed.
func (m *message) String() string {
	if m == nil {
		return "none"
	}
	return fmt.Sprint("m", m.serial)
}

// interest is one subscription, between the steps at which it may match and must match.
type interest struct {
	filter   string // without $share/NAME/
	share    string
	qos      uint8
	noLocal  bool
	asIs     bool // Retain As Published
	handling int  // Retain Handling
	again    bool // it surely replaced one
	inherits bool // it may have replaced one that had Retained Messages still to bring
	id       int
	asked    int   // step of SUBSCRIBE
	granted  int   // step of SUBACK, 0: not yet
	since    int   // step of the first SUBACK, when it replaced one that was there
	low      uint8 // the lowest QoS since then
	leaving  int   // step of what may end it, 0: nothing yet
	ended    int   // step at which it surely had ended
}

// may says whether the subscription may have matched between two steps.
func (i *interest) may(from, to int) bool { return i.asked <= to && (i.ended == 0 || i.ended >= from) }

// must says whether it surely was there all the time between two steps.
func (i *interest) must(from, to int) bool {
	start := i.granted
	if i.since != 0 && start != 0 {
		start = i.since
	}
	return start != 0 && start <= from && (i.leaving == 0 || i.leaving > to)
}

// member is a member of a Shared Subscription.
type member struct {
	*interest
	session *session
}

// session is one Session as its client knows it: what it may expect, and what it got.
type session struct {
	owner     *client
	interests []*interest
	got       map[*message]*tally
	newest    map[stream]int
	taken     map[uint16]*message // QoS 2 Packet Identifiers received, and not released
	denied    map[uint16]*message // those that were denied; whether the broker knows is not known
	link      *link               // the connection that it has or had last
	exists    bool                // the broker has confirmed it
	attempts  int                 // CONNECT packets that may have been handled since
	maybe     bool                // a CONNECT that makes it may have been handled
	doubt     bool                // a CONNECT that ends it may have been handled
	links     int                 // connections it had
	expiryMin int64               // Session Expiry Interval in ms: what was asked last, and what may hold
	expiryMax int64
	alive     moment // last moment at which its connection was surely there
	gone      moment // moment from which the broker surely knew that it was not; step 0: none
}

// tally is how often a Session got a message.
type tally struct {
	live  int   // for the first time, as a subscription's
	again int   // with DUP
	kept  int   // with RETAIN, which a new subscription may give at any time
	last  int   // step of the last
	done  int   // step at which the broker surely had the PUBACK for one that came with QoS 1; 0: none
	qos   uint8 // the highest
}

// stream is what has an order: one publisher's messages on one topic, as they are delivered with one QoS.
type stream struct {
	from  *client
	topic string
	qos   uint8
	quick bool // to be delivered with QoS 0, beside a store: it does not wait until what was published with QoS 2 before it is durable
}

func newSession(c *client) *session {
	return &session{owner: c, got: map[*message]*tally{}, newest: map[stream]int{}, taken: map[uint16]*message{}, denied: map[uint16]*message{}}
}

// possible calls f for each subscription that a message sent at m.sent may have matched until now.
func (s *session) possible(m *message, now int, f func(*interest)) {
	for _, i := range s.interests {
		if i.may(m.sent.step, now) && matches(i.filter, m.topic) && !(i.noLocal && m.from == s.owner) {
			f(i)
		}
	}
}

// promised is the subscription by which the Session must get a message, the one with the highest QoS; nil when there is none.
func (s *session) promised(m *message, until int) (best *interest) {
	for _, i := range s.interests {
		if i.share == "" && i.must(m.sent.step, until) && matches(i.filter, m.topic) && !(i.noLocal && m.from == s.owner) &&
			(best == nil || i.qos > best.qos) {
			best = i
		}
	}
	return best
}

// merged are the subscriptions, unchanged since before the message was sent, for which it comes once with what they all ask for; none where others may
// have it come apart. The standard lets a server also send a copy for each; RingMQ does not (section 3.3.4).
func (s *session) merged(m *message, now int) (list []*interest) {
	apart := false
	s.possible(m, now, func(i *interest) {
		apart = apart || i.share != "" || i.noLocal
		if i.granted != 0 && i.granted <= m.sent.step && (i.leaving == 0 || i.leaving > now) {
			list = append(list, i)
		}
	})
	if apart {
		return nil
	}
	return list
}

func (s *session) tally(m *message) *tally {
	t := s.got[m]
	if t == nil {
		t = &tally{}
		s.got[m] = t
	}
	return t
}

// matches says whether a Topic Filter matches a Topic Name (section 4.7): level by level, and no wildcard first for names that begin
// with '$'. It is not the engine's.
func matches(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if name[0] == '$' && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(n), level != "+" && level != n[i]:
			return false
		}
	}
	return len(f) == len(n)
}

// splitShare takes "$share/NAME/" off a Topic Filter.
func splitShare(filter string) (share, rest string) {
	if after, ok := strings.CutPrefix(filter, "$share/"); ok {
		share, rest, _ = strings.Cut(after, "/")
		return share, rest
	}
	return "", filter
}

// expect notes what the CONNECT of a new connection may do to the Session before CONNACK says what it did.
func (s *session) expect(l *link) {
	s.attempts++
	s.doubt = s.doubt || l.clean
	s.maybe = s.maybe || l.expiry > 0
	s.expiryMin, s.expiryMax = min(s.expiryMin, l.expiry), max(s.expiryMax, l.expiry)
}

// slackMS is by how much the broker's clock of a Session may differ from the client's: timers have ticks, a connection that
// is closing has two seconds, and a clock that jumps is seen when a shard has its next turn.
const slackMS = 2500

// mustBe says whether a CONNECT on l surely found the Session, mustNotBe whether it surely did not. now is CONNACK's time.
func (s *session) mustBe(l *link, now int64) bool {
	return s.exists && !s.doubt && l.priorMin > slackMS && now < s.alive.ms+l.priorMin-slackMS
}

func (s *session) mustNotBe(l *link) bool {
	if l.clean || !s.exists && !s.maybe {
		return true
	}
	return s.exists && s.gone.step != 0 && l.dialled.ms > s.gone.ms+l.priorMax+slackMS
}
