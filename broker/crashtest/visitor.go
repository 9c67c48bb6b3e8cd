package crashtest

import "github.com/ringmq/ringmq/broker/packet"

// visit is what a Client that is nobody's reader looks for: Retained Messages. Each topic that has one has one publisher.
type visit struct {
	asked bool           // SUBSCRIBE was sent
	least map[string]int // by publisher: the youngest number that was acknowledged by then; none older may come
	owed  map[string]int // those of which one must come
}

// newVisitor makes a Client whose Session is new with each connection and ends with it, and which subscribes to see what is retained.
func newVisitor(l *Ledger, v packet.Version, filter string) *Client {
	return &Client{ID: "visitor", Version: v, Filter: filter, ledger: l, visit: &visit{}, received: map[uint16]bool{}}
}

// Seen says that a visitor has got what it was to find.
func (c *Client) Seen() bool { return c.visit.asked && len(c.visit.owed) == 0 }

// subscribe notes what is to be found, and asks for it.
func (c *Client) subscribeAsVisitor(out []byte) []byte {
	c.visit.asked, c.visit.least, c.visit.owed = true, map[string]int{}, map[string]int{}
	for _, p := range c.ledger.clients {
		last := c.ledger.last[p.ID]
		if !p.Retain || last == 0 || !matches(c.Filter, p.Topic) || c.ledger.messages[payloadOf(p.ID, last)].brief() {
			continue
		}
		c.visit.least[p.ID] = last
		if p.clears(last) {
			c.ledger.tally.Cleared++
		} else if !p.Clears || p.next == last { // what comes next may clear it
			c.visit.owed[p.ID] = last
		}
	}
	return c.appendSubscribe(out, 0)
}

// onRetained judges what a visitor has got.
func (c *Client) onRetained(p *packet.Publish) {
	if !p.Retain {
		return // published while it was there
	}
	m := c.ledger.messageOf(c, p.Payload)
	if m == nil {
		return
	}
	c.ledger.judgeTime(c, m, p)
	least, ok := c.visit.least[m.publisher]
	if !ok {
		return
	}
	if delete(c.visit.owed, m.publisher); m.number < least && !c.ledger.mayLose {
		c.ledger.problem("%s: number %d is retained although number %d was acknowledged", m.topic, m.number, least)
	}
	c.ledger.tally.Retained++
}
