package crashtest

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// fleetPause is how long a Fleet leaves the broker alone between two turns: it shares the machine with it.
const fleetPause = 200 * time.Microsecond

// Fleet drives Clients against a broker that is a process of its own, over real connections, from one goroutine. Between two calls of
// Run, and before Settle, the broker is killed and started again.
type Fleet struct {
	dial     func() (net.Conn, error)
	ledger   *Ledger
	wires    []*wire
	visitor  *wire
	runs     int
	settling bool
}

// wire is a Client's connection.
type wire struct {
	client *Client
	net    net.Conn    // nil: not connected
	came   chan []byte // closed when the connection has ended
	pace   int         // it publishes every so many turns; 0: in each
	away   func() bool // nil: it connects whenever it has no connection
}

const (
	// sleeperRuns is how many runs a sleeper sleeps through.
	sleeperRuns = 8
	// changeTurns is for how many turns a fickle Client has, or has not, its subscription, leaveTurns how often a polite one says DISCONNECT.
	changeTurns = 60
	leaveTurns  = 150
	// slowTurns is how often a slow publisher publishes.
	slowTurns = 4
	// BriefInterval is the Message Expiry Interval of what is to run out while no broker runs.
	BriefInterval = time.Second
	// lateInterval is for how long a Client is away whose Session expires after two seconds.
	lateInterval = 3200 * time.Millisecond
)

// NewFleet makes Clients of both protocol versions that connect by dial.
func NewFleet(dial func() (net.Conn, error)) *Fleet {
	f := &Fleet{dial: dial, ledger: NewLedger()}
	f.add("s1", packet.V50, "t/#", "")
	f.add("s2", packet.V311, "t/+", "")
	f.add("p1", packet.V50, "", "t/a")
	f.add("p2", packet.V311, "", "t/b").client.Padding = 500 // stored once for all who get it
	f.add("p3", packet.V50, "", "t/c")
	f.add("fickle", packet.V50, "t/a", "").client.Fickle = true
	f.addShared()
	f.addRetained()
	f.addExpiring()
	f.addMortals()
	f.addWills()
	return f
}

func (f *Fleet) add(id string, v packet.Version, filter, topic string) *wire {
	w := &wire{client: NewClient(f.ledger, id, v, filter, topic)}
	f.wires = append(f.wires, w)
	return w
}

// addShared adds the members of a Shared Subscription; one of them is away at times.
func (f *Fleet) addShared() {
	f.add("g1", packet.V50, "$share/g/t/#", "")
	f.add("g2", packet.V311, "$share/g/t/#", "").away = func() bool { return f.runs%3 == 2 && !f.settling }
}

// addRetained adds publishers of Retained Messages: some whose messages are replaced, or cleared, all the time, and some whose last one gets old.
func (f *Fleet) addRetained() {
	for i, v := range []packet.Version{packet.V50, packet.V311} {
		w := f.add(fmt.Sprintf("r%d", i), v, "", fmt.Sprintf("t/r/%d", i))
		w.pace, w.client.Retain, w.client.qos = slowTurns, true, byte(1+i)
		w = f.add(fmt.Sprintf("k%d", i), v, "", fmt.Sprintf("k/r/%d", i)) // of which nobody but a visitor hears
		w.pace, w.client.Retain, w.client.Clears, w.client.qos = slowTurns, true, true, byte(2-i)
	}
	for _, interval := range []uint32{3600, uint32(BriefInterval / time.Second)} {
		w := f.add(fmt.Sprintf("r%ds", interval), packet.V50, "", fmt.Sprintf("t/r/%ds", interval))
		w.client.Rare, w.client.Retain, w.client.Expiries = true, true, []uint32{interval}
	}
}

// addMortals adds Clients whose Sessions expire: one that is away for longer than its Session, through several brokers, and one that is not.
func (f *Fleet) addMortals() {
	late := f.add("x1", packet.V50, "", "")
	late.client.Expiry = 2
	late.away = func() bool { return late.client.known && time.Since(late.client.left) < lateInterval }
	f.add("x2", packet.V50, "", "").client.Expiry = 60
}

// addExpiring adds messages some of which run out, and who sleeps meanwhile.
func (f *Fleet) addExpiring() {
	w := f.add("e", packet.V50, "", "t/e")
	w.pace, w.client.Expiries = slowTurns, []uint32{3600, uint32(BriefInterval / time.Second), 3600}
	f.add("sleeper", packet.V50, "t/e", "").away = func() bool { return f.runs%sleeperRuns != 1 && !f.settling }
}

// addWills adds Clients with Wills: one that stays away until its Will has come, one that is back at once and says DISCONNECT at times,
// one that stays away behind its DISCONNECT until another broker runs, and one that is always back before its Will's delay is over.
func (f *Fleet) addWills() {
	patient := f.add("w1", packet.V50, "", "")
	patient.client.Will = &Will{Topic: "t/w", QoS: 1, Delay: 1}
	patient.away = patient.client.WillWaits
	hasty := f.add("w2", packet.V311, "", "").client
	hasty.Will, hasty.Polite = &Will{Topic: "t/w", QoS: 2}, true
	leaver := f.add("w3", packet.V50, "", "")
	leaver.client.Will, leaver.client.Polite = &Will{Topic: "t/w", QoS: 1}, true
	leaver.away = leaver.client.Gone
	f.add("w4", packet.V50, "", "").client.Will = &Will{Topic: "t/w", QoS: 1, Delay: 3600}
}

