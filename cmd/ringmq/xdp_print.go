package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/ringmq/ringmq/bpf"
)

// What ringmq xdp status prints for people: what matters at rest always, what should not happen only when it has.

func printLane(to io.Writer, l laneStatus) {
	state := fmt.Sprintf("program %d held by link %d", l.ProgramID, l.LinkID)
	if !l.Attached {
		state = "no program attached"
	}
	fmt.Fprintf(to, "interface %s: mode %s, %s, %d connections left to the kernel\n", l.Interface, l.Mode, state, l.KernelFlows)
	fmt.Fprintf(to, "  addresses: %s\n", none(l.Addresses))
	for _, name := range slices.Sorted(maps.Keys(l.Lists)) {
		if prefixes := l.Lists[name]; len(prefixes) > 0 {
			fmt.Fprintf(to, "  %s: %s\n", name, strings.Join(prefixes, " "))
		}
	}
	if s := l.SYNLimit; s.PerSource.Burst+s.Gate.Burst > 0 {
		fmt.Fprintf(to, "  new connections: %s per source, %s in all\n", rate(s.PerSource), rate(s.Gate))
	}
	for _, q := range l.Queues {
		printQueue(to, l.Interface, q)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Unbound)) {
		fmt.Fprintf(to, "%s, queues that are not bound: %s %s\n", l.Interface, name, thousands(int64(l.Unbound[name].Packets)))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Beyond)) {
		fmt.Fprintf(to, "%s, queues that came after start: %s %s\n", l.Interface, name, thousands(int64(l.Beyond[name].Packets)))
	}
}

func none(addresses []netip.Prefix) string {
	if len(addresses) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(addresses), "[]")
}

func rate(r bpf.Rate) string {
	if r.PerSecond == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%g/s (%d at once)", r.PerSecond, r.Burst)
}

// figure is a number and what it counts.
type figure struct {
	n    uint64
	what string
}

// queuePrinter writes the lines of one queue.
type queuePrinter struct{ *tabwriter.Writer }

// valueColumns is how wide the second column may be: the first takes 32, and 120 is a usual width of terminals.
const valueColumns = 88

// line writes all figures, and goes on in further lines where they are too many for one.
func (p queuePrinter) line(name string, figures ...figure) {
	text := ""
	for i, f := range figures {
		part := thousands(int64(f.n)) + " " + f.what
		if i+1 < len(figures) && !strings.HasSuffix(part, ":") {
			part += ","
		}
		if text != "" && utf8.RuneCountInString(text)+1+len(part) > valueColumns {
			fmt.Fprintf(p, "  %s\t%s\n", name, text)
			name, text = "", ""
		}
		text = strings.TrimPrefix(text+" "+part, " ")
	}
	fmt.Fprintf(p, "  %s\t%s\n", name, text)
}

// troubles writes the figures that are not zero, and nothing when all are.
func (p queuePrinter) troubles(name string, figures ...figure) {
	if figures = slices.DeleteFunc(figures, func(f figure) bool { return f.n == 0 }); len(figures) > 0 {
		p.line(name, figures...)
	}
}

func printQueue(to io.Writer, name string, q queueStatus) {
	fmt.Fprintf(to, "%s queue %d (shard %d)\n", name, q.Queue, q.Shard)
	p := queuePrinter{tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)}
	for _, name := range slices.Sorted(maps.Keys(q.Verdicts)) {
		n := q.Verdicts[name]
		p.line("program: "+name, figure{n.Packets, "packets"}, figure{n.Bytes, "bytes"})
	}
	p.rings(q)
	p.frames(q)
	p.tcp(q)
	_ = p.Flush()
}

