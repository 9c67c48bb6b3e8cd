package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Scenario names what a run does.
type Scenario string

// The scenarios.
const (
	Pairs    Scenario = "pairs"    // publisher i to subscriber i, each on a topic of its own
	FanOut   Scenario = "fanout"   // one publisher to Connections subscribers
	FanIn    Scenario = "fanin"    // Connections publishers to one subscriber
	Storm    Scenario = "storm"    // connect, CONNACK, DISCONNECT, again and again
	Idle     Scenario = "idle"     // Connections that do nothing; what they cost the broker in memory
	Retained Scenario = "retained" // store retained messages, then fetch them all with one wildcard
)

// Scenarios lists them in the order in which a report shows them.
func Scenarios() []Scenario { return []Scenario{Pairs, FanOut, FanIn, Storm, Idle, Retained} }

// Versions of the protocol, as CONNECT writes them.
const (
	Version311 = 4
	Version5   = 5
)

// Bounds and defaults.
const (
	defaultConnections    = 100
	defaultWindow         = 16
	defaultPayloadBytes   = 64
	defaultDuration       = 3 * time.Second
	defaultWarmUp         = 500 * time.Millisecond
	defaultConnectTimeout = 30 * time.Second
	defaultDrainTimeout   = 5 * time.Second
	defaultStallTimeout   = time.Second
	defaultParallel       = 64
	defaultMessages       = 10000
	// countDurationMax ends a run by Count against a broker that has stopped taking messages.
	countDurationMax = 10 * time.Minute

	// connectionsMax keeps a mistyped number from asking for gigabytes.
	connectionsMax = 1 << 20
	// windowMax is the number of Packet Identifiers, less one for zero.
	windowMax = 65535
	// rateMax is more than any machine carries, and due times still differ.
	rateMax = 1e9
	// payloadMaxBytes bounds the read buffer, which holds one whole packet.
	payloadMaxBytes = 128 << 20
)

// Config says what to do to which broker.
type Config struct {
	// Target is the broker's address. Required.
	Target netip.AddrPort `json:"target"`
	// Scenario: empty is Pairs.
	Scenario Scenario `json:"scenario"`
	// Connections is the number of pairs, of subscribers (FanOut), publishers (FanIn) or connections (Idle).
	// Zero is 100.
	Connections int `json:"connections"`
	// QoS of PUBLISH and SUBSCRIBE: 0, 1 or 2.
	QoS byte `json:"qos"`
	// PayloadBytes: zero is 64; at least 20, which carry publisher, sequence number and time.
	PayloadBytes int `json:"payload_bytes"`
	// Window is how many messages a publisher may have under way. In a closed loop zero is 16. In an open loop it
	// bounds only unacknowledged messages, and zero is as many as the protocol and the broker allow.
	Window int `json:"window"`
	// Rate makes the loop open: messages published per second by all publishers together. Zero: closed loop.
	Rate float64 `json:"rate,omitempty"`
	// Unhurried has an open loop sleep between two messages instead of looking at the clock until the next one is due, so that
	// it takes no more of its processor than its work does, and the rest is there for others. Messages go up to a tenth of a
	// millisecond late, which counts as latency.
	Unhurried bool `json:"unhurried,omitempty"`
	// Duration of the measured part; zero is 3 s. With Count it is the longest that it may take, and zero is
	// 10 minutes.
	Duration time.Duration `json:"duration_ns"`
	// Count ends the measured part after so many messages, published by all publishers together (Storm:
	// connections; Retained: fetches). Zero: Duration ends it.
	Count int64 `json:"count,omitempty"`
	// WarmUp comes before the measured part and counts only for loss, duplicates and order. Zero is 500 ms,
	// negative is none.
	WarmUp time.Duration `json:"warm_up_ns"`
	// Parallel is how many connections are being opened at a time. Zero is 64.
	Parallel int `json:"parallel,omitempty"`
	// Messages is the number of Retained Messages to store and fetch. Zero is 10,000.
	Messages int `json:"messages,omitempty"`
	// Version is Version311 (also zero) or Version5.
	Version byte `json:"version"`
	// Username and Password go into every CONNECT when Username is not empty.
	Username string `json:"username,omitempty"`
	Password string `json:"-"`
	// Sources are local addresses to connect from, in turn. Empty: the system's choice, and for a target in
	// 127.0.0.0/8 more addresses of that network when one address has too few ports.
	Sources []netip.Addr `json:"sources,omitempty"`
	// PID is the broker's process, for its processor time and memory. Zero: not measured.
	PID int `json:"pid,omitempty"`
	// WholeMachine measures the processor time of everything on this machine as well: where a kernel charges one side's
	// work to the other, as veth does, only the sum tells.
	WholeMachine bool `json:"whole_machine,omitempty"`
	// CPUs holds the one processor to pin the generator's thread to. Empty: not pinned.
	CPUs []int `json:"cpus,omitempty"`
	// ConnectTimeout bounds opening all connections. Zero is 30 s.
	ConnectTimeout time.Duration `json:"-"`
	// DrainTimeout bounds the wait, after the last PUBLISH and again after each arrival, for what is still under
	// way. Zero is 5 s.
	DrainTimeout time.Duration `json:"-"`
	// StallTimeout: a closed loop that hears nothing of a publisher's messages for so long gives them up, counts
	// a stall and goes on. A Storm's attempts that have waited so long at its end have failed. Zero is 1 s.
	StallTimeout time.Duration `json:"-"`
	// ProgressInterval between calls of progress. Zero is 1 s.
	ProgressInterval time.Duration `json:"-"`
}

