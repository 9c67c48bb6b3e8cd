package load

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"
)

// stallCheckInterval is how often windows are looked at for messages that do not come.
const stallCheckInterval = 100 * time.Millisecond

// drainsMax times DrainTimeout is the longest drain, even when messages trickle in.
const drainsMax = 12

// traffic is the scenarios Pairs, FanOut and FanIn.
type traffic struct {
	*loop
	result     *Result
	meter      *meter
	publishers []publisher
	flows      []flow // Pairs and FanIn: by publisher; FanOut: by subscriber
	fan        int    // subscribers that each message goes to
	publishing bool

	delivered      int64 // in all, duplicates included
	published      int64
	acknowledged   int64
	arrivedAt      int64 // when something last arrived
	deliveredSeen  int64 // delivered at that time
	stallCheckedAt int64
	pacer          pacer
}

func newTraffic(l *loop, result *Result) *traffic {
	t := &traffic{loop: l, result: result, meter: newMeter(), fan: 1}
	if l.cfg.Scenario == FanOut {
		t.fan = l.cfg.Connections
	}
	return t
}

func (t *traffic) pacesMessages() bool  { return true }
func (t *traffic) opened(c *conn) error { return nil }

func (t *traffic) lost(c *conn, reason error) error {
	t.close(c)
	return reason
}

func (t *traffic) progress(p *Progress) {
	p.Published, p.Delivered = t.published, t.delivered
	if t.phase == Measuring || t.phase == Draining {
		p.P50 = time.Duration(t.meter.histogram.ValueAtPercentile(50))
		p.P99 = time.Duration(t.meter.histogram.ValueAtPercentile(99))
	}
}

// run is the life of a run: open, warm up, measure, drain, sum up.
func (t *traffic) run(ctx context.Context) error {
	if err := t.layOut(); err != nil {
		return err
	}
	took, err := t.openAll(ctx)
	if err != nil {
		return err
	}
	t.result.ConnectTime = took
	t.applyReceiveMaximum()
	err = t.drive(ctx)
	t.sumUp()
	return err
}

// layOut makes subscribers before publishers, so that nothing is published to nobody.
func (t *traffic) layOut() error {
	publishers, subscribers := t.cfg.publishers(), t.cfg.subscribers()
	t.publishers = make([]publisher, publishers)
	t.flows = make([]flow, max(publishers, subscribers))
	err := t.makeConns(subscribers+publishers, func(i int, c *conn) {
		if i < subscribers {
			c.role, c.number = roleSubscriber, i
			c.filter = t.topic(i)
			return
		}
		c.role, c.number = rolePublisher, i-subscribers
	})
	if err != nil {
		return err
	}
	for i := range t.publishers {
		p := &t.publishers[i]
		p.conn = &t.conns[subscribers+i]
		p.template = newTemplate(&t.cfg, t.topic(i), i, t.cfg.QoS, 0)
		p.limit = math.MaxUint64
		if t.fan > 1 && t.cfg.Rate == 0 {
			p.arrivals = make([]uint32, t.cfg.Window)
		}
	}
	return nil
}

// topic is the Topic Name of the i-th publisher and the filter of the i-th subscriber.
func (t *traffic) topic(i int) string {
	if t.cfg.Scenario != Pairs {
		i = 0
	}
	return fmt.Sprintf("%s/%d", t.loop.run, i)
}

// applyReceiveMaximum narrows windows to what the broker allows to be unacknowledged.
func (t *traffic) applyReceiveMaximum() {
	window := t.cfg.Window
	if window == 0 {
		window = windowMax
	}
	for i := range t.publishers {
		t.publishers[i].unackedMax = uint64(min(window, t.receiveMaximum))
	}
}

// drive publishes: warm-up, measured part, drain.
func (t *traffic) drive(ctx context.Context) error {
	t.now = t.clock()
	t.pacer.start(t)
	t.publishing, t.phase = true, WarmingUp
	t.stallCheckedAt = t.now
	t.markAll()
	if _, err := t.until(ctx, t.now+int64(t.cfg.WarmUp), never); err != nil {
		return err
	}
	if err := t.measure(ctx); err != nil {
		return err
	}
	if t.cfg.Count > 0 {
		return nil // measure has drained
	}
	t.stop()
	return t.drain(ctx)
}

