package overload

import (
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/epoll"
)

// The sizes of the attack by single bytes.
const (
	dribblers   = 200
	dribblePace = 20000 // bytes per second, all of them together, each a write and a segment of its own
)

// dribble is publishers at QoS 1 whose packets come a byte at a time.
type dribble struct {
	bystander
	all  []*client
	text [][]byte // by client: the packet under way
	next int
	pace pace
}

func (d *dribble) layOut(c *crowd) {
	d.crowd, d.pace.perSecond = c, dribblePace
	d.all = d.enlist("dribble", rolePublisher, dribblers)
	d.text = make([][]byte, dribblers)
}

func (d *dribble) lives(*client) { d.standing++ }

func (d *dribble) hears(_ *client, first byte, _ []byte) {
	if packet.Kind(first>>4) == packet.PUBACK {
		d.outcome.Good++
	}
}

func (d *dribble) acts() {
	if !d.stands() {
		return
	}
	for range d.pace.due(d.now) {
		cl := d.all[d.next]
		text := &d.text[d.next]
		d.next = (d.next + 1) % len(d.all)
		if cl.state != live {
			continue
		}
		if cl.at == len(*text) {
			h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte("dribble"), PacketID: cl.packetID(), PayloadSize: 8}
			*text, cl.at = packet.AppendPublish((*text)[:0], &h, payload(8), cl.version), 0
		}
		if n, err := epoll.Write(cl.fd, (*text)[cl.at:cl.at+1]); err != nil || n != 1 {
			d.outcome.HeldBack++
			continue
		}
		d.outcome.Sent++
		cl.inPacket = cl.at+1 < len(*text)
		if cl.at++; cl.at == len(*text) {
			d.outcome.Expected++
			cl.unacked++
		}
	}
}

// The sizes of the attack by announcements.
const (
	announcers      = 100 // announce 256 MB
	promisers       = 400 // announce what the broker takes, more of it than it can hold, and send a byte each second
	promisedBytes   = 2<<20 - 100
	announcePace    = 300 // announcements per second, those who were refused and come again included
	rolePromiser    = 1
	roleStranger    = 2 // announces 256 MB before it has said who it is
	strangers       = 20
	packetMaxLength = 268435455
)

// announcement is packets that are announced and do not come.
type announcement struct {
	bystander
	waiting []*client // to come again
	open    pace
	bytes   pace
	promise []*client
	next    int
}

func (a *announcement) layOut(c *crowd) {
	a.crowd, a.open.perSecond, a.bytes.perSecond = c, announcePace, promisers
	for role, count := range []int{announcers, promisers, strangers} {
		for i := range count {
			cl := a.add(role, i)
			switch role {
			case roleStranger:
				cl.hello = packet.AppendVarint([]byte{byte(packet.CONNECT) << 4}, packetMaxLength)
			default:
				cl.greets("announce")
			}
			if role == rolePromiser {
				a.promise = append(a.promise, cl)
			}
			a.waiting = append(a.waiting, cl)
		}
	}
}

// stands when everybody has been there once.
func (a *announcement) stands() bool { return a.outcome.Sent >= announcers+promisers }

func (a *announcement) lives(cl *client) {
	n := packetMaxLength
	if cl.role == rolePromiser {
		n = promisedBytes
	}
	a.send(cl, append(packet.AppendVarint([]byte{byte(packet.PUBLISH) << 4}, n), 0, 1, 'a'))
	cl.inPacket = true
	a.outcome.Sent++
}

func (a *announcement) ended(cl *client) { a.waiting = append(a.waiting, cl) }

func (a *announcement) acts() {
	for range a.open.due(a.now) {
		if len(a.waiting) > 0 {
			a.crowd.open(a.waiting[0])
			a.waiting = a.waiting[1:]
		}
	}
	for range a.bytes.due(a.now) {
		if cl := a.promise[a.next]; cl.state == live && !cl.full {
			a.send(cl, []byte{0})
		}
		a.next = (a.next + 1) % len(a.promise)
	}
}
