package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/ringmq/ringmq/scripts/lab"
	"github.com/ringmq/ringmq/xdp"
	"github.com/vishvananda/netns"
)

const (
	echoPort      = 1883
	echoBatch     = 64                     // frames that one look at the RX ring takes, as a broker's turn does
	echoWait      = 10 * time.Millisecond  // how long an end sleeps before it looks whether all is over
	echoLost      = 100 * time.Millisecond // without any frame for so long, those under way are given up
	echoWarmUp    = 200 * time.Millisecond
	ethernetBytes = 14
	ipv4Bytes     = 20
	tcpBytes      = 20
)

// runEcho is `perf echo`: frames that one AF_XDP socket sends over a veth pair, and another one sends back without looking
// at them. No broker on the same pair can exchange more segments than that: it is the limit beside XDP mode's figures.
func runEcho(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("perf echo", flag.ContinueOnError)
	duration := flags.Duration("time", 2*time.Second, "measure each row for `DURATION`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *duration <= 0 {
		return fmt.Errorf("echo: want no arguments and a --time above 0, got %q", args)
	}
	if why := lab.Missing(); why != "" {
		return errors.New(why)
	}
	l, err := lab.New()
	if err != nil {
		return err
	}
	pair, err := l.NewPair(1)
	if err == nil {
		err = echoOver(ctx, pair, l, *duration, os.Stdout)
	}
	return errors.Join(err, l.Close())
}

func echoOver(ctx context.Context, pair *lab.Pair, l *lab.Lab, duration time.Duration, stdout io.Writer) (err error) {
	near, err := openEchoEnd(l.Client, pair.ClientIf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.Close()) }()
	far, err := openEchoEnd(l.Broker, pair.BrokerIf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.Close()) }()
	e := echo{queue: near.Queues()[0]}
	if e.frame, err = echoFrame(near, far, pair); err != nil {
		return err
	}
	var stop atomic.Bool
	var mirror sync.WaitGroup
	mirror.Go(func() { reflect(far.Queues()[0], &stop) })
	defer mirror.Wait()
	defer stop.Store(true)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "frame\tin flight\techoes/s\tframes/s\tCPU per echo\tlost\t\n")
	for _, size := range []int{64, 200, 1514} {
		for _, window := range []int{1, 16, 256} {
			r := e.run(ctx, size, window, duration)
			if ctx.Err() != nil {
				return errors.New("echo: interrupted")
			}
			fmt.Fprintf(w, "%d B\t%d\t%.0f\t%.0f\t%.2f µs\t%d\t\n", size, window, r.perSecond, 2*r.perSecond, r.cpu.Seconds()*1e6/max(1, r.echoes), r.lost)
		}
	}
	return w.Flush()
}

// openEchoEnd opens one end of the pair in its namespace.
func openEchoEnd(namespace, name string) (i *xdp.Interface, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer here.Close()
	there, err := netns.GetFromName(namespace)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return nil, err
	}
	i, err = xdp.Open(xdp.Config{Interface: name, Ports: []uint16{echoPort}, Limit: xdp.Native, Require: xdp.Native})
	if err == nil {
		if err = i.Start(); err != nil {
			err = errors.Join(err, i.Close())
		}
	}
	return i, errors.Join(err, netns.Set(here))
}

// echoFrame is a TCP segment that both ends' programs redirect: sent back, it is addressed as it came.
func echoFrame(near, far *xdp.Interface, pair *lab.Pair) ([]byte, error) {
	from, err := netip.ParseAddr(pair.Client4)
	if err != nil {
		return nil, err
	}
	to, err := netip.ParseAddr(pair.Broker4)
	if err != nil {
		return nil, err
	}
	source, destination := near.Queues()[0].HardwareAddr(), far.Queues()[0].HardwareAddr()
	frame := make([]byte, 1514)
	copy(frame, destination[:])
	copy(frame[6:], source[:])
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	ip := frame[ethernetBytes:]
	ip[0], ip[8], ip[9] = 0x45, 64, syscall.IPPROTO_TCP
	copy(ip[12:], net.IP(from.AsSlice()))
	copy(ip[16:], net.IP(to.AsSlice()))
	tcp := ip[ipv4Bytes:]
	binary.BigEndian.PutUint16(tcp, echoPort)
	binary.BigEndian.PutUint16(tcp[2:], echoPort)
	tcp[12], tcp[13] = tcpBytes/4<<4, 0x10 // ACK: nothing that a SYN limit counts
	return frame, nil
}

// reflect sends every frame back.
func reflect(q *xdp.Queue, stop *atomic.Bool) {
	bounce := func(frame []byte) {
		out := q.Reserve()
		if out == nil {
			return // Lost: the other end notices.
		}
		copy(out, frame)
		copy(out, frame[6:12])
		copy(out[6:], frame[:6])
		addresses := ethernetBytes + 12
		copy(out[addresses:], frame[addresses+4:addresses+8])
		copy(out[addresses+4:], frame[addresses:addresses+4])
		q.Commit(out, len(frame))
	}
	for !stop.Load() {
		if n := q.Receive(echoBatch, bounce); n > 0 {
			q.Kick()
			continue
		}
		if q.Wait(echoWait) != nil {
			return
		}
	}
}

// echo is the end that begins.
type echo struct {
	queue *xdp.Queue
	frame []byte
	back  int // frames that have come back
	size  int
}

// echoResult is what one row has found.
type echoResult struct {
	echoes, perSecond float64
	cpu               time.Duration // of this process, which is both ends; veth's work is done in their system calls
	lost              int
}

func (e *echo) send(n int) (sent int) {
	for ; sent < n; sent++ {
		out := e.queue.Reserve()
		if out == nil {
			break
		}
		copy(out, e.frame[:e.size])
		binary.BigEndian.PutUint16(out[ethernetBytes+2:], uint16(e.size-ethernetBytes))
		e.queue.Commit(out, e.size)
	}
	e.queue.Kick()
	return sent
}

// run keeps window frames under way.
func (e *echo) run(ctx context.Context, size, window int, duration time.Duration) (r echoResult) {
	e.size, e.back = size, 0
	underWay, first := e.send(window), 0
	begin := time.Now()
	warm, heard, cpu := false, begin, time.Duration(0)
	for ctx.Err() == nil {
		before := e.back
		e.queue.Receive(echoBatch, e.count)
		now := time.Now()
		if n := e.back - before; n > 0 {
			underWay += e.send(n) - n
			heard = now
		} else if now.Sub(heard) > echoLost {
			r.lost += underWay
			underWay, heard = e.send(window), now
		} else if e.queue.Wait(echoWait) != nil {
			break
		}
		if !warm && now.Sub(begin) > echoWarmUp {
			warm, begin, first, cpu = true, now, e.back, processCPU()
		}
		if warm && now.Sub(begin) > duration {
			r.echoes, r.cpu = float64(e.back-first), processCPU()-cpu
			r.perSecond = r.echoes / now.Sub(begin).Seconds()
			e.drain(underWay)
			return r
		}
	}
	return r
}

func (e *echo) count([]byte) { e.back++ }

// drain waits for the frames under way, which must not be the next row's.
func (e *echo) drain(underWay int) {
	all := e.back + underWay
	for begin := time.Now(); e.back < all && time.Since(begin) < echoLost; {
		if e.queue.Receive(echoBatch, e.count) == 0 && e.queue.Wait(echoWait) != nil {
			return
		}
	}
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
