//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shortly is for what must not happen, such as an answer to a denied client. Linux sends a SYN again after a second.
const shortly = 400 * time.Millisecond

// reaches tells whether a client can open a connection from an address, and closes it.
func (s *scene) reaches(source, host string) bool {
	s.t.Helper()
	conn, err := within(s.Client, func() (net.Conn, error) {
		d := net.Dialer{Timeout: shortly, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		return d.Dial("tcp", net.JoinHostPort(host, "1883"))
	})
	if err == nil {
		conn.Close()
		return true
	}
	if timeout, is := errors.AsType[net.Error](err); !is || !timeout.Timeout() {
		s.t.Errorf("from %s: %v", source, err)
	}
	return false
}

// TestLists: deny silences a source, of new connections and of those that are there; allow lets one address of it in; both
// act at once, are shown, counted, and end with --remove.
func TestLists(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	other := strings.TrimSuffix(s.Client4, ".2") + ".77"
	s.client("ip address add %s/24 dev %s", other, s.ClientIf)
	there := s.connect(s.Broker4, "there")
	prefix := strings.TrimSuffix(s.Client4, ".2") + ".0/24"
	b.must("xdp", "deny", prefix)
	if s.reaches(s.Client4, s.Broker4) || s.reaches(other, s.Broker4) {
		t.Error("a denied source is served")
	}
	if !s.reaches(s.Client6, s.Broker6) {
		t.Error("deny of an IPv4 prefix stops IPv6")
	}
	b.must("xdp", "allow", other)
	if !s.reaches(other, s.Broker4) {
		t.Error("an allowed source is not served")
	}
	if shown := b.must("xdp", "status"); !strings.Contains(shown, "deny: "+prefix) || !strings.Contains(shown, "allow: "+other+"/32") {
		t.Errorf("the lists are not shown:\n%s", shown)
	}
	denied := b.lane().verdict("dropped_denied")
	b.must("xdp", "deny", "--remove", prefix)
	there.alive()
	if !s.reaches(s.Client4, s.Broker4) || denied < 2 {
		t.Errorf("after deny --remove; %d frames were dropped", denied)
	}
}

// TestSYNLimit: of twenty connections at once, a limit of five lets five in, by source and for all; exempt sources are spared;
// all of it is counted.
func TestSYNLimit(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	attempt := func() (made int) {
		results := make(chan bool)
		for range 20 {
			go func() { results <- s.reaches(s.Client4, s.Broker4) }()
		}
		for range 20 {
			if <-results {
				made++
			}
		}
		return made
	}
	for _, which := range []struct{ flag, verdict string }{{"source", "dropped_syn_source"}, {"all", "dropped_syn_gate"}} {
		b.must("xdp", "limit", "--"+which.flag, "0.01/s", "--"+which.flag+"-burst", "5")
		if made := attempt(); made != 5 {
			t.Errorf("limit by %s: %d connections, want 5", which.flag, made)
		}
		if n := b.lane().verdict(which.verdict); n != 15 {
			t.Errorf("%d frames are %s, want 15", n, which.verdict)
		}
		b.must("xdp", "exempt", s.Client4)
		if made := attempt(); made != 20 {
			t.Errorf("exempt from limit by %s: %d connections, want 20", which.flag, made)
		}
		b.must("xdp", "exempt", "--remove", s.Client4)
	}
	b.must("xdp", "limit")
	if made := attempt(); made != 20 {
		t.Errorf("without limit: %d connections, want 20", made)
	}
	eventually(t, "all connections are closed", func() bool { return b.lane().established() == 0 })
	if shown := fmt.Sprint(b.lane().SYNLimit); strings.Contains(shown, "0.01") {
		t.Errorf("limits are still there: %s", shown)
	}
}

// TestConfiguredSources: the configuration's lists and limits hold from the start; HUP takes over what has changed in the file and
// nothing else, names the keys that need a restart, and a file that cannot be taken over changes nothing.
func TestConfiguredSources(t *testing.T) {
	s := newScene(t, 2)
	file := filepath.Join(t.TempDir(), "ringmq.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := strings.TrimSuffix(s.Client4, ".2") + ".77"
	s.client("ip address add %s/24 dev %s", other, s.ClientIf)
	write("[xdp]\ndeny = [\"" + other + "\"]\nsyn_rate = 0.01\nsyn_burst = 2\n")
	b := s.serve("-c", file)
	if s.reaches(other, s.Broker4) {
		t.Error("a source that the configuration denies is served")
	}
	for i := range 3 {
		if s.reaches(s.Client4, s.Broker4) != (i < 2) {
			t.Errorf("connection %d against a limit of two", i+1)
		}
	}
	b.must("xdp", "deny", "192.0.2.0/24")
	write("[xdp]\nallow = [\"" + other + "\"]\ndeny = [\"198.51.100.0/24\"]\nreceive_frames = 4096\n")
	b.signal(syscall.SIGHUP)
	b.await("msg=reloaded", file)
	b.await("need a restart", "keys=xdp.receive_frames")
	if !s.reaches(other, s.Broker4) || !s.reaches(s.Client4, s.Broker4) {
		t.Error("after the reload a source is still denied or limited")
	}
	want := map[string][]string{"deny": {"192.0.2.0/24", "198.51.100.0/24"}, "allow": {other + "/32"}, "exempt": {}}
	check := func() {
		t.Helper()
		if lane := b.lane(); !reflect.DeepEqual(lane.Lists, want) || strings.Contains(fmt.Sprint(lane.SYNLimit), "0.01") {
			t.Errorf("lists %v and limit %v, want %v and none", lane.Lists, lane.SYNLimit, want)
		}
	}
	check()
	many := make([]string, 20_000)
	for i := range many {
		many[i] = fmt.Sprintf("\"10.%d.%d.0/24\"", i/256, i%256)
	}
	for words, text := range map[string]string{"at most 16384": "[xdp]\nsyn_rate = 1.0\nsyn_burst = 1\ndeny = [" + strings.Join(many, ",") + "]", "syn_burst": "[xdp]\nsyn_rate = 1.0\n"} {
		write(text)
		b.signal(syscall.SIGHUP)
		b.await("not reloaded, the old configuration stays", words)
		check()
	}
}
