package store

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

// Doubt is part of broker.Store: how often the store was damaged.
func (s *Store) Doubt() uint32 { return s.doubt.Load() }

// Accepted is part of broker.Store: what Doubt was when a broker had last read the store and begun to serve.
func (s *Store) Accepted() uint32 { return s.accepted.Load() }

// settleDoubt has no message of QoS 2 delivered that was there in an earlier state of the store: whether it was delivered
// since then nobody knows, and a second time is worse than none [MQTT-4.3.3-1]. Its Packet Identifier is released, so that a
// client that has it forgets it. When nothing says up to where queues were sent (sent is nil) that is each, and otherwise each
// that was sent. It says how many messages that are.
func settleDoubt(db *pebble.DB, sent map[uint64]uint64) (n int64, err error) {
	from, to := record.Bounds(record.KindEntry)
	for more := true; more; {
		b, chunk := db.NewBatch(), 0
		err := each(db, from, to, func(key, value []byte) error {
			if chunk == reapChunk {
				from = append([]byte{}, key...)
				return errEnough
			}
			var e record.Entry
			if e.Decode(value) != nil || e.Flags&record.EntryQoS != 2 || e.Flags&record.EntryReleased != 0 {
				return nil
			}
			if sent != nil && record.Number(key, 1) > sent[record.Number(key, 0)] {
				return nil
			}
			chunk++
			return doubtEntry(b, key, &e)
		})
		if more = errors.Is(err, errEnough); err != nil && !more {
			return n, errors.Join(err, b.Close())
		}
		if err := errors.Join(db.Apply(b, pebble.NoSync), b.Close()); err != nil {
			return n, err
		}
		n += int64(chunk)
	}
	return n, nil
}

// addSent adds what entries say to up to which position the queue of each Session was sent.
func addSent(db *pebble.DB, sent map[uint64]uint64) error {
	from, to := record.Bounds(record.KindEntry)
	return each(db, from, to, func(key, value []byte) error {
		var e record.Entry
		if e.Decode(value) == nil && e.Flags&(record.EntrySent|record.EntryReleased) != 0 {
			sid := record.Number(key, 0)
			sent[sid] = max(sent[sid], record.Number(key, 1))
		}
		return nil
	})
}

// doubtEntry turns a delivery into the release of its Packet Identifier.
func doubtEntry(b *pebble.Batch, key []byte, e *record.Entry) error {
	released := record.Entry{Flags: 2 | record.EntryReleased, PID: e.PID}
	if err := b.Set(key, released.AppendHead(nil), nil); err != nil || e.Mid == 0 {
		return err
	}
	return b.Delete(record.ReferenceKey(nil, e.Mid, record.Number(key, 0), record.Number(key, 1)), nil)
}
