package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"runtime/debug"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/perf/relay"
	"github.com/ringmq/ringmq/xdp"
)

const (
	// sinkMemoryBytes bounds the sink's heap, which is not collected below it, as the broker's is not.
	sinkMemoryBytes = 1 << 30
	// sinkOutBytes is how many answers may wait for one client: who has that many unread is not read either.
	sinkOutBytes = 64 << 10
)

// sink answers clients over XDP mode's plane and does nothing else. It stands for the broker in the control runs of XDP mode:
// what the aggressor's segments cost there, they cost it too.
type sink struct {
	plane   broker.Plane
	clients []*sinkClient // by token, less one
	spare   []uint64      // tokens
}

// sinkClient is one connection.
type sinkClient struct {
	net broker.Conn
	relay.Answerer
	out []byte // answers that the plane has not taken yet
}

// runSink is `perf sink`.
func runSink(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("perf sink", flag.ContinueOnError)
	name := flags.String("interface", "", "network interface whose segments come by AF_XDP")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: perf sink --interface NAME ADDRESS:PORT")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(flags.Arg(0))
	if err != nil || *name == "" {
		return fmt.Errorf("sink: want --interface NAME ADDRESS:PORT, got %q: %w", args, err)
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(sinkMemoryBytes)
	i, err := xdp.Open(xdp.Config{Interface: *name, Ports: []uint16{at.Port()}, Addresses: []netip.Addr{at.Addr()}, Limit: xdp.Native})
	if err != nil {
		return err
	}
	return errors.Join(sinkOn(ctx, i, at), i.Close())
}

func sinkOn(ctx context.Context, i *xdp.Interface, at netip.AddrPort) error {
	if len(i.Queues()) != 1 {
		return fmt.Errorf("interface %q has %d queues: want one", i.Name(), len(i.Queues()))
	}
	stacks, err := netstack.Open(netstack.Config{Addresses: []netip.AddrPort{at}, HostAddresses: i.Addresses()}, []netstack.Device{i.Queues()[0]})
	if err != nil {
		return err
	}
	if err := i.Start(); err != nil {
		return errors.Join(err, stacks.Close())
	}
	s := sink{plane: stacks.Planes()[0]}
	defer context.AfterFunc(ctx, s.plane.Wake)()
	return errors.Join(s.run(ctx), stacks.Close())
}

func (s *sink) run(ctx context.Context) error {
	for ctx.Err() == nil {
		events, err := s.plane.Wait(-1)
		if err != nil {
			return err
		}
		for i := range events {
			s.handle(&events[i])
		}
		s.plane.Flush()
	}
	return nil
}

func (s *sink) handle(e *broker.Event) {
	switch {
	case e.Kind&broker.Accepted != 0:
		e.Conn.SetToken(s.admit(e.Conn))
		return
	case e.Token == 0 || s.clients[e.Token-1] == nil:
		return
	}
	c := s.clients[e.Token-1]
	ok := true
	if e.Kind&broker.Readable != 0 {
		ok = s.read(c)
	}
	if e.Kind&broker.Writable != 0 {
		ok = ok && c.flush()
	}
	if !ok || e.Kind&broker.Hangup != 0 {
		c.net.Close()
		s.clients[e.Token-1] = nil
		s.spare = append(s.spare, e.Token)
	}
}

// admit gives a connection its token.
func (s *sink) admit(conn broker.Conn) uint64 {
	c := &sinkClient{net: conn}
	if n := len(s.spare); n > 0 {
		token := s.spare[n-1]
		s.spare = s.spare[:n-1]
		s.clients[token-1] = c
		return token
	}
	s.clients = append(s.clients, c)
	return uint64(len(s.clients))
}

// read reads once and answers; false when the connection is to be closed.
func (s *sink) read(c *sinkClient) bool {
	buf := s.plane.Buffer()
	n, err := c.net.Read(buf)
	if n == 0 {
		return errors.Is(err, broker.ErrWouldBlock)
	}
	answers, ok := c.Take(buf[:n])
	if c.out = append(c.out, answers...); len(c.out) > sinkOutBytes {
		c.net.Pause()
	}
	return ok && c.flush()
}

// flush sends what the plane takes.
func (c *sinkClient) flush() bool {
	if len(c.out) == 0 {
		return true
	}
	n, err := c.net.Write([][]byte{c.out})
	if c.out = append(c.out[:0], c.out[n:]...); len(c.out) <= sinkOutBytes {
		c.net.Resume()
	}
	return err == nil
}
