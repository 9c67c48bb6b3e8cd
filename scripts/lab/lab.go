// Package lab gives tests what XDP mode needs on one machine: two network namespaces, and between them as many multi-queue
// veth pairs as there are brokers, for an interface carries one program. scripts/lab.sh is the same for people.
//
// Names are of rmq, the process id and a random number, so that the labs of several tests and processes do not meet. Addresses are of 198.18.0.0/15
// (RFC 2544) and 2001:2::/48 (RFC 5180).
package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
)

// Lab is a pair of network namespaces.
type Lab struct {
	Broker, Client string // names, for ip netns exec

	made atomic.Int32 // pairs
}

// Missing says why there can be no lab here: empty when there can.
func Missing() string {
	switch {
	case runtime.GOOS != "linux":
		return "XDP mode needs Linux"
	case os.Geteuid() != 0:
		return "network namespaces and XDP need root"
	}
	for _, program := range []string{"ip", "ethtool"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed: apt-get install iproute2 ethtool"
		}
	}
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); err != nil {
		return fmt.Sprintf("no network namespaces (CAP_SYS_ADMIN): %s", out)
	}
	return ""
}

// New makes the namespaces.
func New() (*Lab, error) {
	sweep()
	name := fmt.Sprintf("%d.%d", os.Getpid(), rand.Uint32())
	l := &Lab{Broker: "rmqb-" + name, Client: "rmqc-" + name}
	for _, name := range []string{l.Broker, l.Client} {
		if err := Run("ip netns add " + name); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		if err := Run("ip -n " + name + " link set lo up"); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// sweep takes away what processes that were killed have left.
func sweep() {
	left, _ := filepath.Glob("/run/netns/rmq[bcm]-*")
	for _, path := range left {
		name := filepath.Base(path)
		pid, _, _ := strings.Cut(name[len("rmqb-"):], ".")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			_ = Run("ip netns del " + name) // Or another process has just done it.
		}
	}
}

// Close takes the namespaces away, and the pairs with them.
func (l *Lab) Close() error {
	var errs []error
	for _, name := range []string{l.Broker, l.Client} {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			errs = append(errs, Run("ip netns del "+name))
		}
	}
	return errors.Join(errs...)
}

// Pair is one veth pair. Addresses end in 1 on the broker's side and in 2 on the clients'.
type Pair struct {
	BrokerIf, ClientIf string
	Broker4, Client4   string
	Broker6, Client6   string

	lab    *Lab
	queues int
}

// NewPair makes a pair with so many queues, up and with addresses.
func (l *Lab) NewPair(queues int) (*Pair, error) {
	n := l.made.Add(1)
	p := &Pair{lab: l, queues: queues, BrokerIf: fmt.Sprintf("rmqb%d", n), ClientIf: fmt.Sprintf("rmqc%d", n),
		Broker4: fmt.Sprintf("198.18.%d.1", n), Client4: fmt.Sprintf("198.18.%d.2", n),
		Broker6: fmt.Sprintf("2001:2:0:%x::1", n), Client6: fmt.Sprintf("2001:2:0:%x::2", n)}
	return p, p.Restore()
}

// Restore makes a pair that was removed again, as it was at first.
func (p *Pair) Restore() error {
	l, many := p.lab, fmt.Sprintf("numrxqueues %d numtxqueues %d", p.queues, p.queues)
	if err := Run(fmt.Sprintf("ip link add %s %s netns %s type veth peer name %s %s netns %s", p.ClientIf, many, l.Client, p.BrokerIf, many, l.Broker)); err != nil {
		return err
	}
	return p.configure()
}

// configure brings both ends up.
func (p *Pair) configure() error {
	for _, line := range []string{
		// A veth leaves checksums to be filled in by a NIC that is not there; our TCP checks every one.
		fmt.Sprintf("ip netns exec %s ethtool -K %s tx off", p.lab.Client, p.ClientIf),
		fmt.Sprintf("ip -n %s address add %s/24 dev %s", p.lab.Client, p.Client4, p.ClientIf),
		fmt.Sprintf("ip -n %s address add %s/64 dev %s nodad", p.lab.Client, p.Client6, p.ClientIf),
		fmt.Sprintf("ip -n %s link set %s up", p.lab.Client, p.ClientIf),
		fmt.Sprintf("ip -n %s address add %s/24 dev %s", p.lab.Broker, p.Broker4, p.BrokerIf),
		fmt.Sprintf("ip -n %s address add %s/64 dev %s nodad", p.lab.Broker, p.Broker6, p.BrokerIf),
		fmt.Sprintf("ip -n %s link set %s up", p.lab.Broker, p.BrokerIf),
	} {
		if err := Run(line); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the pair away.
func (p *Pair) Remove() error {
	return Run(fmt.Sprintf("ip -n %s link del %s", p.lab.Client, p.ClientIf))
}

// InBroker is a command inside the broker's namespace. It replaces the process that starts it, so that signals and the
// process id are the program's.
func (l *Lab) InBroker(argv ...string) *exec.Cmd { return in(l.Broker, argv) }

// InClient is the same in the clients' namespace.
func (l *Lab) InClient(argv ...string) *exec.Cmd { return in(l.Client, argv) }

func in(namespace string, argv []string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", namespace}, argv...)...)
}

// Run runs one command line without quotes; its error has what the command said.
func Run(line string) error {
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}
