package sim

// hop is what happens seldom by chance alone: a client that goes on, on another connection, with what it was doing on its last, while
// some of the broker has not heard of that yet.
func (d *dice) hop() {
	c := d.IntN(len(d.roles))
	switch r := &d.roles[c]; {
	case len(r.topics) > 0 && !r.keeper:
		d.publishOn(c)
	case r.keeper && len(r.topics) == 0:
		d.narrow(c)
	}
}

// publishOn has a client whose Session ends with its connection publish, leave, and publish to the same topic on the next
// connection, while one shard stands still: when that goes on, it finds messages of both connections, from two shards.
func (d *dice) publishOn(c int) {
	name, qos := d.one(d.roles[c].topics), d.IntN(3)
	if name[0] == 'r' {
		name = "t/0" // A message not to be retained may come before the Retained Message, which is older: see publish.
	}
	d.op("connect", c, "", "v", d.version(), "clean", 1)
	d.turns(4)
	d.op("stall", -1, "", "shard", d.IntN(4), "turns", 1+d.IntN(20))
	d.op("pub", c, name, "qos", qos)
	d.turns(1 + d.IntN(3))
	d.op([]string{"bye", "close", "half"}[d.IntN(3)], c, "")
	d.turns(1 + d.IntN(3))
	d.op("connect", c, "", "v", d.version(), "clean", 1)
	d.turns(3)
	d.op("pub", c, name, "qos", qos)
	d.up[c] = true
}

// narrow has a client take a message, and come back, before it has said so, with a Maximum Packet Size that is too small for it.
func (d *dice) narrow(c int) {
	d.op("connect", c, "", "v", 5, "expiry", 100_000)
	d.turns(4)
	d.op("hold", c, "")
	from := d.IntN(len(d.roles))
	d.op("pub", from, "t/0", "qos", 1+d.IntN(2), "size", 400)
	d.turns(4)
	d.op("connect", c, "", "v", 5, "expiry", 100_000, "packet", 250+d.IntN(100))
	d.up[c] = true
}

// leaveShare has a member of a Shared Subscription unsubscribe while what it was given is on its way: behind so much that its shard, which stood
// still, does not take it all in one turn.
func (d *dice) leaveShare() {
	member, from := 4+d.more.IntN(3), 7+d.more.IntN(4)
	share := d.roles[member].stays[0]
	d.op("stall", -1, "", "shard", d.more.IntN(4), "turns", 4+d.more.IntN(8))
	d.op("pub", from, "t/0", "count", 300+d.more.IntN(300))
	for range 6 {
		d.op("pub", from, "t/0", "qos", 1)
	}
	d.moreTurns(2 + d.more.IntN(4))
	d.op("unsub", member, share)
	d.moreTurns(8 + d.more.IntN(8))
	d.op("sub", member, share, "qos", 2)
}

// rush has a client connect again and again, to any shard, before the broker has finished with its last connection: it waits until
// that has been read. Most go before they have an answer.
func (d *dice) rush() {
	c := d.IntN(len(d.roles))
	d.connect(c)
	d.turns(4)
	for range 2 + d.IntN(4) {
		d.connect(c)
		d.turns(d.IntN(4))
		if d.IntN(3) == 0 {
			d.op([]string{"close", "reset"}[d.IntN(2)], c, "")
			d.up[c] = false
			d.turns(d.IntN(3))
		}
	}
}

// moreTurns is turns by the numbers of more.
func (d *dice) moreTurns(n int) {
	for range n {
		d.op("turn", -1, "", "n", 1+d.more.IntN(1<<30))
	}
}

func (d *dice) turns(n int) {
	for range n {
		d.op("turn", -1, "", "n", 1+d.IntN(1<<30))
	}
}
