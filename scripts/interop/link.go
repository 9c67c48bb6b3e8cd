package main

import (
	"context"
	"fmt"
	"time"
)

// message is an Application Message as any of the clients shows it.
type message struct {
	topic   string
	payload string
	qos     byte
	retain  bool
	properties
}

// properties are those of a PUBLISH in 5.0. Zero values are absent, but for the pointers.
type properties struct {
	contentType   string
	responseTopic string
	correlation   string
	user          string // key=value, with spaces between
	utf8          bool
	expiry        *uint32
	subscription  int
	alias         uint16
	willDelay     uint32 // of a Will Message, in seconds
}

// connectOptions are what a CONNECT can say in both protocol versions.
type connectOptions struct {
	clientID  string
	keep      bool // the Session outlives the connection
	resume    bool // and is taken up again
	keepAlive time.Duration
	will      *message
}

// link is a connected client of a Go library, in words that all versions have.
type link interface {
	sessionPresent() bool
	subscribe(ctx context.Context, filter string, qos byte) error
	unsubscribe(ctx context.Context, filter string) error
	// publish sends messages without waiting in between, and returns when all are acknowledged.
	publish(ctx context.Context, messages ...message) error
	messages() <-chan message
	// gone hears once why the connection ended, unless by close or cut: a Reason Code of the broker's, or "lost".
	gone() <-chan string
	cut()   // ends the connection without a word
	close() // and with DISCONNECT
}

// inboxMax is how many messages wait for a scene: more than any scene sends.
const inboxMax = 1 << 12

// stage runs a scene: after the first error nothing more happens, and end gives that error.
type stage struct {
	task
	ctx     context.Context
	connect func(ctx context.Context, t task, o connectOptions) (link, error)
	links   []link
	err     error
}

// actor is a link on a stage.
type actor struct {
	stage *stage
	link  link
	id    string
}

// enter connects a client whose Client Identifier is its own.
func (s *stage) enter(id string, change ...func(*connectOptions)) actor {
	o := connectOptions{clientID: s.name(id), keepAlive: time.Minute}
	for _, c := range change {
		c(&o)
	}
	a := actor{stage: s, id: id}
	s.try("connect "+id, func() (err error) {
		if a.link, err = s.connect(s.ctx, s.task, o); err == nil {
			s.links = append(s.links, a.link)
		}
		return err
	})
	return a
}

func kept(o *connectOptions) { o.keep = true }

func resumed(o *connectOptions) { o.keep, o.resume = true, true }

func withWill(m message) func(*connectOptions) { return func(o *connectOptions) { o.will = &m } }

// try does something unless the scene has failed.
func (s *stage) try(what string, do func() error) {
	if s.err != nil {
		return
	}
	if err := do(); err != nil {
		s.err = fmt.Errorf("%s: %w", what, err)
	}
}

// end closes all links and gives the scene's error.
func (s *stage) end() error {
	for _, l := range s.links {
		l.close()
	}
	return s.err
}

func (a actor) try(what string, do func() error) { a.stage.try(a.id+" "+what, do) }

func (a actor) subscribe(filter string, qos byte) {
	a.try("subscribe", func() error { return a.link.subscribe(a.stage.ctx, filter, qos) })
}

func (a actor) unsubscribe(filter string) {
	a.try("unsubscribe", func() error { return a.link.unsubscribe(a.stage.ctx, filter) })
}

func (a actor) publish(messages ...message) {
	a.try("publish", func() error { return a.link.publish(a.stage.ctx, messages...) })
}

func (a actor) close() { a.try("close", func() error { a.link.close(); return nil }) }

func (a actor) cut() { a.try("cut", func() error { a.link.cut(); return nil }) }

// next takes the next message.
func (a actor) next() (m message) {
	a.try("receive", func() error {
		select {
		case m = <-a.link.messages():
			return nil
		case why := <-a.link.gone():
			return fmt.Errorf("the connection ended: %s", why)
		case <-a.stage.ctx.Done():
			return a.stage.ctx.Err()
		}
	})
	return m
}

// wants checks topic, payload, QoS and RETAIN of the next message.
func (a actor) wants(want message) {
	got := a.next()
	a.try("receive", func() error {
		return differ("the message", core(got), core(want))
	})
}

// core is what every client shows of a message.
func core(m message) message {
	return message{topic: m.topic, payload: m.payload, qos: m.qos, retain: m.retain}
}

// quiet is how long nothing must come where nothing is due.
const quiet = 300 * time.Millisecond

// silent makes sure that nothing comes.
func (a actor) silent() {
	a.try("receive", func() error {
		select {
		case m := <-a.link.messages():
			return fmt.Errorf("%s came, nothing should", short(m))
		case why := <-a.link.gone():
			return fmt.Errorf("the connection ended: %s", why)
		case <-time.After(quiet):
			return nil
		}
	})
}

func (a actor) session(present bool) {
	a.try("connect", func() error { return differ("Session Present", a.link.sessionPresent(), present) })
}

// wait lets time pass, where an interval of the protocol must be over.
func (s *stage) wait(d time.Duration) {
	s.try("wait", func() error {
		select {
		case <-time.After(d):
			return nil
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	})
}
