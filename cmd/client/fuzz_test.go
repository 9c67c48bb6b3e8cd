package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// FuzzHostileBroker has a client of either version meet a broker that says anything: instead of CONNACK, or while a SUBSCRIBE and
// messages of QoS 1 and 2 wait for their answers. Nothing may panic; when the broker has hung up, all that waits ends with the reason.
func FuzzHostileBroker(f *testing.F) {
	for _, honest := range []bool{false, true} {
		f.Add(true, honest, []byte{0x20, 3, 0, 0, 0, 0x90, 5, 0, 1, 0, 0, 1, 0x40, 2, 0, 2, 0x50, 2, 0, 3, 0x70, 2, 0, 3})
		f.Add(false, honest, []byte{0x20, 2, 1, 0, 0x90, 4, 0, 1, 0, 0x80, 0x40, 2, 0, 2, 0x50, 2, 0, 3, 0x70, 2, 0, 3})
	}
	f.Add(true, true, []byte{0x90, 6, 0, 1, 0, 0, 0x8f, 1, 0x50, 3, 0, 3, 0x97, 0x32, 10, 0, 1, 'a', 0, 7, 3, 0x23, 0, 1, 'x', 0x34, 9, 0, 0, 0, 8, 3, 0x23, 0, 1, 'y', 0x62, 2, 0, 8})
	f.Add(true, true, []byte{0xe0, 7, 0x8e, 5, 0x1f, 0, 2, 'n', 'o'})
	f.Add(true, false, []byte{0x20, 11, 0, 0, 8, 0x21, 0, 0, 0x27, 0, 0, 0, 0})
	f.Add(true, false, []byte{0xf0, 2, 0x18, 0})
	f.Add(false, false, []byte{0x20, 2, 0, 5})
	f.Add(false, true, []byte{0x34, 5, 0, 1, 'a', 0, 8, 0x62, 2, 0, 8, 0xd0, 0, 0xb0, 2, 0, 9, 0x30, 0xff, 0xff, 0xff, 0x7f})
	f.Add(false, true, []byte{0x90, 5, 0, 1, 0, 0, 0})
	f.Add(false, true, []byte{0x37, 5, 0, 1, 'a', 0, 8})
	f.Add(true, true, []byte{0x37, 6, 0, 1, 'a', 0, 8, 0})
	f.Fuzz(func(t *testing.T, five, honest bool, script []byte) {
		version := V311
		if five {
			version = V5
		}
		if !announces(script) {
			meet(t, version, honest, script)
		}
	})
}

// announces says that a packet of more than 1 MiB is announced: both libraries take the memory for it at once.
func announces(script []byte) bool {
	for len(script) > 0 {
		h, reason := packet.ParseHeader(script)
		if reason != packet.Success || h.Size == 0 {
			return len(script) >= 5 && script[1]&script[2]&script[3]&0x80 != 0
		}
		if h.Remaining > 1<<20 {
			return true
		}
		script = script[min(len(script), h.Size+h.Remaining):]
	}
	return false
}

// meet plays one connection to its end.
func meet(t *testing.T, version Version, honest bool, script []byte) {
	ours, theirs := net.Pipe()
	played := make(chan struct{})
	go func() {
		defer close(played)
		p := &peer{theirs, bufio.NewReader(theirs), packet.Version(version)}
		if honest {
			p.connack()
			for range 3 { // SUBSCRIBE and two PUBLISH.
				p.next()
			}
		} else {
			p.next()
		}
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		p.send(script)
		_ = theirs.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cfg := Config{Version: version, ClientID: "test", CleanStart: true, Timeout: patience, MaxInflight: 10}
	dial := dialV311
	if version == V5 {
		dial = dialV5
	}
	c, err := dial(ctx, cfg, ours)
	if err == nil {
		converse(ctx, t, c, honest)
	}
	_ = ours.Close()
	<-played
	if ctx.Err() != nil || err == nil && c.Err() == nil {
		t.Error("the connection has not ended with the broker's end")
	}
	if timeout := new(timedOut); errors.As(err, &timeout) {
		t.Error(err)
	}
}

// converse takes what comes until the end, and asks for something meanwhile if there is an honest answer to CONNECT.
func converse(ctx context.Context, t *testing.T, c Client, asks bool) {
	asked := make(chan struct{})
	if asks {
		go func() {
			defer close(asked)
			subscriptions := []Subscription{{Filter: "a"}, {Filter: "b/#", QoS: 2}}
			codes, err := c.Subscribe(ctx, subscriptions, Properties{})
			if err == nil && len(codes) != len(subscriptions) {
				t.Errorf("two subscriptions have %d answers", len(codes))
			}
		}()
		for qos := range byte(2) {
			_ = c.Publish(ctx, &Message{Topic: "a", QoS: 1 + qos, Payload: []byte("x")}) // The broker may hang up before it returns.
		}
		_ = c.Flush()
	} else {
		close(asked)
	}
	for ended := false; !ended; {
		select {
		case m := <-c.Messages():
			take(t, m)
		case <-c.Done():
			ended = true
		case <-ctx.Done():
			ended = true
		}
	}
	for len(c.Messages()) > 0 {
		take(t, <-c.Messages())
	}
	<-asked
	_ = c.Drain(ctx)
	if p := c.Progress(); p.Acknowledged+p.Refused > 2 || p.Refused > 0 && p.FirstRefused == 0 {
		t.Errorf("%+v", p)
	}
	c.Close(Properties{}, 0)
}

func take(t *testing.T, m *Message) {
	if m.QoS > 2 {
		t.Errorf("%+v was handed on", m)
	}
	m.Handled()
}
