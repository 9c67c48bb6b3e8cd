//go:build linux

package lab

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// residentBytes is what the broker's process takes of the machine's memory.
func (b *process) residentBytes() int64 { return b.statusBytes("VmRSS") }

func (b *process) statusBytes(name string) int64 {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB$`).FindSubmatch(text)
	if found == nil {
		b.t.Fatalf("no %s in\n%s", name, text)
	}
	n, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return n << 10
}

// TestSlowReaders: a thousand subscribers, three thousand in the long run, never read what a publisher sends to all of them.
// The process stays within its plan, what they pin stays within send_memory, the first of them are reset, and clients that
// read are served all the time.
func TestSlowReaders(t *testing.T) {
	slow := 1000
	if long() {
		slow = 3000
	}
	const sendMemory, minimum = 16 << 20, 1500 // of all, and of each beside it
	s := newScene(t, 2)
	config := t.TempDir() + "/ringmq.toml"
	text := fmt.Sprintf("memory = \"512MiB\"\nmax_outbound_bytes = \"64KiB\"\nmax_connections = %d\n[xdp]\nsend_memory = \"%d\"\n", slow+1000, sendMemory)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := s.serve("-c", config)
	for i := range slow {
		c := s.connect(s.Broker4, fmt.Sprintf("slow%d", i))
		if err := c.conn.SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		c.subscribe("flood", 0)
	}
	reader, publisher := s.connect(s.Broker4, "reader"), s.connect(s.Broker4, "publisher")
	reader.subscribe("read", 0)
	var worst time.Duration
	var most int64
	var pinned uint64
	tcp := func(f func(queueReport) uint64) uint64 { return b.lane().sum(f) }
	for begin := time.Now(); ; {
		for range 100 {
			publisher.publish("flood", 0, make([]byte, 1000))
		}
		asked := time.Now()
		publisher.publish("read", 0, []byte("x"))
		reader.receive()
		worst = max(worst, time.Since(asked))
		most = max(most, b.residentBytes())
		pinned = max(pinned, tcp(func(q queueReport) uint64 { return q.TCP.PinnedBytes }))
		if tcp(func(q queueReport) uint64 { return q.TCP.StuckReset }) > 0 {
			break
		}
		if time.Since(begin) > 2*patience {
			t.Fatalf("no slow reader is reset: %d bytes are pinned", pinned)
		}
	}
	reader.alive()
	plan := int64(b.status().MemoryBytes)
	t.Logf("%d slow readers: at most %d bytes resident of %d planned, %d pinned of %d; %d Writes limited, %d connections reset; the worst answer took %v",
		slow, most, plan, pinned, sendMemory, tcp(func(q queueReport) uint64 { return q.TCP.SendLimited }), tcp(func(q queueReport) uint64 { return q.TCP.StuckReset }), worst)
	if most > plan {
		t.Errorf("%d bytes are resident, %d were planned", most, plan)
	}
	if pinned > uint64(sendMemory+slow*minimum) || pinned < sendMemory/2 {
		t.Errorf("%d bytes are pinned; want up to %d", pinned, sendMemory+slow*minimum)
	}
}
