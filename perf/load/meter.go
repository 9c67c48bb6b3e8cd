package load

import (
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// gapsMax bounds the memory of one flow: beyond it the oldest gap is written off as lost.
const gapsMax = 4096

// gap is a range of sequence numbers that were overtaken and have not arrived: from first up to, not
// including, end.
type gap struct{ first, end uint64 }

// flow follows the sequence numbers of one publisher at one subscriber.
type flow struct {
	next       uint64 // one more than the highest sequence number that has arrived
	gaps       []gap  // in ascending order
	writtenOff uint64
	duplicated int64
	reordered  int64
}

// outOfOrder takes any sequence number but the expected one, which take handles by itself.
func (f *flow) outOfOrder(sequence uint64) {
	if sequence > f.next {
		f.gaps = append(f.gaps, gap{f.next, sequence})
		f.next = sequence + 1
		f.bound()
		return
	}
	i, _ := slices.BinarySearchFunc(f.gaps, sequence, func(g gap, s uint64) int {
		if g.end <= s {
			return -1
		}
		return 1
	})
	if i == len(f.gaps) || sequence < f.gaps[i].first {
		f.duplicated++
		return
	}
	f.reordered++
	f.fill(i, sequence)
}

// fill takes sequence out of the i-th gap.
func (f *flow) fill(i int, sequence uint64) {
	g := &f.gaps[i]
	switch {
	case g.first+1 == g.end:
		f.gaps = slices.Delete(f.gaps, i, i+1)
	case sequence == g.first:
		g.first++
	case sequence+1 == g.end:
		g.end--
	default:
		after := gap{sequence + 1, g.end}
		g.end = sequence
		f.gaps = slices.Insert(f.gaps, i+1, after)
		f.bound()
	}
}

func (f *flow) bound() {
	if len(f.gaps) > gapsMax {
		f.writtenOff += f.gaps[0].end - f.gaps[0].first
		f.gaps = slices.Delete(f.gaps, 0, 1)
	}
}

// missing is how many of the first sent messages have not arrived.
func (f *flow) missing(sent uint64) int64 {
	missing := f.writtenOff
	for _, g := range f.gaps {
		missing += g.end - g.first
	}
	if sent > f.next {
		missing += sent - f.next
	}
	return int64(missing)
}

// meter gathers the latency of messages sent in the measured part.
type meter struct {
	histogram *hdrhistogram.Histogram
	// from and until bound the measured part, by the time in the message.
	from, until int64
	// runTime and runCount are messages in a row with the same time: what a publisher sends in a turn it stamps
	// alike, so that one look-up in the histogram serves them all.
	runTime  int64
	runCount int64
}

func newMeter() *meter {
	return &meter{histogram: newHistogram(), from: math.MaxInt64, until: math.MaxInt64}
}

// arrived notes a message that was sent at sent and is here now.
func (m *meter) arrived(sent, now int64) {
	if sent == m.runTime {
		m.runCount++
		return
	}
	m.endRun(now)
	m.runTime, m.runCount = sent, 1
}

// endRun must be called before now changes.
func (m *meter) endRun(now int64) {
	if m.runCount > 0 && m.runTime >= m.from && m.runTime < m.until {
		// Values above the histogram's range count as its maximum, and clocks that step back do not exist here.
		_ = m.histogram.RecordValues(min(now-m.runTime, int64(latencyMax)), m.runCount)
	}
	m.runCount = 0
}
