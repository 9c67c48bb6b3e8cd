package crashtest

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// fleetPause is how long a Fleet leaves the broker alone between two turns: it shares the machine with it.
const fleetPause = 200 * time.Microsecond

// Fleet drives Clients against a broker that is a process of its own, over real connections, from one goroutine.
type Fleet struct {
	dial   func() (net.Conn, error)
	ledger *Ledger
	wires  []*wire
}

// wire is a Client's connection.
type wire struct {
	client *Client
	net    net.Conn    // nil: not connected
	came   chan []byte // closed when the connection has ended
}

// NewFleet makes two subscribers and three publishers, of both protocol versions, that connect by dial.
func NewFleet(dial func() (net.Conn, error)) *Fleet {
	f := &Fleet{dial: dial, ledger: NewLedger()}
	for _, c := range []*Client{
		NewClient(f.ledger, "s1", packet.V50, "t/#", ""), NewClient(f.ledger, "s2", packet.V311, "t/+", ""),
		NewClient(f.ledger, "p1", packet.V50, "", "t/a"), NewClient(f.ledger, "p2", packet.V311, "", "t/b"),
		NewClient(f.ledger, "p3", packet.V50, "", "t/c"),
	} {
		f.wires = append(f.wires, &wire{client: c})
	}
	f.wires[3].client.Padding = 500 // stored once for both subscribers
	return f
}

// Run has the Clients publish for a while.
func (f *Fleet) Run(length time.Duration) error {
	until := time.Now().Add(length)
	for n := 0; time.Now().Before(until); n++ {
		if err := f.turn(true, n); err != nil {
			return err
		}
	}
	return nil
}

// Settle goes on without new publications until everything that was acknowledged has arrived, or patience is at its end.
func (f *Fleet) Settle(patience time.Duration) error {
	for until := time.Now().Add(patience); time.Now().Before(until); {
		if err := f.turn(false, 0); err != nil {
			return err
		}
		if f.pending() == 0 && f.ledger.Missing(f.subscribers()) == 0 {
			return nil
		}
	}
	return fmt.Errorf("after %v, %d publications wait for their acknowledgement and %d acknowledged messages have not arrived", patience,
		f.pending(), f.ledger.Missing(f.subscribers()))
}

// HangUp ends every connection, once what has come on it is taken: for brokers whose end nobody on the network is told of.
func (f *Fleet) HangUp() error {
	for _, w := range f.wires {
		if err := f.take(w); err != nil {
			return err
		}
		f.drop(w)
	}
	return nil
}

// Connected is how many Clients have a connection that the broker has answered.
func (f *Fleet) Connected() (n int) {
	for _, w := range f.wires {
		if w.client.Live {
			n++
		}
	}
	return n
}

// Acknowledged is how many messages were acknowledged.
func (f *Fleet) Acknowledged() int { return f.ledger.Acknowledged() }

// Problems says what went wrong; see Ledger.Problems.
func (f *Fleet) Problems() []string { return f.ledger.Problems(f.subscribers()) }

func (f *Fleet) subscribers() []string { return []string{f.wires[0].client.ID, f.wires[1].client.ID} }

func (f *Fleet) pending() (n int) {
	for _, w := range f.wires {
		n += w.client.Pending()
	}
	return n
}

// connect connects who is not connected. A broker that has just been killed refuses: that is tried again.
func (f *Fleet) connect() {
	for _, w := range f.wires {
		if w.net != nil {
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

// turn takes what came and publishes some more.
func (f *Fleet) turn(publish bool, n int) error {
	f.connect()
	subscribed := f.wires[0].client.Subscribed() && f.wires[1].client.Subscribed()
	for _, w := range f.wires {
		if err := f.take(w); err != nil {
			return err
		}
		if publish && subscribed && w.client.Topic != "" {
			w.write(w.client.Publish(byte(1 + n%2)))
		}
	}
	time.Sleep(fleetPause)
	return nil
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
	w.net, w.client.Live = nil, false
}
