package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// basics are the scenes that both Go libraries play alike.
func basics(connect func(context.Context, task, connectOptions) (link, error)) inProcess {
	scenes := inProcess{}
	for name, play := range map[string]func(*stage){
		"qos0":        func(s *stage) { s.inOrder(0) },
		"qos1":        func(s *stage) { s.inOrder(1) },
		"qos2":        func(s *stage) { s.inOrder(2) },
		"large":       (*stage).large,
		"unicode":     (*stage).unicode,
		"wildcards":   (*stage).wildcards,
		"unsubscribe": (*stage).unsubscribe,
		"retained":    (*stage).retained,
		"shared":      (*stage).shared,
		"session":     (*stage).session,
		"will":        (*stage).will,
		"takeover":    (*stage).takeover,
		"keepalive":   (*stage).keepAlive,
		"close":       (*stage).close,
		"keep":        (*stage).keepForAll,
		"forget":      (*stage).forgetForAll,
	} {
		scenes[name] = alone(func(ctx context.Context, t task) error {
			s := &stage{task: t, ctx: ctx, connect: connect}
			play(s)
			return s.end()
		})
	}
	return scenes
}

// numbers are n messages with the numbers from 0 as payload.
func numbers(topic string, qos byte, n int) (all []message) {
	for i := range n {
		all = append(all, message{topic: topic, payload: strconv.Itoa(i), qos: qos})
	}
	return all
}

func (s *stage) inOrder(qos byte) {
	const n = 500
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher")
	subscriber.subscribe(s.name("t"), qos)
	all := numbers(s.name("t"), qos, n)
	publisher.publish(all...)
	for _, m := range all {
		subscriber.wants(m)
	}
	subscriber.silent()
}

// largeBytes is the payload of the scene large.
const largeBytes = 1 << 20

func (s *stage) large() {
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher")
	subscriber.subscribe(s.name("t"), 2)
	for qos := range byte(3) {
		noise := make([]byte, largeBytes)
		rand.Read(noise)
		publisher.publish(message{topic: s.name("t"), payload: string(noise), qos: qos})
		got := subscriber.next()
		subscriber.try("receive", func() error {
			return differ(fmt.Sprintf("the hash of %d bytes at QoS %d", len(got.payload), qos),
				fmt.Sprintf("%x", sha256.Sum256([]byte(got.payload))), fmt.Sprintf("%x", sha256.Sum256(noise)))
		})
	}
}

func (s *stage) unicode() {
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher-ß-東京")
	subscriber.subscribe(s.name("#"), 1)
	for _, topic := range []string{"ü/ß", "東京/温度", "Ελλάδα", "😀/🌡", "with space", "e\u0301", "\u200d"} {
		for _, payload := range []string{"", "\x00", "a\x00b\x00", "\xff\xfe\x80", "日本", "\r\n"} {
			m := message{topic: s.name(topic), payload: payload, qos: 1}
			publisher.publish(m)
			subscriber.wants(m)
		}
	}
}

// wildcardFilters says which of wildcardTopics each Topic Filter matches, by index.
func wildcardFilters() map[string][]int {
	return map[string][]int{
		"a": {0}, "a/b": {1}, "#": {0, 1, 2, 3, 4, 5, 6}, "a/#": {0, 1, 2, 3, 4}, "+": {0, 6}, "a/+": {1, 4}, "+/b": {1},
		"a/+/c": {2, 3}, "+/+": {1, 4, 5}, "a/b/#": {1, 2}, "+/b/+": {2}, "/+": {}, "+/": {4}, "$x": {6},
	}
}

func wildcardTopics() []string { return []string{"a", "a/b", "a/b/c", "a//c", "a/", "c/d", "$x"} }

func (s *stage) wildcards() {
	publisher := s.enter("publisher")
	subscribers := map[string]actor{}
	for filter := range wildcardFilters() {
		subscribers[filter] = s.enter("sub " + filter)
		subscribers[filter].subscribe(s.name(filter), 1)
		subscribers[filter].subscribe(s.name("end of all"), 1)
	}
	for i, topic := range append(wildcardTopics(), "end of all") {
		publisher.publish(message{topic: s.name(topic), payload: strconv.Itoa(i), qos: 1})
	}
	for filter, want := range wildcardFilters() {
		var got []int
		for a := subscribers[filter]; s.err == nil; {
			m := a.next()
			if m.topic == s.name("end of all") {
				break
			}
			i, _ := strconv.Atoi(m.payload)
			got = append(got, i)
		}
		slices.Sort(got)
		s.try("match", func() error { return differ("what matches "+filter, fmt.Sprint(got), fmt.Sprint(want)) })
	}
	s.dollar()
}

// dollar publishes to a topic that begins with $, which is not for who begins with a wildcard [MQTT-4.7.2-1].
func (s *stage) dollar() {
	subscriber, publisher := s.enter("first level"), s.enter("publisher $")
	subscriber.subscribe("+/"+s.name("t"), 0)
	plain := message{topic: "plain/" + s.name("t"), payload: "for +"}
	publisher.publish(message{topic: "$dollar/" + s.name("t"), payload: "not for +"}, plain)
	subscriber.wants(plain)
	subscriber.silent()
}

