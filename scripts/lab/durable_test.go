//go:build linux

package lab

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// TestKilledWithStore: a broker with --data gets SIGKILL again and again under a load of QoS 1 and 2 on its rings, and another
// is started on its directory: nothing that was acknowledged is lost, nothing of QoS 2 comes twice, the Sessions are there, and what
// else package crashtest says. The long run kills 200 times.
func TestKilledWithStore(t *testing.T) {
	s := newScene(t, 2)
	kills, data := 10, t.TempDir()
	if long() {
		kills = 200
	}
	f := crashtest.NewFleet(func() (net.Conn, error) { return dial(s.Client, s.Broker4) })
	serve := func() *process { return s.serve("--data", data) }
	for i := range kills {
		b := serve()
		if err := f.Run(time.Duration(100+i*37%300) * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			onRings(t, b, f)
		}
		b.kill()
		if err := f.HangUp(); err != nil { // the rings are gone without a word to anybody
			t.Fatal(err)
		}
	}
	time.Sleep(2 * crashtest.BriefInterval) // what may run out does, with nobody there to see it
	b := serve()
	if err := f.Settle(patience); err != nil {
		t.Error(err)
	}
	onRings(t, b, f)
	if problems := f.Problems(); len(problems) > 0 {
		t.Errorf("%d problems: %s", len(problems), strings.Join(problems[:min(len(problems), 10)], "; "))
	}
	if err := crashtest.Whole(data); err != nil {
		t.Error(err)
	}
	tally := f.Tally()
	t.Logf("%d kills: %+v", kills, tally)
	if tally.Acknowledged < 10*kills {
		t.Error("too few were acknowledged to mean anything")
	}
	if err := f.HangUp(); err != nil {
		t.Error(err)
	}
}

// onRings checks that all that is connected came in through AF_XDP.
func onRings(t *testing.T, b *process, f *crashtest.Fleet) {
	t.Helper()
	if n := int(b.lane().established()); n == 0 || n < f.Connected() {
		t.Errorf("%d connections are on the rings, %d clients are connected", n, f.Connected())
	}
}
