package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mosquittoScenes are the scenes of mosquitto_pub, mosquitto_sub and mosquitto_rr.
func mosquittoScenes() inProcess {
	scenes := inProcess{
		"receive":   mosquittoReceive,
		"options":   cannot("mosquitto_sub 2.0 has no options for No Local and Retain Handling"),
		"reconnect": cannot("the programs' sockets cannot be cut from outside"),
		"alias-in":  cannot("libmosquitto 2.0 takes no Topic Aliases from a broker"),
	}
	for name, play := range map[string]func(*theatre){
		"qos0": func(h *theatre) { h.inOrder("0") },
		"qos1": func(h *theatre) { h.inOrder("1") },
		"qos2": func(h *theatre) { h.inOrder("2") },

		"large": (*theatre).large, "unicode": (*theatre).unicode, "wildcards": (*theatre).wildcards, "unsubscribe": (*theatre).unsubscribe,
		"retained": (*theatre).retained, "shared": (*theatre).shared, "session": (*theatre).session, "will": (*theatre).will,
		"takeover": (*theatre).takeover, "keepalive": (*theatre).keepAlive, "close": (*theatre).close, "properties": (*theatre).properties,
		"expiry": (*theatre).expiry, "request": (*theatre).request, "session-expiry": (*theatre).sessionExpiry, "will-delay": (*theatre).willDelay,
		"will-disconnect": (*theatre).willDisconnect, "alias-out": (*theatre).aliasOut, "receive-maximum": (*theatre).receiveMaximum,
		"send-quota": (*theatre).sendQuota, "keep": (*theatre).keepForAll, "forget": (*theatre).forgetForAll, "send": (*theatre).send,
	} {
		scenes[name] = alone(func(ctx context.Context, t task) error {
			h := &theatre{task: t, ctx: ctx}
			play(h)
			return h.end()
		})
	}
	return scenes
}

// cannot is a scene that the client has no means for.
func cannot(why string) func(context.Context, task, func()) error {
	return func(context.Context, task, func()) error { return impossible(why) }
}

// lines are the numbers below n, one a line, as mosquitto_pub -l takes them.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func (h *theatre) inOrder(qos string) {
	const n = 500
	s := h.subscribe("subscriber", basic, "-q", qos, "-t", h.name("t"))
	h.publish(lines(n), "-q", qos, "-t", h.name("t"), "-l")
	for _, m := range numbers(h.name("t"), qos[0]-'0', n) {
		s.wants(m)
	}
	s.silent()
}

func (h *theatre) large() {
	s := h.subscribe("subscriber", basic, "-q", "2", "-t", h.name("t"))
	for qos := range byte(3) {
		noise := make([]byte, largeBytes)
		rand.Read(noise)
		h.publish(string(noise), "-q", strconv.Itoa(int(qos)), "-t", h.name("t"), "-s")
		got := s.basicNext()
		h.try("receive", func() error { return differ("the payload", got.payload == string(noise), true) })
	}
}

func (h *theatre) unicode() {
	s := h.subscribe("subscriber-ß-東京", basic, "-q", "1", "-t", h.name("#"))
	say := func(topic, payload string) {
		m := message{topic: h.name(topic), payload: payload, qos: 1}
		if payload == "" {
			h.publish("", "-q", "1", "-t", m.topic, "-n")
		} else {
			h.publish(payload, "-q", "1", "-t", m.topic, "-s")
		}
		s.wants(m)
	}
	for _, topic := range []string{"ü/ß", "東京/温度", "Ελλάδα", "😀/🌡", "with space", "e\u0301", "\u200d"} {
		say(topic, topic)
	}
	for _, payload := range []string{"", "\x00", "a\x00b\x00", "\xff\xfe\x80", "日本", "\r\n"} {
		say("payloads", payload)
	}
}

func (h *theatre) wildcards() {
	subscribers := map[string]*subscriber{}
	for filter := range wildcardFilters() {
		subscribers[filter] = h.subscribe("sub "+filter, basic, "-q", "1", "-t", h.name(filter), "-t", h.name("end of all"))
	}
	for i, topic := range append(wildcardTopics(), "end of all") {
		h.publish("", "-q", "1", "-t", h.name(topic), "-m", strconv.Itoa(i))
	}
	for filter, want := range wildcardFilters() {
		var got []int
		for h.err == nil {
			m := subscribers[filter].basicNext()
			if m.topic == h.name("end of all") {
				break
			}
			i, _ := strconv.Atoi(m.payload)
			got = append(got, i)
		}
		slices.Sort(got)
		h.try("match", func() error { return differ("what matches "+filter, fmt.Sprint(got), fmt.Sprint(want)) })
	}
	first := h.subscribe("first level", basic, "-t", "+/"+h.name("t"))
	h.publish("", "-t", "$dollar/"+h.name("t"), "-m", "not for +")
	h.publish("", "-t", "plain/"+h.name("t"), "-m", "for +")
	first.wants(message{topic: "plain/" + h.name("t"), payload: "for +"})
	first.silent()
}