// Run has the Clients publish for a while.
func (f *Fleet) Run(length time.Duration) error {
	f.begin()
	until := time.Now().Add(length)
	for n := 1; time.Now().Before(until); n++ {
		if err := f.turn(n); err != nil {
			return err
		}
	}
	return nil
}

// begin is for a broker that is new.
func (f *Fleet) begin() {
	f.runs++
	for _, w := range f.wires {
		w.client.Doubt()
	}
	f.visit()
}

// visit has somebody new look at what is retained.
func (f *Fleet) visit() {
	if f.visitor != nil {
		f.drop(f.visitor)
	}
	f.visitor = &wire{client: newVisitor(f.ledger, packet.V50, "+/r/+")}
}

// Settle goes on without new publications until everything that was acknowledged has arrived and every Client is back, or patience is at its
// end.
func (f *Fleet) Settle(patience time.Duration) error {
	f.settling = true
	f.begin()
	again := false
	for until := time.Now().Add(patience); time.Now().Before(until); {
		if err := f.turn(0); err != nil {
			return err
		}
		switch {
		case f.pending() > 0 || f.ledger.Missing() > 0 || !f.visitor.client.Seen() || f.Connected() < len(f.all()):
		case again:
			return nil
		default: // what is retained now is the end of it
			again = true
			f.visit()
		}
	}
	return fmt.Errorf("after %v, %d of %d clients are back, %d publications wait for their acknowledgement, %d acknowledged messages have not arrived, %d are not retained",
		patience, f.Connected(), len(f.all()), f.pending(), f.ledger.Missing(), len(f.visitor.client.visit.owed))
}

// HangUp ends every connection, once what has come on it is taken: for brokers whose end nobody on the network is told of.
func (f *Fleet) HangUp() error {
	for _, w := range f.all() {
		if err := f.take(w); err != nil {
			return err
		}
		f.drop(w)
	}
	return nil
}

func (f *Fleet) all() []*wire { return append(f.wires[:len(f.wires):len(f.wires)], f.visitor) }

// Connected is how many Clients have a connection that the broker has answered.
func (f *Fleet) Connected() (n int) {
	for _, w := range f.all() {
		if w.client.Live {
			n++
		}
	}
	return n
}

// Tally is what was put to the test.
func (f *Fleet) Tally() Tally { return f.ledger.Tally() }

// Problems says what went wrong, or was not even tried; see Ledger.Problems.
func (f *Fleet) Problems() []string {
	return append(f.ledger.Problems(), f.ledger.Tally().untried()...)
}

func (f *Fleet) pending() (n int) {
	for _, w := range f.wires {
		n += w.client.Pending()
	}
	return n
}

// Whole errs when a store was salvaged: a process that is killed damages nothing.
func Whole(dir string) error {
	damaged, err := filepath.Glob(filepath.Join(dir, "damaged-*"))
	if err == nil && len(damaged) > 0 {
		err = fmt.Errorf("the store was salvaged, although nothing was damaged: %q", damaged)
	}
	return err
}

// connect connects who is not connected. A broker that has just been killed refuses: that is tried again.
func (f *Fleet) connect() {
	for _, w := range f.all() {
		if w.net != nil || w.away != nil && w.away() && (w.client.Filter == "" || w.client.Subscribed()) {
			continue
		}
		c, err := f.dial()
		if err != nil {
			continue
		}
		w.net, w.came = c, make(chan []byte, 64)
		go receive(c, w.came)
		w.write(w.client.Connect())
	}
}

// receive passes on what comes until the connection ends.
func receive(c net.Conn, to chan<- []byte) {
	defer close(to)
	for {
		b := make([]byte, 32<<10)
		n, err := c.Read(b)
		if n > 0 {
			to <- b[:n]
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) write(b []byte) {
	if w.net != nil && len(b) > 0 {
		_, _ = w.net.Write(b) // a broken connection is found out by its reader
	}
}

// turn takes what came and, unless n is 0, has the Clients do what they do in the n-th turn of a run.
func (f *Fleet) turn(n int) error {
	f.connect()
	act := n > 0 && f.everybodySubscribed()
	for _, w := range f.all() {
		if err := f.take(w); err != nil {
			return err
		}
		if act {
			w.write(f.act(w, n))
		}
	}
	time.Sleep(fleetPause)
	return nil
}

func (f *Fleet) everybodySubscribed() bool {
	for _, w := range f.wires {
		if w.client.Filter != "" && !w.client.Subscribed() {
			return false
		}
	}
	return true
}

// act is what a Client does of its own accord.
func (f *Fleet) act(w *wire, n int) []byte {
	c := w.client
	switch {
	case c.Fickle && n%changeTurns == 0:
		return c.Change()
	case c.Polite && n%leaveTurns == 0:
		return c.Leave()
	case c.Topic == "" || w.pace > 0 && n%w.pace != 0 || c.Rare && c.next > f.runs/sleeperRuns:
		return nil
	}
	return c.Publish(byte(1 + n/max(1, w.pace)%2))
}

func (f *Fleet) take(w *wire) error {
	for w.net != nil {
		select {
		case b, ok := <-w.came:
			if !ok {
				f.drop(w)
				return nil
			}
			out, err := w.client.Feed(b)
			if err != nil {
				return errors.Join(err, w.net.Close())
			}
			w.write(out)
		default:
			return nil
		}
	}
	return nil
}

func (f *Fleet) drop(w *wire) {
	if w.net == nil {
		return
	}
	_ = w.net.Close()
	for range w.came { // lets the reader end
	}
	w.net = nil
	w.client.Lost()
}
