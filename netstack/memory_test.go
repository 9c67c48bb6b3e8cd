package netstack

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// idleBytesMax is what an idle connection may take of the process, all in all.
const idleBytesMax = 8 << 10

// TestIdleConnections measures what idle connections take: of the heap, and of the process. Set
// RINGMQ_IDLE_CONNECTIONS for more of them.
func TestIdleConnections(t *testing.T) {
	n := 10_000
	if s := os.Getenv("RINGMQ_IDLE_CONNECTIONS"); s != "" {
		n, _ = strconv.Atoi(s)
	} else if testing.Short() || raceEnabled {
		n = 1_000
	}
	c := cable.New(cable.Config{})
	p := mustOpen(t, testConfig(), c).Planes()[0]
	heap, process := memory(t)
	w := newWire(t, c, p, netip.AddrPort{}, dialled(0))
	accepted := 0
	for i := range n {
		address := netip.AddrFrom4([4]byte{198, 18, 1 + byte(i/50_000), 1})
		w.local, w.seq, w.ack = netip.AddrPortFrom(address, uint16(2000+i%50_000)), uint32(i), 0
		w.send(tcpSyn, nil)
		w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
		w.send(tcpAck, nil)
		w.until(func(e broker.Event) bool {
			if e.Kind == broker.Accepted {
				e.Conn.SetToken(uint64(i) + 1)
				accepted++
			}
			return accepted == i+1
		})
	}
	heapAfter, processAfter := memory(t)
	perHeap, perProcess := (heapAfter-heap)/n, (processAfter-process)/n
	t.Logf("%d idle connections: %d bytes of heap each, %d bytes of the process each", n, perHeap, perProcess)
	if perHeap > idleBytesMax {
		t.Errorf("an idle connection takes %d bytes of heap; want at most %d", perHeap, idleBytesMax)
	}
	if perProcess > idleBytesMax && !raceEnabled {
		t.Errorf("an idle connection takes %d bytes of the process; want at most %d", perProcess, idleBytesMax)
	}
	if sum := p.Counters(); sum.Connections != uint64(n) || sum.Established != uint64(n) {
		t.Errorf("%d connections, %d established; want %d", sum.Connections, sum.Established, n)
	}
}

// slowBytesMax is what a connection takes whose peer neither reads nor acknowledges: its send buffer, and the stack's
// cost of writesMax small segments.
const slowBytesMax = 64<<10 + writesMax*1200

// TestSlowReaders writes small messages to connections whose peers say nothing, until nothing is taken any more.
func TestSlowReaders(t *testing.T) {
	const connections = 100
	for _, bytes := range []int{20, 1000, 20_000} {
		t.Run(fmt.Sprintf("%d bytes", bytes), func(t *testing.T) {
			w, conns := fan(t, connections)
			message := [][]byte{make([]byte, bytes)}
			before, _ := memory(t)
			total := 0
			for _, c := range conns {
				for n := bytes; n == bytes; total += n {
					var err error
					if n, err = c.Write(message); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.plane.Flush()
			w.listen()
			after, _ := memory(t)
			each := (after - before) / connections
			t.Logf("%d bytes were taken, in %d bytes of heap", total/connections, each)
			if each > slowBytesMax && !raceEnabled {
				t.Errorf("a slow reader takes %d bytes; want at most %d", each, slowBytesMax)
			}
		})
	}
}

// TestManySmallWrites: a Write that took nothing because of many small ones goes on when they are acknowledged.
func TestManySmallWrites(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	taken := 0
	for n := 1; n > 0; taken += n {
		var err error
		if n, err = conn.Write([][]byte{{'x'}}); err != nil {
			t.Fatal(err)
		}
	}
	if taken != writesMax {
		t.Fatalf("%d small Writes were taken; want %d", taken, writesMax)
	}
	start := w.ack
	for written := taken; written < 1000; {
		n, err := w.untilWritable().Write([][]byte{make([]byte, 100)})
		if n != 100 || err != nil {
			t.Fatalf("Write when Writable = %d, %v", n, err)
		}
		for written += n; n > 0 && written < 1000; written += n {
			if n, err = conn.Write([][]byte{{'x'}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.plane.Flush()
	for deadline := time.Now().Add(patience); w.ack-start < 1000; w.turn() {
		w.acknowledge()
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes came; want 1000", w.ack-start)
		}
	}
}

// acknowledge takes what the plane has sent and says so.
func (w *wire) acknowledge() {
	w.plane.Flush()
	if len(w.listen()) > 0 {
		w.send(tcpAck, nil)
	}
}

// untilWritable has the peer acknowledge until the plane says that a Write may go on.
func (w *wire) untilWritable() broker.Conn {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		w.acknowledge()
		for _, e := range w.turn() {
			if e.Kind&broker.Writable != 0 {
				return e.Conn
			}
		}
	}
	w.t.Fatalf("the connection does not become writable in %v", patience)
	return nil
}

// memory returns what the heap and the process take, in bytes.
func memory(t *testing.T) (heap, process int) {
	t.Helper()
	for range 3 { // Pools give things up one collection late.
		debug.FreeOSMemory()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return int(stats.HeapAlloc), int(stats.Sys - stats.HeapReleased)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return int(stats.HeapAlloc), kilobytes << 10
		}
	}
	t.Fatal("no VmRSS in /proc/self/status")
	return 0, 0
}
