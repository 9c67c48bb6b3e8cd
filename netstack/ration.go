package netstack

const (
	// turnBytes bounds what the Writes of one turn give the stack: some 45 packets of the usual MTU, which take it and a device
	// in copy mode half a millisecond. A turn that sends megabytes keeps everybody waiting whose few bytes come behind them.
	turnBytes = 64 << 10

	// smallWrite is never held back.
	smallWrite = 2 << 10

	// rationsPerTurn is how many connections that were held back are told in one turn to go on: as many as can hope for 4 KB.
	rationsPerTurn = turnBytes / (4 << 10)
)

// ration shares what one turn may write, in the order in which connections came to be held back.
type ration struct {
	written int     // bytes, this turn
	waiting []*conn // the oldest first, from next on
	next    int
}

// left is how much of a Write of total bytes this turn may take.
func (r *ration) left(total int) int {
	if total <= smallWrite {
		return total
	}
	return min(total, max(turnBytes-r.written, 0))
}

// waitForRation makes a connection Writable in a later turn.
func (c *conn) waitForRation() {
	c.flags |= short
	if r := &c.plane.ration; c.flags&rationed == 0 {
		c.flags |= rationed
		r.waiting = append(r.waiting, c)
	}
}

// passRations begins a turn's ration and has the connections looked at whose turn it is.
func (p *Plane) passRations() {
	r := &p.ration
	r.written = 0
	for range min(rationsPerTurn, len(r.waiting)-r.next) {
		c := r.waiting[r.next]
		r.waiting[r.next] = nil
		if r.next++; c.flags&rationed != 0 { // Or it has ended meanwhile.
			c.flags &^= rationed
			p.review(c)
		}
	}
	if r.next == len(r.waiting) {
		r.waiting, r.next = r.waiting[:0], 0
	} else if r.next >= len(r.waiting)/2 && r.next >= rationsPerTurn {
		r.waiting, r.next = r.waiting[:copy(r.waiting, r.waiting[r.next:])], 0
	}
	p.hasMore = p.hasMore || len(r.waiting) > 0
}
