package sim

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	seed     = flag.Int64("seed", -1, "play this seed only")
	threaded = flag.Uint64("threaded", 3, "how many seeds TestThreaded plays")
	from     = flag.Uint64("from", 0, "the first seed of TestThreaded")
)

// seeds are how many the test plays; under -short, which is for the race detector, a few.
func seeds() uint64 {
	if testing.Short() {
		return 20
	}
	return 300
}

// report plays a seed and, when a rule does not hold, prints the shortest Script that it finds.
func report(t *testing.T, seed uint64) Stats {
	t.Helper()
	s := Generate(seed)
	r := Play(s, Options{})
	if r.Violation != nil {
		short := Shrink(s, r.Violation.Rule, 1000)
		t.Errorf("seed %d: %v\n%d of %d Ops do it (go run ./scripts/sim -script FILE):\n%s\n%v", seed, r.Violation, len(short), len(s), short, Play(short, Options{}).Violation)
	}
	return r.Stats
}

// TestSeeds plays brokers from seeds, and makes sure that there was something to check.
func TestSeeds(t *testing.T) {
	if *seed >= 0 {
		report(t, uint64(*seed))
		return
	}
	var sum Stats
	for seed := range seeds() {
		if sum.Add(report(t, seed)); t.Failed() {
			return
		}
	}
	n := int(seeds())
	if sum.Promised < 50*n || sum.SharedPromised < n || sum.WillsDue < n || sum.SessionsKept < 5*n || sum.Delivered < 100*n {
		t.Errorf("%d seeds check next to nothing: %+v", n, sum)
	}
	if sum.Rated < n/2 {
		t.Errorf("%d seeds meet the limit to the rate of CONNECT packets next to never: %+v", n, sum)
	}
	if sum.Intruders < n || sum.Exchanges < n || sum.Renewals < n/10 {
		t.Errorf("%d seeds let next to nobody prove who it is: %+v", n, sum)
	}
	t.Logf("%+v", sum)
}

// TestSameTrace plays seeds twice: every byte must come at the same step.
func TestSameTrace(t *testing.T) {
	traces := map[[32]byte]bool{}
	for seed := uint64(1000); seed < 1010; seed++ {
		first, second := Play(Generate(seed), Options{}), Play(Generate(seed), Options{})
		if first.Trace != second.Trace {
			t.Errorf("seed %d: two runs differ: %x and %x", seed, first.Trace, second.Trace)
		}
		traces[first.Trace] = true
	}
	if len(traces) != 10 {
		t.Errorf("10 seeds give %d traces", len(traces))
	}
}

// TestText writes a Script and reads it again: what a failing seed prints is what is replayed.
func TestText(t *testing.T) {
	s := Generate(7)
	again, err := Parse(s.String())
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != again.String() || Play(s, Options{}).Trace != Play(again, Options{}).Trace {
		t.Error("a Script that was written and read is another one")
	}
	for _, bad := range []string{"", "turn", "world\nfly c1", "world\npub c1 t qos=x", "world\nclose c9999"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is taken for a Script", bad)
		}
	}
}

// TestScripts replays what seeds have found, shrunk: each failed once.
func TestScripts(t *testing.T) {
	names, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r := Play(s, Options{}); r.Violation != nil {
			t.Errorf("%s: %v", name, r.Violation)
		}
	}
}

// TestShrink shrinks a Script by a rule that is easy to break, and replays what is left.
func TestShrink(t *testing.T) {
	s := append(Generate(3), Op{Verb: "planted", Client: 0})
	broken := func(s Script) bool { return s[len(s)-1].Verb == "planted" }
	if short := shrink(s, broken); len(short) != 2 {
		t.Errorf("%d of %d Ops are left, two would do:\n%s", len(short), len(s), short)
	}
}

// TestThreaded lets the loops run on goroutines of their own, for the race detector.
func TestThreaded(t *testing.T) {
	for seed := *from; seed < *from+*threaded; seed++ {
		s := Generate(seed)
		s[0].Args = append([]Arg{{"shards", 4}}, s[0].Args...)
		if r := Play(s, Options{Threaded: true}); r.Violation != nil {
			t.Errorf("seed %d: %v", seed, r.Violation)
		}
	}
}
