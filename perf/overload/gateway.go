package overload

import (
	"strconv"

	"github.com/ringmq/ringmq/broker/packet"
)

// The sizes of the gateways.
const (
	gatewayFilters = 200_000
	gatewayPacket  = 100    // filters in a SUBSCRIBE
	gatewayPace    = 5      // connections per second
	gatewayEnds    = 5      // of so many one ends a Session
	gatewayExpiry  = 300    // seconds that a Session outlives its connection
	gatewayBuild   = 50_000 // filters per second, before the attack
	gatewayRebuild = 20_000 // and in it
	roleKeeper     = 0      // its Session is kept: it moves with its client, from connection to connection
	roleAnew       = 1      // Clean Start: it ends, and is made anew
)

// gateways are two clients with very many subscriptions whose connections come and go: the Session of the one moves between shards, that
// of the other ends.
type gateways struct {
	bystander
	all     [2]*client
	asked   [2]int // filters since the last Clean Start
	most    int
	pace    pace
	filters pace
	next    int // of the connections
}

func (g *gateways) layOut(c *crowd) {
	g.crowd, g.pace.perSecond, g.filters.perSecond = c, gatewayPace, gatewayBuild/gatewayPacket
	g.most, g.wanted = c.cfg.scaled(gatewayFilters), 2
	for role := range g.all {
		g.all[role] = g.add(role, 0)
		g.dial(role)
	}
}

// dial has a gateway connect, again.
func (g *gateways) dial(role int) {
	in := packet.Connect{Version: packet.V50, CleanStart: role == roleAnew, SessionExpiry: gatewayExpiry, ClientID: []byte("gateway." + strconv.Itoa(role))}
	if in.CleanStart {
		g.asked[role] = 0
	}
	g.open(g.all[role].greetsAs(in))
}

func (g *gateways) lives(*client) {}

func (g *gateways) ended(cl *client) { g.dial(cl.role) }

func (g *gateways) hears(cl *client, first byte, _ []byte) {
	if packet.Kind(first>>4) != packet.SUBACK {
		return
	}
	g.outcome.Good += gatewayPacket
	if cl.unacked--; g.standing < g.wanted && cl.unacked == 0 && g.asked[cl.role] == g.most {
		if g.standing++; g.stands() {
			g.filters = pace{perSecond: gatewayRebuild / gatewayPacket}
		}
	}
}

func (g *gateways) acts() {
	for range g.filters.due(g.now) {
		g.ask()
	}
	if !g.stands() {
		return
	}
	for range g.pace.due(g.now) {
		role := roleKeeper
		if g.next++; g.next%gatewayEnds == 0 {
			role = roleAnew
		}
		if cl := g.all[role]; cl.state == live { // Nobody answers any more what it has asked for last.
			g.outcome.Expected -= int64(gatewayPacket * cl.unacked)
			g.leave(cl, false)
			g.dial(role)
		}
	}
}

// ask has one of those who lack subscriptions ask for some more.
func (g *gateways) ask() {
	for _, cl := range g.all {
		if cl.state != live || g.asked[cl.role] == g.most || g.mustHold(cl) {
			continue
		}
		var filters []string
		for range gatewayPacket {
			filters = append(filters, "gateway/"+strconv.Itoa(cl.role)+"/device/"+strconv.Itoa(g.asked[cl.role]))
			g.asked[cl.role]++
		}
		cl.unacked++
		g.outcome.Sent += gatewayPacket
		g.outcome.Expected += gatewayPacket
		g.subscribe(cl, 1, filters...)
		return
	}
}
