package conform

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// Report is what a run found, by statement.
type Report struct {
	Versions []VersionReport `json:"versions"`
	// Unsaid counts the connections that a 5.0 broker closed without the Reason Code that the standard has for it, a SHOULD.
	Unsaid int `json:"closed_without_the_reason_code"`
}

// VersionReport is what a run found about one version.
type VersionReport struct {
	Version    string            `json:"version"`
	Holds      int               `json:"holds"`
	Fails      int               `json:"fails"`
	Skipped    int               `json:"skipped"`
	Unplayed   int               `json:"unplayed"`
	Unenforced int               `json:"unenforced"` // statements for clients that break them and are let do it
	Statements []StatementReport `json:"statements"`
}

// StatementReport is what a run found about one statement: it holds if all conversations about it go as written, and is skipped
// if the broker says that it lacks what they need.
type StatementReport struct {
	ID      string        `json:"id"`
	Says    string        `json:"says"`
	Whom    string        `json:"whom"`
	Outcome Outcome       `json:"outcome"`
	Checks  []CheckReport `json:"conversations"`
}

// CheckReport is how one conversation went.
type CheckReport struct {
	Name       string   `json:"name"`
	Outcome    Outcome  `json:"outcome"`
	Problem    string   `json:"problem,omitempty"`
	Transcript []string `json:"transcript,omitempty"` // of those that fail
}

// Summarise sorts results by statement. Statements without a result are left out; only names those to show, all if it is empty.
func Summarise(results []Result, only []string) (Report, error) {
	statements, err := Statements()
	if err != nil {
		return Report{}, err
	}
	var report Report
	for _, r := range results {
		report.Unsaid += r.Unsaid
	}
	for _, v := range versions() {
		out := VersionReport{Version: v.String(), Statements: []StatementReport{}}
		for _, s := range statements {
			if s.Version != v || len(only) > 0 && !slices.Contains(only, s.ID) {
				continue
			}
			if found := statementReport(s, results); len(found.Checks) > 0 {
				out.add(found)
			}
		}
		if len(out.Statements) > 0 {
			report.Versions = append(report.Versions, out)
		}
	}
	return report, nil
}

func statementReport(s Statement, results []Result) StatementReport {
	out := StatementReport{ID: s.ID, Says: s.Says, Whom: s.Whom, Outcome: Skipped}
	for _, r := range results {
		if r.Check.Version != s.Version || !slices.Contains(r.Check.Statements, s.ID) {
			continue
		}
		c := CheckReport{Name: r.Check.Name, Outcome: r.Outcome, Problem: r.Problem}
		switch {
		case r.Outcome == Fails:
			out.Outcome, c.Transcript = Fails, r.Transcript
		case r.Outcome == Unplayed && out.Outcome != Fails:
			out.Outcome = Unplayed
		case r.Outcome == Holds && out.Outcome == Skipped:
			out.Outcome = Holds
		}
		out.Checks = append(out.Checks, c)
	}
	return out
}

func (v *VersionReport) add(s StatementReport) {
	v.Statements = append(v.Statements, s)
	switch s.Outcome {
	case Holds:
		v.Holds++
	case Unplayed:
		v.Unplayed++
	case Fails:
		if s.Whom == Client {
			v.Unenforced++
		} else {
			v.Fails++
		}
	case Skipped:
		v.Skipped++
	}
}

// AllHold says whether every statement holds that could be tried, and all could that the broker does not say it lacks.
func (r Report) AllHold() bool {
	for _, v := range r.Versions {
		if v.Fails+v.Unenforced+v.Unplayed > 0 {
			return false
		}
	}
	return true
}

// Print writes the report for people: every statement or only those that fail, and with each of these the
// conversations that went otherwise; with transcripts what was said in them.
func (r Report) Print(w io.Writer, all, transcripts bool) error {
	p := printer{to: w}
	for _, v := range r.Versions {
		p.line("MQTT %s", v.Version)
		told := map[string]bool{}
		for _, s := range v.Statements {
			if !all && s.Outcome != Fails {
				continue
			}
			p.line("  %-8s  %-14s  %s%s", s.Outcome, s.ID, s.Says, map[bool]string{true: " (a client must; the broker does not see to it)"}[s.Whom == Client && s.Outcome == Fails])
			for _, c := range s.Checks {
				if c.Outcome == s.Outcome && c.Outcome != Holds {
					p.check(c, told[c.Name], transcripts)
					told[c.Name] = true
				}
			}
		}
		p.line("  %d statements hold, %d fail, %d of clients are not enforced, %d skipped, %d unplayed", v.Holds, v.Fails, v.Unenforced, v.Skipped, v.Unplayed)
		p.line("")
	}
	if r.Unsaid > 0 {
		p.line("%d connections of 5.0 were closed without the Reason Code that the standard has for it, which it only recommends", r.Unsaid)
	}
	return p.err
}

type printer struct {
	to  io.Writer
	err error
}

func (p *printer) line(format string, values ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.to, format+"\n", values...)
	}
}

func (p *printer) check(c CheckReport, again, transcripts bool) {
	if again {
		p.line("            %s: see above", c.Name)
		return
	}
	p.line("            %s: %s", c.Name, c.Problem)
	if transcripts {
		for _, said := range c.Transcript {
			p.line("              %s", said)
		}
	}
}

// ParseVersion reads "3.1.1" or "5.0", and the numbers that clients use for them.
func ParseVersion(text string) (packet.Version, error) {
	switch text {
	case "3.1.1", "311", "4":
		return packet.V311, nil
	case "5.0", "5":
		return packet.V50, nil
	}
	return 0, fmt.Errorf("%q: want 3.1.1 or 5.0", text)
}

// ParseStatement reads an identifier with or without its brackets and "MQTT-", and says why no conversation in these versions,
// all if there are none, is about it.
func ParseStatement(text string, in []packet.Version) (string, error) {
	id := "MQTT-" + strings.TrimPrefix(strings.ToUpper(strings.Trim(text, "[] ")), "MQTT-")
	isIn := func(v packet.Version) bool { return len(in) == 0 || slices.Contains(in, v) }
	checks, err := Checks()
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(checks, func(c Check) bool { return isIn(c.Version) && slices.Contains(c.Statements, id) }) {
		return id, nil
	}
	statements, err := Statements()
	if err != nil {
		return "", err
	}
	for _, s := range statements {
		if s.ID == id && isIn(s.Version) {
			why := cmp.Or(s.WhyNot, "it shows only with a configuration of the broker's own")
			return "", fmt.Errorf("%s of %s (%s) is in no conversation: %s", id, s.Version, s.Says, why)
		}
	}
	return "", fmt.Errorf("there is no statement %s: they look like MQTT-3.1.0-1", id)
}