// keepSession are the arguments of a Session that outlives its connection.
func (h *theatre) keepSession() []string {
	if h.Version == v5 {
		return []string{"-c", "-x", strconv.Itoa(sessionSeconds)}
	}
	return []string{"-c"}
}

// forgetSession ends the Session of a kept subscriber.
func (h *theatre) forgetSession(id string) {
	h.subscribe(id, basic, "-t", h.name("none"), "-E").ended()
}

func (h *theatre) unsubscribe() {
	kept := append(h.keepSession(), "-q", "1", "-t", h.name("b"))
	h.subscribe("subscriber", basic, append(slices.Clone(kept), "-t", h.name("a"), "-E")...).ended()
	s := h.subscribe("subscriber", basic, append(kept, "-U", h.name("a"))...)
	if !slices.ContainsFunc(s.seen, func(line string) bool { return strings.Contains(line, "received UNSUBACK") }) {
		s.await("received UNSUBACK")
	}
	h.publish("", "-q", "1", "-t", h.name("a"), "-m", "1")
	h.publish("", "-q", "1", "-t", h.name("b"), "-m", "2")
	s.wants(message{topic: h.name("b"), payload: "2", qos: 1})
	s.silent()
	s.kill()
	h.forgetSession("subscriber")
}

func (h *theatre) retained() {
	topic := h.name("t")
	say := func(payload string, retain bool) message {
		return message{topic: topic, payload: payload, qos: 1, retain: retain}
	}
	live := h.subscribe("live", basic, "-q", "1", "-t", topic)
	for _, payload := range []string{"old", "new"} {
		h.publish("", "-q", "1", "-r", "-t", topic, "-m", payload)
		live.wants(say(payload, false))
	}
	h.subscribe("late", basic, "-q", "1", "-t", topic).wants(say("new", true))
	h.publish("", "-q", "1", "-r", "-t", topic, "-n")
	live.wants(say("", false))
	last := h.subscribe("last", basic, "-q", "1", "-t", topic)
	h.publish("", "-q", "1", "-t", topic, "-m", "end")
	last.wants(say("end", false))
	last.silent()
}

func (h *theatre) shared() {
	const n = 400
	group := []string{"-q", "1", "-t", "$share/group/" + h.name("t")}
	workers := []*subscriber{h.subscribe("worker 1", basic, group...), h.subscribe("worker 2", basic, group...)}
	h.publish(lines(n), "-q", "1", "-t", h.name("t"), "-l")
	seen := map[string]int{}
	h.try("receive", func() error {
		for total := 0; total < n; {
			var line string
			select {
			case line = <-workers[0].lines:
			case line = <-workers[1].lines:
			case <-h.ctx.Done():
				return fmt.Errorf("%d of %d messages have come: %w", total, n, h.ctx.Err())
			}
			if strings.HasPrefix(line, marked) {
				total++
				seen[line]++
			}
		}
		return differ("the number of different messages", len(seen), n)
	})
	for _, w := range workers {
		w.silent()
	}
}

func (h *theatre) session() {
	const n = 100
	kept := append(h.keepSession(), "-q", "2", "-t", h.name("t"))
	h.forgetSession("sleeper")
	h.subscribe("sleeper", basic, append(slices.Clone(kept), "-E")...).ended()
	h.publish(lines(n), "-q", "1", "-t", h.name("t"), "-l")
	h.publish(lines(n), "-q", "2", "-t", h.name("t"), "-l")
	s := h.subscribe("sleeper", basic, kept...)
	next := [3]int{}
	for range 2 * n {
		m := s.basicNext()
		h.try("receive", func() error { return differ("the payload", m.payload, strconv.Itoa(next[m.qos])) })
		next[m.qos]++
	}
	s.silent()
	s.kill()
	h.forgetSession("sleeper")
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "to nobody")
	h.subscribe("sleeper", basic, append(h.keepSession(), "-t", h.name("none"))...).silent()
	h.forgetSession("sleeper")
}

func (h *theatre) willArguments(more ...string) []string {
	return append([]string{"-t", h.name("none"), "--will-topic", h.name("will"), "--will-payload", "gone", "--will-qos", "1"}, more...)
}

func (h *theatre) goneMessage() message {
	return message{topic: h.name("will"), payload: "gone", qos: 1}
}

