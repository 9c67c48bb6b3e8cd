package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lineMaxBytes holds a line of mosquitto_sub with the payload of the scene large in hexadecimal.
const lineMaxBytes = 4 * largeBytes

// startMosquitto finds the programs of mosquitto-clients.
func startMosquitto(ctx context.Context) (player, string, error) {
	for _, program := range []string{"mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "stdbuf"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, "", missing{err}
		}
	}
	help, _ := exec.CommandContext(ctx, "mosquitto_pub", "--help").Output() // Its exit code is 1.
	version := ""
	if found := regexp.MustCompile(`mosquitto_pub version (\S+)`).FindSubmatch(help); found != nil {
		version = string(found[1])
	}
	return mosquittoScenes(), version, nil
}

// theatre runs the programs for one scene; as on a stage, nothing happens after the first error.
type theatre struct {
	task
	ctx context.Context
	out []*subscriber // whatever still runs at the end
	err error
}

func (h *theatre) try(what string, do func() error) {
	if h.err != nil {
		return
	}
	if err := do(); err != nil {
		h.err = fmt.Errorf("%s: %w", what, err)
	}
}

// end kills what still runs and gives the scene's error.
func (h *theatre) end() error {
	for _, s := range h.out {
		s.kill()
	}
	return h.err
}

// arguments are those that say where the broker is and how it speaks.
func (h *theatre) arguments() []string {
	version := "mqttv311"
	if h.Version == v5 {
		version = "mqttv5"
	}
	return []string{"-h", h.Host, "-p", strconv.Itoa(h.Port), "-V", version}
}

// publish runs mosquitto_pub with that standard input, which may be empty.
func (h *theatre) publish(input string, arguments ...string) {
	h.try("mosquitto_pub", func() error {
		command := exec.CommandContext(h.ctx, "mosquitto_pub", append(h.arguments(), arguments...)...)
		command.Stdin = strings.NewReader(input)
		out, err := command.CombinedOutput()
		if err == nil && len(out) == 0 {
			return nil
		}
		return fmt.Errorf("%w: %s", errors.Join(errors.New("has something to say"), err, h.ctx.Err()), lastLine(out))
	})
}

// marked begins the lines of mosquitto_sub that are messages and not its -d talk.
const marked = "MESSAGE "

// basic shows what every version has; the topic is last, because it may have spaces.
const basic = "%q %r %x %t"

// subscriber is a running mosquitto_sub.
type subscriber struct {
	theatre *theatre
	name    string
	process *exec.Cmd
	lines   chan string // closed at the end of its output
	early   []string    // messages that came while something else was awaited
	seen    []string    // its talk
}

// subscribe starts mosquitto_sub with an output format and waits until it has subscribed.
func (h *theatre) subscribe(id, format string, arguments ...string) *subscriber {
	s := &subscriber{theatre: h, name: id, lines: make(chan string, inboxMax)}
	h.try("start "+id, func() error {
		// Into a pipe it writes whole blocks; stdbuf, of Debian's coreutils, makes it lines.
		all := append([]string{"-oL", "mosquitto_sub"}, h.arguments()...)
		all = append(all, "-i", h.name(id), "-d", "-F", marked+format)
		s.process = exec.Command("stdbuf", append(all, arguments...)...)
		out, err := s.process.StdoutPipe()
		if err != nil {
			return err
		}
		s.process.Stderr = s.process.Stdout
		if err := s.process.Start(); err != nil {
			return err
		}
		h.out = append(h.out, s)
		go s.read(out)
		return nil
	})
	s.await("Subscribed (mid")
	return s
}

func (s *subscriber) read(out io.Reader) {
	defer close(s.lines)
	in := bufio.NewScanner(out)
	in.Buffer(nil, lineMaxBytes)
	for in.Scan() {
		s.lines <- in.Text()
	}
}

// line gives the next line of its output.
func (s *subscriber) line() (string, error) {
	select {
	case line, more := <-s.lines:
		if !more {
			return "", fmt.Errorf("mosquitto_sub has ended: %s", strings.Join(s.seen[max(0, len(s.seen)-2):], "; "))
		}
		if !strings.HasPrefix(line, marked) {
			s.seen = append(s.seen, line)
		}
		return line, nil
	case <-s.theatre.ctx.Done():
		return "", s.theatre.ctx.Err()
	}
}

// await reads its talk up to a line with those words; messages before it are kept.
func (s *subscriber) await(words string) {
	s.theatre.try(fmt.Sprintf("%s waits for %q", s.name, words), func() error {
		for {
			line, err := s.line()
			if err != nil {
				return err
			}
			if rest, isMessage := strings.CutPrefix(line, marked); isMessage {
				s.early = append(s.early, rest)
			} else if strings.Contains(line, words) {
				return nil
			}
		}
	})
}

// next gives the next message in the subscriber's format.
func (s *subscriber) next() (text string) {
	s.theatre.try(s.name+" receives", func() error {
		if len(s.early) > 0 {
			text, s.early = s.early[0], s.early[1:]
			return nil
		}
		for {
			line, err := s.line()
			if err != nil {
				return err
			}
			if rest, isMessage := strings.CutPrefix(line, marked); isMessage {
				text = rest
				return nil
			}
		}
	})
	return text
}

// basicNext gives the next message of a subscriber with the format basic.
func (s *subscriber) basicNext() (m message) {
	text := s.next()
	s.theatre.try(s.name+" receives", func() error {
		parts := strings.SplitN(text, " ", 4)
		if len(parts) != 4 {
			return fmt.Errorf("mosquitto_sub prints %q", text)
		}
		payload, err := hex.DecodeString(parts[2])
		m = message{qos: parts[0][0] - '0', retain: parts[1] == "1", payload: string(payload), topic: parts[3]}
		return err
	})
	return m
}

func (s *subscriber) wants(want message) {
	got := s.basicNext()
	s.theatre.try(s.name+" receives", func() error { return differ("the message", got, want) })
}

// silent makes sure that no message comes.
func (s *subscriber) silent() {
	s.theatre.try(s.name+" receives", func() error {
		for deadline := time.After(quiet); len(s.early) == 0; {
			select {
			case line, more := <-s.lines:
				if strings.HasPrefix(line, marked) {
					return fmt.Errorf("%s came, nothing should", short(line))
				}
				if !more {
					return errors.New("mosquitto_sub has ended")
				}
				s.seen = append(s.seen, line)
			case <-deadline:
				return nil
			}
		}
		return fmt.Errorf("%s came, nothing should", short(s.early[0]))
	})
}

// ended waits for the end of a process that ends by itself.
func (s *subscriber) ended() {
	s.theatre.try(s.name+" ends", func() error {
		for {
			if _, err := s.line(); err != nil {
				if s.theatre.ctx.Err() != nil {
					return s.theatre.ctx.Err()
				}
				return s.process.Wait()
			}
		}
	})
	s.theatre.out = slices.DeleteFunc(s.theatre.out, func(o *subscriber) bool { return o == s })
}

// kill ends the process without a word to the broker.
func (s *subscriber) kill() {
	if s.process == nil || s.process.Process == nil {
		return
	}
	s.process.Process.Kill()
	for range s.lines {
		continue // Until its output is closed.
	}
	s.process.Wait()
}
