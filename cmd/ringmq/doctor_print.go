package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ringmq/ringmq/xdp/probe"
)

// doctorPrinter writes a report for people: groups of one line per fact, then the findings, then the verdict.
type doctorPrinter struct {
	to     io.Writer
	colour bool
	rows   [][]string // of the group that is being written
	err    error
}

func (p *doctorPrinter) print(r doctorReport) error {
	p.host(r.Host)
	if r.named {
		for _, i := range r.Interfaces {
			p.examined(i, r.Plan)
		}
	} else {
		p.overview(r.Interfaces)
	}
	p.findings(r.Findings)
	p.verdict(r)
	return p.err
}

// row adds a line to the group; unknown ones too, with their reason.
func (p *doctorPrinter) row(name, format string, values ...any) {
	p.rows = append(p.rows, []string{name, fmt.Sprintf(format, values...)})
}

// group writes its rows in columns under a title.
func (p *doctorPrinter) group(title string) {
	p.line("%s", p.paint("1", title))
	var widths []int
	for _, row := range p.rows {
		for column, cell := range row {
			if column == len(widths) {
				widths = append(widths, 0)
			}
			widths[column] = max(widths[column], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range p.rows {
		var text strings.Builder
		for column, cell := range row {
			fmt.Fprintf(&text, "  %-*s", widths[column], cell)
		}
		p.line("%s", strings.TrimRight(text.String(), " "))
	}
	p.line("")
	p.rows = nil
}

func (p *doctorPrinter) line(format string, values ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.to, format+"\n", values...)
	}
}

// paint puts text between the escape sequences of a terminal's colour.
func (p *doctorPrinter) paint(code, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *doctorPrinter) host(h probe.HostFacts) {
	if h.System != "linux" {
		p.row("system", "%s on %s", h.System, h.Architecture)
		p.group("host")
		return
	}
	p.row("kernel", "Linux %s on %s", h.Kernel, h.Architecture)
	p.row("XDP", "socket %v, program %v, XSKMAP %v", h.Socket, h.Program, h.Map)
	p.row("user", "%s", doctorUser(h))
	for _, held := range []bool{true, false} {
		p.row(map[bool]string{true: "has", false: "lacks"}[held], "%s", capabilityNames(h.Capabilities, held))
	}
	p.row("locked memory", "%s", limitText(h.LockedMemory, func(n int64) string { return probe.Bytes(n).String() }))
	p.row("open files", "%s", limitText(h.Descriptors, thousands))
	p.row("CPUs", "%v", h.CPU)
	p.row("memory", "%v, %v available", h.Memory.TotalBytes, h.Memory.AvailableBytes)
	p.row("huge pages", "%s; transparent: %v", hugePagesText(h.Memory.HugePages), h.Memory.THP)
	p.row("settings", "%v", h.Settings)
	p.row("firewall", "%s", firewallText(h.Firewall))
	p.group("host")
}

// overview is a line for each interface.
func (p *doctorPrinter) overview(interfaces []probe.InterfaceFacts) {
	if len(interfaces) == 0 {
		return
	}
	for _, i := range interfaces {
		queues := i.ReceiveQueues()
		p.rows = append(p.rows, []string{i.Name, linkState(i), driverText(i), fmt.Sprintf("mtu %d", i.MTU), fmt.Sprintf("queues %v", queues),
			"strongest mode: " + i.Strongest().String()})
	}
	p.group("interfaces (--interface NAME examines one)")
}

func (p *doctorPrinter) examined(i probe.InterfaceFacts, plan probe.Plan) {
	p.row("link", "%s", strings.Join(slices.DeleteFunc([]string{linkState(i), i.Kind, i.Address, labelled("belongs to", i.Master),
		labelled("made of", i.Lower...), labelled("VLANs", i.VLANs...), labelled("peer", i.Peer)}, isEmpty), ", "))
	p.row("driver", "%s", strings.TrimSpace(driverText(i)+" "+labelled("at", i.Bus)))
	p.row("addresses", "%s", listText(i.Addresses))
	p.row("mtu", "%d bytes; a frame of %d bytes holds %d", i.MTU, plan.FrameSizeBytes, plan.MaxMTU())
	p.row("XDP features", "%v", i.Features)
	p.row("XDP program", "%s", listText(i.Programs))
	p.row("queues", "%v; channels %v", i.ReceiveQueues(), i.Channels)
	p.row("rings", "%v", i.Rings)
	p.row("RSS", "%v", i.RSS)
	p.row("flow rules", "%s", factList(i.Rules))
	p.row("offloads on", "%v", i.Offloads)
	p.row("tc ingress", "%s", ingressText(i.Ingress))
	p.row("NUMA node", "%s", nodeText(i))
	p.queues(i.Queues.Value)
	p.group("interface " + i.Name)
}

// queues writes neighbours that are alike in one row.
func (p *doctorPrinter) queues(queues []probe.Queue) {
	for at := 0; at < len(queues); {
		numbers := probe.CPUList{}
		text := queues[at].String()
		for at < len(queues) && queues[at].String() == text {
			numbers = append(numbers, queues[at].Index)
			at++
		}
		name := "queue"
		if len(numbers) > 1 {
			name = "queues"
		}
		p.row(name+" "+numbers.String(), "%s", text)
	}
}

func ingressText(n probe.Fact[int]) string {
	if n.Known() && n.Value == 0 {
		return "none"
	}
	return n.String()
}

func nodeText(i probe.InterfaceFacts) string {
	switch {
	case !i.NUMANode.Known():
		return i.NUMANode.String()
	case i.NUMANode.Value < 0:
		return "none"
	}
	return fmt.Sprintf("%v, CPUs %v", i.NUMANode, i.NodeCPUs)
}

func (p *doctorPrinter) findings(findings []probe.Finding) {
	p.line("%s", p.paint("1", "findings"))
	colours := map[probe.Severity]string{probe.OK: "32", probe.Note: "36", probe.Warning: "33", probe.Running: "36", probe.Problem: "31"}
	topics := 0
	for _, f := range findings {
		topics = max(topics, len(doctorTopic(f)))
	}
	for at, f := range findings {
		p.line("  %s  %-*s  %s", p.paint(colours[f.Severity], fmt.Sprintf("%-7s", f.Severity)), topics, doctorTopic(f), f.Says)
		// One command may answer several findings.
		isLast := at+1 == len(findings) || remedies(findings[at+1]) != remedies(f)
		if !isLast {
			continue
		}
		for _, what := range remedies(f) {
			if what != "" {
				p.line("           %-*s  %s", topics, "", what)
			}
		}
	}
	if len(findings) == 0 {
		p.line("  none")
	}
	p.line("")
}

// remedies are what can be done about a finding, or why nothing can.
func remedies(f probe.Finding) [3]string {
	return [...]string{labelled("->", f.Remedy), labelled("or", f.Alternative), labelled("no command:", f.NoCommand)}
}

func doctorTopic(f probe.Finding) string {
	return strings.TrimSpace(f.Interface + " " + f.Topic)
}

func (p *doctorPrinter) verdict(r doctorReport) {
	wish := r.Plan.Wish
	switch {
	case r.Choice.Running:
		p.line("%s a ringmq runs already; beside it mode %s would not start: %s", p.paint("1", "verdict:"), wish, r.Choice.Reason)
	case r.Choice.Mode == probe.None:
		p.line("%s mode %s would not start: %s", p.paint("1", "verdict:"), wish, r.Choice.Reason)
	default:
		p.line("%s mode %s would choose %v", p.paint("1", "verdict:"), wish, r.Choice)
	}
	if r.Choice.Remedy != "" {
		p.line("         -> %s", r.Choice.Remedy)
	}
}

func isEmpty(s string) bool { return s == "" }

// labelled puts a word before what there is, and is empty when there is nothing.
func labelled(word string, items ...string) string {
	if items = slices.DeleteFunc(items, isEmpty); len(items) == 0 {
		return ""
	}
	return word + " " + strings.Join(items, " ")
}

func listText[T any](items []T) string {
	if len(items) == 0 {
		return "none"
	}
	const shown = 6 // A line for people; --json has all.
	var parts []string
	for _, item := range items[:min(shown, len(items))] {
		parts = append(parts, fmt.Sprint(item))
	}
	if len(items) > shown {
		parts = append(parts, fmt.Sprintf("and %d more", len(items)-shown))
	}
	return strings.Join(parts, ", ")
}

func factList[T any](f probe.Fact[[]T]) string {
	if !f.Known() {
		return f.String()
	}
	return listText(f.Value)
}

func limitText(l probe.Limit, words func(int64) string) string {
	value := func(n int64) string {
		if n == probe.Unlimited {
			return "unlimited"
		}
		return words(n)
	}
	if l.Soft == l.Hard {
		return value(l.Soft)
	}
	return value(l.Soft) + ", may be raised to " + value(l.Hard)
}

func doctorUser(h probe.HostFacts) string {
	if h.UserNamespace {
		return fmt.Sprintf("%d, in a user namespace", h.UserID)
	}
	return fmt.Sprint(h.UserID)
}

func capabilityNames(all []probe.Capability, held bool) string {
	var names []string
	for _, c := range all {
		if c.Held == held {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

func hugePagesText(pools probe.Fact[[]probe.HugePages]) string {
	pools.Value = slices.DeleteFunc(slices.Clone(pools.Value), func(p probe.HugePages) bool { return p.Total == 0 })
	if pools.Known() && len(pools.Value) == 0 {
		return "none reserved, none needed"
	}
	return factList(pools)
}

func firewallText(f probe.FirewallFacts) string {
	chains := "no rules for what comes in"
	switch {
	case !f.Chains.Known():
		chains = f.Chains.String()
	case len(f.Chains.Value) > 0:
		rules := 0
		for _, c := range f.Chains.Value {
			rules += len(c.Rules)
		}
		chains = fmt.Sprintf("%d chains for what comes in, %d rules that name TCP ports", len(f.Chains.Value), rules)
	}
	return fmt.Sprintf("%s; connections tracked: %v; IPsec policies: %v", chains, f.Conntrack, f.IPsecPolicies)
}

func linkState(i probe.InterfaceFacts) string {
	switch {
	case !i.Up:
		return "down"
	case !i.Carrier:
		return "no carrier"
	}
	return "up"
}

func driverText(i probe.InterfaceFacts) string {
	if i.Driver == "" {
		return i.Kind + " without driver"
	}
	return strings.TrimSpace(i.Driver + " " + i.Version)
}
