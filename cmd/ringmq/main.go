// Command ringmq is an MQTT broker and the tools around it.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

const description = `Examples:
  ringmq serve                                   run a broker for this machine
  ringmq sub -t 'plant/#' -v                     watch what is published to it
  ringmq pub -t plant/line1 -m running           publish
  ringmq bench --time 5s                         load it, and see what it carries
  ringmq serve --listen :1883 --passwords users  run one for a network
  ringmq COMMAND --help                          more of them`

func commands() []*cli.Command {
	return []*cli.Command{serveCommand(), pubCommand(), subCommand(), benchCommand(), conformCommand(), statusCommand(), storeCommand(), doctorCommand(), xdpCommand(), captureCommand(),
		passwdCommand(), completionCommand()}
}

func main() {
	app := &cli.App{
		Name:                 "ringmq",
		Usage:                "an MQTT 3.1, 3.1.1 and 5.0 broker with bounded memory, and the tools around it",
		Description:          description,
		Version:              version(),
		EnableBashCompletion: true,
		HideHelpCommand:      true,
		Commands:             commands(),
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {},
		CommandNotFound: func(c *cli.Context, name string) {
			fmt.Fprintf(os.Stderr, "ringmq: no command %q; %s --help lists them\n", name, c.Command.HelpName)
			os.Exit(2)
		},
	}
	prepare(app.Commands)
	if err := app.Run(os.Args); err != nil {
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, "ringmq:", text)
		}
		status := 1
		var coder cli.ExitCoder
		if errors.As(err, &coder) {
			status = coder.ExitCode()
		}
		os.Exit(status)
	}
}

// prepare gives commands, and those below them, what they have in common.
func prepare(list []*cli.Command) {
	for _, c := range list {
		c.OnUsageError = usageError
		if c.BashComplete == nil {
			c.BashComplete = completeFlags(c)
		}
		prepare(c.Subcommands)
	}
}

// usageError keeps the error to one line instead of a page of help.
func usageError(c *cli.Context, err error, _ bool) error {
	return fmt.Errorf("%w; %s --help lists the flags", err, c.Command.HelpName)
}

// version is what the module system knows of this build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "0.1.0-dev"
	}
	return info.Main.Version
}
