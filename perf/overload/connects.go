package overload

import (
	"fmt"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/epoll"
)

// The sizes of the attack by connections.
const (
	idleClients     = 18000
	stormSlots      = 256  // connections of the storm at a time
	stormPace       = 1000 // connects per second
	stayingClients  = 400
	fullConnections = 320 // room for the victims, and for fewer than would stay
	roleIdle        = 0
	roleStorm       = 1
)

// storm is many idle connections, and a storm of connects, each of a client of its own: it leaves as soon as it has its Session, every
// other one without a word. Who is turned away comes again.
type storm struct {
	bystander
	idle, more int       // connections that come first, and slots of the storm beyond stormSlots
	stay       int       // the first so many of the storm that get a Session stay
	expiry     uint32    // seconds that their Sessions outlive them
	slots      []*client // of the storm, closed
	pace       pace
	made       int
}

func (s *storm) layOut(c *crowd) {
	s.crowd, s.pace.perSecond = c, stormPace
	s.enlist("idle", roleIdle, c.cfg.scaled(s.idle))
	for i := range stormSlots + s.more {
		s.slots = append(s.slots, s.add(roleStorm, i))
	}
}

func (s *storm) lives(cl *client) {
	if cl.role == roleIdle {
		s.standing++
		return
	}
	if s.stay > 0 {
		s.stay--
		return
	}
	s.leave(cl, cl.number%2 == 0)
	s.slots = append(s.slots, cl)
}

func (s *storm) ended(cl *client) {
	if cl.role == roleStorm {
		s.slots = append(s.slots, cl)
	}
}

func (s *storm) acts() {
	if !s.stands() {
		return
	}
	for range s.pace.due(s.now) {
		if len(s.slots) == 0 {
			s.outcome.HeldBack++
			continue
		}
		cl := s.slots[0]
		s.slots = s.slots[1:]
		s.made++
		cl.number = s.made
		s.open(cl.greetsAs(packet.Connect{Version: packet.V50, CleanStart: true, SessionExpiry: s.expiry, ClientID: fmt.Appendf(nil, "storm.%d", s.made)}))
		s.outcome.Sent++
	}
}

// The sizes of the slowloris.
const (
	lorisClients = 2000
	lorisPace    = lorisClients // bytes per second, all of them together
)

// loris is connections that send their CONNECT a byte at a time, and never get to its end; when the broker closes one, it
// comes again. They are opened over a while, so that the broker does not close all of them at a time, and attack from then on.
type loris struct {
	bystander
	over    time.Duration
	all     []*client
	opened  int
	next    int
	opening pace
	pace    pace
	text    []byte
}

func (l *loris) layOut(c *crowd) {
	l.crowd, l.pace.perSecond = c, lorisPace
	l.text = packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, CleanStart: true, ClientID: payload(200)})
	l.wanted = lorisClients
	l.opening.perSecond = lorisClients / (time.Duration(c.cfg.scaled(int(l.over))) + time.Millisecond).Seconds()
	for i := range lorisClients {
		l.all = append(l.all, l.add(roleIdle, i))
	}
}

func (l *loris) ended(cl *client) {
	cl.at = 0
	l.open(cl)
}

func (l *loris) acts() {
	for range min(l.opening.due(l.now), len(l.all)-l.opened) {
		l.open(l.all[l.opened])
		l.opened++
	}
	for range l.pace.due(l.now) {
		cl := l.all[l.next]
		l.next = (l.next + 1) % len(l.all)
		if cl.state == closed {
			continue
		}
		if n, err := epoll.Write(cl.fd, l.text[cl.at:cl.at+1]); err == nil && n == 1 {
			if cl.at == 0 && l.standing < l.opened {
				l.standing++
			}
			cl.at = min(cl.at+1, len(l.text)-2) // never to the end
			l.outcome.Sent++
		}
	}
}
