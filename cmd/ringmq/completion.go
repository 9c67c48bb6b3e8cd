package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const completionDescription = `Prints a script for the shell, which then completes commands, flags and the values of flags that have a few.

Examples:
  source <(ringmq completion bash)                                      this shell only
  ringmq completion bash > /etc/bash_completion.d/ringmq                every new bash
  ringmq completion zsh > "${fpath[1]}/_ringmq"                         every new zsh
  ringmq completion fish > ~/.config/fish/completions/ringmq.fish       every new fish`

// The scripts ask the program itself: urfave/cli answers when the last argument is --generate-bash-completion. They hand
// over the words in front of the cursor, and the word at the cursor only when it is a flag. "--" would end the flags, the
// question included, and the command would run.
const (
	bashCompletion = `_ringmq() {
    local cur=${COMP_WORDS[COMP_CWORD]}
    local -a words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    [[ $cur == -* ]] && words+=("$cur")
    [[ $cur == -- ]] && words[COMP_CWORD]=-
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _ringmq ringmq
`
	zshCompletion = `#compdef ringmq
_ringmq() {
    local -a words_before answers
    words_before=("${(@)words[1,CURRENT-1]}")
    [[ ${words[CURRENT]} == -* ]] && words_before+=("${words[CURRENT]}")
    [[ ${words[CURRENT]} == -- ]] && words_before[CURRENT]=-
    answers=("${(@f)$("${words_before[@]}" --generate-bash-completion 2>/dev/null)}")
    if [[ -n ${answers[1]} ]]; then
        compadd -- "${answers[@]}"
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _ringmq ]]; then
    _ringmq "$@"
else
    compdef _ringmq ringmq
fi
`
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print a completion script for bash, zsh or fish",
		UsageText:   "ringmq completion bash|zsh|fish",
		Description: completionDescription,
		Action:      completion,
		BashComplete: func(c *cli.Context) {
			fmt.Fprintln(c.App.Writer, "bash\nzsh\nfish")
		},
	}
}

func completion(c *cli.Context) error {
	if c.NArg() != 1 {
		return errors.New("completion: want one shell: bash, zsh or fish")
	}
	script := ""
	switch shell := c.Args().First(); shell {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		var err error
		if script, err = c.App.ToFishCompletion(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("completion: shell %q: want bash, zsh or fish", shell)
	}
	_, err := fmt.Fprint(c.App.Writer, script)
	return err
}

// flagValues are the values of flags that have a few, by the names of command and flag.
func flagValues(command, flag string) []string {
	return map[string][]string{
		"bench scenario":     strings.Split(scenarioNames(), ", "),
		"bench qos":          {"0", "1", "2"},
		"bench version":      {"311", "5"},
		"serve mode":         {"auto", "standard", "xdp"},
		"serve durability":   {"fsync", "os", "none"},
		"serve xdp-require":  {"any", "native", "zerocopy"},
		"serve xdp-limit":    {"generic", "native", "zerocopy"},
		"doctor mode":        {"auto", "standard", "xdp"},
		"doctor xdp-require": {"any", "native", "zerocopy"},
		"doctor xdp-limit":   {"generic", "native", "zerocopy"},
		"doctor frame-size":  {"2048", "4096"},
		"conform version":    {"3.1.1", "5.0"},
		"passwd H":           {"argon2id", "sha512-pbkdf2"},
		"pub qos":            {"0", "1", "2"},
		"sub qos":            {"0", "1", "2"},
		"pub will-qos":       {"0", "1", "2"},
		"sub will-qos":       {"0", "1", "2"},
		"pub version":        {"5", "311"},
		"sub version":        {"5", "311"},
		"pub tls-version":    {"tlsv1.2", "tlsv1.3"},
		"sub tls-version":    {"tlsv1.2", "tlsv1.3"},
	}[command+" "+flag]
}

// completeFlags offers what may follow: values behind a flag that has some, nothing (so that the shell offers files)
// behind another flag that wants a value, and otherwise the command's flags.
func completeFlags(command *cli.Command) cli.BashCompleteFunc {
	flags := cli.DefaultCompleteWithFlags(command)
	return func(c *cli.Context) {
		last := ""
		if len(os.Args) > 2 {
			last = os.Args[len(os.Args)-2] // the last one asks for completion
		}
		name := strings.TrimLeft(last, "-")
		for _, f := range command.Flags {
			_, isSwitch := f.(*cli.BoolFlag)
			if isSwitch || name == last || !slices.Contains(f.Names(), name) {
				continue
			}
			for _, value := range flagValues(command.Name, f.Names()[0]) {
				fmt.Fprintln(c.App.Writer, value)
			}
			return
		}
		flags(c)
	}
}
