package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/credentials"
	"github.com/urfave/cli/v2"
)

// defaultPort is MQTT's.
const defaultPort = 1883

// size is a number of bytes, written as 64MiB, 1GiB, 500MB or a plain number.
type size int64

func (s *size) UnmarshalText(text []byte) error {
	v, err := parseSize(string(text))
	*s = size(v)
	return err
}

// UnmarshalTOML takes a string or an integer.
func (s *size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return fmt.Errorf("%d is not a size", v)
		}
		*s = size(v)
		return nil
	case string:
		return s.UnmarshalText([]byte(v))
	}
	return fmt.Errorf("incompatible types: TOML value has type %T; destination has type size, such as \"512MiB\"", v)
}

// parseSize reads a number of bytes.
func parseSize(text string) (int64, error) {
	units := []struct {
		name string
		n    float64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
		{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(strings.TrimSpace(text), u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(v >= 0 && v*u.n < math.MaxInt64/2) { // NaN is neither
			break
		}
		return int64(v * u.n), nil
	}
	return 0, fmt.Errorf("%q is not a size, such as 512MiB or 1GiB", text)
}

// span is a length of time, written as 90s, 10m or 12h. A plain number would have to guess its unit.
type span time.Duration

// UnmarshalTOML takes a string only.
func (s *span) UnmarshalTOML(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("incompatible types: TOML value has type %T; destination has type duration, such as \"90s\"", v)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a duration, such as \"90s\", \"10m\" or \"12h\"", text)
	}
	*s = span(d)
	return nil
}

// settings are the keys of the configuration file; flags set the same. A zero value takes the default.
type settings struct {
	Listen         []string `toml:"listen"`
	AllowAnonymous *bool    `toml:"allow_anonymous"`
	Mode           string   `toml:"mode"`
	Passwords      string   `toml:"passwords"`
	Memory         size     `toml:"memory"`
	Prefault       bool     `toml:"prefault"`
	Shards         int      `toml:"shards"`

	MaxConnections    int  `toml:"max_connections"`
	MaxSessions       int  `toml:"max_sessions"`
	MaxSubscriptions  int  `toml:"max_subscriptions"`
	MaxRetained       int  `toml:"max_retained"`
	MaxPacketSize     size `toml:"max_packet_size"`
	MaxQueuedMessages int  `toml:"max_queued_messages"`
	MaxQueuedBytes    size `toml:"max_queued_bytes"`
	MaxInflight       int  `toml:"max_inflight_messages"`
	MaxOutboundBytes  size `toml:"max_outbound_bytes"`
	ReceiveMaximum    int  `toml:"receive_maximum"`
	TopicAliasMaximum int  `toml:"topic_alias_maximum"`
	MaxTopicLevels    int  `toml:"max_topic_levels"`
	MaxFilters        int  `toml:"max_filters"`
	MaxConnectRate    int  `toml:"max_connect_rate"`

	MaxKeepAlive     span `toml:"max_keep_alive"`
	MaxSessionExpiry span `toml:"persistent_client_expiration"`
	ConnectTimeout   span `toml:"connect_timeout"`
	PacketTimeout    span `toml:"packet_timeout"`

	SharedStrategy      string `toml:"shared_strategy"`
	ServerReference     string `toml:"server_reference"`
	ResponseInformation string `toml:"response_information"`
	SysInterval         *span  `toml:"sys_interval"`
	LogLevel            string `toml:"log_level"`
	Admin               string `toml:"admin"`

	XDP   xdpSettings   `toml:"xdp"`
	Store storeSettings `toml:"store"`

	port int // -p
}

