//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"
	"time"
)

// bench is one run of ringmq bench in the clients' namespace.
type bench struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err bytes.Buffer
	ended    chan struct{}
	fault    error
}

// benchResult is what it found, as far as the tests look.
type benchResult struct {
	PerSecond      float64 `json:"per_second"`
	Published      int64   `json:"published_total"`
	Delivered      int64   `json:"delivered"`
	Expected       int64   `json:"expected_total"`
	Lost           int64   `json:"lost"`
	Duplicated     int64   `json:"duplicated"`
	Reordered      int64   `json:"reordered"`
	Corrupt        int64   `json:"corrupt"`
	Unacknowledged int64   `json:"unacknowledged"`
	AcksOutOfOrder int64   `json:"acks_out_of_order"`
	Refused        int64   `json:"refused"`
	Stalls         int64   `json:"stalls"`

	MeasuredTime time.Duration `json:"measured_ns"`
	MachineCPU   time.Duration `json:"machine_cpu_ns"`
	Latency      struct {
		P50 time.Duration `json:"p50_ns"`
		P99 time.Duration `json:"p99_ns"`
		Max time.Duration `json:"max_ns"`
	} `json:"latency"`
}

// startBench begins a run against a host.
func (s *scene) startBench(host string, arguments ...string) *bench {
	s.t.Helper()
	arguments = append([]string{program, "bench", "-h", host, "--quiet", "--json"}, arguments...)
	b := &bench{t: s.t, cmd: s.InClient(arguments...), ended: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.err
	dieWithTest(b.cmd)
	if err := b.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		b.fault = b.cmd.Wait()
		close(b.ended)
	}()
	s.t.Cleanup(func() {
		_ = b.cmd.Process.Kill() // It may have ended.
		<-b.ended
	})
	return b
}

// benchMax bounds any run here.
const benchMax = 3 * time.Minute

// end waits for the run's end, whatever it found. A connection that breaks is an error.
func (b *bench) end() (r benchResult, err error) {
	b.t.Helper()
	select {
	case <-b.ended:
	case <-time.After(benchMax):
		b.t.Fatalf("ringmq bench does not end: %v", b.cmd.Args)
	}
	if b.fault != nil && b.out.Len() == 0 {
		return r, b.fault
	}
	if err := json.Unmarshal(b.out.Bytes(), &r); err != nil {
		b.t.Fatalf("%v: %v: %s%s", b.cmd.Args, err, b.out.Bytes(), b.err.Bytes())
	}
	return r, nil
}

// clean waits for the run's end and checks that nothing was lost, doubled, out of order or corrupt and no connection broke.
func (b *bench) clean() benchResult {
	b.t.Helper()
	r, err := b.end()
	if err != nil || b.fault != nil {
		b.t.Fatalf("%v: %v: %s%s", b.cmd.Args, b.fault, b.out.Bytes(), b.err.Bytes())
	}
	if r.Published == 0 {
		b.t.Fatalf("%v has published nothing", b.cmd.Args)
	}
	return r
}

// isRunning is false when the run has ended early.
func (b *bench) isRunning() bool {
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}
