//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// TestKilled: the broker gets SIGKILL under load. Its program and maps go with it and no socket stays; the interface is the
// kernel's, which resets the connections that were on the rings and refuses new ones; a standard broker that is started then
// serves over the kernel's path; and when that ends, XDP mode can be had again.
func TestKilled(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	if taken := s.queuesTaken(); taken != "queue 0 queue 1 " {
		t.Fatalf("of a broker that runs, the doctor sees %q", taken)
	}
	idle := s.connect(s.Broker4, "idle")
	run := s.startBench(s.Broker4, "-n", "20", "--time", "60s")
	eventually(t, "load", func() bool { return b.lane().established() == 41 })
	b.kill()
	b.vanished()
	checkBare(t, s)
	if _, err := run.end(); err == nil {
		t.Error("the load has not noticed")
	}
	if err := idle.ping(); err == nil {
		t.Error("a connection of the rings outlives the broker")
	}
	if _, err := dial(s.Client, s.Broker4); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection without a broker: %v", err)
	}
	standard := s.serveStandard()
	c := s.connect(s.Broker4, "kernel")
	c.alive()
	if !s.onKernel(c) {
		t.Errorf("ss does not show %s", c.local())
	}
	standard.stop()
	again := s.serve()
	s.connect(s.Broker4, "again").alive()
	if n := again.lane().established(); n != 1 {
		t.Errorf("%d connections on the rings", n)
	}
}

// checkBare looks for what a broker may have left on the interface.
func checkBare(t *testing.T, s *scene) {
	t.Helper()
	if id := s.programOn(s.BrokerIf); id != 0 {
		t.Errorf("program %d is on the interface", id)
	}
	last := ""
	if !becomes(func() bool { // The kernel gives queues back some time after the process.
		last = s.queuesTaken()
		return last == ""
	}) {
		t.Errorf("AF_XDP sockets are there: %s", last)
	}
}

// queuesTaken names the queues of the broker's interface that have an AF_XDP socket. ss --xdp sees none where the kernel is built
// without CONFIG_XDP_SOCKETS_DIAG; the doctor asks the interface.
func (s *scene) queuesTaken() (taken string) {
	s.t.Helper()
	out, _ := s.InBroker(program, "doctor", "--json", "--interface", s.BrokerIf).Output()
	var report struct {
		Interfaces []struct {
			Queues []struct {
				Index  int  `json:"index"`
				Socket bool `json:"xdp_socket"`
			} `json:"queues"`
		} `json:"interfaces"`
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Interfaces) != 1 || len(report.Interfaces[0].Queues) == 0 {
		s.t.Fatalf("ringmq doctor --json: %v: %s", err, out)
	}
	for _, q := range report.Interfaces[0].Queues {
		if q.Socket {
			taken += fmt.Sprintf("queue %d ", q.Index)
		}
	}
	return taken
}

// programOn is the id of the XDP program on an interface of the broker's namespace, 0 for none.
func (s *scene) programOn(name string) uint32 {
	s.t.Helper()
	var links []struct {
		XDP struct {
			Program struct {
				ID uint32 `json:"id"`
			} `json:"prog"`
		} `json:"xdp"`
	}
	if err := json.Unmarshal([]byte(s.broker("ip --json link show dev %s", name)), &links); err != nil || len(links) != 1 {
		s.t.Fatalf("ip --json link show: %d interfaces, %v", len(links), err)
	}
	return links[0].XDP.Program.ID
}

// restartMax bounds how long nobody may be served over a restart. It is for a machine that others load: TestRestart logs what it
// takes, and README has that of an idle one.
const restartMax = 10 * time.Second

// TestRestart: under traffic, the broker ends by SIGKILL or SIGTERM and another is started at once. It gets the queues as
// soon as the kernel has given them back, and every client that tries again gets in within restartMax of the signal, on the
// rings: the kernel does not listen before they take new connections.
func TestRestart(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			s := newScene(t, 2)
			b := s.serve()
			crowd := s.newCrowd(20, s.Broker4)
			for range 3 {
				b = s.restart(b, crowd, signal)
			}
			eventually(t, "20 connections on the rings", func() bool { return b.lane().established() == 20 })
		})
	}
}

// restart ends a broker and starts the next, and says how long after the signal the old one has ended, the new one steers and each of
// the crowd is served.
func (s *scene) restart(b *process, crowd *crowd, signal syscall.Signal) *process {
	s.t.Helper()
	start := time.Now()
	since := func() time.Duration { return time.Since(start).Round(time.Millisecond) }
	b.signal(signal)
	<-b.ended
	ended := since()
	b = s.start("--mode", "xdp", "--interface", s.BrokerIf, "--listen", ":1883")
	b.await("msg=steering")
	steers := since()
	crowd.served()
	served := since()
	b.note()
	s.t.Logf("%v: the old broker has ended after %v, the new one steers after %v, all are served after %v", signal, ended, steers, served)
	if n := s.kernelConnections(); n > 0 {
		s.t.Errorf("%d of %d clients are on the kernel's path", n, len(crowd.members))
	}
	if served > restartMax {
		s.t.Errorf("%v from %v until all were served, want at most %v", served, signal, restartMax)
	}
	return b
}
