package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
	"github.com/ringmq/ringmq/perf/relay"
)

// startRelay runs a relay in this process until the test ends.
func startRelay(t *testing.T, cfg relay.Config) *relay.Relay {
	t.Helper()
	cfg.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	r, err := relay.New(cfg)
	if errors.Is(err, epoll.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	return r
}

// short is a run by count, so that what is expected is exact.
func short(r *relay.Relay, change func(*Config)) Config {
	cfg := Config{
		Target: r.Addr(), Connections: 7, Count: 20000, WarmUp: -1, Duration: 20 * time.Second,
		DrainTimeout: 500 * time.Millisecond, StallTimeout: 100 * time.Millisecond,
	}
	change(&cfg)
	return cfg
}

func mustRun(t *testing.T, cfg Config) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result, err := Run(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// faults are the four counts that a perfect relay leaves at zero.
func faults(r Result) [4]int64 { return [4]int64{r.Lost, r.Duplicated, r.Reordered, r.Corrupt} }

func TestPerfectRelay(t *testing.T) {
	rows := []struct {
		name   string
		all    bool
		fan    int64
		change func(*Config)
	}{
		{"pairs qos 0", false, 1, func(c *Config) {}},
		{"pairs qos 1", false, 1, func(c *Config) { c.QoS = 1 }},
		{"pairs qos 2", false, 1, func(c *Config) { c.QoS = 2 }},
		{"pairs qos 2 version 5", false, 1, func(c *Config) { c.QoS, c.Version = 2, Version5 }},
		{"one in flight", false, 1, func(c *Config) { c.Window, c.Count = 1, 5000 }},
		{"smallest payload", false, 1, func(c *Config) { c.PayloadBytes = stampBytes }},
		{"large payload", false, 1, func(c *Config) { c.PayloadBytes, c.Count, c.Window, c.StallTimeout = 1<<20, 30, 4, 10*time.Second }},
		{"two-byte length", false, 1, func(c *Config) { c.PayloadBytes, c.Version = 200, Version5 }},
		{"fan-out", true, 7, func(c *Config) { c.Scenario, c.Count = FanOut, 5000 }},
		{"fan-out qos 1", true, 7, func(c *Config) { c.Scenario, c.Count, c.QoS = FanOut, 5000, 1 }},
		{"fan-in", true, 1, func(c *Config) { c.Scenario = FanIn }},
		{"open loop", false, 1, func(c *Config) { c.Rate, c.Count = 50000, 10000 }},
		{"open loop fan-out", true, 7, func(c *Config) { c.Scenario, c.Rate, c.Count = FanOut, 5000, 1000 }},
		{"open loop qos 1", false, 1, func(c *Config) { c.Rate, c.Count, c.QoS = 50000, 10000, 1 }},
		{"overloaded open loop", false, 1, func(c *Config) { c.Rate, c.Count, c.QoS, c.Window = 1e7, 20000, 2, 4 }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := short(startRelay(t, relay.Config{All: row.all}), row.change)
			r := mustRun(t, cfg)
			if faults(r) != [4]int64{} || r.Unacknowledged+r.Refused+r.AcksOutOfOrder+r.Stalls != 0 {
				t.Errorf("faults that the relay has not made: %+v", r)
			}
			if r.Published != cfg.Count || r.Delivered != cfg.Count*row.fan || r.Expected != r.Delivered {
				t.Errorf("published %d, delivered %d, expected %d of %d × %d", r.Published, r.Delivered, r.Expected, cfg.Count, row.fan)
			}
			if r.Latency.Count != r.Delivered || r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P999 {
				t.Errorf("latency: %+v", r.Latency)
			}
		})
	}
}

// TestFaultyRelay is the proof that the meter counts exactly.
func TestFaultyRelay(t *testing.T) {
	for _, fault := range []relay.Fault{relay.Drop, relay.Double, relay.Swap} {
		for qos := range byte(3) {
			r := startRelay(t, relay.Config{Fault: fault, FaultEvery: 1000})
			result := mustRun(t, short(r, func(c *Config) { c.QoS = qos }))
			made := r.Faults()
			want := map[relay.Fault][4]int64{relay.Drop: {made}, relay.Double: {0, made}, relay.Swap: {0, 0, made}}[fault]
			if made < 15 || faults(result) != want {
				t.Errorf("%s at QoS %d: relay made %d faults, the meter found lost, duplicated, reordered, corrupt %v", fault, qos, made, faults(result))
			}
		}
	}
}

func TestFaultyRelayFanOut(t *testing.T) {
	r := startRelay(t, relay.Config{All: true, Fault: relay.Drop, FaultEvery: 100})
	result := mustRun(t, short(r, func(c *Config) { c.Scenario, c.Count = FanOut, 2000 }))
	if r.Faults() != 20 || faults(result) != [4]int64{20 * 7} {
		t.Errorf("relay made %d faults, the meter found %v", r.Faults(), faults(result))
	}
}

// TestStall drops the only message under way: the loop must open again and say so.
func TestStall(t *testing.T) {
	r := startRelay(t, relay.Config{Fault: relay.Drop, FaultEvery: 100})
	result := mustRun(t, short(r, func(c *Config) { c.Connections, c.Window, c.Count = 1, 1, 500 }))
	if result.Lost != 5 || result.Stalls < 4 {
		t.Errorf("5 drops at one in flight: %d lost, %d stalls", result.Lost, result.Stalls)
	}
}

func TestTimedRun(t *testing.T) {
	r := startRelay(t, relay.Config{})
	progressed := 0
	cfg := short(r, func(c *Config) { c.Count, c.Duration, c.WarmUp = 0, 300*time.Millisecond, 100*time.Millisecond })
	cfg.PID, cfg.ProgressInterval = os.Getpid(), 50*time.Millisecond
	result, err := Run(t.Context(), cfg, func(Progress) { progressed++ })
	if err != nil || faults(result) != [4]int64{} {
		t.Fatalf("%v, %+v", err, result)
	}
	if result.Published <= result.Delivered || result.TargetCPU <= 0 || result.GeneratorCPU <= 0 || progressed < 3 {
		t.Errorf("%d progress calls, %+v", progressed, result)
	}
	if _, err := json.Marshal(result); err != nil {
		t.Error(err)
	}
}

// TestTimeEndsCount: what is under way when the time is over is waited for, and no more is sent.
func TestTimeEndsCount(t *testing.T) {
	result := mustRun(t, short(startRelay(t, relay.Config{}), func(c *Config) { c.Count, c.Duration = 1<<40, 100*time.Millisecond }))
	if faults(result) != [4]int64{} || result.Delivered != result.Published {
		t.Errorf("%+v", result)
	}
}

// TestOpenLoopOwes: what the broker's acknowledgements hold up is due all the same.
func TestOpenLoopOwes(t *testing.T) {
	const rate = 1e7 // more than QoS 2 at two in flight can be
	result := mustRun(t, short(startRelay(t, relay.Config{}), func(c *Config) {
		c.Count, c.Duration, c.Rate, c.QoS, c.Window = 0, 100*time.Millisecond, rate, 2, 2
	}))
	if owed := int64(rate * result.MeasuredTime.Seconds()); result.Unsent == 0 || result.Published+result.Unsent < owed {
		t.Errorf("%d sent and %d not, of %d", result.Published, result.Unsent, owed)
	}
}

// silent is a broker that answers so many packets of each connection, and then only reads.
func silent(t *testing.T, answers ...[]byte) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		readers.Wait()
	})
	readers.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			readers.Go(func() {
				defer c.Close()
				b := make([]byte, 1<<10)
				for _, answer := range answers {
					if _, err := c.Read(b); err != nil {
						return
					}
					_, _ = c.Write(answer)
				}
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

func TestStormUnanswered(t *testing.T) {
	result := mustRun(t, Config{Target: silent(t), Scenario: Storm, Parallel: 4, WarmUp: -1, Duration: 50 * time.Millisecond})
	if result.Clean() || result.Failed != 4 || !strings.Contains(result.FailedReason, "no CONNACK") || result.Latency != (Latency{}) {
		t.Errorf("%+v", result)
	}
}

// TestLongConnack: a Receive Maximum that stands behind more than 127 bytes of properties.
func TestLongConnack(t *testing.T) {
	properties := append([]byte{0x1f, 0, 200}, bytes.Repeat([]byte("r"), 200)...)
	properties = append(properties, 0x21, 0, 7)
	body := append(binary.AppendUvarint([]byte{0, 0}, uint64(len(properties))), properties...)
	l, err := newLoop(Config{Version: Version5}.withDefaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.poll.Close()
	l.scenario = newIdle(l, &Result{})
	c := &conn{state: connecting}
	if _, err := l.handshake(c, appendPacket(nil, kindConnack<<4, body)); err != nil || l.receiveMaximum != 7 {
		t.Errorf("Receive Maximum %d, %v", l.receiveMaximum, err)
	}
}

func TestStorm(t *testing.T) {
	r := startRelay(t, relay.Config{})
	result := mustRun(t, Config{Target: r.Addr(), Scenario: Storm, Count: 2000, Parallel: 16, WarmUp: -1})
	if result.Delivered < 2000 || result.Delivered > 2016 || result.Failed != 0 || result.Latency.Count == 0 {
		t.Errorf("%+v", result)
	}
}

func TestIdle(t *testing.T) {
	r := startRelay(t, relay.Config{})
	result := mustRun(t, Config{Target: r.Addr(), Scenario: Idle, Connections: 500, Duration: time.Second, PID: os.Getpid()})
	if result.RSSBytesPerConnection == 0 {
		t.Errorf("%+v", result)
	}
}

func TestOneLineErrors(t *testing.T) {
	r := startRelay(t, relay.Config{})
	nobody, closed, err := epoll.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	epoll.Close(nobody)
	rows := []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.QoS = 3 }, "qos"},
		{func(c *Config) { c.PayloadBytes = 19 }, "payload"},
		{func(c *Config) { c.Window = 70000 }, "window"},
		{func(c *Config) { c.Rate = math.NaN() }, "rate"},
		{func(c *Config) { c.Rate = math.Inf(1) }, "rate"},
		{func(c *Config) { c.Scenario = "sideways" }, "want one of"},
		{func(c *Config) { c.Scenario, c.Rate = Idle, 5 }, "no messages to pace"},
		{func(c *Config) { c.Target = netip.AddrPort{} }, "address"},
		{func(c *Config) { c.Target = closed }, "refused"},
		{func(c *Config) { c.Connections = 1 << 19 }, "descriptors"},
		{func(c *Config) { c.PID = 1 << 30 }, "process id"},
	}
	for _, row := range rows {
		_, err := Run(t.Context(), short(r, row.change), nil)
		if err == nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want one line about %q, got %v", row.says, err)
		}
	}
}

func TestCancel(t *testing.T) {
	r := startRelay(t, relay.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, short(r, func(c *Config) { c.Count = 0 }), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled run: %v", err)
	}
}

// TestBrokerCloses ends the relay in the middle of a run.
func TestBrokerCloses(t *testing.T) {
	r, err := relay.New(relay.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if errors.Is(err, epoll.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	result, err := Run(t.Context(), short(r, func(c *Config) { c.Count = 0 }), nil)
	if err == nil || !strings.Contains(err.Error(), "connection") || result.Published == 0 {
		t.Errorf("relay ended in the middle: %v, %d published", err, result.Published)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
