package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	portFirst = 21883
	portLast  = 22883
)

// loopback is the only address that anything here listens on, outside a lab.
func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// place is where brokers run.
type place struct {
	bench *bench // nil: loopback
	port  int
}

// flag is how a second self of this program is told that it measures in a lab.
func (p *place) flag(flags *flag.FlagSet) {
	flags.Func(strings.TrimLeft(labFlag, "-"), "where brokers run: set by perf lab and by --mode xdp", func(text string) (err error) {
		p.bench, err = parseBench(text)
		return err
	})
}

// start starts a program on processor cpu and waits until it answers at address, and on its admin socket if it has one.
func (p *place) start(ctx context.Context, argv []string, cpu int, address netip.AddrPort, socket string) (*server, error) {
	if p.bench != nil {
		argv = p.bench.inside(argv)
	}
	s, err := startServer(ctx, argv, cpu, address)
	if err != nil || socket == "" {
		return s, err
	}
	if err := awaitAnswer(ctx, socket); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// nextAddress finds a free loopback port, never the one just used, whose connections may linger.
func (p *place) nextAddress() (netip.AddrPort, error) {
	host := loopback()
	if p.bench != nil {
		host = p.bench.address
	}
	for range portLast - portFirst {
		if p.port++; p.port < portFirst || p.port > portLast {
			p.port = portFirst
		}
		address := netip.AddrPortFrom(host, uint16(p.port))
		if p.bench != nil {
			return address, nil // the namespace is ours alone
		}
		if listener, err := net.Listen("tcp", address.String()); err == nil {
			return address, listener.Close()
		}
	}
	return netip.AddrPort{}, fmt.Errorf("no free port from %d to %d", portFirst, portLast)
}
