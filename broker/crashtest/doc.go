// Package crashtest is for tests that end a broker at any moment: clients that behave as MQTT asks of them, over any transport, and a
// Ledger that knows every acknowledged message and says what was lost, doubled or out of order. No program that users run
// contains it.
//
// A Client is a state machine: it is given what came and gives what to send, and its Session outlives its connections as those of good
// clients do: unacknowledged publications are sent again in order, QoS 2 identifiers are remembered. A Sim drives Clients and a
// broker in memory step by step.
package crashtest

import "fmt"

// Ledger is what is known of all messages of a test. It is not for concurrent use.
type Ledger struct {
	messages map[string]*message
	order    map[stream][]int // numbers in the order of first arrival
	problems []string
	mayLose  bool
}

type message struct {
	publisher string
	number    int
	qos       byte
	acked     bool
	arrived   map[string]int // by subscriber
}

// stream is what keeps its order: the messages of one publisher at one QoS to one subscriber.
type stream struct {
	publisher, subscriber string
	qos                   byte
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger {
	return &Ledger{messages: make(map[string]*message), order: make(map[stream][]int)}
}

// MayLose says that the disk lies: what was acknowledged, Sessions too, may be lost. Doubled or out of order it is still wrong.
func (l *Ledger) MayLose() { l.mayLose = true }

// lastAcknowledged is the number of a publisher's last acknowledged message; 0 for none.
func (l *Ledger) lastAcknowledged(publisher string) (last int) {
	for _, m := range l.messages {
		if m.publisher == publisher && m.acked {
			last = max(last, m.number)
		}
	}
	return last
}

func payloadOf(publisher string, number int) string { return fmt.Sprintf("%s:%d", publisher, number) }

func (l *Ledger) published(publisher string, number int, qos byte) {
	l.messages[payloadOf(publisher, number)] = &message{publisher: publisher, number: number, qos: qos, arrived: map[string]int{}}
}

func (l *Ledger) acknowledged(publisher string, number int) {
	l.messages[payloadOf(publisher, number)].acked = true
}

// arrivedAt notes that an application has been given a message.
func (l *Ledger) arrivedAt(subscriber, payload string) {
	name := payload
	for i := range payload {
		if payload[i] == '|' { // padding follows
			name = payload[:i]
			break
		}
	}
	m := l.messages[name]
	if m == nil {
		l.problem("%s got %q, which nobody has published", subscriber, name)
		return
	}
	if m.arrived[subscriber]++; m.arrived[subscriber] > 1 {
		if m.qos == 2 {
			l.problem("%s got %s twice", subscriber, name)
		}
		return
	}
	s := stream{m.publisher, subscriber, m.qos}
	if seen := l.order[s]; len(seen) > 0 && seen[len(seen)-1] > m.number {
		l.problem("%s got %s after number %d", subscriber, name, seen[len(seen)-1])
	}
	l.order[s] = append(l.order[s], m.number)
}

func (l *Ledger) problem(format string, a ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, a...))
}

// Acknowledged is how many messages were acknowledged.
func (l *Ledger) Acknowledged() (n int) {
	for _, m := range l.messages {
		if m.acked {
			n++
		}
	}
	return n
}

// Missing is how many acknowledged messages some subscriber has not got.
func (l *Ledger) Missing(subscribers []string) (n int) {
	for _, m := range l.messages {
		for _, s := range subscribers {
			if m.acked && m.arrived[s] == 0 {
				n++
			}
		}
	}
	return n
}

// Problems says what went wrong, when every subscriber has had the time to get everything.
func (l *Ledger) Problems(subscribers []string) []string {
	list := l.problems
	if l.mayLose {
		return list
	}
	for name, m := range l.messages {
		for _, s := range subscribers {
			if m.acked && m.arrived[s] == 0 {
				list = append(list, fmt.Sprintf("%s (QoS %d) was acknowledged and never got to %s", name, m.qos, s))
			}
		}
	}
	return list
}
