package probe

import (
	"fmt"
	"slices"
	"strings"
)

// Severity says how much a Finding matters to the Plan.
type Severity string

// The severities.
const (
	OK      Severity = "ok"      // as it should be
	Note    Severity = "note"    // worth knowing; nothing has to be done
	Warning Severity = "warning" // it works, but not as one would expect: slower, past a firewall, or in another mode
	Running Severity = "running" // a ringmq that runs has it already: nothing is wrong, and another cannot have it
	Problem Severity = "problem" // XDP cannot be taken, or no mode can
)

// Finding is one sentence about the facts.
type Finding struct {
	Severity  Severity `json:"severity"`
	Interface string   `json:"interface,omitempty"` // empty when it is about the host
	Topic     string   `json:"topic"`
	Says      string   `json:"says"`             // what, where, and why it matters
	Remedy    string   `json:"remedy,omitempty"` // the command that changes it; empty when there is none

	Alternative string `json:"alternative,omitempty"` // what can be done instead
	NoCommand   string `json:"no_command,omitempty"`  // why there is no Remedy; of everything that is not OK, one of the two is there

	everyMode bool // no mode would start
}

// or adds what can be done instead.
func (f *Finding) or(format string, values ...any) *Finding {
	f.Alternative = fmt.Sprintf(format, values...)
	return f
}

// without says why there is no command, if there is none.
func (f *Finding) without(format string, values ...any) *Finding {
	if f.Remedy == "" {
		f.NoCommand = fmt.Sprintf(format, values...)
	}
	return f
}

// Findings judges the facts by the plan. The interfaces are those that serve was given by name. Findings of severity Problem
// are why XDP, or the port, cannot be taken; they come first, then what a ringmq has that runs, warnings, notes and what is fine, each in the order of the facts.
func Findings(host HostFacts, interfaces []InterfaceFacts, plan Plan) []Finding {
	j := &judge{host: host, interfaces: interfaces, plan: plan.Complete(), findings: []Finding{}}
	if j.plan.Wish != WishStandard && (len(interfaces) > 0 || j.plan.Wish == WishXDP) {
		j.judgeHost()
		for _, i := range interfaces {
			j.judgeInterface(i)
		}
		j.judgeFirewall()
	}
	j.judgeAnyMode()
	rank := func(f Finding) int { return slices.Index([]Severity{Problem, Running, Warning, Note, OK}, f.Severity) }
	slices.SortStableFunc(j.findings, func(a, b Finding) int { return rank(a) - rank(b) })
	return j.findings
}

// judge collects findings.
type judge struct {
	host       HostFacts
	interfaces []InterfaceFacts
	plan       Plan
	at         string // the interface that is looked at
	findings   []Finding
}

// add gives the finding until the next is added.
func (j *judge) add(severity Severity, topic, remedy, format string, values ...any) *Finding {
	j.findings = append(j.findings, Finding{Severity: severity, Interface: j.at, Topic: topic, Says: fmt.Sprintf(format, values...), Remedy: remedy})
	return &j.findings[len(j.findings)-1]
}

// as puts sudo before a command that needs root, unless this is root.
func (j *judge) as(command string) string {
	if j.host.UserID == 0 || command == "" {
		return command
	}
	return "sudo " + command
}

// write is the command that puts a word into a file of the kernel's.
func (j *judge) write(word, file string) string {
	if j.host.UserID == 0 {
		return fmt.Sprintf("echo %s > %s", word, file)
	}
	return fmt.Sprintf("echo %s | sudo tee %s", word, file)
}

// names are the interfaces' names.
func (j *judge) names() []string {
	var names []string
	for _, i := range j.interfaces {
		names = append(names, i.Name)
	}
	return names
}

// serve is the command that runs the broker with the plan's interfaces and the given flags.
func (j *judge) serve(flags string) string { return serveCommand(flags, j.names(), j.plan) }

// serveCommand names a listener, too: those that serve has without it are on loopback, where no interface delivers.
func serveCommand(flags string, interfaces []string, plan Plan) string {
	command := "ringmq serve " + flags
	for _, name := range interfaces {
		command += " --interface " + name
	}
	return fmt.Sprintf("%s --listen :%d", command, plan.Port)
}

// count writes 1 queue, 2 queues.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// and writes words as a list: a, b and c.
func and(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
