//go:build linux

package lab

import (
	"bufio"
	"fmt"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"golang.org/x/sys/unix"
)

// TestDisconnectBeforeTakeover: a client with a Will says DISCONNECT and at once CONNECT on another connection, which belongs
// to another queue as a rule, while all queues are busy. DISCONNECT came first and deletes the Will [MQTT-3.1.2-10]: it is never
// published, although the CONNECT may be heard before. Not ours to mend is a DISCONNECT that the network loses: TCP sends it
// again much later. The client's TCP knows whether it was acknowledged when the broker closed the connection.
func TestDisconnectBeforeTakeover(t *testing.T) {
	times := 300
	if long() {
		times = 3000
	}
	s := newScene(t, 4)
	b := s.serve()
	watcher := s.connect(s.Broker4, "watcher")
	watcher.subscribe("wills/#", 0)
	load := s.startBench(s.Broker4, "-n", "50", "--window", "16", "--time", benchMax.String())
	eventually(t, "load", func() bool { return b.lane().established() >= 101 })
	lost := map[string]bool{}
	for i := range times {
		first, second := s.silent(), s.silent()
		will := fmt.Sprintf("wills/%d", i)
		first.hello(will)
		get[*packets.Connack](first)
		first.put(packets.NewControlPacket(packets.DISCONNECT))
		second.hello(will + "/second")
		get[*packets.Connack](second)
		_ = first.broken()
		lost[will] = first.unacknowledged() > 0
		second.put(packets.NewControlPacket(packets.DISCONNECT))
		_ = second.broken()
		lost[will+"/second"] = second.unacknowledged() > 0
		first.conn.Close()
		second.conn.Close()
	}
	end := s.connect(s.Broker4, "end")
	end.publish("wills/end", 0, nil)
	published, excused := 0, 0
	for topic := watcher.receive().Topic; topic != "wills/end"; topic = watcher.receive().Topic {
		if published++; lost[topic] {
			excused++
		}
	}
	if !load.isRunning() {
		t.Errorf("the load has ended: %v: %s", load.fault, &load.err)
	}
	taken := b.status().Counters["sessions_taken_over"]
	t.Logf("%d of %d Wills were published, %d of them because DISCONNECT was lost on the way; %d Sessions were taken from a connection that lived",
		published, 2*times, excused, taken)
	if published > excused {
		t.Errorf("%d Wills were published after DISCONNECT", published-excused)
	}
}

// unacknowledged is how many segments of the client the broker's TCP has not acknowledged.
func (c *client) unacknowledged() (segments uint32) {
	c.t.Helper()
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				c.t.Fatal(err)
			}
			segments = info.Unacked
		})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return segments
}

// silent dials and says nothing yet.
func (s *scene) silent() *client {
	s.t.Helper()
	conn, err := dial(s.Client, s.Broker4)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return &client{t: s.t, conn: conn, in: bufio.NewReader(conn)}
}

// hello sends a CONNECT of one and the same client, whose Will has a topic.
func (c *client) hello(will string) {
	c.t.Helper()
	p := packets.NewControlPacket(packets.CONNECT)
	content := p.Content.(*packets.Connect)
	content.ClientID, content.CleanStart = "hasty", true
	content.WillFlag, content.WillTopic, content.WillMessage = true, will, []byte("dead")
	content.WillProperties = &packets.Properties{}
	c.put(p)
}