// readConfiguration reads and judges a configuration file, if there is one: what the flags do not change.
func readConfiguration(path string) (s settings, err error) {
	if path == "" {
		return s, nil
	}
	if err := s.load(path); err != nil {
		return s, err
	}
	if err := s.check(); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	if _, _, err := s.addresses(); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// load reads a configuration file strictly: an unknown key or a wrong type is an error that names file, line and key.
func (s *settings) load(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return s.read(path, text)
}

// read is load for the text of the file.
func (s *settings) read(path string, text []byte) error {
	meta, err := toml.Decode(string(text), s)
	var parse toml.ParseError
	switch {
	case errors.As(err, &parse):
		return fmt.Errorf("%s:%d: %s", path, parse.Position.Line, describe(parse))
	case err != nil:
		// Wrong types come as plain text with the position inside.
		if m := regexp.MustCompile(`^toml: line (\d+) \(last key "(.+?)"\): (.*)$`).FindStringSubmatch(err.Error()); m != nil {
			return fmt.Errorf("%s:%s: key %q: %s", path, m[1], m[2], m[3])
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("%s:%d: unknown key %q", path, lineOf(text, unknown[0]), unknown[0])
	}
	for _, key := range meta.Keys() {
		if s.zero(key.String()) {
			return fmt.Errorf("%s:%d: key %q: 0 is not allowed; leave it out for the default", path, lineOf(text, key), key)
		}
		switch {
		case key.String() == "store.data" && s.Store.Data == "":
			err = errNoDirectory
		case key.String() == "passwords" && s.Passwords == "":
			err = errNoFile
		}
		if err != nil {
			return fmt.Errorf("%s:%d: key %q: %w", path, lineOf(text, key), key, err)
		}
	}
	return nil
}

// errNoFile is errNoDirectory for a file: without it everybody who is let in anonymously may take any name.
var errNoFile = errors.New("names no file; give one, or leave it out")

// zero says whether a key that stands in the file is a number at 0, which would silently mean the default.
func (s *settings) zero(key string) bool { return zeroIn(reflect.ValueOf(*s), key) }

func zeroIn(table reflect.Value, key string) bool {
	name, rest, inTable := strings.Cut(key, ".")
	for i := range table.NumField() {
		v := table.Field(i)
		switch {
		case table.Type().Field(i).Tag.Get("toml") != name:
		case inTable:
			return v.Kind() == reflect.Struct && zeroIn(v, rest)
		default:
			return v.CanInt() && v.Int() == 0
		}
	}
	return false
}

// describe is a parse error without its own idea of the position.
func describe(e toml.ParseError) string {
	if e.LastKey == "" {
		return e.Message
	}
	return fmt.Sprintf("key %q: %s", e.LastKey, e.Message)
}

// lineOf finds the line that sets a key, or opens its table.
func lineOf(text []byte, key toml.Key) int {
	last, from := len(key)-1, 1
	if last > 0 {
		from = lineOf(text, key[:last]) // the same name may stand above the table, too
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(lines.Text(), " \t[\"'")
		if rest, ok := strings.CutPrefix(line, key[last]); n >= from && ok && strings.IndexAny(rest, " \t=].\"'") == 0 {
			return n
		}
	}
	return from
}

// fromFlags lays the flags over what the file says.
func (s *settings) fromFlags(c *cli.Context) error {
	if c.IsSet("listen") {
		s.Listen = c.StringSlice("listen")
	}
	if c.IsSet("allow-anonymous") {
		v := c.Bool("allow-anonymous")
		s.AllowAnonymous = &v
	}
	for name, to := range map[string]*string{"mode": &s.Mode, "passwords": &s.Passwords, "admin": &s.Admin,
		"data": &s.Store.Data, "durability": &s.Store.Durability} {
		if c.IsSet(name) {
			*to = c.String(name)
		}
	}
	if c.IsSet("data") && s.Store.Data == "" {
		return fmt.Errorf("--data: %w", errNoDirectory)
	}
	if c.IsSet("passwords") && s.Passwords == "" {
		return fmt.Errorf("--passwords: %w", errNoFile)
	}
	for name, to := range map[string]*int{"shards": &s.Shards, "max-connections": &s.MaxConnections, "port": &s.port} {
		if !c.IsSet(name) {
			continue
		}
		if *to = c.Int(name); *to <= 0 {
			return fmt.Errorf("--%s: %d is not a positive number", name, *to)
		}
	}
	if c.IsSet("memory") {
		v, err := parseSize(c.String("memory"))
		if err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
		if v == 0 {
			return errors.New("--memory: 0 bytes hold nothing; leave it out for the default")
		}
		s.Memory = size(v)
	}
	s.Prefault = s.Prefault || c.Bool("prefault")
	s.XDP.fromFlags(c)
	switch {
	case c.Bool("v") && c.Bool("q"):
		return errors.New("-v and -q contradict each other")
	case c.Bool("v"):
		s.LogLevel = "debug"
	case c.Bool("q"):
		s.LogLevel = "warn"
	}
	if err := s.check(); err != nil {
		return err
	}
	return s.Store.checkDirectory()
}

// check judges what neither TOML nor the limits do.
func (s *settings) check() error {
	switch s.Mode {
	case "", "auto", "standard", "xdp":
	default:
		return fmt.Errorf("mode: %q is none of auto, standard, xdp", s.Mode)
	}
	if err := s.XDP.check(); err != nil {
		return err
	}
	switch s.LogLevel {
	case "", "debug", "info", "warn":
	default:
		return fmt.Errorf("log_level: %q is none of debug, info, warn", s.LogLevel)
	}
	if s.port > 65535 {
		return fmt.Errorf("-p: %d is not a port", s.port)
	}
	if s.port != 0 && len(s.Listen) > 0 {
		return errors.New("-p is the port of the loopback listeners and means nothing beside --listen; write the port there")
	}
	for name, v := range map[string]*span{"max_keep_alive": &s.MaxKeepAlive, "persistent_client_expiration": &s.MaxSessionExpiry, "sys_interval": s.SysInterval} {
		if v != nil && time.Duration(*v)%time.Second != 0 {
			return fmt.Errorf("%s: %v is not a whole number of seconds", name, time.Duration(*v))
		}
	}
	if err := s.Store.check(); err != nil {
		return err
	}
	_, err := s.strategy()
	return err
}

func (s *settings) strategy() (broker.Strategy, error) {
	if s.SharedStrategy == "" {
		return broker.RoundRobin, nil
	}
	return broker.ParseStrategy(s.SharedStrategy)
}

// addresses are the listeners to open, and whether they are the loopback ones that serve without configuration.
func (s *settings) addresses() (list []netip.AddrPort, loopback bool, err error) {
	if len(s.Listen) == 0 {
		port := uint16(s.port)
		if port == 0 {
			port = defaultPort
		}
		return []netip.AddrPort{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port),
			netip.AddrPortFrom(netip.IPv6Loopback(), port),
		}, true, nil
	}
	for _, text := range s.Listen {
		a, err := parseListen(text)
		if err != nil {
			return nil, false, err
		}
		list = append(list, a...)
	}
	return list, false, nil
}

// parseListen reads ADDR:PORT, ADDR, or :PORT for every address of the machine.
func parseListen(text string) ([]netip.AddrPort, error) {
	if port, ok := strings.CutPrefix(text, ":"); ok && !strings.Contains(port, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err == nil {
			return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))}, nil
		}
	}
	if a, err := netip.ParseAddrPort(strings.Replace(text, "localhost:", "127.0.0.1:", 1)); err == nil {
		return []netip.AddrPort{a}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, defaultPort)}, nil
	}
	return nil, fmt.Errorf("--listen: %q is not ADDR:PORT, such as 192.0.2.1:1883, [::]:1883 or :1883", text)
}

