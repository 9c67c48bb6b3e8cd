package main

import (
	"bufio"
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/cmd/client"
)

// printer writes messages to standard output, in pieces: whoever prints flushes before waiting.
type printer struct {
	out     *bufio.Writer
	format  format // nil: payloads only
	verbose bool
	newline bool
	scratch []byte
}

// newPrinter is a printer for the flags.
func (o *clientFlags) newPrinter(w io.Writer) (*printer, error) {
	p := &printer{out: bufio.NewWriterSize(w, 64<<10), verbose: o.verbose, newline: !o.noNewline}
	if !o.given["format"] {
		return p, nil
	}
	var err error
	p.format, err = compileFormat(o.format, o.pretty)
	return p, err
}

// print writes one message. A payload that %J cannot show comes back as an error and leaves the output as it was.
func (p *printer) print(m *client.Message) error {
	if p.format != nil {
		var err error
		if p.scratch, err = p.format.append(p.scratch[:0], &received{m, time.Now()}); err != nil {
			return err
		}
		_, err = p.out.Write(p.scratch)
		return p.end(err)
	}
	if p.verbose {
		_, _ = p.out.WriteString(m.Topic) // An error stays in out and comes back below.
		_ = p.out.WriteByte(' ')
		if len(m.Payload) == 0 {
			_, _ = p.out.WriteString("(null)") // mosquitto_sub's word
		}
	}
	_, err := p.out.Write(m.Payload)
	return p.end(err)
}

func (p *printer) end(err error) error {
	if err == nil && p.newline {
		err = p.out.WriteByte('\n')
	}
	return closedOutput(err)
}

func (p *printer) flush() error { return closedOutput(p.out.Flush()) }

// closedOutput tells a reader that has gone from other failures to write.
func closedOutput(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return errOutputClosed
	}
	return err
}
