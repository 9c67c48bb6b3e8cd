package script

import (
	"fmt"
	"strconv"
	"strings"
)

// Command is one line of a script: words, then options. An option may come more than once.
type Command struct {
	Verb    string
	Words   []string // what stands behind the verb without a name
	options map[string][]string
	used    map[string]bool
}

// New is a command without options.
func New(verb string, words ...string) *Command {
	return &Command{Verb: verb, Words: words, options: map[string][]string{}, used: map[string]bool{}}
}

// Set replaces the value of an option.
func (c *Command) Set(name, value string) { c.options[name] = []string{value} }

// Parse splits a line at spaces outside double quotes. An option is name=value; name alone means name=1 when it is
// written with a leading dash.
func Parse(text string) (*Command, error) {
	c := New("")
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimLeft(text, " ") {
		end := wordEnd(text)
		word := text[:end]
		text = text[end:]
		name, value, isOption := strings.Cut(word, "=")
		if strings.HasPrefix(word, `"`) || !isOption || c.Verb == "raw" && name != "split" {
			name, value, isOption = "", word, false
		}
		if strings.HasPrefix(value, `"`) {
			var err error
			if value, err = strconv.Unquote(value); err != nil {
				return nil, fmt.Errorf("%s: %w", word, err)
			}
		}
		switch {
		case isOption:
			c.options[name] = append(c.options[name], value)
		case c.Verb == "":
			c.Verb = value
		default:
			c.Words = append(c.Words, value)
		}
	}
	return c, nil
}

func wordEnd(text string) int {
	quoted := false
	for i := range len(text) {
		switch {
		case text[i] == '"' && (i == 0 || text[i-1] != '\\'):
			quoted = !quoted
		case text[i] == ' ' && !quoted:
			return i
		}
	}
	return len(text)
}

// Has says whether an option is there.
func (c *Command) Has(name string) bool { return len(c.options[name]) > 0 }

// Text is the value of an option that was given last.
func (c *Command) Text(name, otherwise string) string {
	c.used[name] = true
	if v := c.options[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return otherwise
}

// Bytes is nil when the option is absent.
func (c *Command) Bytes(name string) []byte {
	if !c.Has(name) {
		return nil
	}
	return []byte(c.Text(name, ""))
}

// Number is the value of an option that is a number. Like all methods here it panics with a string when the script is at
// fault; whoever plays scripts turns that into an error.
func (c *Command) Number(name string, otherwise uint64) uint64 {
	t := c.Text(name, "")
	if t == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(t, 0, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: option %s: %v", c.Verb, name, err))
	}
	return n
}

// Yes says whether an option is there and not 0.
func (c *Command) Yes(name string) bool { return c.Number(name, 0) != 0 }

// Word is positional argument i.
func (c *Command) Word(i int) string {
	if i >= len(c.Words) {
		panic(fmt.Sprintf("%s: argument %d is missing", c.Verb, i+1))
	}
	return c.Words[i]
}

// WordNumber is positional argument i, a number of 16 bits.
func (c *Command) WordNumber(i int) uint16 {
	n, err := strconv.ParseUint(c.Word(i), 0, 16)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", c.Verb, err))
	}
	return uint16(n)
}

// Unused names an option that nothing asked for: a mistake in the script.
func (c *Command) Unused() string {
	for name := range c.options {
		if !c.used[name] {
			return name
		}
	}
	return ""
}

// Options are all options with their values.
func (c *Command) Options() map[string][]string { return c.options }
