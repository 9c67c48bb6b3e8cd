package overload

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
	"github.com/ringmq/ringmq/perf/relay"
)

func TestPace(t *testing.T) {
	p := pace{perSecond: 1000}
	if n := p.due(5e9); n != 0 {
		t.Errorf("%d are due at the start", n)
	}
	sum := 0
	for now := int64(5e9); now < 7e9; now += 1e6 + 12345 {
		sum += p.due(now)
	}
	if sum < 1998 || sum > 2000 {
		t.Errorf("%d in two seconds, want 2000", sum)
	}
	if n := p.due(60e9); n != 100 {
		t.Errorf("%d after a long pause, want a tenth of a second's", n)
	}
	if n := p.due(60e9 + 1e6); n != 1 {
		t.Errorf("%d a millisecond later", n)
	}
}

func TestWrong(t *testing.T) {
	s := Scenario{Counters: []string{"moves"}, Least: map[string]int64{"moves": 7}, Answers: []string{"DISCONNECT 0x97"}, check: deliversAll}
	good := func() *Outcome {
		return &Outcome{Expected: 3, Good: 3, Answers: map[string]int64{"DISCONNECT 0x97": 1}}
	}
	for _, row := range []struct {
		moved map[string]int64
		spoil func(*Outcome)
		says  string
	}{
		{map[string]int64{"moves": 7}, func(*Outcome) {}, ""},
		{nil, func(*Outcome) {}, "counter moves"},
		{map[string]int64{"moves": 6}, func(*Outcome) {}, "by 6 only"},
		{map[string]int64{"moves": 7}, func(o *Outcome) { o.Good = 2 }, "2 of 3"},
		{map[string]int64{"moves": 7}, func(o *Outcome) { clear(o.Answers) }, "no client was told DISCONNECT 0x97"},
		{map[string]int64{"moves": 7}, func(o *Outcome) { o.Answers["PUBACK 0x97"]++ }, "a client was told PUBACK 0x97"},
	} {
		o := good()
		row.spoil(o)
		got := strings.Join(s.Wrong(o, row.moved), "; ")
		if (row.says == "") != (got == "") || !strings.Contains(got, row.says) {
			t.Errorf("%+v, moved %v: %q, want %q", o, row.moved, got, row.says)
		}
	}
}

// TestSink has every aggressor attack the sink of the control runs: each comes to stand there as it does at a broker, and
// sends as much, whatever it is told.
func TestSink(t *testing.T) {
	r, err := relay.New(relay.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if errors.Is(err, epoll.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	for _, s := range append(Scenarios(), Soak()) {
		t.Run(s.Name, func(t *testing.T) {
			a, err := Start(t.Context(), s, Config{Target: r.Addr(), CPU: -1, Seed: 7, Long: time.Second, Small: true})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond) // an attack is a thing that goes on
			o, err := a.Stop(0)
			if err != nil || o.Sent == 0 {
				t.Errorf("%s: %v", &o, err)
			}
			if len(o.Answers) > 0 {
				t.Errorf("the sink has refused something: %v", o.Answers)
			}
		})
	}
}

// TestNobodyListens: an attack that cannot begin says so.
func TestNobodyListens(t *testing.T) {
	fd, at, err := epoll.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if errors.Is(err, epoll.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	epoll.Close(fd)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Scenarios()[0], Config{Target: at, CPU: -1, Long: time.Second}); err == nil {
		t.Error("an attack on nobody has come to stand")
	}
}
