package overload

import (
	"bytes"
	"strconv"

	"github.com/ringmq/ringmq/broker/packet"
)

// The sizes of the attack by topics.
const (
	topicCount      = 1_000_000
	topicPublishers = 4
	topicPace       = 100_000 // messages per second, all publishers together

	// topicPrefix makes the names so long that the room for names is used up before that for entries.
	topicPrefix = "topics/with/names/as/long/as/those/of/some/buildings/with/many/floors/and/rooms/"
)

// manyTopics publishes to a million distinct topics that nobody subscribes to, each once.
type manyTopics struct {
	bystander
	publishers []*client
	pace       pace
	number     int64
	name       []byte
}

func (m *manyTopics) layOut(c *crowd) {
	m.crowd, m.pace.perSecond = c, topicPace
	m.publishers = m.enlist("topics", rolePublisher, topicPublishers)
}

func (m *manyTopics) lives(*client) { m.standing++ }
func (m *manyTopics) isDone() bool  { return m.number >= int64(m.cfg.scaled(topicCount)) }

func (m *manyTopics) acts() {
	if !m.stands() {
		return
	}
	for range m.pace.due(m.now) {
		cl := m.publishers[m.number%topicPublishers]
		if cl.state != live || m.mustHold(cl) {
			continue
		}
		m.name = strconv.AppendInt(append(m.name[:0], topicPrefix...), m.number, 10)
		m.crowd.publish(cl, m.name, 0, false, m.name)
		m.number++
	}
}

// The sizes of the attack by Retained Messages.
const (
	retainedCount   = 100_000
	retainedPayload = 64
	retainedBytes   = 96 // of a message on the wire, about, with what its acknowledgement costs the reader
)

// retention stores a hundred thousand Retained Messages, and has a subscriber come who reads slowly: it must get each of
// them, however long it takes.
type retention struct {
	bystander
	publisher, reader *client
	stored            int
	asked             bool
	sips              pace
	seen              []bool
	name, payload     []byte
}

func (r *retention) layOut(c *crowd) {
	r.crowd, r.payload, r.seen = c, payload(retainedPayload), make([]bool, c.cfg.scaled(retainedCount))
	r.sips.perSecond = float64(len(r.seen)*retainedBytes) / c.cfg.Long.Seconds()
	r.publisher = r.enlist("retained", rolePublisher, 1)[0]
	r.reader = r.enlist("retained", roleDeaf, 1)[0]
}

func (r *retention) lives(cl *client) { r.standing++ }

// stands when all are stored.
func (r *retention) stands() bool { return r.stored == len(r.seen) }
func (r *retention) isDone() bool { return r.outcome.Good == int64(len(r.seen)) }

func (r *retention) hears(cl *client, first byte, body []byte) {
	switch packet.Kind(first >> 4) {
	case packet.PUBACK:
		r.stored++
	case packet.PUBLISH:
		number, err := strconv.Atoi(string(bytes.TrimPrefix(topicOf(body), []byte("retained/"))))
		if err != nil || number < 0 || number >= len(r.seen) {
			r.outcome.Answers["a message that nobody sent"]++
		} else if !r.seen[number] {
			r.seen[number] = true
			r.outcome.Good++
		}
	}
}

func (r *retention) acts() {
	for r.outcome.Sent < int64(len(r.seen)) && r.publisher.state == live && r.publisher.unacked < unackedMax {
		r.name = strconv.AppendInt(append(r.name[:0], "retained/"...), r.outcome.Sent, 10)
		r.crowd.publish(r.publisher, r.name, 1, true, r.payload)
	}
	if !r.stands() || r.reader.state != live {
		return
	}
	if !r.asked {
		r.asked, r.outcome.Expected = true, int64(len(r.seen))
		r.subscribe(r.reader, 1, "retained/#")
	}
	if n := r.sips.due(r.now); n > 0 {
		r.sip(r.reader, n)
	}
}