func (s *stage) unsubscribe() {
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher")
	subscriber.subscribe(s.name("a"), 1)
	subscriber.subscribe(s.name("b"), 1)
	first, second := message{topic: s.name("a"), payload: "1", qos: 1}, message{topic: s.name("b"), payload: "2", qos: 1}
	publisher.publish(first, second)
	subscriber.wants(first)
	subscriber.wants(second)
	subscriber.unsubscribe(s.name("a"))
	publisher.publish(first, second)
	subscriber.wants(second)
	subscriber.silent()
}

func (s *stage) retained() {
	topic := s.name("t")
	say := func(payload string, retain bool) message {
		return message{topic: topic, payload: payload, qos: 1, retain: retain}
	}
	live, publisher := s.enter("live"), s.enter("publisher")
	live.subscribe(topic, 1)
	for _, payload := range []string{"old", "new"} {
		publisher.publish(say(payload, true))
		live.wants(say(payload, false))
	}
	late := s.enter("late")
	late.subscribe(topic, 1)
	late.wants(say("new", true))
	publisher.publish(say("", true))
	live.wants(say("", false))
	last := s.enter("last")
	last.subscribe(topic, 1)
	publisher.publish(say("end", false))
	last.wants(say("end", false))
	last.silent()
}

func (s *stage) shared() {
	const n = 400
	workers := []actor{s.enter("worker 1"), s.enter("worker 2")}
	for _, w := range workers {
		w.subscribe("$share/group/"+s.name("t"), 1)
	}
	s.enter("publisher").publish(numbers(s.name("t"), 1, n)...)
	counts := map[string]int{}
	var share [2]int
	s.try("receive", func() error {
		for total := 0; total < n; total++ {
			select {
			case m := <-workers[0].link.messages():
				counts[m.payload]++
				share[0]++
			case m := <-workers[1].link.messages():
				counts[m.payload]++
				share[1]++
			case <-s.ctx.Done():
				return fmt.Errorf("%d of %d messages have come: %w", total, n, s.ctx.Err())
			}
		}
		if share[0] == 0 || share[1] == 0 {
			return fmt.Errorf("one has all: %d and %d", share[0], share[1])
		}
		return differ("the number of different messages", len(counts), n)
	})
	workers[0].silent()
	workers[1].silent()
}

func (s *stage) session() {
	const n = 100
	s.enter("sleeper").close() // With Clean Start: nothing is left from before.
	first := s.enter("sleeper", kept)
	first.session(false)
	first.subscribe(s.name("t"), 2)
	first.close()
	publisher := s.enter("publisher")
	all := numbers(s.name("t"), 0, n)
	for i := range all {
		all[i].qos = byte(1 + i%2)
	}
	publisher.publish(all...)
	second := s.enter("sleeper", resumed)
	second.session(true)
	next := [3]int{0, 0, 1} // The order is promised for each QoS by itself.
	for range n {
		m := second.next()
		second.try("receive", func() error { return differ("the payload", m.payload, strconv.Itoa(next[m.qos])) })
		next[m.qos] += 2
	}
	second.silent()
	second.close()
	third := s.enter("sleeper")
	third.session(false)
	publisher.publish(message{topic: s.name("t"), payload: "to nobody", qos: 1})
	third.silent()
}

func (s *stage) will() {
	gone := message{topic: s.name("will"), payload: "gone", qos: 1}
	watcher, publisher := s.enter("watcher"), s.enter("publisher")
	watcher.subscribe(s.name("#"), 1)
	s.enter("dying", withWill(gone)).close()
	marker := message{topic: s.name("marker"), qos: 1}
	publisher.publish(marker)
	watcher.wants(marker)
	s.enter("dying", withWill(gone)).cut()
	watcher.wants(gone)
	watcher.silent()
}

func (s *stage) takeover() {
	first := s.enter("twin")
	second := s.enter("twin")
	s.try("take over", func() error {
		select {
		case why := <-first.link.gone():
			want := "lost"
			if s.Version == v5 {
				want = "0x8e"
			}
			return differ("the end of the first connection", why, want)
		case <-s.ctx.Done():
			return fmt.Errorf("the first connection stays: %w", s.ctx.Err())
		}
	})
	m := message{topic: s.name("t"), payload: "mine", qos: 1}
	second.subscribe(s.name("t"), 1)
	second.publish(m)
	second.wants(m)
}

func (s *stage) keepAlive() {
	idle := s.enter("idle", func(o *connectOptions) { o.keepAlive = 4 * time.Second })
	idle.subscribe(s.name("t"), 1)
	s.wait(10 * time.Second)
	m := message{topic: s.name("t"), payload: "still here", qos: 1}
	s.enter("publisher").publish(m)
	idle.wants(m)
}

func (s *stage) close() {
	gone := message{topic: s.name("will"), payload: "gone", qos: 1}
	watcher, publisher := s.enter("watcher"), s.enter("publisher")
	watcher.subscribe(s.name("will"), 1)
	first := s.enter("leaver", withWill(gone))
	first.subscribe(s.name("t"), 1)
	first.close()
	publisher.publish(message{topic: s.name("t"), payload: "meanwhile", qos: 1})
	second := s.enter("leaver", resumed)
	second.session(false)
	second.silent()
	second.close()
	s.enter("leaver").session(false)
	watcher.silent()
}

func (s *stage) keepForAll() {
	s.enter("keeper").publish(message{topic: s.name("kept"), payload: "kept", qos: 1, retain: true})
}

func (s *stage) forgetForAll() {
	s.enter("keeper").publish(message{topic: s.name("kept"), qos: 1, retain: true})
}
