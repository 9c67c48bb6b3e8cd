package client

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// inboxMessages is how many messages of QoS 0 may wait for their taker. Beyond it the library's goroutine waits, then
// the network connection, and then the broker, which has an answer of its own.
const inboxMessages = 1024

// errEnded is what waits that the connection's end has cut short return; its reason is the Client's Err.
var errEnded = errors.New("the connection has ended")

// inbox passes messages from a library's goroutine to the taker, and the end of the connection to everybody.
type inbox struct {
	messages chan *Message
	done     chan struct{} // closed by end
	endOnce  sync.Once
	err      error // written before done is closed, read after

	current atomic.Pointer[Message] // of QoS 1 or 2, between deliver and acknowledged

	leaving   atomic.Bool   // Close was called: nobody takes messages any more
	left      chan struct{} // closed by leave
	leaveOnce sync.Once
}

func newInbox() *inbox {
	return &inbox{messages: make(chan *Message, inboxMessages), done: make(chan struct{}), left: make(chan struct{})}
}

// deliver hands a message over. At QoS 1 and 2 it returns when the message was handled; if that is false, it must not be
// acknowledged.
func (b *inbox) deliver(m *Message) (handled bool) {
	if m.QoS > 0 {
		m.handled, m.acknowledged = make(chan struct{}), make(chan struct{})
		b.current.Store(m)
	}
	select {
	case b.messages <- m:
	case <-b.left:
		return false
	}
	if m.QoS == 0 {
		return true
	}
	select {
	case <-m.handled:
		return true
	case <-b.left:
		return false
	}
}

// acknowledged is called when the library has acknowledged the message that deliver returned true for.
func (b *inbox) acknowledged() {
	if m := b.current.Swap(nil); m != nil {
		close(m.acknowledged)
	}
}

// awaitAcknowledgement gives the acknowledgement of a message that was handled just now its moment before the DISCONNECT.
func (b *inbox) awaitAcknowledgement() {
	m := b.current.Load()
	if m == nil {
		return
	}
	select {
	case <-m.handled:
	default:
		return
	}
	select {
	case <-m.acknowledged:
	case <-b.done:
	case <-time.After(hurryTime):
	}
}

// leave lets deliver go. The connection is closed by then, so that nothing undelivered is acknowledged.
func (b *inbox) leave() { b.leaveOnce.Do(func() { close(b.left) }) }

// end closes done; the first reason counts.
func (b *inbox) end(err error) {
	b.endOnce.Do(func() {
		b.err = err
		close(b.done)
	})
}

// Messages is part of Client.
func (b *inbox) Messages() <-chan *Message { return b.messages }

// Done is part of Client.
func (b *inbox) Done() <-chan struct{} { return b.done }

// Err is part of Client.
func (b *inbox) Err() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// broken gives for a write that failed the reason that the connection ended for. A DISCONNECT of the broker's says more
// than the error of the write that came after it, so its reader gets a moment to meet it.
func (b *inbox) broken(err error, e Endpoint) error {
	if err == nil {
		return nil
	}
	select {
	case <-b.done:
		return b.err
	case <-time.After(hurryTime):
		return &Lost{Endpoint: e, Cause: err}
	}
}

// unlessEnded is err, or if that is errEnded the reason that the connection ended for.
func (b *inbox) unlessEnded(err error) error {
	if err != errEnded {
		return err
	}
	<-b.done
	return b.err
}

// hurryTime is how long the last things take at most: the reason of an end, a DISCONNECT to a broker that does not read.
const hurryTime = 500 * time.Millisecond