// withDefaults fills in what zero stands for.
func (c Config) withDefaults() Config {
	if c.Scenario == "" {
		c.Scenario = Pairs
	}
	defaultTo(&c.Version, Version311)
	defaultTo(&c.Connections, defaultConnections)
	defaultTo(&c.PayloadBytes, defaultPayloadBytes)
	defaultTo(&c.Parallel, defaultParallel)
	defaultTo(&c.Messages, defaultMessages)
	defaultTo(&c.WarmUp, defaultWarmUp)
	defaultTo(&c.ConnectTimeout, defaultConnectTimeout)
	defaultTo(&c.DrainTimeout, defaultDrainTimeout)
	defaultTo(&c.StallTimeout, defaultStallTimeout)
	defaultTo(&c.ProgressInterval, time.Second)
	if c.Count > 0 {
		defaultTo(&c.Duration, countDurationMax)
	}
	defaultTo(&c.Duration, defaultDuration)
	if c.Rate == 0 {
		defaultTo(&c.Window, defaultWindow)
	}
	c.WarmUp = max(c.WarmUp, 0)
	return c
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Check refuses what cannot be run, before anything is opened; the texts name the field to change. Run does it, too.
func (c Config) Check() error { return c.withDefaults().check() }

func (c Config) check() error {
	for _, rule := range []struct {
		broken bool
		says   string
	}{
		{c.Connections < 1 || c.Connections > connectionsMax, fmt.Sprintf("connections: want 1 to %d", connectionsMax)},
		{c.QoS > 2, "qos: want 0, 1 or 2"},
		{c.PayloadBytes < stampBytes || c.PayloadBytes > payloadMaxBytes, fmt.Sprintf("payload: want %d to %d bytes", stampBytes, payloadMaxBytes)},
		{c.Window < 0 || c.Window > windowMax, fmt.Sprintf("window: want 1 to %d", windowMax)},
		{!(c.Rate >= 0 && c.Rate <= rateMax), fmt.Sprintf("rate: want messages per second, up to %.0f, or 0 for a closed loop", rateMax)},
		{c.Rate > 0 && (c.Scenario == Storm || c.Scenario == Idle || c.Scenario == Retained), fmt.Sprintf("rate: %s has no messages to pace", c.Scenario)},
		{c.Count < 0 || c.Duration < 0, "count and duration: want positive"},
		{c.Version != Version311 && c.Version != Version5, "version: want 4 (MQTT 3.1.1) or 5"},
		{c.Parallel < 1, "parallel: want at least 1"},
		{c.Messages < 1, "messages: want at least 1"},
		{len(c.CPUs) > 1, "cpus: the generator has one thread: name one processor"},
	} {
		if rule.broken {
			return errors.New(rule.says)
		}
	}
	for _, known := range Scenarios() {
		if c.Scenario == known {
			return nil
		}
	}
	return fmt.Errorf("scenario %q: want one of %v", c.Scenario, Scenarios())
}

// publishers and subscribers say how many connections of each kind the scenario has.
func (c Config) publishers() int {
	if c.Scenario == FanOut {
		return 1
	}
	return c.Connections
}

func (c Config) subscribers() int {
	if c.Scenario == FanIn {
		return 1
	}
	return c.Connections
}
