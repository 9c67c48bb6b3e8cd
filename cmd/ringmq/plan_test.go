//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// The limits of the planned broker: small enough to be filled in seconds, large enough that the program itself is not
// most of it.
const (
	planMemory        = "192MiB"
	planConnections   = 3000
	planSessions      = 6000
	planSubscriptions = 60000
	planRetained      = 30000
)

// TestPlanAgreesWithResidentMemory fills every limit of a running broker by its clients and compares what the process
// then takes with what --plan says.
func TestPlanAgreesWithResidentMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a broker: left out by -short")
	}
	text := planConfig("")
	planned, resident := fillToThePlan(t, text, func(f *filler) {
		f.sessions()
		f.retained()
		f.large()
		f.queues()
	})
	if ratio := float64(resident) / float64(planned); ratio > 1.1 || ratio < 0.9 {
		t.Errorf("resident memory is %.3f of the plan, more than 10 %% off", ratio)
	}
}

// TestPlanHoldsWithStore does the same beside a store. What waits for kept Sessions is on disk: it is the memtables and the cache that are
// filled, and the messages only as far as they are for clients that are connected. So the process may take less than --memory, but not more, and not
// so little that it is another scene.
func TestPlanHoldsWithStore(t *testing.T) {
	if os.Getenv("RINGMQ_LONG") == "" {
		t.Skip("fills a broker whose Sessions are kept, which takes long: with RINGMQ_LONG")
	}
	text := planConfig(fmt.Sprintf("[store]\ndata = %q\ndurability = \"os\"\n", t.TempDir()))
	planned, resident := fillToThePlan(t, text, func(f *filler) {
		f.sessions()
		f.retained()
		f.large()
		f.queuesOnDisk()
	})
	const memory = 192 << 20 // planMemory, of which the plan leaves something when there is a store
	if ratio := float64(resident) / memory; ratio > 1.1 || resident < planned*3/4 {
		t.Errorf("resident memory is %.3f of --memory, and %.3f of the plan", ratio, float64(resident)/float64(planned))
	}
}

// planConfig is the planned broker's configuration, and more.
func planConfig(more string) string {
	return fmt.Sprintf("memory = %q\nshards = 2\nmax_connections = %d\nmax_sessions = %d\nmax_subscriptions = %d\nmax_retained = %d\nmax_queued_messages = 100000\nmax_queued_bytes = \"1GiB\"\nsys_interval = \"0s\"\n%s",
		planMemory, planConnections, planSessions, planSubscriptions, planRetained, more)
}

// fillToThePlan starts a broker, fills it, and says what it was to take and takes.
func fillToThePlan(t *testing.T, text string, fill func(*filler)) (planned, resident int64) {
	t.Helper()
	program, config := buildProgram(t), filepath.Join(t.TempDir(), "ringmq.toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	planned = plannedBytes(t, program, config)
	f := startFiller(t, program, config)
	fill(f)
	time.Sleep(1200 * time.Millisecond) // the broker's own second has passed: its books are up to date
	resident = residentBytes(t, f.pid)
	t.Logf("planned %d bytes, resident %d: %.3f", planned, resident, float64(resident)/float64(planned))
	return planned, resident
}

func plannedBytes(t *testing.T, program, config string) int64 {
	out, err := exec.Command(program, "serve", "-c", config, "--plan").Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := regexp.MustCompile(`(?m)^sum\s+(\d+)$`).FindSubmatch(out)
	if sum == nil {
		t.Fatalf("no sum in\n%s", out)
	}
	t.Logf("\n%s", out)
	n, _ := strconv.ParseInt(string(sum[1]), 10, 64)
	return n
}

func residentBytes(t *testing.T, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	rss := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	n, _ := strconv.ParseInt(string(rss[1]), 10, 64)
	return n << 10
}

// filler is the clients that fill a broker.
type filler struct {
	t       *testing.T
	pid     int
	address string
}

func startFiller(t *testing.T, program, config string) *filler {
	p := startProgram(t, program, "serve", "-c", config, "-p", unusedPort(t))
	return &filler{t: t, pid: p.cmd.Process.Pid, address: p.address}
}

// connect opens a persistent Session; the connection closes with the test.
func (f *filler) connect(clientID string) net.Conn {
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	f.write(c, packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, ClientID: []byte(clientID), SessionExpiry: 3600}))
	kind, body := f.read(c)
	if kind != packet.CONNACK || body[1] != 0 {
		f.t.Fatalf("%s: %v % x", clientID, kind, body)
	}
	return c
}

