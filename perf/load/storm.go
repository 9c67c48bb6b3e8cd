package load

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
)

// stormSources is how many loopback addresses a storm connects from: a closed connection keeps its port for a
// second or more, and one address has 28,000.
const stormSources = 64

// storm is the scenario Storm: every connection is closed as soon as it is acknowledged, and opened again.
type storm struct {
	*loop
	result  *Result
	meter   *meter
	made    int64
	limit   int64   // when so many are made, no more are begun
	reopen  []*conn // closed in this turn
	goodbye [2]byte
}

func newStorm(l *loop, result *Result) *storm {
	return &storm{loop: l, result: result, meter: newMeter(), limit: math.MaxInt64, goodbye: [2]byte{kindDisconnect << 4, 0}}
}

// pacesMessages: neither CONNECT nor DISCONNECT ever follows unacknowledged bytes.
func (s *storm) pacesMessages() bool                     { return false }
func (s *storm) take(_ *conn, b []byte) (int, error)     { return len(b), nil }
func (s *storm) fill(_ *conn, dst []byte) ([]byte, bool) { return dst, false }
func (s *storm) progress(p *Progress)                    { p.Delivered = s.made }

// run keeps Parallel connections coming and going until Duration or Count is reached.
func (s *storm) run(ctx context.Context) error {
	if err := s.layOut(); err != nil {
		return err
	}
	s.now, s.phase = s.clock(), WarmingUp
	s.reopen = make([]*conn, 0, len(s.conns))
	for i := range s.conns {
		if err := s.connect(&s.conns[i]); err != nil {
			return err
		}
	}
	if _, err := s.until(ctx, s.now+int64(s.cfg.WarmUp), never); err != nil {
		return err
	}
	err := s.measure(ctx)
	s.result.Latency = summarise(s.meter.histogram)
	s.result.perSecond()
	return err
}

// layOut makes Parallel connections; Config.Connections has no part in a storm.
func (s *storm) layOut() error {
	target := s.cfg.Target.Addr()
	if len(s.cfg.Sources) == 0 && target.Is4() && target.IsLoopback() {
		at := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		for range stormSources {
			s.cfg.Sources = append(s.cfg.Sources, at)
			at = at.Next()
		}
	}
	return s.makeConns(s.cfg.Parallel, func(i int, c *conn) { c.role, c.number = roleIdle, i })
}

func (s *storm) measure(ctx context.Context) error {
	before, err := s.readCPU()
	if err != nil {
		return err
	}
	s.phase, s.now = Measuring, s.clock()
	began, made := s.now, s.made
	s.meter.from = began
	if s.cfg.Count > 0 {
		s.limit = s.made + s.cfg.Count
	}
	_, runErr := s.until(ctx, began+int64(s.cfg.Duration), func() bool { return s.made >= s.limit })
	after, err := s.readCPU()
	s.countUnanswered()
	r := s.result
	r.MeasuredTime, r.Delivered = time.Duration(s.now-began), s.made-made
	r.cpuTime(before, after)
	return cmp.Or(runErr, err)
}

// countUnanswered counts the attempts that still wait, and have for StallTimeout, or for all the time that nothing was answered.
func (s *storm) countUnanswered() {
	for i := range s.conns {
		c := &s.conns[i]
		if c.state != closed && (s.made == 0 || s.now-c.startedAt >= int64(s.cfg.StallTimeout)) {
			s.result.Failed++
			s.result.FailedReason = cmp.Or(s.result.FailedReason,
				fmt.Sprintf("no CONNACK for %s in %.1f s", s.clientID(c), float64(s.now-c.startedAt)/1e9))
		}
	}
}

// opened says goodbye at once.
func (s *storm) opened(c *conn) error {
	s.made++
	s.meter.arrived(c.startedAt, s.now)
	_, _ = epoll.Write(c.fd, s.goodbye[:]) // the socket's buffer is empty
	s.close(c)
	s.reopen = append(s.reopen, c)
	return nil
}

// lost counts a refusal and tries again, unless nothing can come of it.
func (s *storm) lost(c *conn, reason error) error {
	s.close(c)
	s.result.Failed++
	s.result.FailedReason = cmp.Or(s.result.FailedReason, reason.Error())
	if s.made == 0 && s.result.Failed >= int64(len(s.conns)) {
		return reason
	}
	s.reopen = append(s.reopen, c)
	return nil
}

// turnEnds opens again what was closed in this turn.
func (s *storm) turnEnds() error {
	s.meter.endRun(s.now)
	s.now = s.clock() // the new connections start now
	for _, c := range s.reopen {
		if s.made >= s.limit {
			break
		}
		if err := s.connect(c); err != nil {
			return err
		}
	}
	s.reopen = s.reopen[:0]
	return nil
}
