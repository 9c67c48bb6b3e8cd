package conform

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// variables are what expectations have caught: {name} stands for a value.
type variables map[string]string

// fill puts values for the variables that have one.
func (v variables) fill(text string) string {
	for name, value := range v {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// matcher compares what was heard with one expectation.
type matcher struct {
	want   *script.Command
	caught variables
	free   bool // "*": what is not named may be anything
}

// match compares a packet with an expectation such as
//
//	PUBLISH t "x" qos=1 id={p} retain
//
// and says what differs, "" for nothing. A value may be a number, a range 57..59, 0x80.. for all from there on, * for any, {name}
// to catch it, and - for absence. Which Packet Identifier a PUBLISH has, which Reason Code below 0x80 an acknowledgement, and
// what else a CONNACK says is only compared when it is named; "dup?" leaves DUP open. Caught values are added to caught.
func match(pattern string, h *heard, v packet.Version, caught variables) (difference string, err error) {
	c, err := script.Parse(pattern)
	if err != nil {
		return "", err
	}
	if c.Verb != h.kind.String() {
		return "it is a " + h.kind.String(), nil
	}
	m := &matcher{want: c, caught: variables{}}
	if i := slices.Index(c.Words, "*"); i >= 0 {
		m.free, c.Words = true, slices.Delete(c.Words, i, i+1)
	}
	if difference = m.compare(h, v); difference == "" {
		maps.Copy(caught, m.caught)
	}
	return difference, nil
}

func (m *matcher) compare(h *heard, v packet.Version) string {
	words, flags := m.positions(h.kind)
	switch h.kind {
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		if d := m.reason(h, words); d != "" {
			return d
		}
		words = words[:min(len(words), 1)]
	case packet.UNSUBACK:
		if v != packet.V50 {
			words = words[:min(len(words), 1)] // It has no Reason Codes before 5.0.
		}
	case packet.AUTH, packet.DISCONNECT:
		if len(words) > 0 && !m.value(words[0], code(h.reason)) {
			return "the Reason Code is " + code(h.reason)
		}
		words = nil
	}
	if len(words) != len(h.words) {
		return fmt.Sprintf("it has %q", h.words)
	}
	for i, w := range words {
		if !m.value(w, h.words[i]) {
			return fmt.Sprintf("%q is not %q", h.words[i], w)
		}
	}
	if i := slices.Index(flags, "dup?"); i >= 0 {
		if flags = slices.Delete(flags, i, i+1); slices.Contains(h.flags, "dup") {
			flags = append(flags, "dup")
			slices.Sort(flags)
		}
	}
	if !m.free && !slices.Equal(flags, h.flags) {
		return fmt.Sprintf("its flags are %q", h.flags)
	}
	return m.facts(h)
}

// positions splits the words of an expectation into values and flags, which are sorted.
func (m *matcher) positions(kind packet.Kind) (words, flags []string) {
	for i, w := range m.want.Words {
		isFlag := kind == packet.PUBLISH && i >= 2 || kind == packet.CONNACK && i >= 1
		if isFlag {
			flags = append(flags, w)
		} else {
			words = append(words, w)
		}
	}
	slices.Sort(flags)
	return words, flags
}

func (m *matcher) reason(h *heard, words []string) string {
	if len(words) > 1 {
		if !m.value(words[1], code(h.reason)) {
			return "the Reason Code is " + code(h.reason)
		}
	} else if h.reason.Failed() {
		return fmt.Sprintf("the Reason Code is %s %s", code(h.reason), h.reason)
	}
	return ""
}

// counts says whether a fact must not be there unless an expectation names it. That a message expires which its publisher gave no
// Message Expiry Interval no statement with a number forbids.
func counts(kind packet.Kind, name string) bool {
	return kind == packet.PUBLISH && name != "id" && name != "expiry"
}

func (m *matcher) facts(h *heard) string {
	options := m.want.Options()
	for name, values := range h.facts {
		if options[name] == nil && counts(h.kind, name) && !m.free {
			return fmt.Sprintf("%s is %q, which should not be there", name, values)
		}
	}
	for name, want := range options {
		got := h.facts[name]
		if len(want) == 1 && want[0] == "-" {
			if len(got) > 0 {
				return fmt.Sprintf("%s is %q, which should not be there", name, got)
			}
			continue
		}
		if name == "subid" {
			slices.Sort(want)
		}
		if len(got) != len(want) {
			return fmt.Sprintf("%s is %q", name, got)
		}
		for i := range want {
			if !m.value(want[i], got[i]) {
				return fmt.Sprintf("%s is %q", name, got)
			}
		}
	}
	return ""
}

// value compares one value, and catches it if that is wanted.
func (m *matcher) value(want, got string) bool {
	if want == "*" {
		return true
	}
	if strings.HasPrefix(want, "{") && strings.HasSuffix(want, "}") {
		m.caught[want[1:len(want)-1]] = got
		return true
	}
	from, to, isRange := strings.Cut(want, "..")
	if !isRange {
		return want == got
	}
	n, err := strconv.ParseUint(got, 0, 32)
	low, lowErr := strconv.ParseUint(from, 0, 32)
	if err != nil || lowErr != nil {
		return want == got
	}
	high, highErr := strconv.ParseUint(to, 0, 32)
	return n >= low && (n <= high || to == "") && (highErr == nil || to == "")
}

func code(r packet.Reason) string { return fmt.Sprintf("0x%02x", uint8(r)) }
