package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// chunkBytes is what one read asks a pipe for, which is what a pipe holds.
const chunkBytes = 64 << 10

// chunk is what one read gave.
type chunk struct {
	data []byte
	err  error
}

// readChunks reads into two buffers by turns until in ends; the taker gives them back through empty. Its goroutine outlives
// the taker when in never ends: nothing can interrupt a read of a terminal.
func readChunks(in io.Reader) (full <-chan chunk, empty chan<- []byte) {
	filled, free := make(chan chunk, 2), make(chan []byte, 2)
	free <- make([]byte, chunkBytes)
	free <- make([]byte, chunkBytes)
	go func() {
		for buffer := range free {
			n, err := in.Read(buffer)
			filled <- chunk{buffer[:n], err}
			if err != nil {
				return
			}
		}
	}()
	return filled, free
}

// publishLines publishes each line of in, and whatever stands behind the last one. It flushes when in has nothing more.
func (p *publishing) publishLines(ctx context.Context, in io.Reader) error {
	full, empty := readChunks(in)
	lines := &lineSplitter{}
	publish := func(line []byte) error {
		if err := checkPayload(len(line), p.topics[0]); err != nil {
			return err
		}
		return p.client.Publish(ctx, p.message(line))
	}
	for {
		c, err := p.nextChunk(ctx, full)
		if err == nil {
			err = lines.split(c.data, publish)
		}
		if err == nil && c.err == io.EOF {
			err = lines.end(publish)
		}
		switch {
		case err != nil:
			return p.cutShort(ctx, err, "line")
		case c.err == io.EOF:
			return p.finish(ctx, "line")
		case c.err != nil:
			return fmt.Errorf("read standard input: %w", c.err)
		}
		empty <- c.data[:cap(c.data)]
	}
}

// nextChunk waits while the connection lasts.
func (p *publishing) nextChunk(ctx context.Context, full <-chan chunk) (chunk, error) {
	if ctx.Err() != nil {
		return chunk{}, errInterrupted
	}
	select {
	case c := <-full:
		return c, nil
	default:
	}
	if err := p.client.Flush(); err != nil {
		return chunk{}, err
	}
	select {
	case c := <-full:
		return c, nil
	case <-p.client.Done():
		return chunk{}, p.client.Err()
	case <-ctx.Done():
		return chunk{}, errInterrupted
	}
}

// lineSplitter cuts chunks into lines, which are valid during the call of publish only.
type lineSplitter struct {
	carry []byte // the beginning of a line whose end is in another chunk
}

func (s *lineSplitter) split(data []byte, publish func([]byte) error) error {
	for {
		line, rest, found := bytes.Cut(data, []byte{'\n'})
		if !found {
			s.carry = append(s.carry, data...)
			return checkPayload(len(s.carry), "")
		}
		if len(s.carry) > 0 {
			line = append(s.carry, line...)
		}
		if err := publish(line); err != nil {
			return err
		}
		s.carry, data = s.carry[:0], rest
	}
}

// end publishes a last line without an end.
func (s *lineSplitter) end(publish func([]byte) error) error {
	if len(s.carry) == 0 {
		return nil
	}
	return publish(s.carry)
}
