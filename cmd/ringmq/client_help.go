package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// helpWidth is the column where the explanations of flags begin.
const helpWidth = 38

// printClientHelp prints the help of a command with its groups of flags in their order; urfave/cli sorts them by name, and
// takes -h for itself.
func printClientHelp(w io.Writer, c *cli.Command) {
	fmt.Fprintf(w, "NAME:\n   ringmq %s - %s\n\nUSAGE:\n   %s\n\nDESCRIPTION:\n   %s\n", c.Name, c.Usage, c.UsageText,
		strings.ReplaceAll(strings.ReplaceAll(c.Description, "\n", "\n   "), "\n   \n", "\n\n"))
	group := ""
	for _, f := range c.Flags {
		flag, ok := f.(interface {
			cli.DocGenerationFlag
			cli.CategorizableFlag
		})
		if !ok {
			continue
		}
		if flag.GetCategory() != group {
			group = flag.GetCategory()
			fmt.Fprintf(w, "\n%s:\n", group)
		}
		names, usage := flagHelp(flag)
		if len(names) >= helpWidth-3 {
			fmt.Fprintf(w, "   %s\n", names)
			names = ""
		}
		fmt.Fprintf(w, "   %-*s%s\n", helpWidth-3, names, usage)
	}
}

// flagHelp gives "-t, --topic TOPIC" and the explanation with the default.
func flagHelp(f cli.DocGenerationFlag) (names, usage string) {
	short, long := "    ", ""
	for i, name := range f.Names() {
		switch {
		case len(name) == 1:
			short = "-" + name + ", "
		case i == 0:
			long = "--" + name
		}
	}
	before, value, after := cutPlaceholder(f.GetUsage())
	names, usage = short+long, before+value+after
	if f.TakesValue() {
		names += " " + value
	}
	_, isSwitch := f.(*cli.BoolFlag)
	if text := strings.Trim(f.GetDefaultText(), `"`); text != "" && text != "0" && !isSwitch {
		usage += " (default: " + text + ")"
	}
	if variables := f.GetEnvVars(); len(variables) > 0 {
		usage += " [$" + strings.Join(variables, ", $") + "]"
	}
	return names, usage
}

// cutPlaceholder cuts a usage text at its word in backquotes.
func cutPlaceholder(usage string) (before, value, after string) {
	before, rest, found := strings.Cut(usage, "`")
	if !found {
		return usage, "", ""
	}
	value, after, _ = strings.Cut(rest, "`")
	return before, value, after
}