func (h *theatre) will() {
	watcher := h.subscribe("watcher", basic, "-q", "1", "-t", h.name("will"), "-t", h.name("marker"))
	h.subscribe("dying", basic, h.willArguments("-E")...).ended()
	h.publish("", "-q", "1", "-t", h.name("marker"), "-m", "no will before this")
	watcher.wants(message{topic: h.name("marker"), payload: "no will before this", qos: 1})
	h.subscribe("dying", basic, h.willArguments()...).kill()
	watcher.wants(h.goneMessage())
	watcher.silent()
}

// takeover: in 5.0 a mosquitto_sub that is told 0x8E ends; in 3.1.1 it comes back after a second and takes over itself,
// unless it is killed before that.
func (h *theatre) takeover() {
	first := h.subscribe("twin", basic, "-q", "1", "-t", h.name("t"))
	second := h.subscribe("twin", basic, "-q", "1", "-t", h.name("t"))
	if h.Version == v5 {
		first.await("Received DISCONNECT (142)")
	} else {
		first.await("received CONNACK")
		first.kill()
		second.await("Subscribed (mid") // Again: the first had come back.
	}
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "mine")
	second.wants(message{topic: h.name("t"), payload: "mine", qos: 1})
}

// keepAlive has the smallest Keep Alive that mosquitto_sub takes.
func (h *theatre) keepAlive() {
	idle := h.subscribe("idle", basic, "-q", "1", "-t", h.name("t"), "-k", "5")
	select {
	case <-time.After(12 * time.Second):
	case <-h.ctx.Done():
	}
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "still here")
	idle.wants(message{topic: h.name("t"), payload: "still here", qos: 1})
	h.try("keep alive", func() error {
		connects, answered := 0, false
		for _, line := range idle.seen {
			if strings.HasSuffix(line, "sending CONNECT") {
				connects++
			}
			answered = answered || strings.Contains(line, "received PINGRESP")
		}
		if connects != 1 || !answered {
			return fmt.Errorf("connected again or no PINGRESP: %s", strings.Join(idle.seen, "; "))
		}
		return nil
	})
}

func (h *theatre) close() {
	watcher := h.subscribe("watcher", basic, "-q", "1", "-t", h.name("will"))
	h.subscribe("leaver", basic, h.willArguments("-q", "1", "-t", h.name("t"), "-E")...).ended()
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "meanwhile")
	again := h.subscribe("leaver", basic, append(h.keepSession(), "-q", "1", "-t", h.name("none"))...)
	again.silent()
	h.publish("", "-q", "1", "-t", h.name("t"), "-m", "still nobody's")
	again.silent()
	watcher.silent()
	again.kill()
	h.forgetSession("leaver")
}

func (h *theatre) keepForAll() {
	h.publish("", "-q", "1", "-r", "-t", h.name("kept"), "-m", "kept")
}

func (h *theatre) forgetForAll() { h.publish("", "-q", "1", "-r", "-t", h.name("kept"), "-n") }

func (h *theatre) send() {
	arguments := []string{"-q", "2", "-t", h.name("messages"), "-l"}
	if h.Version == v5 {
		arguments = append(arguments, crossArguments(h.name("answers"))...)
	}
	h.publish(lines(crossCount), arguments...)
}

// crossArguments are the properties of the scene cross.
func crossArguments(answers string) (arguments []string) {
	for _, property := range [][]string{{"content-type", crossContentType}, {"response-topic", answers}, {"correlation-data", crossCorrelation},
		{"user-property", "b", "1"}, {"user-property", "b", "3"}, {"user-property", "a", "2"}} {
		arguments = append(append(arguments, "-D", "publish"), property...)
	}
	return arguments
}

func mosquittoReceive(ctx context.Context, t task, ready func()) error {
	h := &theatre{task: t, ctx: ctx}
	id := "receiver mosquitto " + t.Version
	kept := h.subscribe(id+" kept", basic, "-q", "2", "-t", h.name("kept"))
	kept.wants(message{topic: t.name("kept"), payload: "kept", qos: 1, retain: true})
	format, want := "%q %r %p", ""
	if t.Version == v5 {
		format = "%q %r %p %C %R %D %P"
		want = " " // The properties are there, and empty.
		if t.From == v5 {
			want = fmt.Sprintf(" %s %s %s b:1 b:3 a:2", crossContentType, t.name("answers"), crossCorrelation)
		}
	}
	s := h.subscribe(id, format, "-q", "2", "-t", t.name("messages"))
	h.try("ready", func() error { ready(); return nil })
	for i := range crossCount {
		got := s.next()
		h.try("receive", func() error {
			return differ("the message", strings.TrimRight(got, " "), strings.TrimRight(fmt.Sprint("2 0 ", i, want), " "))
		})
	}
	return h.end()
}
