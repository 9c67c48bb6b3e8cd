package overload

import (
	"fmt"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// The sizes of the soak.
const (
	soakClients    = 300
	soakClientIDs  = 600  // so few that the same identifier comes again soon: it takes a Session over, or finds one
	soakPace       = 3000 // actions per second
	soakTopics     = 100
	soakRetained   = 200
	soakExpiryMax  = 4 // seconds that a Session outlives its connection, or a Will waits, at most
	soakPayloadMax = 3000
	soakLarge      = 20000 // bytes of one payload in fifty
	roleChurner    = 0
	roleCleaner    = 1
)

// SoakSettings are lines of the broker's configuration: little memory, so that its limits are met, all of it
// touched at the start, so that what comes to be resident later is the runtime's; and an end for the Sessions
// of 3.1.1, which name none.
const SoakSettings = "memory = \"256MiB\"\nprefault = true\nmax_connections = 1000\nmax_retained = 5000\nmax_subscriptions = 20000\n" +
	"persistent_client_expiration = \"4s\""

// Soak is clients that come, go, take each other's Sessions over, subscribe, publish at all QoS, retain, clear and leave Wills,
// for as long as Config.Long; then all of them leave, and what they have retained is cleared.
func Soak() *Scenario {
	return &Scenario{Name: "soak", Says: "everything at once, and then nothing", Policy: "served", Ends: true,
		Answers: []string{"DISCONNECT 0x8E"},
		// Who takes a Session over that is just being taken over gets in another's way; and memory may be used up for a moment.
		Allowed: []string{"CONNACK 0x89", "CONNACK 0x03", "CONNACK 0x97", "DISCONNECT 0x97", "PUBACK 0x97", "PUBREC 0x97"}, check: func(o *Outcome) string {
			if !o.Complete || o.Received == 0 {
				return "it has not come to its end"
			}
			return ""
		}, make: func() tactic { return &soaking{} }}
}

type soaking struct {
	bystander
	churners []*client
	cleaner  *client
	actions  pace
	payload  []byte
	over     int64 // when everybody leaves
	left     bool
	cleared  int // messages that the cleaner has sent
	acked    int // and that are acknowledged
}

func (s *soaking) layOut(c *crowd) {
	s.crowd, s.payload, s.actions.perSecond = c, payload(soakLarge), soakPace
	s.over = int64(c.cfg.Long)
	for i := range soakClients {
		s.churners = append(s.churners, s.add(roleChurner, i))
	}
	s.wanted = 1
	s.cleaner = s.add(roleCleaner, 0).greets("soak-cleaner")
	s.open(s.cleaner)
}

func (s *soaking) lives(cl *client) {
	if cl.role == roleCleaner {
		s.standing = 1
	}
}

func (s *soaking) hears(cl *client, first byte, _ []byte) {
	if cl.role == roleCleaner && packet.Kind(first>>4) == packet.PUBACK {
		s.acked++
	}
}

func (s *soaking) isDone() bool { return s.acked == soakRetained }

func (s *soaking) acts() {
	switch {
	case !s.stands():
	case s.now < s.over:
		for range s.actions.due(s.now) {
			s.act(s.churners[s.below(len(s.churners))])
		}
	case !s.left:
		s.left, s.opening = true, nil
		for _, cl := range s.churners {
			s.leave(cl, true)
		}
	case s.now > s.over+int64((2*soakExpiryMax+1)*time.Second):
		// By now every Session has ended and every Will has been published.
		for ; s.cleared < soakRetained; s.cleared++ {
			s.publish(s.cleaner, s.retained(s.cleared), 1, true, nil)
		}
	}
}

func (s *soaking) retained(number int) []byte { return fmt.Appendf(nil, "soak/retained/%d", number) }
func (s *soaking) filter() string {
	return [...]string{"soak/#", "soak/+/" + fmt.Sprint(s.below(soakTopics)), fmt.Sprintf("soak/topic/%d", s.below(soakTopics)),
		fmt.Sprintf("soak/retained/%d", s.below(soakRetained)), "soak/retained/+",
		fmt.Sprintf("$share/g%d/soak/topic/%d", s.below(3), s.below(soakTopics))}[s.below(60)%6]
}

// act has one client do one thing. Filters that match everything are rare, or nothing else would be measured.
func (s *soaking) act(cl *client) {
	if cl.state != live {
		if cl.state == closed && !cl.waits {
			s.open(cl.greetsAs(s.hello()))
		}
		return
	}
	switch n := s.below(1000); {
	case s.mustHold(cl):
	case n < 20:
		s.leave(cl, n < 10)
	case n < 120 && s.below(8) > 0:
		s.subscribe(cl, byte(s.below(3)), fmt.Sprintf("soak/topic/%d", s.below(soakTopics)), fmt.Sprintf("soak/retained/%d", s.below(soakRetained)))
	case n < 120:
		s.subscribe(cl, byte(s.below(3)), s.filter())
	case n < 240:
		s.unsubscribe(cl, s.filter(), "soak/#", "soak/retained/+", fmt.Sprintf("soak/topic/%d", s.below(soakTopics)))
	case n < 320:
		s.publish(cl, s.retained(s.below(soakRetained)), byte(s.below(3)), true, s.some())
	case n < 400:
		s.publish(cl, s.retained(s.below(soakRetained)), byte(s.below(3)), true, nil)
	default:
		s.publish(cl, fmt.Appendf(nil, "soak/topic/%d", s.below(soakTopics)), byte(s.below(3)), false, s.some())
	}
}

// some is a payload of any length; one in fifty is larger than a page.
func (s *soaking) some() []byte {
	if s.below(50) == 0 {
		return s.payload
	}
	return s.payload[:1+s.below(soakPayloadMax)]
}

// hello is a CONNECT of either version, with or without a Session that stays and a Will.
func (s *soaking) hello() packet.Connect {
	in := packet.Connect{Version: packet.V50, CleanStart: s.below(2) == 0, KeepAlive: 30, ReceiveMaximum: uint16(5 + s.below(100)),
		ClientID: fmt.Appendf(nil, "soak-%d", s.below(soakClientIDs)), SessionExpiry: uint32(s.below(soakExpiryMax))}
	if s.below(3) == 0 {
		in.Version, in.SessionExpiry, in.ReceiveMaximum = packet.V311, 0, 0
	}
	if s.below(2) == 0 {
		in.HasWill = true
		in.Will = packet.Will{QoS: byte(s.below(3)), Retain: s.below(2) == 0, Topic: s.retained(s.below(soakRetained)), Payload: s.some()}
		if in.Version == packet.V50 {
			in.Will.DelayInterval = uint32(s.below(soakExpiryMax))
		}
	}
	return in
}
