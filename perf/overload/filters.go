package overload

import (
	"bytes"
	"strconv"

	"github.com/ringmq/ringmq/broker/packet"
)

// The sizes of the attack by filters.
const (
	bombers     = 20
	bombLevels  = 10   // every filter that has a name or "+" on each of so many levels
	bombPacket  = 100  // filters in a SUBSCRIBE
	bombPace    = 50   // messages per second that match them all, each to a topic of its own
	bombDeep    = 60   // levels of the deepest filters
	bombTooDeep = 70   // levels of filters that are refused
	bombTooMany = 1500 // filters in a SUBSCRIBE that is refused
	roleBomber  = roleReader
	roleTooMany = roleDeaf + 1
	bombFilters = 1 << bombLevels
	bombSubacks = bombers*((bombFilters+bombPacket-1)/bombPacket) + bombers
)

// bomb is thousands of Topic Filters that all match the same topics, by every combination of names and wildcards.
type bomb struct {
	bystander
	publisher *client
	subacks   int
	pace      pace
	name      []byte
}

func (b *bomb) layOut(c *crowd) {
	b.crowd, b.pace.perSecond = c, bombPace
	b.enlist("bomb", roleBomber, bombers)
	b.enlist("bomb", roleTooMany, 1)
	b.publisher = b.enlist("bomb", rolePublisher, 1)[0]
}

// bombFilter is number of the filters, and ends in "#".
func bombFilter(number int) string {
	text := []byte("bomb")
	for level := range bombLevels {
		if number>>level&1 == 1 {
			text = append(text, "/+"...)
		} else {
			text = append(text, "/x"...)
		}
	}
	return string(append(text, "/#"...))
}

// deepFilter has only wildcards, on so many levels.
func deepFilter(levels int) string {
	return string(bytes.Repeat([]byte("+/"), levels-1)) + "#"
}

func (b *bomb) lives(cl *client) {
	b.standing++
	switch cl.role {
	case roleBomber:
		var filters []string
		for number := range bombFilters {
			if filters = append(filters, bombFilter(number)); len(filters) == bombPacket || number == bombFilters-1 {
				b.subscribe(cl, 0, filters...)
				filters = filters[:0]
			}
		}
		b.subscribe(cl, 0, deepFilter(bombDeep), deepFilter(bombDeep-cl.number-1), deepFilter(bombTooDeep))
	case roleTooMany:
		var filters []string
		for number := range bombTooMany {
			filters = append(filters, "many/"+strconv.Itoa(number))
		}
		b.subscribe(cl, 0, filters...)
	}
}

func (b *bomb) stands() bool { return b.bystander.stands() && b.subacks >= bombSubacks }

func (b *bomb) hears(cl *client, first byte, body []byte) {
	switch packet.Kind(first >> 4) {
	case packet.SUBACK:
		b.subacks++
	case packet.PUBLISH:
		b.outcome.Good++
	}
}

// acts publishes what every filter matches. A broker may send a client one message for all of them, or one for each.
func (b *bomb) acts() {
	if !b.stands() {
		return
	}
	for range b.pace.due(b.now) {
		b.name = append(b.name[:0], "bomb"...)
		for range bombLevels {
			b.name = append(b.name, "/x"...)
		}
		b.name = append(b.name, '/')
		b.name = strconv.AppendInt(b.name, b.outcome.Sent, 10)
		b.crowd.publish(b.publisher, b.name, 0, false, b.name)
		b.outcome.Expected += bombers
	}
}

// The sizes of the churn.
const (
	churners    = 10
	churnPace   = 50_000 // filters subscribed to or unsubscribed from per second, all clients together
	churnPacket = 25     // filters in a packet
)

// churn is subscriptions that come and go: exact ones, ones with wildcards below a prefix of their own, and some that begin
// with a wildcard.
type churn struct {
	bystander
	all     []*client
	pace    pace
	next    int
	filters [churners][]string // what the client is subscribed to now
	number  int
}

func (ch *churn) layOut(c *crowd) {
	ch.crowd, ch.pace.perSecond = c, churnPace/churnPacket
	ch.all = ch.enlist("churn", roleReader, churners)
}

func (ch *churn) lives(*client) { ch.standing++ }

func (ch *churn) hears(cl *client, first byte, body []byte) {
	if k := packet.Kind(first >> 4); k == packet.SUBACK || k == packet.UNSUBACK {
		cl.unacked--
		ch.outcome.Good += churnPacket
	}
}

func (ch *churn) acts() {
	if !ch.stands() {
		return
	}
	for range ch.pace.due(ch.now) {
		i := ch.next
		cl := ch.all[i]
		ch.next = (i + 1) % churners
		if cl.state != live || ch.mustHold(cl) {
			continue
		}
		cl.unacked++
		ch.outcome.Sent += churnPacket
		ch.outcome.Expected += churnPacket
		if held := ch.filters[i]; len(held) > 0 {
			ch.unsubscribe(cl, held...)
			ch.filters[i] = held[:0]
			continue
		}
		for range churnPacket {
			ch.filters[i] = append(ch.filters[i], ch.filter())
		}
		ch.subscribe(cl, 0, ch.filters[i]...)
	}
}

func (ch *churn) filter() string {
	ch.number++
	name := strconv.Itoa(ch.number)
	switch {
	case ch.number%10 == 0:
		return "+/churn/" + name
	case ch.number%2 == 0:
		return "churn/" + name + "/#"
	}
	return "churn/exact/" + name
}
