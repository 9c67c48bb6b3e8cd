package netstack

const (
	// attemptsPerTurn bounds the SYNs that one turn takes while more wait: each costs the stack some 40 µs, which nobody whose
	// frames came behind a thousand of them should wait for.
	attemptsPerTurn = 8

	// attemptsMax bounds the SYNs that wait. Beyond it they are taken at once: under a flood SYN cookies answer them, which costs little.
	attemptsMax = 1024

	// attemptBytes is the longest frame with a SYN that may wait: two VLAN tags, IPv6 and as many options as there can be.
	attemptBytes = linkHeaderMax + ipv6HeaderBytes + 60
)

// attempts are SYNs that wait for their turn, the oldest first. Frames of connections pass them by.
type attempts struct {
	waiting []attempt // a ring
	first   int
	count   int
}

// attempt is one frame.
type attempt struct {
	frame [attemptBytes]byte
	size  uint8
}

// newAttempts has room for so many.
func newAttempts(most int) attempts { return attempts{waiting: make([]attempt, most)} }

// put copies a frame; false means that there is no room, or that it is too long.
func (a *attempts) put(frame []byte) bool {
	if a.count == len(a.waiting) || len(frame) > attemptBytes {
		return false
	}
	to := &a.waiting[(a.first+a.count)%len(a.waiting)]
	to.size = uint8(copy(to.frame[:], frame))
	a.count++
	return true
}

// take returns the oldest, valid until the next put; there must be one.
func (a *attempts) take() []byte {
	from := &a.waiting[a.first]
	a.first = (a.first + 1) % len(a.waiting)
	a.count--
	return from.frame[:from.size]
}

// takeAttempts has the stack work on some of them and tells on how many: while there are any it is not zero, so that the plane does
// not rest.
func (p *Plane) takeAttempts() int {
	n := min(p.bounded(attemptsPerTurn), p.attempts.count)
	for range n {
		p.onAttempt(p.attempts.take())
	}
	return n
}

// onAttempt takes a SYN that has waited.
func (p *Plane) onAttempt(frame []byte) {
	defer p.recoverFrame()
	p.admitAgain(frame, true)
}
