// Command ringmq is an MQTT broker and the tools around it.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func main() {
	app := &cli.App{
		Name:                 "ringmq",
		Usage:                "an MQTT 3.1, 3.1.1 and 5.0 broker with bounded memory",
		Version:              version(),
		EnableBashCompletion: true,
		HideHelpCommand:      true,
		Commands:             []*cli.Command{serveCommand(), passwdCommand()},
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {},
		CommandNotFound: func(c *cli.Context, name string) {
			fmt.Fprintf(os.Stderr, "ringmq: no command %q; ringmq --help lists them\n", name)
			os.Exit(2)
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usageError
	}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "ringmq:", err)
		os.Exit(1)
	}
}

// usageError keeps the error to one line instead of a page of help.
func usageError(c *cli.Context, err error, _ bool) error {
	return fmt.Errorf("%w; ringmq %s --help lists the flags", err, c.Command.Name)
}

// version is what the module system knows of this build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "0.1.0-dev"
	}
	return info.Main.Version
}
