package crashtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// queuedBytes is what each message of a Queue has: some of them fill a block of a table.
const queuedBytes = 1 << 10

// Queue is a Session whose client is away, and the messages of QoS 1 that wait for it.
type Queue struct {
	dial       func() (net.Conn, error)
	subscriber *peer
	published  int
	random     *rand.ChaCha8 // for payloads that no compression makes small
}

// NewQueue makes one whose clients connect by dial.
func NewQueue(dial func() (net.Conn, error)) *Queue {
	return &Queue{dial: dial, subscriber: newPeer("away", packet.V50, true), random: rand.NewChaCha8([32]byte{})}
}

// Fill publishes n messages, all of which the broker acknowledges.
func (q *Queue) Fill(n int) error {
	if q.published == 0 {
		if err := q.subscriber.mustConnect(q.dial); err != nil {
			return err
		}
		if r, err := q.subscriber.subscribe("queue", 1); err != nil || r.Failed() {
			return errors.Join(fmt.Errorf("SUBACK %v", r), err)
		}
		if err := q.subscriber.disconnect(); err != nil {
			return err
		}
	}
	publisher := newPeer("fills", packet.V311, false)
	if err := publisher.mustConnect(q.dial); err != nil {
		return err
	}
	defer publisher.hangUp()
	for range n {
		payload := make([]byte, queuedBytes)
		_, _ = q.random.Read(payload) // never fails
		if err := publisher.publish("queue", fmt.Sprint(q.published, " ", string(payload)), 1, false); err != nil {
			return err
		}
		if r, err := publisher.acknowledged(1); err != nil || r.Failed() {
			return errors.Join(fmt.Errorf("message %d: %v", q.published, r), err)
		}
		q.published++
	}
	return nil
}

// Drain has the client come back to its Session, publishes one more message and says how many arrived until that. They come in order and once.
func (q *Queue) Drain() (n int, err error) {
	r, present, err := q.subscriber.connect(q.dial)
	if err != nil || r.Failed() || !present {
		return 0, errors.Join(fmt.Errorf("CONNACK %v, the Session is there: %v", r, present), err)
	}
	defer q.subscriber.hangUp()
	if err := q.Fill(1); err != nil {
		return 0, err
	}
	for last := -1; last < q.published-1; n++ {
		if err := q.subscriber.gets(n + 1); err != nil {
			return n, err
		}
		number, before := 0, last
		text, _, _ := strings.Cut(q.subscriber.got[n], " ")
		if _, err := fmt.Sscan(text, &number); err != nil || number <= before {
			return n, fmt.Errorf("after message %d came %q", before, text)
		}
		last = number
	}
	return n, nil
}
