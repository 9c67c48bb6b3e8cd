package main

import (
	"fmt"
	"os"

	"github.com/ringmq/ringmq/xdp/probe"
	"github.com/urfave/cli/v2"
)

// promised as the value of asProgram makes the test binary a ringmq serve that takes each driver to have promised zero-copy: one
// that does, and then refuses it, is not on this machine.
const promised = "promised"

// servePromised ends the process.
func servePromised() {
	command := serveCommand()
	command.Action = func(c *cli.Context) error {
		return serve(c, func(name string) (probe.InterfaceFacts, error) {
			facts, err := probe.Interface(name)
			facts.Features.Value.ZeroCopy = true
			return facts, err
		})
	}
	if err := (&cli.App{Commands: []*cli.Command{command}, ExitErrHandler: func(*cli.Context, error) {}}).Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "ringmq:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
