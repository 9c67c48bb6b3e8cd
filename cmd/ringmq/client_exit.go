package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/cmd/client"
	"github.com/urfave/cli/v2"
)

// The exit codes of ringmq pub and ringmq sub beside 0 and the Reason Codes from 128 on.
const (
	exitLocal       = 1
	exitUnreachable = 2
	exitLost        = 3
	exitTimeout     = 27 // as mosquitto_sub's
)

const exitCodes = `Exit codes:
  0         done; a subscriber that was interrupted or whose output was closed is done too, and a
            publisher of QoS 0 when the network has its messages, whatever the broker thinks of them
  1         the flags, a file or this machine were at fault; a publisher was interrupted
  2         no connection: the host's name, the network, TLS
  3         the broker closed the connection without a reason, or did not answer as a broker does
  27        time was up (-W)
  128-162   the broker refused: its Reason Code, also for MQTT 3.1.1 (134 bad user name or password,
            135 not authorized, 151 quota exceeded)`

// exitError is an error with its exit code. Quiet ones have no text.
type exitError struct {
	err   error
	code  int
	quiet bool
}

var _ cli.ExitCoder = (*exitError)(nil)

func (e *exitError) Error() string {
	if e.quiet {
		return ""
	}
	return e.err.Error()
}

// Unwrap gives the error without its code.
func (e *exitError) Unwrap() error { return e.err }

// ExitCode is part of cli.ExitCoder.
func (e *exitError) ExitCode() int { return e.code }

// withExitCode finds the code for an error of a client's, which --quiet leaves without text.
func withExitCode(err error, quiet bool) error {
	if err == nil {
		return nil
	}
	return &exitError{err: err, code: exitCode(err), quiet: quiet}
}

func exitCode(err error) int {
	var refused *client.Refused
	var reason packet.Reason
	var unreachable *client.Unreachable
	var lost *client.Lost
	var late interface{ Timeout() bool }
	switch {
	case errors.As(err, &refused):
		return reasonExit(refused.Reason)
	case errors.As(err, &reason):
		return reasonExit(reason)
	case errors.Is(err, errTimeUp):
		return exitTimeout
	case errors.As(err, &unreachable):
		return exitUnreachable
	case errors.As(err, &lost):
		return exitLost
	case errors.As(err, &late) && late.Timeout():
		return exitTimeout
	}
	return exitLocal
}

// reasonExit is the code itself, unless the broker ended the connection for no failure, which is possible.
func reasonExit(r packet.Reason) int {
	if r.Failed() {
		return int(r)
	}
	return exitLost
}

// errInterrupted is the cause of a context that a signal has ended, errTimeUp that of one whose -W is over, and
// errOutputClosed says that nobody reads standard output any more.
var (
	errInterrupted  = errors.New("interrupted")
	errTimeUp       = errors.New("time is up")
	errOutputClosed = errors.New("standard output is closed")
)

// advice adds to an error of Dial's which flag to look at.
func advice(err error) error {
	var refused *client.Refused
	if errors.Is(err, context.Canceled) {
		return errInterrupted
	}
	if !errors.As(err, &refused) || refused.Packet != "CONNACK" {
		return err
	}
	switch refused.Reason {
	case packet.BadUserNameOrPassword, packet.NotAuthorized:
		return fmt.Errorf("%w; -u and -P (or --password-file) say who you are", err)
	case packet.UnsupportedProtocolVersion:
		return fmt.Errorf("%w; -V chooses 5 or 311", err)
	case packet.ClientIdentifierNotValid:
		return fmt.Errorf("%w; -i chooses another", err)
	}
	return err
}

// notice tells the user something on the way, in one line, unless --quiet.
func (o *clientFlags) notice(w io.Writer, format string, arguments ...any) {
	if !o.quiet {
		fmt.Fprintf(w, "ringmq: "+format+"\n", arguments...)
	}
}

// tuneClient is called before there is a connection. A closed standard output is an error like others, not the end, so
// that a DISCONNECT is sent. The libraries allocate for each message and little of it stays: the heap is small, so the
// collector may come less often.
func tuneClient() {
	signal.Ignore(syscall.SIGPIPE)
	debug.SetGCPercent(clientGCPercent)
}

// clientGCPercent halves a subscriber's processor time against the default of 100.
const clientGCPercent = 400
