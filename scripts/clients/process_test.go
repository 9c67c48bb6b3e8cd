package clients

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

// TestTermination: TERM and INT say goodbye to 5.0 clients, end with code 0 and leave nothing listening.
func TestTermination(t *testing.T) {
	t.Parallel()
	for _, shards := range []string{"1", "4"} {
		for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
			t.Run(fmt.Sprintf("shards=%s/%v", shards, signal), func(t *testing.T) {
				t.Parallel()
				b := startFor(t, "--shards", shards, "--allow-anonymous")
				var clients []*wire
				for i := range 16 {
					clients = append(clients, b.connect(t, fmt.Sprint(i), nil))
				}
				old := b.dial(t) // 3.1.1 has no DISCONNECT for this.
				old.sendBytes(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'o')
				var ack [4]byte
				if _, err := io.ReadFull(old.in, ack[:]); err != nil || ack != [4]byte{0x20, 2, 0, 0} {
					t.Fatalf("CONNACK %x, %v", ack, err)
				}
				b.dial(t) // And one that never says CONNECT.
				if err := b.process.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				for _, w := range clients {
					w.ended(packets.DisconnectServerShuttingDown)
				}
				old.closed()
				if err := b.ended(); err != nil {
					t.Fatal(err)
				}
				if c, err := net.Dial("tcp", b.address); err == nil {
					c.Close()
					t.Error("something still listens")
				}
			})
		}
	}
}

// TestConfigured checks what a configuration file says: Server Keep Alive, Session Expiry, packet size and the rest.
func TestConfigured(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "ringmq.toml")
	words := `listen = ["127.0.0.1:0"]
allow_anonymous = true
shards = 2
max_keep_alive = "30s"
persistent_client_expiration = "1h"
max_packet_size = "1KiB"
receive_maximum = 7
topic_alias_maximum = 3
max_connections = 5
server_reference = "other.example:1883"
`
	if err := os.WriteFile(config, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := start("-c", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
	for _, keepAlive := range []uint16{0, 10, 31} {
		_, ack := b.tryConnect(t, fmt.Sprint(keepAlive), func(c *packets.Connect) {
			resume(7200)(c)
			c.KeepAlive = keepAlive
		})
		p := ack.Properties
		if got := p.ServerKeepAlive; (got != nil) != (keepAlive != 10) || got != nil && *got != 30 {
			t.Errorf("Keep Alive %d: Server Keep Alive %v", keepAlive, got)
		}
		if p.SessionExpiryInterval == nil || *p.SessionExpiryInterval != 3600 || p.MaximumPacketSize == nil || *p.MaximumPacketSize != 1024 ||
			p.ReceiveMaximum == nil || *p.ReceiveMaximum != 7 || p.TopicAliasMaximum == nil || *p.TopicAliasMaximum != 3 {
			t.Errorf("CONNACK %v", ack)
		}
	}
	w := b.connect(t, "large", nil)
	w.send(text("t", strings.Repeat("x", 1024), 0))
	w.ended(packets.DisconnectPacketTooLarge)
	b.connect(t, "4", nil)
	b.connect(t, "5", nil)
	if _, ack := b.tryConnect(t, "6", nil); ack.ReasonCode != packets.ConnackUseAnotherServer || ack.Properties.ServerReference != "other.example:1883" {
		t.Errorf("CONNACK %v for one client too many", ack)
	}
}

// TestLog has the lines that people grep.
func TestLog(t *testing.T) {
	t.Parallel()
	b := startFor(t, "--shards", "1", "--allow-anonymous")
	for _, v := range versions {
		b.mustPub(t, "-V", v.word, "-i", v.word, "-k", "33", "-t", "t", "-m", "m")
		b.await(t, "client connected", "address="+b.clientHost(), "client="+v.word+" ", "protocol="+v.ours+" ", "clean=true", "keep_alive=33", "user=")
		b.await(t, "client disconnected", "client="+v.word+" ", "reason=")
	}
	b.connect(t, "lost", nil).conn.Close()
	b.await(t, "client disconnected", "client=lost", "reason=")
	w := b.connect(t, "rude", nil)
	w.sendBytes(0x00, 0x00)
	w.ended(packets.DisconnectMalformedPacket)
	b.await(t, "client disconnected", "client=rude", "Malformed Packet")
	early := b.dial(t)
	early.sendBytes(0xC0, 0x00) // PINGREQ before CONNECT.
	early.closed()
	b.await(t, "client refused", "address="+b.clientHost())
}
