package clients

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/scripts/lab"
)

// labVariable in the environment lets every broker run in XDP mode, in another network namespace than this process:
// "BROKER-NAMESPACE CLIENT-NAMESPACE MODE QUEUES FAMILY", such as "rmqb-7 rmqc-7 native 1 4". The tests of package lab
// set it, and run this package's tests in the clients' namespace.
const labVariable = "RINGMQ_LAB"

// bench is where brokers run in XDP mode.
type bench struct {
	*lab.Lab
	mode, family string // brokers must have this mode, no weaker and no stronger one
	queues       int
}

// benchFromEnvironment is nil when brokers run on loopback.
func benchFromEnvironment() *bench {
	words := strings.Fields(os.Getenv(labVariable))
	if len(words) != 5 {
		return nil
	}
	queues, err := strconv.Atoi(words[3])
	if err != nil {
		return nil
	}
	return &bench{Lab: &lab.Lab{Broker: words[0], Client: words[1]}, mode: words[2], queues: queues, family: words[4]}
}

// place is where one broker runs.
type place struct {
	*lab.Pair
	bench *bench
}

// newPlace makes a veth pair with as many queues as the lab says, or as the test wants shards where that is more.
func (b *bench) newPlace(arguments []string) (*place, error) {
	queues := b.queues
	if at := slices.Index(arguments, "--shards"); at >= 0 && queues > 1 {
		queues, _ = strconv.Atoi(arguments[at+1])
	}
	pair, err := b.NewPair(queues)
	return &place{Pair: pair, bench: b}, err
}

// hosts are the broker's address and the clients'.
func (p *place) hosts() (broker, client string) {
	if p.bench.family == "6" {
		return "[" + p.Broker6 + "]", "[" + p.Client6 + "]"
	}
	return p.Broker4, p.Client4
}

// command is what runs ringmq serve there: flags that are about loopback give way to those of XDP mode.
func (p *place) command(arguments []string) *exec.Cmd {
	host, _ := p.hosts()
	require := p.bench.mode
	if require == "generic" {
		require = "any" // the flag's word for the weakest
	}
	arguments = append(withoutListen(arguments), "--listen", fmt.Sprintf("%s:1883", host),
		"--mode", "xdp", "--interface", p.BrokerIf, "--xdp-require", require, "--xdp-limit", p.bench.mode)
	return p.bench.InBroker(append([]string{program, "serve", "-v"}, arguments...)...)
}

func withoutListen(arguments []string) []string {
	arguments = slices.Clone(arguments)
	for {
		at := slices.Index(arguments, "--listen")
		if at < 0 {
			return arguments
		}
		arguments = slices.Delete(arguments, at, at+2)
	}
}
