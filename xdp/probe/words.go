package probe

import (
	"fmt"
	"strconv"
	"strings"
)

// How facts are written for people: one line, without a full stop.

// String writes the value, or why it is unknown.
func (f Fact[T]) String() string {
	if !f.Known() {
		return "unknown (" + f.Unknown + ")"
	}
	return fmt.Sprint(f.Value)
}

// Bytes is an amount of memory.
type Bytes int64

// String writes the largest unit of which there is one or more.
func (b Bytes) String() string {
	for _, unit := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if b >= 1<<unit.shift {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(b)/float64(int64(1)<<unit.shift)), ".0") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d bytes", int64(b))
}

// CPUList is the numbers of processors, or of queues, in order.
type CPUList []int

// String writes the kernel's list format: 0-3,8; none when there is nothing.
func (l CPUList) String() string {
	if len(l) == 0 {
		return "none"
	}
	var parts []string
	for at := 0; at < len(l); {
		end := at
		for end+1 < len(l) && l[end+1] == l[end]+1 {
			end++
		}
		part := strconv.Itoa(l[at])
		if end > at {
			part += "-" + strconv.Itoa(l[end])
		}
		parts = append(parts, part)
		at = end + 1
	}
	return strings.Join(parts, ",")
}

// String writes what is not as one would guess only.
func (c CPUFacts) String() string {
	parts := []string{c.Online.String() + " online"}
	if c.Allowed.String() != c.Online.String() {
		parts = append(parts, c.Allowed.String()+" allowed")
	}
	if len(c.Isolated.Value) > 0 {
		parts = append(parts, c.Isolated.String()+" isolated")
	}
	if c.SMT.Value {
		parts = append(parts, "SMT")
	}
	parts = append(parts, "NUMA nodes "+c.NUMANodes.String())
	if c.Governors.Known() {
		parts = append(parts, "governor "+strings.Join(c.Governors.Value, " "))
	}
	if c.IRQBalance.Value {
		parts = append(parts, "irqbalance")
	}
	return strings.Join(parts, "; ")
}

// String writes the pool.
func (p HugePages) String() string {
	return fmt.Sprintf("%d of %v, %d free", p.Total, p.SizeBytes, p.Free)
}

// String writes the names and values of what is known, then the names of the rest.
func (s Settings) String() string {
	var parts, rest []string
	for _, setting := range []struct {
		name string
		Fact[int]
	}{
		{"bpf_jit_enable", s.BPFJIT}, {"bpf_jit_harden", s.BPFJITHarden}, {"unprivileged_bpf_disabled", s.UnprivilegedBPF},
		{"busy_poll", s.BusyPoll}, {"busy_read", s.BusyRead}, {"ip_unprivileged_port_start", s.FirstUnprivilegedPort},
	} {
		if setting.Known() {
			parts = append(parts, fmt.Sprintf("%s %d", setting.name, setting.Value))
		} else {
			rest = append(rest, setting.name)
		}
	}
	if len(rest) > 0 {
		parts = append(parts, "unknown here: "+strings.Join(rest, " "))
	}
	return strings.Join(parts, ", ")
}

// String writes works, or the error.
func (t Trial) String() string {
	if t.Works {
		return "works"
	}
	return t.Error
}

// String writes what the driver can, and whether zero-copy is missing.
func (f Features) String() string {
	var parts []string
	for _, feature := range []struct {
		has  bool
		name string
	}{
		{f.Basic, "native"}, {f.Redirect, "redirect"}, {f.ZeroCopy, "zero-copy"}, {f.Basic && !f.ZeroCopy, "no zero-copy"},
		{f.ReceiveScatter, "packets of several frames"}, {f.Offload, "offload"},
	} {
		if feature.has {
			parts = append(parts, feature.name)
		}
	}
	return none(strings.Join(parts, ", "))
}

// String writes everything that identifies the program.
func (p Program) String() string {
	text := fmt.Sprintf("id %d, %s mode, %s", p.ID, p.Mode, p.title())
	if p.LinkID.Value != 0 {
		text += fmt.Sprintf(", held by link %d", p.LinkID.Value)
	}
	if p.Holder.Value.ID != 0 {
		text += " of " + p.Holder.String()
	}
	return text
}

// String writes present and most, as far as the driver has such channels.
func (c Channels) String() string {
	var parts []string
	for _, kind := range []struct {
		name         string
		now, largest int
	}{{"combined", c.Combined, c.MaxCombined}, {"rx", c.Receive, c.MaxReceive}, {"tx", c.Transmit, c.MaxTransmit}} {
		if kind.largest > 0 {
			parts = append(parts, fmt.Sprintf("%s %d of %d", kind.name, kind.now, kind.largest))
		}
	}
	return none(strings.Join(parts, ", "))
}

// String writes present and most.
func (r Rings) String() string {
	return fmt.Sprintf("rx %d of %d, tx %d of %d descriptors", r.Receive, r.MaxReceive, r.Transmit, r.MaxTransmit)
}

// String writes how many slots of the indirection table name each queue.
func (r RSS) String() string {
	total := 0
	var parts []string
	for queue, slots := range r.Slots {
		total += slots
		parts = append(parts, fmt.Sprintf("%d to queue %d", slots, queue))
	}
	return strings.TrimSuffix(fmt.Sprintf("%d slots: %s; key of %d bytes, %s", total, strings.Join(parts, ", "), r.HashKeyBytes, r.HashFunction), ", ")
}

// String writes the rule as ethtool counts it.
func (r FlowRule) String() string {
	text := fmt.Sprintf("rule %d: ", r.Location)
	if len(r.Ports) > 0 {
		text += fmt.Sprintf("TCP port %v ", r.Ports[0])
	}
	if r.Queue < 0 {
		return text + "dropped"
	}
	return text + fmt.Sprintf("to queue %d", r.Queue)
}

// String writes one port, or a range.
func (p PortRange) String() string {
	if p.First == p.Last {
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// String writes which are on, by the words of ethtool -K.
func (o Offloads) String() string {
	var on []string
	for _, feature := range []struct {
		Offload
		name string
	}{{o.LRO, "lro"}, {o.GROHardware, "rx-gro-hw"}, {o.VLANReceive, "rxvlan"}, {o.ReceiveFCS, "rx-fcs"}, {o.TransmitCheck, "tx"}} {
		switch {
		case feature.On && feature.Fixed:
			on = append(on, feature.name+" (fixed)")
		case feature.On:
			on = append(on, feature.name)
		}
	}
	return none(strings.Join(on, ", "))
}

// String writes where the queue's interrupt goes.
func (q Queue) String() string {
	text := "interrupt " + q.IRQ.String()
	if q.IRQ.Known() {
		text += ", CPUs " + q.CPUs.String()
	}
	if len(q.RPS) > 0 {
		text += ", RPS to " + q.RPS.String()
	}
	if len(q.XPS) > 0 {
		text += ", XPS from " + q.XPS.String()
	}
	if q.Socket {
		text += ", an AF_XDP socket is bound"
		if q.Holder.Value.ID != 0 {
			text += " by " + q.Holder.String()
		}
	}
	return text
}

func none(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
