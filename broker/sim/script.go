package sim

import (
	"fmt"
	"strconv"
	"strings"
)

// Op is one step of a Script: a verb, the client that does it, a Topic Name or Topic Filter, and numbers by name.
type Op struct {
	Verb   string
	Client int // -1: nobody's
	Name   string
	Args   []Arg
}

// Arg is one number of an Op.
type Arg struct {
	Key   string
	Value int
}

// get is a number of the Op, or otherwise where it has none of that name.
func (o *Op) get(key string, otherwise int) int {
	for _, a := range o.Args {
		if a.Key == key {
			return a.Value
		}
	}
	return otherwise
}

func (o *Op) is(key string) bool { return o.get(key, 0) != 0 }

// String is the Op as a line.
func (o Op) String() string {
	b := []byte(o.Verb)
	if o.Client >= 0 {
		b = fmt.Appendf(b, " c%d", o.Client)
	}
	if o.Name != "" {
		b = append(append(b, ' '), o.Name...)
	}
	for _, a := range o.Args {
		b = fmt.Appendf(b, " %s=%d", a.Key, a.Value)
	}
	return string(b)
}

// Script is a run: the first Op is "world", whose numbers are the broker's limits.
type Script []Op

// String is the Script as text, a line for each Op.
func (s Script) String() string {
	var b strings.Builder
	for _, o := range s {
		b.WriteString(o.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Parse reads a Script. Empty lines and lines that begin with '#' are comments.
func Parse(text string) (Script, error) {
	var s Script
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		o, err := parseOp(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		s = append(s, o)
	}
	if len(s) == 0 || s[0].Verb != "world" {
		return nil, fmt.Errorf(`line 1: a script begins with "world", and the limits of the broker`)
	}
	return s, nil
}

func parseOp(line string) (Op, error) {
	words := strings.Fields(line)
	o := Op{Verb: words[0], Client: -1}
	if !isVerb(o.Verb) {
		return o, fmt.Errorf("%q is no verb; those are %s", o.Verb, strings.Join(verbs[:], ", "))
	}
	for _, word := range words[1:] {
		key, value, isArg := strings.Cut(word, "=")
		switch {
		case isArg:
			n, err := strconv.Atoi(value)
			if err != nil {
				return o, fmt.Errorf("%s: %q is no number", key, value)
			}
			o.Args = append(o.Args, Arg{key, n})
		case o.Client < 0 && o.Name == "" && isClient(word):
			o.Client, _ = strconv.Atoi(word[1:])
		default:
			o.Name = word
		}
	}
	if o.Client >= clientsMax {
		return o, fmt.Errorf("c%d: clients are c0 to c%d", o.Client, clientsMax-1)
	}
	return o, nil
}

// clientsMax bounds the clients of a Script.
const clientsMax = 256

func isClient(word string) bool {
	if len(word) < 2 || word[0] != 'c' {
		return false
	}
	_, err := strconv.Atoi(word[1:])
	return err == nil
}

func isVerb(word string) bool {
	for _, v := range verbs {
		if v == word {
			return true
		}
	}
	return false
}
