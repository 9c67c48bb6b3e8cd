//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"net"
	"testing"
)

// TestConform plays every conversation of the normative statements with a broker on its rings: each holds here, as it does
// in memory (package conform) and in standard mode (cmd/ringmq). The long run does it in all modes.
func TestConform(t *testing.T) {
	for _, row := range []struct {
		mode   string
		queues int
		isV6   bool
		isLong bool
	}{
		{"native", 1, false, false},
		{"native", 4, true, true},
		{"generic", 1, true, true},
		{"generic", 4, false, true},
	} {
		if row.isLong && !long() {
			continue
		}
		s := newScene(t, row.queues)
		b := s.serve("--xdp-require", "any", "--xdp-limit", row.mode)
		address := s.Broker4
		if row.isV6 {
			address = s.Broker6
		}
		conform := s.InClient(program, "conform", "--json", "--timeout", "10s", net.JoinHostPort(address, "1883"))
		var out, errs bytes.Buffer
		conform.Stdout, conform.Stderr = &out, &errs
		dieWithTest(conform)
		fault := conform.Run()
		var report struct {
			Versions []struct {
				Version    string
				Holds      int
				Fails      int
				Unplayed   int
				Statements []struct{ ID, Outcome string }
			}
		}
		if err := json.Unmarshal(out.Bytes(), &report); err != nil || fault != nil || len(report.Versions) != 2 {
			t.Fatalf("%s, %d queues: %v, %v: %s%s", row.mode, row.queues, fault, err, out.Bytes(), errs.Bytes())
		}
		for _, v := range report.Versions {
			t.Logf("%s, %d queues, %s: MQTT %s: %d statements hold", row.mode, row.queues, address, v.Version, v.Holds)
			if v.Holds < 100 || v.Fails+v.Unplayed > 0 {
				t.Errorf("%d statements fail, %d were not played", v.Fails, v.Unplayed)
			}
			for _, statement := range v.Statements {
				if statement.Outcome == "fails" || statement.Outcome == "unplayed" {
					t.Errorf("MQTT %s: %s %s", v.Version, statement.ID, statement.Outcome)
				}
			}
		}
		lane := b.lane()
		if n := lane.sum(func(q queueReport) uint64 { return q.TCP.Accepted }); n == 0 || lane.KernelFlows > 0 {
			t.Errorf("%d connections came by the rings, %d by the kernel", n, lane.KernelFlows)
		}
		b.kill()
	}
}