// stop ends publishing, and notes what an open loop still owed.
func (t *traffic) stop() {
	t.publishing = false
	if t.cfg.Rate > 0 && t.cfg.Count == 0 {
		t.result.Unsent = t.pacer.next - t.published
	}
}

// drain waits for what is under way, as long as something arrives now and then.
func (t *traffic) drain(ctx context.Context) error {
	t.phase, t.arrivedAt = Draining, t.now
	_, err := t.until(ctx, t.now+drainsMax*int64(t.cfg.DrainTimeout), func() bool {
		return t.drained() || t.now-t.arrivedAt > int64(t.cfg.DrainTimeout)
	})
	return err
}

func never() bool { return false }

func (t *traffic) markAll() {
	for i := range t.publishers {
		t.mark(t.publishers[i].conn)
	}
}

// measure is the measured part, between two readings of clocks and counts. By Count it lasts until the last
// message has arrived.
func (t *traffic) measure(ctx context.Context) error {
	before, err := t.readCPU()
	if err != nil {
		return err
	}
	// A message that fell due in the last turn, or was sent in it, is measured.
	t.meter.from = t.now
	t.phase, t.now = Measuring, t.clock()
	began, ended, delivered := t.now, int64(0), t.delivered
	if t.cfg.Count == 0 {
		_, err = t.until(ctx, began+int64(t.cfg.Duration), never)
		ended = t.now
	} else {
		t.limitTo(t.cfg.Count)
		if _, err = t.until(ctx, began+int64(t.cfg.Duration), t.allSent); err == nil {
			t.stop() // Duration may have ended it before Count
			err = t.drain(ctx)
		}
		ended = t.arrivedAt
	}
	t.meter.until = t.clock()
	after, cpuErr := t.readCPU()
	r := t.result
	r.MeasuredTime, r.Delivered = time.Duration(ended-began), t.delivered-delivered
	r.cpuTime(before, after)
	return cmp.Or(err, cpuErr)
}

// limitTo lets the publishers send count more messages together.
func (t *traffic) limitTo(count int64) {
	n := int64(len(t.publishers))
	for i := range t.publishers {
		portion := count / n
		if int64(i) < count%n {
			portion++
		}
		p := &t.publishers[i]
		p.limit = p.sent + uint64(portion)
	}
	t.markAll()
}

// allSent says whether every publisher has reached its limit.
func (t *traffic) allSent() bool {
	for i := range t.publishers {
		if p := &t.publishers[i]; p.sent < p.limit {
			return false
		}
	}
	return true
}

// drained says whether all that was sent has arrived and been acknowledged.
func (t *traffic) drained() bool {
	if t.delivered < t.published*int64(t.fan) || t.cfg.QoS > 0 && t.acknowledged < t.published {
		return false
	}
	for i := range t.flows {
		if t.flows[i].missing(t.publisherOf(i).sent) > 0 {
			return false
		}
	}
	return true
}

func (t *traffic) publisherOf(flow int) *publisher { return &t.publishers[flow%len(t.publishers)] }

// turnEnds publishes what falls due and gives up windows whose messages do not come.
func (t *traffic) turnEnds() error {
	t.meter.endRun(t.now)
	if t.delivered != t.deliveredSeen {
		t.deliveredSeen, t.arrivedAt = t.delivered, t.now
	}
	if t.cfg.Rate > 0 {
		return t.pacer.due(t)
	}
	if !t.publishing || t.now-t.stallCheckedAt < int64(stallCheckInterval) {
		return nil
	}
	t.stallCheckedAt = t.now
	for i := range t.publishers {
		if p := &t.publishers[i]; p.stalled(t.now, t.cfg.StallTimeout) {
			t.result.Stalls++
			p.giveUp()
			t.mark(p.conn)
		}
	}
	return nil
}

// sumUp turns the flows' and publishers' counts into the result.
func (t *traffic) sumUp() {
	r := t.result
	for i := range t.flows {
		f := &t.flows[i]
		r.Lost += f.missing(t.publisherOf(i).sent)
		r.Duplicated += f.duplicated
		r.Reordered += f.reordered
		r.Inexact = r.Inexact || f.writtenOff > 0
	}
	r.Published, r.Expected = t.published, t.published*int64(t.fan)
	if t.cfg.QoS > 0 {
		r.Unacknowledged = t.published - t.acknowledged
	}
	r.Latency = summarise(t.meter.histogram)
	r.perSecond()
}
