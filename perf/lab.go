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

// labFlag is how `perf lab` tells its second self where brokers run: NAMESPACE,INTERFACE,ADDRESS,INTERFACE,ADDRESS.
const labFlag = "--lab"

// bench is where brokers run when they run in another network namespace: behind a veth pair.
type bench struct {
	namespace string
	end
	// second is another pair's, for a server beside the broker: two programs cannot steer one interface.
	second end
}

// end is the brokers' end of a veth pair.
type end struct {
	iface   string
	address netip.Addr
}

func parseBench(text string) (*bench, error) {
	parts := strings.Split(text, ",")
	if len(parts) != 5 {
		return nil, fmt.Errorf("%s %q: want NAMESPACE,INTERFACE,ADDRESS,INTERFACE,ADDRESS; perf lab makes them", labFlag, text)
	}
	first, err := netip.ParseAddr(parts[2])
	second, err2 := netip.ParseAddr(parts[4])
	return &bench{namespace: parts[0], end: end{parts[1], first}, second: end{parts[3], second}}, errors.Join(err, err2)
}

// flag is what parseBench reads.
func (b *bench) flag() string {
	return fmt.Sprintf("%s,%s,%s,%s,%s", b.namespace, b.iface, b.address, b.second.iface, b.second.address)
}

// inside runs a command in the brokers' namespace.
func (b *bench) inside(argv []string) []string {
	return append([]string{"ip", "netns", "exec", b.namespace}, argv...)
}

// runLab is `perf lab`: compare in a veth lab, so that XDP mode takes part.
func runLab(ctx context.Context, args []string) error {
	return inLab(ctx, "compare", append([]string{"--targets", "ringmq,xdp,mosquitto",
		"--scenario", "pairs-w1,pairs-1000-w1,pairs-10000-w1,pairs,fanout-1000,pairs-q1"}, args...))
}

// addressesMore is how many addresses the clients of a lab have beside the first: a storm of connects uses up the ports of
// one, because a closed connection keeps its port for a minute.
const addressesMore = 15

// inLab makes a lab and runs a command of this program in its clients' namespace, told where brokers run.
func inLab(ctx context.Context, name string, args []string) error {
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
	b := bench{namespace: l.Broker}
	if b.end, err = newEnd(l); err != nil {
		return err
	}
	if b.second, err = newEnd(l); err != nil {
		return err
	}
	argv := []string{self, name, labFlag, b.flag()}
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
		return fmt.Errorf("perf %s in the clients' namespace failed", name)
	}
	return err
}

// newEnd makes a pair whose clients have all their addresses.
func newEnd(l *lab.Lab) (e end, err error) {
	pair, err := l.NewPair(1)
	if err != nil {
		return e, err
	}
	e.iface = pair.BrokerIf
	if e.address, err = netip.ParseAddr(pair.Broker4); err != nil {
		return e, err
	}
	for _, a := range e.sources()[1:] {
		if err := lab.Run(fmt.Sprintf("ip -n %s address add %s/24 dev %s", l.Client, a, pair.ClientIf)); err != nil {
			return e, err
		}
	}
	return e, nil
}

// sources are the clients' addresses: those that follow the broker's.
func (e end) sources() []netip.Addr {
	var all []netip.Addr
	at := e.address
	for range 1 + addressesMore {
		at = at.Next()
		all = append(all, at)
	}
	return all
}

// getUnix asks for a resource on a unix socket; the caller closes the answer's body.
func getUnix(ctx context.Context, socket, resource string) (*http.Response, error) {
	return getUnixWithin(ctx, startTimeout, socket, resource)
}

func getUnixWithin(ctx context.Context, timeout time.Duration, socket, resource string) (*http.Response, error) {
	client := http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://broker"+resource, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(request)
}

// awaitAnswer waits until something answers HTTP on a unix socket: a broker in XDP mode does so only once it steers.
func awaitAnswer(ctx context.Context, socket string) error {
	for deadline := time.Now().Add(startTimeout); ; {
		response, err := getUnix(ctx, socket, "/v1/status")
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
