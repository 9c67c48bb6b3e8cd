package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// arguments are the words behind ringmq pub and ringmq sub. They are not cut by package flag, because two flags of
// mosquitto_pub's take more or fewer words than package flag can: -D COMMAND PROPERTY VALUE [VALUE], and -n, which is a
// message without payload there, and with a number behind it a count here.
type arguments struct {
	c     *cli.Context
	words []string
	given map[string]bool // by the flags' first names
}

// parseArguments sets the command's flags, which must have destinations, and returns the first names of those given.
func parseArguments(c *cli.Context) (map[string]bool, error) {
	a := &arguments{c: c, words: c.Args().Slice(), given: map[string]bool{}}
	if len(a.words) == 1 && a.words[0] == "-h" {
		a.words[0] = "--help" // Nobody means a host without a name.
	}
	for len(a.words) > 0 {
		if err := a.next(); err != nil {
			return nil, fmt.Errorf("%w; ringmq %s --help lists the flags", err, c.Command.Name)
		}
	}
	return a.given, nil
}

// next takes one flag with its values.
func (a *arguments) next() error {
	word := a.words[0]
	a.words = a.words[1:]
	if len(word) < 2 || word[0] != '-' {
		return fmt.Errorf("unexpected argument %q (a message goes behind -m, a topic behind -t, words with spaces in quotes)", word)
	}
	name, value, hasValue := strings.Cut(word, "=")
	f := a.find(strings.TrimLeft(name, "-"))
	if f == nil {
		return fmt.Errorf("no flag %s", name)
	}
	first := f.Names()[0]
	_, isSwitch := f.(*cli.BoolFlag)
	switch {
	case hasValue:
	case isSwitch:
		value = "true"
	case first == "count" && !a.numberFollows():
		first, value = "null-message", "true"
	case len(a.words) == 0:
		return fmt.Errorf("%s needs a value", name)
	case first == "property":
		value = a.property()
	default:
		value, a.words = a.words[0], a.words[1:]
	}
	if err := a.c.Set(first, value); err != nil {
		return fmt.Errorf("%s %q: %w", name, value, plainValue(f, err))
	}
	a.given[first] = true
	return nil
}

func (a *arguments) find(name string) cli.Flag {
	i := slices.IndexFunc(a.c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return a.c.Command.Flags[i]
}

func (a *arguments) numberFollows() bool {
	if len(a.words) == 0 {
		return false
	}
	_, err := strconv.ParseInt(a.words[0], 10, 64)
	return err == nil
}

// property joins the words of one -D; a user-property has one more. Too few show when they are read.
func (a *arguments) property() string {
	n := 3
	if len(a.words) > 1 && strings.EqualFold(a.words[1], "user-property") {
		n = 4
	}
	n = min(n, len(a.words))
	joined := strings.Join(a.words[:n], propertySeparator)
	a.words = a.words[n:]
	return joined
}

// propertySeparator cannot stand in an argument.
const propertySeparator = "\x00"

// plainValue says of a value that package flag did not take what is wanted.
func plainValue(f cli.Flag, err error) error {
	switch f.(type) {
	case *cli.IntFlag, *cli.Int64Flag, *cli.UintFlag:
		return fmt.Errorf("want a whole number")
	case *cli.BoolFlag:
		return fmt.Errorf("want true or false")
	}
	return err
}

// list is a flag that may be repeated. Unlike cli.StringSlice it leaves commas and spaces alone.
type list []string

// Set is part of cli.Generic.
func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// String is part of cli.Generic.
func (l *list) String() string { return strings.Join(*l, ", ") }

// seconds is a duration given as mosquitto_sub does, in seconds, or as Go does.
type seconds time.Duration

// Set is part of cli.Generic.
func (s *seconds) Set(value string) error {
	d, err := time.ParseDuration(value)
	if number, numberErr := strconv.ParseFloat(value, 64); numberErr == nil {
		d, err = time.Duration(number*float64(time.Second)), nil
		if number > float64(maxSeconds) {
			err = strconv.ErrRange
		}
	}
	if err != nil || d < 0 {
		return fmt.Errorf("want seconds, like 5 or 0.5")
	}
	*s = seconds(d)
	return nil
}

// maxSeconds keeps a duration within its 64 bits.
const maxSeconds = 1 << 32

// String is part of cli.Generic.
func (s *seconds) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatFloat(time.Duration(*s).Seconds(), 'f', -1, 64)
}
