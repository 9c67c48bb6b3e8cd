package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// report is what a run found.
type report struct {
	Broker  string     `json:"broker"`
	Clients []presence `json:"clients"`
	Missing []absence  `json:"missing,omitempty"`
	Cells   []cell     `json:"cells"`
	Scenes  []scene    `json:"-"`
}

// presence is a client that was there.
type presence struct {
	Client    string   `json:"client"`
	Title     string   `json:"-"`
	Version   string   `json:"version"`
	Protocols []string `json:"protocols"`
}

// absence is a client that was not.
type absence struct {
	Client string `json:"client"`
	Needs  string `json:"needs"`
	Why    string `json:"why"`
}

func (r report) failed() (cells []cell) {
	for _, c := range r.Cells {
		if c.State == fails {
			cells = append(cells, c)
		}
	}
	return cells
}

func (r report) cell(scene, client, protocol string) (cell, bool) {
	i := slices.IndexFunc(r.Cells, func(c cell) bool { return c.Scene == scene && c.Client == client && c.Protocol == protocol })
	if i < 0 {
		return cell{}, false
	}
	return r.Cells[i], true
}

// notes are the numbered reasons below a table.
type notes []string

// number is the note's number; notes that say the same are one.
func (n *notes) number(note string) int {
	if i := slices.Index(*n, note); i >= 0 {
		return i + 1
	}
	*n = append(*n, note)
	return len(*n)
}

// rows is the table: a head, then a row for each scene, with the notes below.
func (r report) rows() (table [][]string, below notes) {
	head := []string{"what is run"}
	for _, c := range r.Clients {
		head = append(head, strings.TrimSpace(c.Title+" "+c.Version))
	}
	table = append(table, head)
	for _, s := range r.Scenes {
		row := []string{s.text}
		for _, c := range r.Clients {
			row = append(row, r.entry(s, c, &below))
		}
		table = append(table, row)
	}
	return table, below
}

// entry names the protocol versions of a client that passed a scene, and those that failed.
func (r report) entry(s scene, p presence, below *notes) string {
	var parts []string
	for _, version := range p.Protocols {
		c, found := r.cell(s.name, p.Client, version)
		if !found || c.State == none && c.Why == "" {
			continue
		}
		part, note := version, fmt.Sprintf("%s: %s", p.Client, c.Why)
		switch c.State {
		case none:
			part = dash
		case fails:
			part, note = fmt.Sprintf("**%s fails**", version), fmt.Sprintf("%s %s, %s: %s", p.Client, version, s.name, c.Why)
		}
		if c.Why != "" {
			part = fmt.Sprintf("%s (%d)", part, below.number(note))
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return dash
	}
	return strings.Join(slices.Compact(parts), ", ")
}

// dash stands where a client or its protocol version has no means for a scene.
const dash = "–"

// markdown writes the table as the README has it.
func (r report) markdown(w io.Writer) {
	table, below := r.rows()
	for i, row := range table {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	for i, note := range below {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d. %s\n", i+1, strings.Join(strings.Fields(note), " "))
	}
}

// plain writes the table for a terminal, by the scenes' names.
func (r report) plain(w io.Writer) {
	table, below := r.rows()
	for i := range r.Scenes {
		table[i+1][0] = r.Scenes[i].name
	}
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, text := range row {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	for _, row := range table {
		var line strings.Builder
		for i, text := range row {
			line.WriteString(text + strings.Repeat(" ", widths[i]-len([]rune(text))+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
	for i, note := range below {
		fmt.Fprintf(w, "(%d) %s\n", i+1, note)
	}
	for _, m := range r.Missing {
		fmt.Fprintf(w, "%s is missing: install %s (%s)\n", m.Client, m.Needs, m.Why)
	}
}
