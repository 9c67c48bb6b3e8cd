package load

import (
	"context"
	"time"
)

// settleTime is how long a broker is left alone before its memory is read: what it sets free late is not the
// connections'.
const settleTime = time.Second

// idle is the scenario Idle: connections that do nothing.
type idle struct {
	*loop
	result *Result
}

func newIdle(l *loop, result *Result) *idle { return &idle{l, result} }

func (d *idle) pacesMessages() bool                     { return false }
func (d *idle) opened(*conn) error                      { return nil }
func (d *idle) take(_ *conn, b []byte) (int, error)     { return len(b), nil }
func (d *idle) fill(_ *conn, dst []byte) ([]byte, bool) { return dst, false }
func (d *idle) turnEnds() error                         { return nil }
func (d *idle) progress(*Progress)                      {}

func (d *idle) lost(c *conn, reason error) error {
	d.close(c)
	return reason
}

// run reads the broker's memory, opens all connections, reads it again after Duration.
func (d *idle) run(ctx context.Context) error {
	err := d.makeConns(d.cfg.Connections, func(i int, c *conn) { c.role, c.number = roleIdle, i })
	if err != nil {
		return err
	}
	pssBefore, rssBefore, err := d.memory()
	if err != nil {
		return err
	}
	if d.result.ConnectTime, err = d.openAll(ctx); err != nil {
		return err
	}
	d.phase = Measuring
	began := d.now
	if _, err = d.until(ctx, began+int64(max(d.cfg.Duration, settleTime)), never); err != nil {
		return err
	}
	pss, rss, err := d.memory()
	r, n := d.result, float64(len(d.conns))
	r.MeasuredTime = time.Duration(d.now - began)
	r.PSSBytesPerConnection, r.RSSBytesPerConnection = float64(pss-pssBefore)/n, float64(rss-rssBefore)/n
	return err
}

func (d *idle) memory() (pssBytes, rssBytes int64, err error) {
	if d.cfg.PID == 0 {
		return 0, 0, nil
	}
	return process(d.cfg.PID).memory()
}
