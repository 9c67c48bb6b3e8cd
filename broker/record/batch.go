package record

import (
	"encoding/binary"
	"fmt"
)

// Op is what a change does.
type Op byte

// The changes: Set key to value, Delete a key, DeleteRange from key up to the value, which is not deleted itself.
const (
	Set Op = iota + 1
	Delete
	DeleteRange
)

// AppendSet adds "set key to value" to a batch.
func AppendSet(batch, key, value []byte) []byte {
	return appendBytes(appendBytes(append(batch, byte(Set)), key), value)
}

// AppendDelete adds "delete key" to a batch.
func AppendDelete(batch, key []byte) []byte {
	return appendBytes(append(batch, byte(Delete)), key)
}

// AppendDeleteRange adds "delete all keys from from up to, but not including, to" to a batch.
func AppendDeleteRange(batch, from, to []byte) []byte {
	return appendBytes(appendBytes(append(batch, byte(DeleteRange)), from), to)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// Each gives every change of a batch to f, in order; the slices alias batch.
func Each(batch []byte, f func(op Op, key, value []byte) error) error {
	r := reader{rest: batch}
	for len(r.rest) > 0 && !r.bad {
		op := Op(r.byte())
		key := r.bytes()
		var value []byte
		if op != Delete {
			value = r.bytes()
		}
		if r.bad || op < Set || op > DeleteRange {
			return fmt.Errorf("batch of records: byte %d is not the start of a change", len(batch)-len(r.rest))
		}
		if err := f(op, key, value); err != nil {
			return err
		}
	}
	return nil
}

// reader takes fields off a value; once one is missing, bad is set and all that follow are zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// atMost is a number that cannot be larger.
func (r *reader) atMost(limit uint64) uint64 {
	v := r.number()
	if v > limit {
		r.bad = true
		return 0
	}
	return v
}

func (r *reader) bytes() []byte {
	n := r.number()
	if r.bad || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}
