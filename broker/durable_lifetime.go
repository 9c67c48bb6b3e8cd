package broker

// lifetimes says when what is on disk of a Session's queue expires: from then on it does not count against the Session's limit [MQTT-3.3.2-5],
// although nobody has read it, and the store removes it when it finds it. It takes as much memory for any queue. Where deliveries expire at
// more times than there are steps, the nearest share one, and count until the last of them has expired.
type lifetimes struct {
	passed int64 // what expires by then is new to no step, and does not count
	n      int
	steps  [lifetimeSteps + 1]lifetime // in the order of time, apart from each other; one more than stay
}

// lifetime is the deliveries that expire at some time from first to last, both included.
type lifetime struct {
	first, last int64 // ms
	n           uint64
	bytes       int64
}

// lifetimeSteps: a queue whose deliveries expire one after another, evenly, gets room in pieces of a seventh, or at most two.
const lifetimeSteps = 7

// add counts a delivery; false: it has expired.
func (l *lifetimes) add(at, bytes int64) bool {
	if at <= l.passed {
		return false
	}
	i := l.find(at)
	if i == l.n || at < l.steps[i].first {
		copy(l.steps[i+1:], l.steps[i:l.n])
		l.steps[i] = lifetime{first: at, last: at}
		l.n++
	}
	l.steps[i].n++
	l.steps[i].bytes += bytes
	if l.n > lifetimeSteps {
		l.join()
	}
	return true
}

// find is the first step that does not end before a time.
func (l *lifetimes) find(at int64) (i int) {
	for i < l.n && l.steps[i].last < at {
		i++
	}
	return i
}

// join makes one step of the two that are so with the least time from first to last.
func (l *lifetimes) join() {
	at := 0
	for i := range l.n - 1 {
		if l.steps[i+1].last-l.steps[i].first < l.steps[at+1].last-l.steps[at].first {
			at = i
		}
	}
	a, b := &l.steps[at], &l.steps[at+1]
	*a = lifetime{a.first, b.last, a.n + b.n, a.bytes + b.bytes}
	l.remove(at+1, at+2)
}

func (l *lifetimes) remove(from, to int) {
	copy(l.steps[from:], l.steps[to:l.n])
	l.n -= to - from
}

// take takes a delivery off; false: it does not count any more, or will not when its step is over.
func (l *lifetimes) take(at, bytes int64) bool {
	i := l.find(at)
	if at <= l.passed || i == l.n || at < l.steps[i].first {
		return false
	}
	l.steps[i].bytes -= bytes
	if l.steps[i].n--; l.steps[i].n == 0 {
		l.remove(i, i+1)
	}
	return true
}

// pass lets time pass, and says how much has expired.
func (l *lifetimes) pass(now int64) (n uint64, bytes int64) {
	over := 0
	for ; over < l.n && l.steps[over].last <= now; over++ {
		n += l.steps[over].n
		bytes += l.steps[over].bytes
	}
	l.remove(0, over)
	l.passed = max(l.passed, now)
	return n, bytes
}

// countOnDisk counts a delivery that waits on disk against its Session's limit; 0: it does not expire.
func (s *Shard) countOnDisk(k *kept, expires, bytes int64) {
	if expires > 0 {
		if k.lives == nil {
			k.lives = &lifetimes{passed: s.now}
		}
		if !k.lives.add(expires, bytes) {
			return
		}
	}
	k.disk.waiting++
	k.disk.bytes += bytes
}

// uncountOnDisk takes off what countOnDisk has counted.
func (k *kept) uncountOnDisk(expires, bytes int64) {
	if k.disk.waiting == 0 || expires > 0 && k.lives != nil && !k.lives.take(expires, bytes) {
		return
	}
	k.disk.take(1, bytes)
}

// expireOnDisk takes off what has expired on disk.
func (s *Shard) expireOnDisk(k *kept) {
	if k != nil && k.lives != nil {
		k.disk.take(k.lives.pass(s.now))
	}
}

// take takes deliveries off the count. One that could not be read is taken off without its bytes and its time.
func (d *diskPart) take(n uint64, bytes int64) {
	d.waiting -= min(n, d.waiting)
	if d.bytes = max(0, d.bytes-bytes); d.waiting == 0 {
		d.bytes = 0
	}
}

// expiryOnDisk is when a delivery expires, as far as that matters on disk; 0: never.
func (s *Shard) expiryOnDisk(id uint32) int64 {
	if !s.limits.boundsDisk() {
		return 0
	}
	return s.ms.at(s.entries[id].msg).expires
}
