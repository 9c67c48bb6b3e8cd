package load

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// fetchGap separates two fetches, so that the broker has seen the end of the last before the next begins.
const fetchGap = 10 * time.Millisecond

// retained is the scenario Retained: one connection stores, others fetch, one after the other.
type retained struct {
	*loop
	result *Result
	meter  *meter

	count, sent, acknowledged int  // by the storing connection: of how many
	clearing                  bool // what is sent has an empty payload and so removes a Retained Message

	fetcher *conn
	seen    []int32 // which fetch has last seen a message, by its number
	fetch   int32
	arrived int
}

func newRetained(l *loop, result *Result) *retained {
	return &retained{loop: l, result: result, meter: newMeter(), count: l.cfg.Messages, seen: make([]int32, l.cfg.Messages)}
}

func (r *retained) pacesMessages() bool { return true }
func (r *retained) opened(*conn) error  { return nil }
func (r *retained) turnEnds() error     { return nil }
func (r *retained) progress(p *Progress) {
	p.Delivered, p.Published = r.result.Delivered, int64(r.sent)
}

func (r *retained) lost(c *conn, reason error) error {
	r.close(c)
	return reason
}

// run stores, fetches until Duration is over, and cleans up.
func (r *retained) run(ctx context.Context) error {
	err := r.makeConns(2, func(i int, c *conn) { c.role, c.number = roleIdle, i })
	if err != nil {
		return err
	}
	if r.result.ConnectTime, err = r.openAll(ctx); err != nil {
		return err
	}
	r.fetcher = &r.conns[1]
	if err = r.store(ctx); err == nil {
		err = r.measure(ctx)
	}
	err = cmp.Or(err, r.clear(context.WithoutCancel(ctx))) // Who interrupts a run does not want to keep them either.
	r.result.Latency = summarise(r.meter.histogram)
	r.result.perSecond()
	return err
}

// store publishes count messages at QoS 1 and waits for all acknowledgements.
func (r *retained) store(ctx context.Context) error {
	r.phase = WarmingUp
	r.mark(&r.conns[0])
	done, err := r.until(ctx, r.clock()+int64(r.cfg.ConnectTimeout), func() bool { return r.acknowledged == r.count })
	if err == nil && !done {
		err = fmt.Errorf("broker acknowledged only %d of %d retained messages in %v", r.acknowledged, r.count, r.cfg.ConnectTimeout)
	}
	return err
}

// clear removes what was sent. Acknowledgements of it that are still to come do not count.
func (r *retained) clear(ctx context.Context) error {
	if r.conns[0].state == closed {
		return nil // the run ends with its reason
	}
	r.clearing, r.count, r.sent, r.acknowledged = true, r.sent, 0, r.acknowledged-r.sent
	return r.store(ctx)
}

// measure fetches again and again; the time between fetches does not count.
func (r *retained) measure(ctx context.Context) error {
	before, err := r.readCPU()
	if err != nil {
		return err
	}
	r.phase, r.meter.from = Measuring, 0
	deadline := r.clock() + int64(r.cfg.Duration)
	for r.fetch = 1; r.now < deadline && (r.cfg.Count == 0 || int64(r.fetch) <= r.cfg.Count); r.fetch++ {
		if err = r.fetchOnce(ctx); err != nil {
			break
		}
		if _, err = r.until(ctx, r.now+int64(fetchGap), never); err != nil {
			break
		}
	}
	after, cpuErr := r.readCPU()
	r.result.cpuTime(before, after)
	return cmp.Or(err, cpuErr)
}

// fetchOnce subscribes to all messages, waits until each has come, and unsubscribes.
func (r *retained) fetchOnce(ctx context.Context) error {
	c := r.fetcher
	r.arrived, r.now = 0, r.clock()
	began := r.now
	c.out = appendSubscribe(c.out, &r.cfg, r.loop.run+"/r/#")
	r.mark(c)
	complete, err := r.until(ctx, began+int64(r.cfg.DrainTimeout), func() bool { return r.arrived == r.cfg.Messages })
	if err != nil {
		return err
	}
	res := r.result
	res.Fetches++
	res.Expected += int64(r.cfg.Messages)
	res.Lost += int64(r.cfg.Messages - r.arrived)
	res.MeasuredTime += time.Duration(r.now - began)
	if complete {
		res.FetchesComplete++
	}
	r.meter.arrived(began, r.now)
	r.meter.endRun(r.now)
	c.out = appendUnsubscribe(c.out, &r.cfg, r.loop.run+"/r/#")
	r.mark(c)
	return nil
}

// take counts messages, acknowledges them, and notes the storing connection's acknowledgements.
func (r *retained) take(c *conn, b []byte) (int, error) {
	at := 0
	for {
		header, size, err := packetAt(b[at:])
		if err != nil || size == 0 {
			return at, err
		}
		first, body := b[at], b[at+header:at+size]
		at += size
		switch kind := first >> 4; {
		case kind == kindPublish:
			r.message(c, first, body)
		case kind == kindPuback && len(body) > 2 && body[2] >= reasonFailure:
			return at, fmt.Errorf("broker refused a retained message with Reason Code 0x%02x", body[2])
		case kind == kindPuback:
			r.acknowledged++
			r.mark(c)
		case kind == kindPubrel && len(body) >= 2:
			c.out = append(c.out, kindPubcomp<<4, 2, body[0], body[1])
			r.mark(c)
		case kind == kindSuback && len(body) > 0 && body[len(body)-1] >= reasonFailure:
			return at, fmt.Errorf("broker refused the wildcard subscription with 0x%02x", body[len(body)-1])
		case kind == kindDisconnect:
			return at, r.lost(c, fmt.Errorf("broker disconnected %s: % x", r.clientID(c), body))
		}
	}
}

// message counts one delivery; what comes twice in a fetch is a duplicate.
func (r *retained) message(c *conn, first byte, body []byte) {
	p, ok := parsePublish(first, body, r.cfg.Version)
	if ok && p.qos > 0 {
		reply := byte(kindPuback << 4)
		if p.qos == 2 {
			reply = kindPubrec << 4
		}
		c.out = append(c.out, reply, 2, p.packetID[0], p.packetID[1])
		r.mark(c)
	}
	if !ok || len(p.payload) != r.cfg.PayloadBytes {
		r.result.Corrupt++
		return
	}
	number := parseStamp(p.payload).sequence
	switch {
	case number >= uint64(len(r.seen)):
		r.result.Corrupt++
	case r.seen[number] == r.fetch:
		r.result.Duplicated++
	default:
		r.seen[number] = r.fetch
		r.arrived++
		r.result.Delivered++
	}
}

// fill publishes what is to be stored, with the default window of unacknowledged messages.
func (r *retained) fill(c *conn, dst []byte) ([]byte, bool) {
	if c == r.fetcher || r.fetcher == nil {
		return dst, false
	}
	for r.sent < r.count && r.sent-r.acknowledged < min(defaultWindow, r.receiveMaximum) {
		topic := fmt.Sprintf("%s/r/%d", r.loop.run, r.sent)
		if r.clearing {
			dst = appendClear(dst, &r.cfg, topic, packetIDOf(uint64(r.sent)))
		} else {
			t := newTemplate(&r.cfg, topic, 0, 1, 1)
			dst = t.append(dst, uint64(r.sent), r.sendTime)
		}
		r.sent++
	}
	return dst, false
}
