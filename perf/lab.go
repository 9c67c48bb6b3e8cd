package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/ringmq/ringmq/scripts/lab"
)

// labFlag is how `perf lab` tells its second self where brokers run: NAMESPACE,INTERFACE,ADDRESS.
const labFlag = "--lab"

// bench is where brokers run when they run in another network namespace: behind a veth pair.
type bench struct {
	namespace, iface string
	address          netip.Addr
}

func parseBench(text string) (*bench, error) {
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%s %q: want NAMESPACE,INTERFACE,ADDRESS; perf lab makes them", labFlag, text)
	}
	address, err := netip.ParseAddr(parts[2])
	return &bench{namespace: parts[0], iface: parts[1], address: address}, err
}

// inside runs a command in the brokers' namespace.
func (b *bench) inside(argv []string) []string {
	return append([]string{"ip", "netns", "exec", b.namespace}, argv...)
}

// runLab is `perf lab`: compare in a veth lab, so that XDP mode takes part.
func runLab(ctx context.Context, args []string) error {
	if why := lab.Missing(); why != "" {
		return errors.New(why)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l, err := lab.New()
	if err != nil {
		return err
	}
	defer l.Close()
	pair, err := l.NewPair(1)
	if err != nil {
		return err
	}
	argv := []string{self, "compare", labFlag, fmt.Sprintf("%s,%s,%s", l.Broker, pair.BrokerIf, pair.Broker4),
		"--targets", "ringmq,xdp,mosquitto", "--scenario", "pairs-w1,pairs-1000-w1,pairs-10000-w1,pairs,fanout-1000,pairs-q1"}
	command := l.InClient(append(argv, args...)...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = command.Process.Signal(os.Interrupt) })
	defer stop()
	err = command.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New("the comparison in the clients' namespace failed")
	}
	return err
}

// awaitAnswer waits until something answers HTTP on a unix socket: a broker in XDP mode does so only once it steers.
func awaitAnswer(ctx context.Context, socket string) error {
	client := http.Client{Timeout: startTimeout, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
	for deadline := time.Now().Add(startTimeout); ; {
		response, err := client.Get("http://broker/v1/status")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			return response.Body.Close()
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("no answer on %s: %w", socket, err)
		}
		time.Sleep(startPoll)
	}
}