func (f *filler) write(c net.Conn, b []byte) {
	if _, err := c.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *filler) read(c net.Conn) (packet.Kind, []byte) {
	var head [5]byte
	n := 0
	for {
		if _, err := io.ReadFull(c, head[n:n+1]); err != nil {
			f.t.Fatal(err)
		}
		if n++; n < 2 {
			continue
		}
		h, r := packet.ParseHeader(head[:n])
		if r != packet.Success {
			f.t.Fatal(r)
		}
		if h.Size != 0 {
			body := make([]byte, h.Remaining)
			if _, err := io.ReadFull(c, body); err != nil {
				f.t.Fatal(err)
			}
			return h.Kind, body
		}
	}
}

// sessions makes as many Sessions as there may be, half of them connected, and all subscriptions.
func (f *filler) sessions() {
	each := planSubscriptions / planSessions
	for i := range planSessions {
		c := f.connect(fmt.Sprintf("client-%08d", i))
		var subs []packet.Subscription
		for k := range each {
			// The first two filters of each Session make its queue, shared with its neighbour's.
			filter := fmt.Sprintf("site/%06d/device/%04d/state", i, k)
			if k < 2 {
				filter = fmt.Sprintf("queue/%06d", (i+k)%planSessions)
			}
			subs = append(subs, packet.Subscription{Filter: []byte(filter), Options: packet.Options{QoS: 1}})
		}
		f.write(c, packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, subs, packet.V50))
		if kind, body := f.read(c); kind != packet.SUBACK || bytes.IndexFunc(body[3:], func(r rune) bool { return r > 2 }) >= 0 {
			f.t.Fatalf("subscribe: %v % x", kind, body)
		}
		if i < planSessions/2+16 {
			c.Close()
		}
	}
}

func (f *filler) retained() {
	c := f.connect("client-00000000")
	for i := range planRetained {
		h := packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: fmt.Appendf(nil, "retained/%06d/value", i)}
		f.write(c, packet.AppendPublish(nil, &h, make([]byte, 40), packet.V50))
	}
	f.publish(c, "nothing")
	c.Close()
}

// large publishes packets of the greatest size that a shard must lay out flat to judge, over connections of all shards.
func (f *filler) large() {
	for i := range 4 {
		c := f.connect(fmt.Sprintf("client-%08d", i))
		h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte("large"), PacketID: 1,
			Forwarded: packet.AppendPayloadFormat(nil)}
		f.write(c, packet.AppendPublish(nil, &h, bytes.Repeat([]byte("a"), 2<<20-64), packet.V50))
		if r := f.puback(c); r.Failed() {
			f.t.Fatalf("a large packet: %v", r)
		}
		c.Close()
	}
}

// queues publishes to Sessions that are away until the broker says that it is full.
func (f *filler) queues() {
	const batch = 200 // within the Receive Maximum
	c := f.connect("client-00000001")
	full := 0
	for i := 0; full < batch; i += batch {
		var b []byte
		for k := range batch {
			b = appendPublish(b, fmt.Sprintf("queue/%06d", 3+(i+k)%(planSessions/2)), uint16(k+1))
		}
		f.write(c, b)
		full = 0
		for range batch {
			if f.puback(c) == packet.QuotaExceeded {
				full++
			}
		}
	}
}

// queuesOnDisk publishes several times what a store's memtables hold to Sessions that are away, and to those that are there until they, or the
// broker, have no more room; nobody acknowledges anything.
func (f *filler) queuesOnDisk() {
	const batch, away, there = 200, 200_000, 300_000
	c := f.connect("client-00000001")
	for i, full := 0, 0; i < away+there && full < batch; i += batch {
		var b []byte
		for k := range batch {
			n := 3 + (i+k)%(planSessions/2)
			if i >= away {
				n = planSessions/2 + 16 + (i+k)%(planSessions/2-16)
			}
			b = appendPublish(b, fmt.Sprintf("queue/%06d", n), uint16(k+1))
		}
		f.write(c, b)
		full = 0
		for range batch {
			if f.puback(c) == packet.QuotaExceeded {
				full++
			}
		}
	}
}

func appendPublish(b []byte, topic string, id uint16) []byte {
	h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte(topic), PacketID: id}
	return packet.AppendPublish(b, &h, make([]byte, 170), packet.V50)
}

func (f *filler) publish(c net.Conn, topic string) packet.Reason {
	f.write(c, appendPublish(nil, topic, 1))
	return f.puback(c)
}

func (f *filler) puback(c net.Conn) packet.Reason {
	kind, body := f.read(c)
	if kind != packet.PUBACK {
		f.t.Fatalf("%v % x", kind, body)
	}
	if len(body) < 3 {
		return packet.Success
	}
	return packet.Reason(body[2])
}
