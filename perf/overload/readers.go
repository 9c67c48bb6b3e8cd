package overload

import (
	"fmt"

	"github.com/ringmq/ringmq/broker/packet"
)

// The roles that tactics with publishers and subscribers share.
const (
	rolePublisher = iota
	roleReader    // a subscriber who reads all that comes
	roleDeaf      // one who does not, or slowly
)

// bystander is what most tactics are: one that hears and does nothing. They embed it.
type bystander struct {
	*crowd
	wanted, standing int // clients, and those of them that are where they should be
}

func (b *bystander) lives(*client)               {}
func (b *bystander) hears(*client, byte, []byte) {}
func (b *bystander) ended(*client)               {}
func (b *bystander) stands() bool                { return b.standing == b.wanted }
func (b *bystander) isDone() bool                { return false }

// enlist makes count clients of a role, and has them opened.
func (b *bystander) enlist(name string, role, count int) []*client {
	b.wanted += count
	made := make([]*client, 0, count)
	for i := range count {
		cl := b.add(role, i).greets(name)
		cl.deaf = role == roleDeaf
		b.open(cl)
		made = append(made, cl)
	}
	return made
}

// payload is n bytes that mean nothing.
func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return b
}

// The sizes of the attack by subscribers who never read.
const (
	deafReaders    = 100
	deafSmallPace  = 100 // messages per second to all of them
	deafBigPace    = 400 // and to the deaf alone
	deafBigPayload = 16 << 10
	smallPayload   = 64
)

// deafness is subscribers who never read, beside a hundred who do: at QoS 0 and at QoS 1.
type deafness struct {
	bystander
	publisher  *client
	small, big pace
	payload    []byte
}

func (d *deafness) layOut(c *crowd) {
	d.crowd, d.payload = c, payload(deafBigPayload)
	d.small.perSecond, d.big.perSecond = deafSmallPace, deafBigPace
	d.enlist("deaf", roleReader, deafReaders)
	if c.cfg.Harmless {
		d.big.perSecond = 0
	} else {
		d.enlist("deaf", roleDeaf, 2)
	}
	d.publisher = d.enlist("deaf", rolePublisher, 1)[0]
}

func (d *deafness) lives(cl *client) {
	switch cl.role {
	case roleReader:
		d.subscribe(cl, 0, "deaf/small")
		return // stands with SUBACK
	case roleDeaf:
		d.subscribe(cl, byte(cl.number), "deaf/#")
	}
	d.standing++
}

func (d *deafness) hears(cl *client, first byte, _ []byte) {
	switch packet.Kind(first >> 4) {
	case packet.SUBACK:
		d.standing++
	case packet.PUBLISH:
		d.outcome.Good++
	}
}

func (d *deafness) acts() {
	if !d.stands() {
		return
	}
	for range d.small.due(d.now) {
		d.crowd.publish(d.publisher, []byte("deaf/small"), 0, false, d.payload[:smallPayload])
		d.outcome.Expected += deafReaders
	}
	for range d.big.due(d.now) {
		if !d.mustHold(d.publisher) {
			d.crowd.publish(d.publisher, []byte("deaf/big"), byte(d.big.done&1), false, d.payload)
		}
	}
}

// The sizes of the attack by subscribers who read slowly.
const (
	slowReaders = 1000
	slowPace    = 20       // messages per second to each of them
	slowPayload = 8 << 10  // bytes
	slowSip     = 512      // bytes that a slow reader reads
	slowSipPace = 10 * 1e3 // times per second, all of them together
	// slowFirst messages fill the kernel's buffers and the broker's before victims are measured: what reaches them at first is
	// traffic like any other, and no overload.
	slowFirst = 200
)

// slowness is a thousand subscribers who take a thirtieth of what is for them.
type slowness struct {
	bystander
	publisher *client
	slow      []*client
	messages  pace
	sips      pace
	next      int
	payload   []byte
}

func (s *slowness) layOut(c *crowd) {
	s.crowd, s.payload = c, payload(slowPayload)
	s.messages.perSecond, s.sips.perSecond = slowPace*float64(slowReaders/c.cfg.scaled(slowReaders)), slowSipPace
	s.slow = s.enlist("slow", roleDeaf, c.cfg.scaled(slowReaders))
	s.publisher = s.enlist("slow", rolePublisher, 1)[0]
}

func (s *slowness) lives(cl *client) {
	if s.standing++; cl.role == roleDeaf {
		s.subscribe(cl, 0, "slow")
	}
}

func (s *slowness) stands() bool { return s.outcome.Sent >= slowFirst }

func (s *slowness) acts() {
	if !s.bystander.stands() {
		return
	}
	for range s.messages.due(s.now) {
		if !s.mustHold(s.publisher) {
			s.crowd.publish(s.publisher, []byte("slow"), 0, false, s.payload)
		}
	}
	for range s.sips.due(s.now) {
		s.sip(s.slow[s.next], slowSip)
		s.next = (s.next + 1) % len(s.slow)
	}
}

// The sizes of the flood.
const (
	floodPairs   = 10
	floodPayload = 1 << 10
	floodTaken   = 500               // messages per second that each subscriber takes
	floodPace    = 3 * floodTaken    // and that are published to it
	floodBytes   = floodPayload + 20 // of a message on the wire, about
)

// flooding is publishers at three times what their subscribers take: half of them at QoS 0 and half at QoS 1.
type flooding struct {
	bystander
	publishers, subscribers []*client
	messages, sips          []pace
	payload                 []byte
}

func (f *flooding) layOut(c *crowd) {
	f.crowd, f.payload = c, payload(floodPayload)
	f.subscribers = f.enlist("flood", roleDeaf, floodPairs)
	f.publishers = f.enlist("flood", rolePublisher, floodPairs)
	for range floodPairs {
		f.messages = append(f.messages, pace{perSecond: floodPace})
		f.sips = append(f.sips, pace{perSecond: floodTaken * floodBytes})
	}
}

func floodTopic(number int) string { return fmt.Sprintf("flood/%d", number) }

func (f *flooding) lives(cl *client) {
	if f.standing++; cl.role == roleDeaf {
		f.subscribe(cl, byte(cl.number%2), floodTopic(cl.number))
	}
}

func (f *flooding) acts() {
	if !f.stands() {
		return
	}
	for i, p := range f.publishers {
		topic := []byte(floodTopic(i))
		for range f.messages[i].due(f.now) {
			if p.state == live && !f.mustHold(p) {
				f.crowd.publish(p, topic, byte(i%2), false, f.payload)
			}
		}
		if n := f.sips[i].due(f.now); n > 0 {
			f.sip(f.subscribers[i], n)
		}
	}
}
