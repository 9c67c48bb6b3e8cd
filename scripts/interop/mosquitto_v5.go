package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func (h *theatre) wait(d time.Duration) {
	h.try("wait", func() error {
		select {
		case <-time.After(d):
			return nil
		case <-h.ctx.Done():
			return h.ctx.Err()
		}
	})
}

// properties has no zero byte in its Correlation Data: an argument of a program cannot.
func (h *theatre) properties() {
	s := h.subscribe("subscriber", "%C|%D|%E|%F|%R|%P|%S|%p", "-q", "1", "-t", h.name("t"), "-D", "subscribe", "subscription-identifier", "268435455")
	arguments := []string{"-q", "1", "-t", h.name("t"), "-m", "ü"}
	for _, property := range [][]string{{"content-type", "text/plain; charset=utf-8"}, {"correlation-data", "\xff\x01\x80"},
		{"message-expiry-interval", "100"}, {"payload-format-indicator", "1"}, {"response-topic", h.name("answers/ü")},
		{"user-property", "b", "1"}, {"user-property", "a", "2"}, {"user-property", "b", "3"}, {"user-property", "b", "1"},
		{"user-property", "ü", "ß"}} {
		arguments = append(append(arguments, "-D", "publish"), property...)
	}
	h.publish("", arguments...)
	got := s.next()
	h.try("receive", func() error {
		return differ("the message", strings.Replace(got, "|99|", "|100|", 1), // A second may have passed.
			"text/plain; charset=utf-8|\xff\x01\x80|100|1|"+h.name("answers/ü")+"|b:1 a:2 b:3 b:1 ü:ß|268435455|ü")
	})
}

func (h *theatre) expiry() {
	for topic, seconds := range map[string]string{"long": "100", "brief": "1"} {
		h.publish("", "-q", "1", "-r", "-t", h.name(topic), "-m", topic, "-D", "publish", "message-expiry-interval", seconds)
	}
	h.wait(2500 * time.Millisecond)
	s := h.subscribe("subscriber", "%E %p", "-q", "1", "-t", h.name("#"))
	got := s.next()
	h.try("receive", func() error {
		left, payload, _ := strings.Cut(got, " ")
		if seconds, err := strconv.Atoi(left); err != nil || seconds > 98 || seconds < 60 || payload != "long" {
			return fmt.Errorf("the Message Expiry Interval of 100 and the payload long are %q after more than 2 s", got)
		}
		return nil
	})
	s.silent()
	h.publish("", "-q", "1", "-r", "-t", h.name("long"), "-n")
}

// request asks with mosquitto_rr; a mosquitto_sub and mosquitto_pub answer.
func (h *theatre) request() {
	const n = 20
	responder := h.subscribe("responder", "%R|%D|%p", "-q", "1", "-t", h.name("requests"))
	answers := make(chan error, n)
	for i := range n {
		go func() { answers <- h.ask(h.ctx, i) }()
	}
	for range n {
		parts := strings.Split(responder.next(), "|")
		h.try("respond", func() error { return differ("the number of parts in a request", len(parts), 3) })
		if h.err == nil {
			h.publish("", "-q", "1", "-t", parts[0], "-m", "answer to "+parts[2], "-D", "publish", "correlation-data", parts[1])
		}
	}
	for range n {
		h.try("mosquitto_rr", func() error { return <-answers })
	}
}

// ask runs one mosquitto_rr to its end.
func (h *theatre) ask(ctx context.Context, i int) error {
	rr := exec.CommandContext(ctx, "mosquitto_rr", append(h.arguments(), "-W", strconv.Itoa(int(h.Seconds)), "-q", "1", "-t", h.name("requests"),
		"-e", h.name(fmt.Sprint("answers/", i)), "-m", strconv.Itoa(i), "-D", "publish", "correlation-data", fmt.Sprint("number ", i))...)
	var out bytes.Buffer
	rr.Stdout = &out
	if err := rr.Run(); err != nil {
		return err
	}
	return differ("the answer", out.String(), fmt.Sprintf("answer to %d\n", i))
}

