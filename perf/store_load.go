package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

const (
	// storeClients is how many connections work at a time.
	storeClients = 100
	storeWindow  = 64 // messages under way for each publisher
	// storePatience is how long a client waits for what must come.
	storePatience = 30 * time.Second
)

// allocated is what a file takes on its disk.
func allocated(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}

// each has storeClients workers do something for every Session.
func (r *storeRun) each(do func(session int) error) error {
	var work sync.WaitGroup
	errs := make([]error, storeClients)
	for w := range storeClients {
		work.Go(func() {
			for i := w; i < r.sessions && errs[w] == nil; i += storeClients {
				errs[w] = do(i)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

func sessionID(i int) string { return fmt.Sprintf("away%06d", i) }

// makeSessions makes Sessions with a subscription each.
func (r *storeRun) makeSessions() error {
	return r.each(func(i int) error {
		c, err := dialMQTT(r.address(), sessionID(i), false)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(storePatience))
		topic := []packet.Subscription{{Filter: fmt.Appendf(nil, "s/%d", i), Options: packet.Options{QoS: 1}}}
		if _, err := c.Write(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, topic, packet.V311)); err != nil {
			return err
		}
		kind, _, err := readPacket(bufio.NewReader(c))
		if err == nil && kind != packet.SUBACK {
			err = fmt.Errorf("%v instead of SUBACK", kind)
		}
		return err
	})
}

// queue publishes messages for the Sessions in turn and returns when all are acknowledged.
func (r *storeRun) queue(messages int) error {
	var work sync.WaitGroup
	errs := make([]error, storeClients)
	for w := range storeClients {
		work.Go(func() {
			n := messages / storeClients
			if w < messages%storeClients {
				n++
			}
			errs[w] = r.publish(w, n)
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// publish publishes n messages, for every storeClients-th Session.
func (r *storeRun) publish(w, n int) error {
	c, err := dialMQTT(r.address(), fmt.Sprint("publisher", w), true)
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	payload, session := make([]byte, r.payload), w
	random := rand.NewChaCha8([32]byte{byte(w)}) // what sensors send compresses better
	var out []byte
	for sent, acked := 0, 0; acked < n; {
		for ; sent < n && sent-acked < storeWindow; sent++ {
			topic := fmt.Appendf(nil, "s/%d", session)
			_, _ = random.Read(payload)
			h := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: topic, PacketID: uint16(sent%65535) + 1, PayloadSize: len(payload)}
			out = packet.AppendPublish(out, &h, payload, packet.V311)
			if session += storeClients; session >= r.sessions {
				session = w
			}
		}
		_ = c.SetDeadline(time.Now().Add(storePatience))
		if _, err := c.Write(out); err != nil {
			return err
		}
		out = out[:0]
		for once := true; once || in.Buffered() > 0; once = false {
			kind, _, err := readPacket(in)
			if err != nil {
				return err
			}
			if kind == packet.PUBACK {
				acked++
			}
		}
	}
	return nil
}

// deliver has every client come, take all there is for it, and go.
func (r *storeRun) deliver() error {
	return r.each(func(i int) error {
		expected := r.messages / r.sessions // the last Sessions may have one more
		c, err := dialMQTT(r.address(), sessionID(i), false)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := take(c, expected); err != nil {
			return fmt.Errorf("%s: %w", sessionID(i), err)
		}
		return nil
	})
}

// take acknowledges what comes, at least n messages and what follows them closely.
func take(c net.Conn, n int) error {
	in := bufio.NewReaderSize(c, 64<<10)
	var out []byte
	var p packet.Publish
	for got := 0; ; {
		patience := storePatience
		if got >= n {
			patience = 100 * time.Millisecond
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		kind, body, err := readPacket(in)
		if err != nil {
			if got >= n {
				return nil
			}
			return fmt.Errorf("%d of %d messages came: %w", got, n, err)
		}
		if kind != packet.PUBLISH || p.DecodeFromServer(2, body, packet.V311) != packet.Success {
			continue
		}
		got++
		out = packet.AppendAck(out, packet.PUBACK, p.PacketID, packet.Success, packet.V311)
		if in.Buffered() == 0 {
			if _, err := c.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
}

// expire has every client come and go once more, with a Session Expiry Interval of a second.
func (r *storeRun) expire() error {
	return r.each(func(i int) error {
		c, err := net.DialTimeout("tcp", r.address().String(), storePatience)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(storePatience))
		p := packet.Connect{Version: packet.V50, ClientID: []byte(sessionID(i)), SessionExpiry: 1}
		if _, err := c.Write(packet.AppendConnect(nil, &p)); err != nil {
			return err
		}
		kind, _, err := readPacket(bufio.NewReader(c))
		if err == nil && kind != packet.CONNACK {
			err = fmt.Errorf("%v instead of CONNACK", kind)
		}
		return err
	})
}
