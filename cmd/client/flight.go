package client

import (
	"context"
	"sync"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// flight counts what is published and bounds what waits for acknowledgement.
type flight struct {
	slots    chan struct{} // one element per message that waits; its capacity is the bound
	patience time.Duration // how long enter waits; 0: for ever

	mu       sync.Mutex // guards all below
	given    uint64     // messages given to Publish
	open     map[uint16]uint64
	progress Progress
}

func newFlight(bound int, patience time.Duration) *flight {
	return &flight{slots: make(chan struct{}, max(1, bound)), patience: patience, open: map[uint16]uint64{}}
}

// enter waits for room. Before it waits it calls flush: what waits for acknowledgement must be on its way.
func (f *flight) enter(ctx context.Context, done <-chan struct{}, flush func() error) error {
	select {
	case f.slots <- struct{}{}:
		return nil
	default:
	}
	if err := flush(); err != nil {
		return err
	}
	var late <-chan time.Time // Without patience it never comes.
	if f.patience > 0 {
		timer := time.NewTimer(f.patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case f.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return cause(ctx)
	case <-done:
		return errEnded
	case <-late:
		return &timedOut{"acknowledgement", f.patience}
	}
}

// takeOff notes that the message with that Packet Identifier is about to be sent.
func (f *flight) takeOff(id uint16) {
	f.mu.Lock()
	f.given++
	f.open[id] = f.given
	f.mu.Unlock()
}

// giveUp frees the room of a message that the connection's end has overtaken: whether it was sent is not known, and it
// stays open.
func (f *flight) giveUp() {
	f.mu.Lock()
	f.given++
	if _, earlier := f.open[noID]; !earlier {
		f.open[noID] = f.given
	}
	f.mu.Unlock()
	<-f.slots
}

// noID is no message's Packet Identifier [MQTT-2.2.1-3].
const noID = 0

// land notes the broker's answer. It ignores a Packet Identifier that nothing waits for.
func (f *flight) land(id uint16, reason packet.Reason, text string) {
	f.mu.Lock()
	number, waits := f.open[id]
	if waits {
		delete(f.open, id)
		f.count(number, reason, text)
	}
	f.mu.Unlock()
	if waits {
		<-f.slots
	}
}

// count needs the lock.
func (f *flight) count(number uint64, reason packet.Reason, text string) {
	p := &f.progress
	if !reason.Failed() {
		p.Acknowledged++
		return
	}
	p.Refused++
	if p.FirstRefused == 0 || number < p.FirstRefused {
		p.FirstRefused, p.Reason, p.ReasonText = number, reason, text
	}
}

// sent notes that all messages so far are on their way, and with more one more that is not.
func (f *flight) sent(flushed bool, more uint64) {
	f.mu.Lock()
	if flushed {
		f.progress.Sent = f.given
	}
	f.given += more
	f.mu.Unlock()
}

// wait returns when nothing waits for acknowledgement.
func (f *flight) wait(ctx context.Context, done <-chan struct{}) error {
	for n := range cap(f.slots) {
		select {
		case f.slots <- struct{}{}:
			continue
		case <-ctx.Done():
		case <-done:
		}
		for range n {
			<-f.slots
		}
		if ctx.Err() != nil {
			return cause(ctx)
		}
		return errEnded
	}
	for range cap(f.slots) {
		<-f.slots
	}
	return nil
}

func (f *flight) snapshot() Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.progress
	for _, number := range f.open {
		if p.FirstOpen == 0 || number < p.FirstOpen {
			p.FirstOpen = number
		}
	}
	return p
}
