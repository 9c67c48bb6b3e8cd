package main

import (
	"os"
	"time"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/ringmq/ringmq/perf/overload"
)

const (
	// strangersMax is what programs that take no part in a trial may use of a processor during it. More would show in the
	// victims' p99 as if the aggressor had done it, or the sink: the trial is run again.
	strangersMax = 0.15
	// disturbedTries is how often, at most.
	disturbedTries = 3
)

// shares are the parts of one processor that were used while the victims ran, by those whom load.Result does not know.
type shares struct {
	Aggressor float64 `json:"aggressor_share"`
	Sink      float64 `json:"sink_share,omitempty"`
	// Kernel is the kernel's own threads: what softirqs do when there is too much of it.
	Kernel float64 `json:"kernel_share"`
	// Strangers is all that is left of what the machine was busy with.
	Strangers float64 `json:"strangers_share"`
}

// cpuMeter measures shares.
type cpuMeter struct {
	broker, sink *server // sink: nil when there is none
	attack       *overload.Attack
	began        time.Time
	first        cpuTimes
}

// cpuTimes is processor time so far.
type cpuTimes struct{ machine, broker, sink, kernel, aggressor, self time.Duration }

func startMeter(broker, sink *server, attack *overload.Attack) *cpuMeter {
	m := &cpuMeter{broker: broker, sink: sink, attack: attack, began: time.Now()}
	m.first = m.read()
	return m
}

// read reads what can be read: who has ended uses nothing.
func (m *cpuMeter) read() (t cpuTimes) {
	t.machine, _ = load.MachineTime()
	t.kernel = load.KernelTime()
	t.broker, _ = load.ProcessorTime(m.broker.command.Process.Pid)
	t.self, _ = load.ProcessorTime(os.Getpid())
	if m.sink != nil {
		t.sink, _ = load.ProcessorTime(m.sink.command.Process.Pid)
	}
	t.aggressor = m.attack.ProcessorTime()
	return t
}

// stop ends the measurement.
func (m *cpuMeter) stop() shares {
	took, last := time.Since(m.began).Seconds(), m.read()
	of := func(last, first time.Duration) float64 { return (last - first).Seconds() / took }
	s := shares{Aggressor: of(last.aggressor, m.first.aggressor), Sink: of(last.sink, m.first.sink), Kernel: of(last.kernel, m.first.kernel)}
	ours := s.Sink + s.Kernel + of(last.broker, m.first.broker) + of(last.self, m.first.self)
	s.Strangers = max(0, of(last.machine, m.first.machine)-ours)
	return s
}
