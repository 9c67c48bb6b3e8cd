package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	// brokerMax is how long a broker may take to listen, and to end.
	brokerMax = 20 * time.Second

	// configuration of the broker that the runner starts: its Receive Maximum is small, so that clients which do not
	// count are seen, and it gives Topic Aliases.
	configuration = `listen = ["127.0.0.1:0"]
allow_anonymous = true
receive_maximum = 20
topic_alias_maximum = 16
`
)

// broker is a ringmq that the runner has built and started.
type broker struct {
	process *exec.Cmd
	address string
	talk    tail
	exited  chan error // has the end of the process, once
}

// build compiles this checkout's ringmq.
func build(ctx context.Context, folder string, flags ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if _, statErr := os.Stat(filepath.Join(root, "cmd", "ringmq")); err != nil || statErr != nil {
		return "", errors.New("there is no checkout of RingMQ here to build the broker from: go to one, or give --address")
	}
	program := filepath.Join(folder, "ringmq")
	command := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", program}, flags...), "./cmd/ringmq")...)
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ringmq: %w: %s", err, out)
	}
	return program, nil
}

// startBroker runs the program on a free port of loopback and waits until it listens.
func startBroker(ctx context.Context, program, folder string) (*broker, error) {
	config := filepath.Join(folder, "ringmq.toml")
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	b := &broker{process: exec.Command(program, "serve", "-c", config), exited: make(chan error, 1)}
	log, err := b.process.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := b.process.Start(); err != nil {
		return nil, err
	}
	addresses := make(chan string, 1)
	go b.follow(log, addresses)
	select {
	case b.address = <-addresses:
		return b, nil
	case err := <-b.exited:
		return nil, fmt.Errorf("ringmq ended: %w: %s", err, b.talk.last())
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(brokerMax):
		err = fmt.Errorf("ringmq does not listen after %v: %s", brokerMax, b.talk.last())
	}
	return nil, errors.Join(err, b.stop())
}

// follow reads the broker's log to its end.
func (b *broker) follow(log io.Reader, addresses chan<- string) {
	listening := regexp.MustCompile(`msg=listening address=(\S+)`)
	for in := bufio.NewScanner(log); in.Scan(); {
		fmt.Fprintln(&b.talk, in.Text())
		if found := listening.FindStringSubmatch(in.Text()); found != nil {
			select {
			case addresses <- found[1]:
			default:
			}
		}
	}
	b.exited <- b.process.Wait()
}

// stop ends the broker, which must say that all is well.
func (b *broker) stop() error {
	b.process.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-b.exited:
		if err != nil {
			return fmt.Errorf("ringmq ended: %w: %s", err, b.talk.last())
		}
		return nil
	case <-time.After(brokerMax):
		b.process.Process.Kill()
		<-b.exited
		return fmt.Errorf("ringmq did not end %v after TERM, and was killed", brokerMax)
	}
}
