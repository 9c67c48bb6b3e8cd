package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker/topic"
	"github.com/ringmq/ringmq/cmd/client"
)

const (
	defaultTLSPort        = 8883
	defaultConnectTimeout = 10 * time.Second
	// forEver is the Session Expiry Interval of a Session that does not expire.
	forEver = math.MaxUint32
)

// config makes a client's configuration of the flags. role becomes part of a Client Identifier that nobody has chosen.
func (o *clientFlags) config(role string, p commandProperties) (client.Config, error) {
	cfg := client.Config{KeepAlive: time.Duration(o.keepAlive) * time.Second, Timeout: time.Duration(o.connectTimeout), Properties: *p["connect"]}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultConnectTimeout
	}
	if o.keepAlive < 0 || o.keepAlive > 65535 {
		return cfg, fmt.Errorf("-k %d: want 0 to 65535 seconds", o.keepAlive)
	}
	for _, step := range []func(*client.Config) error{o.setVersion, o.setURL, o.setEndpoint, o.setCredentials,
		func(cfg *client.Config) error { return o.setSession(cfg, role) },
		func(cfg *client.Config) error { return o.setWill(cfg, *p["will"]) }} {
		if err := step(&cfg); err != nil {
			return cfg, err
		}
	}
	if o.debug {
		cfg.Debug = func(format string, arguments ...any) { fmt.Fprintf(os.Stderr, "ringmq: "+format+"\n", arguments...) }
	}
	return cfg, nil
}

func (o *clientFlags) setVersion(cfg *client.Config) error {
	switch strings.TrimPrefix(strings.ToLower(o.version), "mqttv") {
	case "5", "5.0":
		cfg.Version = client.V5
	case "311", "3.1.1":
		cfg.Version = client.V311
	case "31", "3.1":
		return errors.New("-V 31: MQTT 3.1 is not offered: -V 5 and -V 311 are")
	default:
		return fmt.Errorf("-V %q: want 5 or 311", o.version)
	}
	if cfg.Version == client.V311 {
		return o.onlyV5()
	}
	return nil
}

// onlyV5 refuses for 3.1.1 what only 5.0 can carry.
func (o *clientFlags) onlyV5() error {
	for _, name := range []string{"property", "session-expiry-interval", "response-topic", "reply", "no-local", "retain-as-published", "retain-handling"} {
		if o.given[name] {
			return fmt.Errorf("%s needs MQTT 5.0: use -V 5, or leave it out", flagName(name))
		}
	}
	return nil
}

// flagName is how a user of mosquitto_pub knows a flag.
func flagName(name string) string {
	short := map[string]string{"property": "-D", "session-expiry-interval": "-x", "response-topic": "-e"}[name]
	if short == "" {
		return "--" + name
	}
	return short
}

// setURL takes -L apart into the other flags.
func (o *clientFlags) setURL(*client.Config) error {
	if !o.given["url"] {
		return nil
	}
	for _, name := range []string{"host", "port", "username", "unix"} {
		if o.given[name] {
			return fmt.Errorf("-L has host, port and user in it: leave --%s out", name)
		}
	}
	// The topic is cut off first: # and ? mean something else in a URL.
	scheme, rest, _ := strings.Cut(o.url, "://")
	authority, path, _ := strings.Cut(rest, "/")
	u, err := url.Parse(scheme + "://" + authority)
	var wrong *url.Error
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("-L: %w: want mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]", wrong.Err)
	case u.Scheme != "mqtt" && u.Scheme != "mqtts":
		return fmt.Errorf("-L: scheme %q: want mqtt:// or mqtts://", u.Scheme)
	case u.Hostname() == "":
		return errors.New("-L: there is no host: want mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]")
	}
	o.host = u.Hostname()
	if port := u.Port(); port != "" {
		if o.port, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("-L: port %q: want a number", port)
		}
		o.given["port"] = true
	}
	if u.User != nil {
		o.username = u.User.Username()
		if password, has := u.User.Password(); has {
			o.password = password
		}
	}
	if u.Scheme == "mqtts" {
		o.osCertificates = o.osCertificates || o.cafile == "" && o.capath == "" && !o.insecure
		o.given["mqtts"] = true
	}
	if path != "" {
		o.topics = append(list{path}, o.topics...)
	}
	return nil
}

func (o *clientFlags) setEndpoint(cfg *client.Config) error {
	secure := o.wantsTLS()
	port := o.port
	switch {
	case o.given["port"] && (port < 1 || port > 65535):
		return fmt.Errorf("-p %d: want 1 to 65535", port)
	case o.given["port"]:
	case secure:
		port = defaultTLSPort
	default:
		port = defaultPort
	}
	host := strings.TrimSuffix(strings.TrimPrefix(o.host, "["), "]")
	cfg.Endpoint = client.Endpoint{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(port)), LocalHost: o.bind}
	if o.given["unix"] {
		for _, name := range []string{"host", "port", "bind"} {
			if o.given[name] {
				return fmt.Errorf("--unix is a connection without --%s: leave one out", name)
			}
		}
		cfg.Endpoint = client.Endpoint{Network: "unix", Address: o.unix}
	}
	if host == "" {
		return errors.New("-h: want a name or an address")
	}
	if !secure {
		return nil
	}
	var err error
	cfg.Endpoint.TLS, err = o.tlsConfig(host)
	return err
}

