package netstack

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/netstack/cable"
)

func TestConfigIsChecked(t *testing.T) {
	for want, change := range map[string]func(c *Config){
		"no address to listen on":      func(c *Config) { c.Addresses = nil },
		"a port is needed":             func(c *Config) { c.Addresses = []netip.AddrPort{netip.MustParseAddrPort("198.18.0.1:0")} },
		"is there twice":               func(c *Config) { c.Addresses = append(c.Addresses, c.Addresses[0]) },
		"without zone":                 func(c *Config) { c.Addresses = []netip.AddrPort{netip.MustParseAddrPort("[fe80::1%x]:1883")} },
		"need a unicast address":       func(c *Config) { c.HostAddresses = []netip.Prefix{netip.MustParsePrefix("224.0.0.1/32")} },
		"connections: at least 1":      func(c *Config) { c.MaxConnections = -1 },
		"backlog of -1":                func(c *Config) { c.Backlog = -1 },
		"overflow of -1 bytes":         func(c *Config) { c.OverflowBytes = -1 },
		"TCP buffer of 100 bytes":      func(c *Config) { c.TCP.SendBufferBytes = 100 },
		`congestion control "bbr"`:     func(c *Config) { c.TCP.CongestionControl = "bbr" },
		"least retransmission timeout": func(c *Config) { c.TCP.MinRTO = time.Microsecond },
		"not negative":                 func(c *Config) { c.TCP.TimeWait = -1 },
	} {
		config := testConfig()
		change(&config)
		if _, err := Open(config, []Device{cable.New(cable.Config{}).Near()[0]}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
	if _, err := Open(testConfig(), nil); err == nil {
		t.Error("a group without devices opens")
	}
}

// TestTCPOptions opens with everything else than the defaults.
func TestTCPOptions(t *testing.T) {
	config := testConfig()
	config.TCP = TCPConfig{ReceiveBufferBytes: 32 << 10, SendBufferBytes: 16 << 10, CongestionControl: Cubic, MinRTO: time.Second,
		TimeWait: time.Second, CloseTimeout: time.Second, NoSACK: true, RACK: true}
	w := newWireV4(t, config)
	conn := w.connect()
	w.exchange(conn, ask(), answer())
	if n, err := conn.Write([][]byte{make([]byte, 64<<10)}); n > 16<<10 || n < 15<<10 || err != nil {
		t.Errorf("Write into a buffer of 16 KiB = %d, %v", n, err)
	}
}

// TestCountersAdd: every field is counted in the sum.
func TestCountersAdd(t *testing.T) {
	var one, sum Counters
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(uint64(i + 1))
	}
	sum.Add(one)
	if sum != one {
		t.Errorf("sum of one: %+v; want %+v", sum, one)
	}
	sum.Add(one)
	for i, s := 0, reflect.ValueOf(sum); i < s.NumField(); i++ {
		want := 2 * uint64(i+1)
		if s.Type().Field(i).Name == "OverflowHighTide" {
			want /= 2
		}
		if got := s.Field(i).Uint(); got != want {
			t.Errorf("%s of two: %d; want %d", s.Type().Field(i).Name, got, want)
		}
	}
}
