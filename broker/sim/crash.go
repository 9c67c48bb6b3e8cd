package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
)

// hashKey makes the hash of topics the same in every run: which topics share a set of the cache decides what is forgotten.
var hashKey = [2]uint64{0xb5297a4d3f84d5b5, 0x68e31da4d2c8f1e7}

// boot starts a broker, on the disk if the world has one.
func (w *world) boot() error {
	c := memnet.Config{Planes: len(w.turns), Threaded: w.options.Threaded, SendWindowBytes: w.windowOut, ReceiveWindowBytes: w.windowIn}
	if !w.options.Threaded {
		c.ReadSize, c.WriteSize, c.Shuffle = w.part, w.part, w.shuffle
	}
	w.network = memnet.New(c)
	var planes []broker.Plane
	for _, p := range w.network.Planes() {
		if w.lag > 0 {
			planes = append(planes, latePlane{p, w})
		} else {
			planes = append(planes, p)
		}
	}
	w.authenticator = newAuthenticator(w, w.questions)
	w.rates.begin(len(w.turns))
	w.unproved = 0
	o := broker.Options{Limits: w.limits, Host: w.authenticator, Clock: w.wall, HashKey: hashKey,
		Config: broker.Config{Listeners: []broker.ListenerConfig{{AllowAnonymous: w.auth != strangersOut}}, Seed: 1, SharedStrategy: w.strategy}}
	if w.auth != everybodyIn {
		o.Config.Passwords, o.Config.Methods = true, []string{methodName}
	}
	if w.disk != nil {
		o.Store = w.disk
	}
	b, err := broker.New(o, planes)
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	w.broker = b
	return nil
}

func (w *world) wall() time.Time { return time.UnixMilli(epochMS + w.now.Load()) }

// epochMS is when a simulation begins.
const epochMS = 1_700_000_000_000

// workDisk lets the store do some of what waits, all of it in calm turns.
func (w *world) workDisk() {
	d := w.disk
	if d == nil {
		return
	}
	most := 1 << 20
	if !w.calm {
		most = w.chance.IntN(4)
	}
	now := epochMS + w.now.Load()
	if d.full {
		w.fullAt = w.step
	}
	if d.stuck || d.full {
		return
	}
	if err := d.work(w.broker, most, now); err != nil {
		w.violate("store", "%v", err)
	}
	if now-d.last >= beatMS && d.boot > 0 && d.idle() { // the store notes the time by itself when there is nothing else to write
		d.last = now
	}
}

// setDisk makes the store stand still, be full, or work again.
func (w *world) setDisk(o *Op) {
	if d := w.disk; d != nil {
		d.stuck, d.full = o.is("stuck"), o.is("full")
		refusal := broker.RefuseNothing
		if d.full {
			refusal = broker.RefuseMessages
		}
		w.broker.Refuse(refusal)
		if d.full {
			w.fullAt = w.step
		}
	}
}

// crash ends the broker at once: what is not committed is lost, but for the first few batches that the store has committed without the
// broker having heard of it. After a while another one starts on what is there.
func (w *world) crash(o *Op) {
	if w.disk == nil || w.options.Threaded {
		return
	}
	for _, c := range w.clients {
		if l := c.link; l != nil && mix(uint64(w.step), uint64(c.index))&1 == 0 {
			l.hear(1 << 30) // what the broker had written comes, or does not
		}
	}
	if err := w.disk.work(nil, o.get("more", 0), epochMS+w.now.Load()); err != nil {
		w.violate("store", "%v", err)
	}
	crashed := moment{step: w.step, ms: w.disk.last - epochMS}
	w.stats.Crashes++
	w.crashes = append(w.crashes, w.step)
	w.reboot(o)
	w.forgiveWills()
	for _, c := range w.clients {
		c.session.survive(w, crashed)
	}
}

// reboot ends the broker, and starts another one after a while.
func (w *world) reboot(o *Op) {
	for _, c := range w.clients {
		c.loseBroker()
	}
	for _, i := range w.intruders {
		_ = i.peer.Reset()
	}
	w.ghosts, w.watched, w.intruders = nil, nil, nil
	w.addCounters()
	if w.disk != nil {
		w.disk.crash()
	}
	w.broker.Release()
	w.now.Add(int64(o.get("ms", 0)))
	w.jumped, w.looked = w.step, slices.Max(w.turns)
	if err := w.boot(); err != nil {
		w.violate("restart", "%v", err)
	}
	for _, c := range w.clients {
		c.pending = nil
	}
}

// addCounters has the shards of a broker that ends publish what they have counted: in a turn a second later, of which nobody will know.
func (w *world) addCounters() {
	w.now.Add(1000)
	for _, l := range w.broker.Loops() {
		_ = l.Turn(0)
	}
	w.now.Add(-1000)
	for i, n := range w.broker.Counters() {
		w.past[i] += n
	}
}

// crashesSince counts the crashes since a step.
func (w *world) crashesSince(step int) (n int) {
	for _, at := range w.crashes {
		if at >= step {
			n++
		}
	}
	return n
}

// loseBroker is what the end of the broker means for a client.
func (c *client) loseBroker() {
	for _, r := range c.rivals {
		r.gone = c.w.moment()
	}
	c.rivals = nil
	if c.link == nil {
		return
	}
	_ = c.link.peer.Reset()
	c.endLink(c.link, true)
}

// survive is what a Session may be after a crash: it is offline since the store last noted the time, not later, what nobody has acknowledged may
// be lost, and a Retained Message may be an older one again.
func (s *session) survive(w *world, crashed moment) {
	s.alive.ms = min(s.alive.ms, crashed.ms) - slackMS
	s.gone = crashed
	if s.link != nil {
		s.link.gone = crashed
	}
	for key, at := range s.newest {
		if at > 0 {
			s.newest[key] = w.lastAcknowledged(key, at)
		}
	}
}

// lastAcknowledged is the youngest message of a stream, not younger than at, that was acknowledged.
func (w *world) lastAcknowledged(key stream, at int) (seq int) {
	for _, m := range w.messages {
		if m.from == key.from && m.topic == key.topic && m.seq <= at && m.acked.step != 0 {
			seq = max(seq, m.seq)
		}
	}
	return seq
}

// forgiveWills takes back what a crash leaves open: the Will of a connection whose Session is not kept is lost with it; any may have
// been published, and that not be durable; a DISCONNECT may not have been noted, and a delay counts from when the store last noted the
// time.
func (w *world) forgiveWills() {
	for _, m := range w.messages {
		will := m.will
		if will == nil || will.ended.step == 0 {
			continue
		}
		will.touched++
		will.never = false
		m.tries++
		will.due = will.due && will.link.expiry > 0
	}
}