// limits are the broker's limits with what the file and the flags say; descriptors is what the process may open.
func (s *settings) limits(ram int64, descriptors int, users *credentials.File, d dataPlane) (broker.Limits, error) {
	l := broker.Limits{
		ProgramBytes: programBytes,
		Memory:       int64(s.Memory), Shards: s.Shards, MaxConnections: s.MaxConnections, MaxSessions: s.MaxSessions,
		MaxSubscriptions: s.MaxSubscriptions, MaxRetained: s.MaxRetained, MaxPacketSize: int(s.MaxPacketSize),
		MaxQueuedMessages: s.MaxQueuedMessages, MaxQueuedBytes: int64(s.MaxQueuedBytes), MaxInflight: s.MaxInflight,
		MaxOutboundBytes: int(s.MaxOutboundBytes), ReceiveMaximum: s.ReceiveMaximum, TopicAliasMaximum: s.TopicAliasMaximum,
		MaxTopicLevels: s.MaxTopicLevels, MaxFilters: s.MaxFilters, MaxConnectRate: s.MaxConnectRate,
		MaxKeepAlive: time.Duration(s.MaxKeepAlive), MaxSessionExpiry: time.Duration(s.MaxSessionExpiry),
		ConnectTimeout: time.Duration(s.ConnectTimeout), PacketTimeout: time.Duration(s.PacketTimeout), Descriptors: descriptors,
	}
	if users != nil {
		l.AuthBytes = authBytes(users)
	}
	if l.Memory == 0 {
		l.Memory = broker.DefaultMemory(ram)
	}
	if s.Store.Data != "" {
		l.StoreBytes, l.StoreOutsideBytes = s.Store.config(l.Memory).MemoryBytes()
	}
	if err := s.applyDataPlane(&l, d); err != nil {
		return l, err
	}
	return l.Resolve()
}

// programBytes is what of this program is resident before anybody connects: half of it are pages of its file, for the store, the
// planes and the tools are all in it.
const programBytes = 24 << 20
