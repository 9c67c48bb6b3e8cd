package broker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/conform"
	"github.com/ringmq/ringmq/broker/script"
)

// fragile is the engine in a process that one packet kills, and that comes back after some attempts to connect.
type fragile struct {
	conform.Target
	deaths, refusals *int
}

var errRefused = errors.New("connection refused")

func (f fragile) Dial(ctx context.Context) (conform.Conn, error) {
	if *f.refusals > 0 {
		*f.refusals--
		return nil, errRefused
	}
	c, err := f.Target.Dial(ctx)
	return &fragileConn{Conn: c, target: f, born: *f.deaths}, err
}

type fragileConn struct {
	conform.Conn
	target fragile
	born   int
}

func (c *fragileConn) Write(b []byte) error {
	if bytes.Equal(b, []byte{0x60, 2, 0, 1}) { // PUBREL with flags that it must not have
		*c.target.deaths++
		*c.target.refusals = 3
	}
	return c.Conn.Write(b)
}

func (c *fragileConn) Read(b []byte, wait time.Duration) (int, error) {
	if c.born != *c.target.deaths {
		return 0, io.EOF
	}
	return c.Conn.Read(b, wait)
}

// TestConformSurvivesDeaths: a broker that dies of a conversation, and is started again, fails that one and no other.
func TestConformSurvivesDeaths(t *testing.T) {
	w := newWorld(t, 1, script.New("options"))
	defer abandon(w)
	target := fragile{memoryTarget{w}, new(int), new(int)}
	plan := conform.Plan{Options: strictly(), Parallel: 1, Revival: time.Minute, Statements: []string{"MQTT-2.2.2-2", "MQTT-2.1.3-1"}}
	results, err := conform.Run(context.Background(), target, plan)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, r := range results {
		if r.Outcome == conform.Holds {
			continue
		}
		failed++
		if !strings.HasSuffix(r.Check.Name, "/flags of PUBREL") || !strings.Contains(r.Problem, "gone") {
			t.Errorf("%s %s: %s", r.Check.Name, r.Outcome, r.Problem)
		}
	}
	if failed != 2 || *target.deaths != 4 { // in each version, and once more by itself
		t.Errorf("%d conversations fail, %d deaths, of %d conversations", failed, *target.deaths, len(results))
	}
}

// interrupted is the engine that a run loses when the first Retained Message is on its way.
type interrupted struct {
	conform.Target
	cancel func()
}

func (i interrupted) Dial(ctx context.Context) (conform.Conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c, err := i.Target.Dial(ctx)
	return interruptedConn{c, i.cancel}, err
}

type interruptedConn struct {
	conform.Conn
	cancel func()
}

func (c interruptedConn) Write(b []byte) error {
	if b[0]&0xF1 == 0x31 { // PUBLISH with RETAIN
		c.cancel()
	}
	return c.Conn.Write(b)
}

// TestConformInterrupted: what a conversation that is interrupted has left is cleared.
func TestConformInterrupted(t *testing.T) {
	checks, err := conform.Checks()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(checks, func(c conform.Check) bool { return strings.HasPrefix(c.Name, "retained/") })
	w := newWorld(t, 1, script.New("options"))
	defer w.end()
	ctx, cancel := context.WithCancel(t.Context())
	r := conform.Play(ctx, interrupted{memoryTarget{w}, cancel}, checks[at], 0, strictly())
	if ctx.Err() == nil || r.Outcome != conform.Fails || !strings.Contains(r.Problem, "time is up") {
		t.Errorf("%s: %s %s", r.Check.Name, r.Outcome, r.Problem)
	}
	if held := w.broker.Usage(); held.Retained != 0 {
		t.Errorf("left: %+v", held)
	}
}
