package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// Unreachable says that there was no connection to speak MQTT on: name, network or TLS.
type Unreachable struct {
	Endpoint Endpoint
	// Remedy says what to change, for people. It may be empty.
	Remedy string
	Cause  error
}

// Error names the endpoint, the cause and the remedy.
func (e *Unreachable) Error() string {
	text := fmt.Sprintf("cannot reach %s: %v", e.Endpoint, e.Cause)
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Unwrap gives the cause.
func (e *Unreachable) Unwrap() error { return e.Cause }

// Lost says that the connection ended without a word of the broker's.
type Lost struct {
	Endpoint Endpoint
	// Connecting says that it ended before the CONNACK.
	Connecting bool
	Cause      error
}

// Error names the endpoint and what may have been the cause.
func (e *Lost) Error() string {
	if e.Connecting && (errors.Is(e.Cause, io.EOF) || errors.Is(e.Cause, syscall.ECONNRESET) || errors.Is(e.Cause, syscall.EPIPE)) {
		return fmt.Sprintf("%s closed the connection instead of answering CONNECT (is it an MQTT broker, does the port want TLS, does it speak this version?)", e.Endpoint)
	}
	if e.Connecting {
		return fmt.Sprintf("%s did not answer CONNECT as an MQTT broker does: %s", e.Endpoint, plainCause(e.Cause))
	}
	return fmt.Sprintf("lost the connection to %s: %s", e.Endpoint, plainCause(e.Cause))
}

// Unwrap gives the cause.
func (e *Lost) Unwrap() error { return e.Cause }

// plainCause puts what users meet most into words of theirs.
func plainCause(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "the broker closed it"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the broker reset it"
	case err == nil:
		return "it was closed"
	}
	return err.Error()
}

// Refused is a broker's no: a Reason Code of 0x80 or more in Packet. The return codes of a 3.1.1 CONNACK are given as
// the Reason Codes of 5.0 that mean the same.
type Refused struct {
	Endpoint Endpoint
	// Packet is CONNACK, DISCONNECT, …
	Packet string
	Reason packet.Reason
	// Text is the broker's Reason String, often empty.
	Text string
}

// Error names the endpoint, the Reason Code and the broker's own words.
func (e *Refused) Error() string {
	verb := "refused the connection"
	if e.Packet == "DISCONNECT" {
		verb = "ended the connection"
	}
	text := fmt.Sprintf("%s %s: %s (0x%02X)", e.Endpoint, verb, e.Reason, byte(e.Reason))
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// errTimeout is the cause of a context whose time is up.
var errTimeout = errors.New("no answer in time")

// timedOut says what was waited for in vain.
type timedOut struct {
	what  string
	after time.Duration
}

func (e *timedOut) Error() string {
	return fmt.Sprintf("no %s within %v", e.what, e.after)
}

// Timeout is part of net.Error's way of asking.
func (e *timedOut) Timeout() bool { return true }

// cause is why ctx has ended.
func cause(ctx context.Context) error { return context.Cause(ctx) }

// connackReason gives the Reason Code of 5.0 for a return code of 3.1.1 (table 3.1 there).
func connackReason(code byte) packet.Reason {
	codes := [...]packet.Reason{packet.Success, packet.UnsupportedProtocolVersion, packet.ClientIdentifierNotValid,
		packet.ServerUnavailable, packet.BadUserNameOrPassword, packet.NotAuthorized}
	if int(code) < len(codes) {
		return codes[code]
	}
	return packet.UnspecifiedError
}