func (h *theatre) sessionExpiry() {
	brief := []string{"-c", "-x", "4", "-q", "1"}
	h.subscribe("sleeper", basic, append(slices.Clone(brief), "-t", h.name("t"), "-E")...).ended()
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "soon")
	s := h.subscribe("sleeper", basic, append(slices.Clone(brief), "-t", h.name("none"))...)
	s.wants(message{topic: h.name("t"), payload: "soon", qos: 1})
	s.kill()
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "late")
	h.wait(7 * time.Second)
	h.subscribe("sleeper", basic, append(brief, "-t", h.name("none"))...).silent()
}

func (h *theatre) willDelay() {
	kept := append(h.willArguments("-D", "will", "will-delay-interval", "4"), h.keepSession()...)
	watcher := h.subscribe("watcher", basic, "-q", "1", "-t", h.name("will"), "-t", h.name("marker"))
	h.subscribe("dying", basic, kept...).kill()
	back := h.subscribe("dying", basic, kept...)
	h.wait(6 * time.Second)
	watcher.silent()
	back.kill()
	h.publish("", "-q", "1", "-t", h.name("marker"), "-m", "before the will")
	watcher.wants(message{topic: h.name("marker"), payload: "before the will", qos: 1})
	watcher.wants(h.goneMessage())
	h.forgetSession("dying")
}

// willDisconnect: mosquitto_sub says DISCONNECT with 0x04 when it gets TERM.
func (h *theatre) willDisconnect() {
	watcher := h.subscribe("watcher", basic, "-q", "1", "-t", h.name("will"))
	dying := h.subscribe("dying", basic, h.willArguments()...)
	h.try("terminate", func() error { return dying.process.Process.Signal(syscall.SIGTERM) })
	dying.await("sending DISCONNECT")
	dying.ended()
	watcher.wants(h.goneMessage())
	watcher.silent()
}

// aliasOut: mosquitto_pub -l names the topic in the first PUBLISH only.
func (h *theatre) aliasOut() {
	const n = 20
	s := h.subscribe("subscriber", basic, "-q", "1", "-t", h.name("t"))
	h.publish(lines(n), "-q", "1", "-t", h.name("t"), "-l", "-D", "publish", "topic-alias", "4")
	for _, m := range numbers(h.name("t"), 1, n) {
		s.wants(m)
	}
	s.silent()
}

// receiveMaximum counts in mosquitto_sub's talk what it has been given and has not completed. The messages wait for it: those that
// the broker sends first come ahead of any answer to them, however fast each side is.
func (h *theatre) receiveMaximum() {
	const n, most = 100, 3
	kept := append(h.keepSession(), "-q", "2", "-t", h.name("t"))
	h.subscribe("subscriber", basic, append(slices.Clone(kept), "-E")...).ended()
	h.publish(lines(n), "-q", "2", "-t", h.name("t"), "-l")
	s := h.subscribe("subscriber", basic, append(kept, "-D", "connect", "receive-maximum", strconv.Itoa(most))...)
	for _, m := range numbers(h.name("t"), 2, n) {
		s.wants(m)
	}
	s.silent()
	h.try("receive", func() error {
		open, top := 0, 0
		received, completed := regexp.MustCompile(`received PUBLISH \(d0`), regexp.MustCompile(`sending PUBCOMP`)
		for _, line := range s.seen {
			switch {
			case received.MatchString(line):
				open++
			case completed.MatchString(line):
				open--
			}
			top = max(top, open)
		}
		return differ("the most messages in flight", top, most)
	})
	s.kill()
	h.forgetSession("subscriber")
}

func (h *theatre) sendQuota() {
	const n = 300
	s := h.subscribe("subscriber", basic, "-q", "2", "-t", h.name("t"))
	for qos := byte(1); qos <= 2; qos++ {
		h.publish(lines(n), "-q", strconv.Itoa(int(qos)), "-t", h.name("t"), "-l")
		for _, m := range numbers(h.name("t"), qos, n) {
			s.wants(m)
		}
	}
	s.silent()
}