func (p queuePrinter) rings(q queueStatus) {
	r, k := q.Rings, q.Rings.Kernel
	p.line("rings", figure{r.FramesReceived, "frames in"}, figure{r.FramesSent, "out"}, figure{r.Kicks, "sends"}, figure{r.Waits, "waits"})
	p.troubles("rings, troubles", figure{r.TransmitExhausted, "times without a transmit frame"}, figure{r.DroppedDown, "frames dropped while down"},
		figure{r.BadDescriptors, "bad descriptors"}, figure{r.Reopened, "times reopened"}, figure{r.Stalled, "times stalled"})
	e := r.KickErrors
	p.troubles("rings, sends refused", figure{e.Again, "EAGAIN"}, figure{e.Busy, "EBUSY"}, figure{e.NoBuffers, "ENOBUFS"}, figure{e.Down, "ENETDOWN"},
		figure{e.Unbound, "ENXIO"}, figure{e.Interrupted, "EINTR"}, figure{e.Other, "otherwise"})
	p.line("rings, dropped by the kernel", figure{k.FillRingEmpty, "fill ring empty"}, figure{k.ReceiveRingFull, "RX ring full"},
		figure{k.ReceiveDropped, "other"}, figure{k.ReceiveInvalidDescriptors + k.TransmitInvalid, "bad descriptors"})
}

func (p queuePrinter) frames(q queueStatus) {
	n := func(n int) uint64 { return uint64(n) }
	f, s := q.Frames.Receive, q.Frames.Transmit
	if f.Frames == 0 {
		fmt.Fprintln(p, "  frames\tnot counted: the queue's loop did not answer in time")
		return
	}
	p.line("frames, receive", figure{n(f.Frames), "in all:"}, figure{n(f.FillRing), "fill ring"}, figure{n(f.RXRing), "RX ring"}, figure{n(f.Held), "driver"}, figure{n(f.Lost), "lost"})
	p.line("frames, transmit", figure{n(s.Frames), "in all:"}, figure{n(s.Free), "free"}, figure{n(s.Reserved), "reserved"}, figure{n(s.TXRing), "TX ring"},
		figure{n(s.Held), "driver"}, figure{n(s.CompletionRing), "completion ring"}, figure{n(s.Lost), "lost"})
}

func (p queuePrinter) tcp(q queueStatus) {
	t := q.TCP
	p.line("TCP", figure{t.Established, "established"}, figure{t.HalfOpen, "half open"}, figure{t.Accepted, "accepted"}, figure{t.Retransmits, "retransmits"})
	p.troubles("TCP, ended", figure{t.AcceptRefused, "refused"}, figure{t.ResetsSent, "resets sent"}, figure{t.ResetsReceived, "resets received"},
		figure{t.HandshakesExpired, "handshakes given up"}, figure{t.StuckReset, "reset for acknowledging nothing"})
	p.troubles("TCP, SYN cookies", figure{t.CookiesSent, "sent"}, figure{t.CookiesReturned, "returned"}, figure{t.CookiesRefused, "refused"})
	p.line("TCP, waiting", figure{t.PinnedBytes, "bytes not acknowledged"}, figure{t.UnreadBytes, "bytes not read"})
	p.troubles("TCP, out of memory", figure{t.SendLimited, "writes limited"}, figure{t.ReceiveLimited, "segments dropped"})
	p.troubles("TCP, dropped when received", figure{t.Malformed, "malformed"}, figure{t.NotOurs, "not ours"}, figure{t.AddressGone, "to an address that is gone"},
		figure{t.ChecksumErrors, "wrong checksum"}, figure{t.ICMPRefused, "ICMP errors not plausible"}, figure{t.LinkRefused, "link address not believed"},
		figure{t.HandoverDropped, "between queues"}, figure{t.Poisoned, "of poisoned flows"})
	p.troubles("TCP, panics", figure{t.Panics, "in the processing of a frame: please report what the log says"})
	p.troubles("TCP, dropped when sent", figure{t.NoLinkAddress, "no link address"}, figure{t.OverflowDropped, "overflow queue full"},
		figure{t.NotTCP, "not TCP"}, figure{t.TooLong, "too long"})
	p.troubles("TCP, overflow queue", figure{t.OverflowQueued, "frames have waited"}, figure{t.OverflowHighTide, "bytes at most"})
	p.troubles("TCP, between queues", figure{t.HandedOver, "handed over"}, figure{t.TakenOver, "taken over"})
	p.line("TCP, acknowledgements", figure{t.HeldACKs, "held back"}, figure{t.SupersededACKs, "of them never needed"})
}
