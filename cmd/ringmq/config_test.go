package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/netstack"
)

// TestConfiguredTCP: what the file says about TCP is what package netstack is told.
func TestConfiguredTCP(t *testing.T) {
	for text, want := range map[string]netstack.TCPConfig{
		"": {},
		"congestion_control = \"cubic\"\nmin_rto = \"1s\"\ntime_wait = \"7s\"\nclose_timeout = \"8s\"\nhandshake_timeout = \"9s\"": {CongestionControl: netstack.Cubic,
			MinRTO: time.Second, TimeWait: 7 * time.Second, CloseTimeout: 8 * time.Second, HandshakeTimeout: 9 * time.Second},
		"receive_buffer = \"128KiB\"\nsend_buffer = 32768": {ReceiveBufferBytes: 128 << 10, SendBufferBytes: 32 << 10},
		"ack_delay = \"10ms\"\nsack = false":               {AckDelay: 10 * time.Millisecond, NoSACK: true},
		"ack_delay = \"0s\"\nsack = true\nrack = true":     {AckDelay: -1, RACK: true},
	} {
		var s settings
		if err := s.read("x.toml", []byte("[xdp]\n"+text)); err != nil {
			t.Fatal(err)
		}
		if got := s.XDP.tcp(); got != want || s.check() != nil {
			t.Errorf("%s\ngives %+v, want %+v (%v)", text, got, want, s.check())
		}
	}
}

// TestBadConfigurations: each mistake is named before anything is opened, with its line where it is the file's alone.
func TestBadConfigurations(t *testing.T) {
	for text, words := range map[string]string{
		"max_sessions = 0":                          `x.toml:1: key "max_sessions": 0 is not allowed`,
		"shards = 1\n[xdp]\nreceive_frames = 0":     `x.toml:3: key "xdp.receive_frames": 0 is not allowed`,
		"[store]\nreserve = 0":                      `x.toml:2: key "store.reserve": 0 is not allowed`,
		"[xdp]\nmin_rto = \"0s\"":                   `x.toml:2: key "xdp.min_rto": 0 is not allowed`,
		"\nmemory = -1":                             `x.toml:2: key "memory": -1 is not a size`,
		"[store]\nreserve = -5":                     `x.toml:2: key "store.reserve": -5 is not a size`,
		"mode = \"auto\"\n[xdp]\nmode = \"native\"": `x.toml:3: unknown key "xdp.mode"`,
		"shards = 1\nxdp.mode = \"native\"":         `x.toml:2: unknown key "xdp.mode"`,
		"shards = 1\nxdp = { mode = \"native\" }":   `x.toml:2: unknown key "xdp.mode"`,
		"[xdp]\nsack = 1":                           "x.toml:2",
		"[xdp]\nack = \"1s\"":                       `x.toml:2: unknown key "xdp.ack"`,
		"[xdp]\nack_delay = \"1s\"":                 "acknowledgement delay of 1s: at most 40ms",
		"[xdp]\ncongestion_control = \"bbr\"":       "congestion control \"bbr\": reno or cubic",
		"[xdp]\nhandshake_timeout = \"10ms\"":       "handshake timeout of 10ms: at least 1s",
		"[xdp]\nsend_buffer = \"1KiB\"":             "TCP buffer of 1024 bytes",
		"[xdp]\nsyn_burst = 5":                      "syn_rate and syn_burst",
		"[xdp]\nlimit = \"best\"":                   "xdp-limit",
		"max_keep_alive = \"1500ms\"":               "whole number of seconds",
		"mode = \"fast\"":                           "none of auto, standard, xdp",
		"persistent_client_expiration = \"1 day\"":  "is not a duration",
	} {
		var s settings
		err := s.read("x.toml", []byte(text))
		if err == nil {
			err = s.check()
		}
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s\nis answered with %v, want %q", text, err, words)
		}
	}
}
