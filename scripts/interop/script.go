package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// grace is how long a scene may still take after its limit before the runner ends it.
	grace = 3 * time.Second
	// startMax is how long a script may take to say its version.
	startMax = 30 * time.Second
	// talkMaxBytes is how much of a script's standard error is kept for the message when it fails.
	talkMaxBytes = 4 << 10
)

// script is a player in a process of its own.
type script struct {
	process *exec.Cmd
	in      io.WriteCloser
	answers chan answer // closed when the process has closed its output
	talk    tail
}

// startScript runs a program that speaks the scripts' protocol (doc.go) and gives it with its library's version.
func startScript(ctx context.Context, program string, arguments ...string) (player, string, error) {
	s := &script{process: exec.Command(program, arguments...), answers: make(chan answer)}
	s.process.Stderr = &s.talk
	in, err := s.process.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	out, err := s.process.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	s.in = in
	if err := s.process.Start(); err != nil {
		return nil, "", err
	}
	go s.listen(out)
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	hello, err := s.next(ctx)
	if err == nil && hello.Version == "" {
		err = fmt.Errorf("%s does not say its version first", program)
	}
	if err != nil {
		s.end()
		return nil, "", err
	}
	return s, hello.Version, nil
}

// listen passes answers on. What is no answer is talk.
func (s *script) listen(out io.Reader) {
	defer close(s.answers)
	for in := bufio.NewScanner(out); in.Scan(); {
		var a answer
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			fmt.Fprintln(&s.talk, in.Text())
			continue
		}
		s.answers <- a
	}
}

func (s *script) next(ctx context.Context) (answer, error) {
	select {
	case a, ok := <-s.answers:
		if !ok {
			_ = s.process.Process.Kill()
			_ = s.process.Wait() // All of its standard error is there then.
			return a, fmt.Errorf("the script has ended: %s", s.talk.last())
		}
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

func (s *script) play(ctx context.Context, t task, ready func()) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the script takes no task: %w: %s", err, s.talk.last())
	}
	timed, cancel := context.WithTimeout(ctx, t.limit()+grace)
	defer cancel()
	for {
		a, err := s.next(timed)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			return fmt.Errorf("hangs: no answer %v after its limit of %v, and was killed", grace, t.limit())
		case err != nil:
			return err
		case !a.Ready:
			return a.err()
		}
		ready()
	}
}

// end kills the process: between scenes it has nothing to lose.
func (s *script) end() {
	s.in.Close()
	s.process.Process.Kill()
	for range s.answers {
		continue // Until it has closed its output.
	}
	s.process.Wait()
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - talkMaxBytes; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(b), nil
}

// last is the last line that says something.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.text), []byte("\n"))
	return strings.TrimSpace(string(lines[len(lines)-1]))
}