// setCredentials takes the password from the first of flag, file and environment.
func (o *clientFlags) setCredentials(cfg *client.Config) error {
	if o.given["pw"] && o.given["password-file"] {
		return errors.New("-P and --password-file both give a password: leave one out")
	}
	if o.given["password-file"] {
		text, err := os.ReadFile(o.passwordFile)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		o.password, _, _ = strings.Cut(string(text), "\n")
		o.password = strings.TrimSuffix(o.password, "\r")
	}
	cfg.Username = o.username
	if o.password != "" || o.given["pw"] || o.given["password-file"] {
		cfg.Password = []byte(o.password)
	}
	if cfg.Password != nil && cfg.Username == "" {
		if !o.given["pw"] && !o.given["password-file"] && o.url == "" {
			cfg.Password = nil // The variable is for whoever gives a user.
		} else if cfg.Version == client.V311 {
			return errors.New("-P: MQTT 3.1.1 takes a password only with a user name: add -u, or use -V 5")
		}
	}
	if err := checkLength(o.password); err != nil {
		return fmt.Errorf("-P: %w", err)
	}
	if err := checkTexts(o.username); err != nil {
		return fmt.Errorf("-u: %w", err)
	}
	return nil
}

func (o *clientFlags) setSession(cfg *client.Config, role string) error {
	if o.given["id"] && o.given["id-prefix"] {
		return errors.New("-i and -I both give a Client Identifier: leave one out")
	}
	cfg.CleanStart = !o.keepSession
	cfg.ClientID = o.id
	switch {
	case o.given["id-prefix"]:
		cfg.ClientID = fmt.Sprintf("%s%d", o.idPrefix, os.Getpid())
	case o.keepSession && o.id == "":
		return errors.New("-c takes up the Session of a Client Identifier: add -i")
	case o.id == "":
		cfg.ClientID = "ringmq" + role + randomHex()
	}
	if err := checkTexts(cfg.ClientID); err != nil {
		return fmt.Errorf("-i: %w", err)
	}
	return o.setExpiry(cfg)
}

func (o *clientFlags) setExpiry(cfg *client.Config) error {
	interval := uint32(0)
	if o.keepSession {
		interval = forEver
	}
	if o.given["session-expiry-interval"] {
		switch n, err := strconv.ParseInt(o.sessionExpiry, 10, 64); {
		case o.sessionExpiry == "∞" || err == nil && n == -1:
			interval = forEver
		case err != nil || n < 0 || n > forEver:
			return fmt.Errorf("-x %q: want 0 to %d seconds, or -1 for ever", o.sessionExpiry, uint32(forEver-1))
		default:
			interval = uint32(n)
		}
		if cfg.Properties.SessionExpiry != nil {
			return errors.New("-x and -D connect session-expiry-interval say the same: leave one out")
		}
	}
	if cfg.Properties.SessionExpiry == nil && interval != 0 {
		cfg.Properties.SessionExpiry = &interval
	}
	return nil
}

// randomHex makes a Client Identifier unique in the 14 characters that a role of three leaves of the 23 that every broker must take.
func randomHex() string {
	var b [7]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

func (o *clientFlags) setWill(cfg *client.Config, p client.Properties) error {
	if !o.given["will-topic"] {
		for _, name := range []string{"will-payload", "will-qos", "will-retain"} {
			if o.given[name] {
				return fmt.Errorf("--%s: there is no Will without --will-topic", name)
			}
		}
		for _, joined := range o.properties {
			if strings.HasPrefix(strings.ToLower(joined), "will"+propertySeparator) {
				return errors.New("-D will: there is no Will without --will-topic")
			}
		}
		return nil
	}
	if err := checkTopicName(o.willTopic); err != nil {
		return fmt.Errorf("--will-topic: %w", err)
	}
	if err := checkQoS("--will-qos", o.willQoS); err != nil {
		return err
	}
	if err := checkLength(o.willPayload); err != nil {
		return fmt.Errorf("--will-payload: %w", err)
	}
	cfg.Will = &client.Message{Topic: o.willTopic, Payload: []byte(o.willPayload), QoS: byte(o.willQoS), Retain: o.willRetain, Properties: p}
	return nil
}

func checkQoS(flag string, qos int) error {
	if qos < 0 || qos > 2 {
		return fmt.Errorf("%s %d: want 0, 1 or 2", flag, qos)
	}
	return nil
}

func checkTopicName(name string) error {
	switch {
	case topic.ValidName([]byte(name)):
		return nil
	case name == "":
		return errors.New("the topic is empty")
	case strings.ContainsAny(name, "+#"):
		return fmt.Errorf("topic %q: messages go to one topic: + and # are for subscriptions", name)
	}
	return fmt.Errorf("topic %q: want 1 to %d bytes of UTF-8 without NUL", name, textMaxBytes)
}

func checkTopicFilter(filter string) error {
	if _, _, _, ok := topic.ParseShared(filter); ok {
		return nil
	}
	if filter == "" {
		return errors.New("the topic is empty")
	}
	return fmt.Errorf("topic %q: + and # stand alone between slashes, # at the end; a shared one is $share/GROUP/FILTER", filter)
}
