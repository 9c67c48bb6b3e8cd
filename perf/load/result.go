package load

import (
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Phase names what a run is busy with.
type Phase string

// The phases, in order.
const (
	Connecting Phase = "connecting"
	WarmingUp  Phase = "warm-up"
	Measuring  Phase = "measuring"
	Draining   Phase = "draining"
)

// Progress is what a person watching a run is told. Rates are of the time since the last call.
type Progress struct {
	Phase       Phase
	Elapsed     time.Duration // since the run began
	Connections int           // open now
	Published   int64         // in all
	Delivered   int64         // in all; for Storm, connections made
	PerSecond   float64       // deliveries, or connections made, per second
	P50, P99    time.Duration // of the measured part so far; zero before it
}

// Result is what a run found. Counts are of messages unless they say otherwise.
type Result struct {
	Config Config `json:"config"`
	// ConnectTime is what opening and subscribing all connections took.
	ConnectTime time.Duration `json:"connect_ns"`
	// MeasuredTime is the measured part's length.
	MeasuredTime time.Duration `json:"measured_ns"`
	// Delivered in the measured part (for Storm: connections made), and the same per second.
	Delivered int64   `json:"delivered"`
	PerSecond float64 `json:"per_second"`

	// The following cover warm-up, measured part and drain.
	Published int64 `json:"published_total"`
	// Expected is Published times the number of subscribers that each message goes to.
	Expected int64 `json:"expected_total"`
	// Lost did not arrive before the drain ended.
	Lost int64 `json:"lost"`
	// Duplicated arrived again.
	Duplicated int64 `json:"duplicated"`
	// Reordered arrived after one that was published later to the same topic by the same publisher.
	Reordered int64 `json:"reordered"`
	// Corrupt had another length or sender than anything this run published.
	Corrupt int64 `json:"corrupt"`
	// Unacknowledged is PUBLISH packets of QoS 1 and 2 whose exchange had not ended when the drain did.
	Unacknowledged int64 `json:"unacknowledged"`
	// AcksOutOfOrder is acknowledgements of another PUBLISH than the oldest that waits for one.
	AcksOutOfOrder int64 `json:"acks_out_of_order"`
	// Refused is PUBLISH packets acknowledged with a Reason Code of 0x80 or above.
	Refused int64 `json:"refused"`
	// Stalls counts how often a window was given up: see Config.StallTimeout.
	Stalls int64 `json:"stalls"`
	// Unsent is messages that an open loop without Count owed when the measured part ended: due, but held up by the broker
	// (or by the generator). They are neither lost nor in Latency.
	Unsent int64 `json:"unsent"`
	// Inexact says that a flow had more gaps than the meter keeps, so that late messages may count as lost and
	// duplicated.
	Inexact bool `json:"inexact,omitempty"`

	// Latency of the messages sent (open loop: due) in the measured part; for Storm from connect to CONNACK, for
	// Retained from SUBSCRIBE to the last message.
	Latency Latency `json:"latency"`

	// TargetCPU and GeneratorCPU are processor time, user and system, in the measured part.
	TargetCPU    time.Duration `json:"target_cpu_ns,omitempty"`
	GeneratorCPU time.Duration `json:"generator_cpu_ns"`
	// MachineCPU is that of the whole machine, with Config.WholeMachine.
	MachineCPU time.Duration `json:"machine_cpu_ns,omitempty"`
	// PerTargetCPUSecond is Delivered per second of TargetCPU.
	PerTargetCPUSecond float64 `json:"per_target_cpu_second,omitempty"`

	// Idle: the target's memory per connection, by proportional and by resident set size.
	PSSBytesPerConnection float64 `json:"pss_bytes_per_connection,omitempty"`
	RSSBytesPerConnection float64 `json:"rss_bytes_per_connection,omitempty"`
	// Storm: attempts that ended without a CONNACK of success, and the first one's reason.
	Failed       int64  `json:"failed,omitempty"`
	FailedReason string `json:"failed_reason,omitempty"`
	// Retained: how many fetches were made and how many of them were complete.
	Fetches         int64 `json:"fetches,omitempty"`
	FetchesComplete int64 `json:"fetches_complete,omitempty"`
}

// GeneratorShare is the part of one processor that the generator used in the measured part.
func (r Result) GeneratorShare() float64 { return share(r.GeneratorCPU, r.MeasuredTime) }

// TargetShare is the part of one processor that the broker used; above 1 it used several.
func (r Result) TargetShare() float64 { return share(r.TargetCPU, r.MeasuredTime) }

// MachineShare is the part of all processors together that was busy, with Config.WholeMachine.
func (r Result) MachineShare() float64 {
	return share(r.MachineCPU, r.MeasuredTime*time.Duration(runtime.NumCPU()))
}

// Clean says that everything published arrived, once, in order and whole, and was acknowledged, and that every fetch and
// connection attempt succeeded.
func (r Result) Clean() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.Reordered == 0 && r.Corrupt == 0 && r.Unacknowledged == 0 &&
		r.AcksOutOfOrder == 0 && r.Refused == 0 && r.Failed == 0 && r.Fetches == r.FetchesComplete
}

// perSecond works out the rates once counts and times are known.
func (r *Result) perSecond() {
	if r.MeasuredTime > 0 {
		r.PerSecond = float64(r.Delivered) / r.MeasuredTime.Seconds()
	}
	if r.TargetCPU > 0 {
		r.PerTargetCPUSecond = float64(r.Delivered) / r.TargetCPU.Seconds()
	}
}

func share(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// Latency is a distribution in short.
type Latency struct {
	Count int64         `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
}

const (
	// latencyUnit is finer than any loopback exchange and keeps the histogram small enough for the cache.
	latencyUnit = 500 * time.Nanosecond
	latencyMax  = 10 * time.Minute
	// latencyDigits: three significant digits are a tenth of a percent.
	latencyDigits = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(latencyUnit), int64(latencyMax), latencyDigits)
}

func summarise(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{} // the histogram's own maximum of nothing is not zero
	}
	at := func(percentile float64) time.Duration { return time.Duration(h.ValueAtPercentile(percentile)) }
	return Latency{
		Count: h.TotalCount(), Mean: time.Duration(h.Mean()),
		P50: at(50), P99: at(99), P999: at(99.9), Max: time.Duration(h.Max()),
	}
}
