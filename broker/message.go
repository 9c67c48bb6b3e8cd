package broker

import "sync/atomic"

// message is one stored Application Message: immutable once made, shared by reference between queues, outbound
// buffers, shards and the retained store. Its bytes lie in the arena, in one of two shapes:
//
//   - small: topic, properties and payload in one block;
//   - large: topic and properties in one block or, when longer than a page, a chain of their own; the payload in a
//     chain of pages.
//
// It holds no Go pointer: it lives in a reserved mapping.
type message struct {
	refs        atomic.Int32
	payloadSize uint32
	block       uint32 // topic | properties | payload when small; 0 when meta is a chain
	metaChain   uint32 // pages with topic | properties, when they exceed one page
	chain       uint32 // pages with the payload, when large
	chainAt     uint32 // where the payload begins in the chain
	propsSize   uint32
	topicSize   uint16
	flags       uint8 // the PUBLISH flags it came with: QoS and RETAIN
	_           uint8
	from        uint64      // hash of the publisher's Client Identifier, for No Local; 0 when it was the broker
	expires     int64       // ms of the broker's clock; 0 never
	pinned      uint32      // bytes of arena it really holds
	refused     atomic.Bool // see refuseHeld; written by the shard of its ticket, before the watermark passes that, and read by all
}

// The bits of message.flags and of the PUBLISH fixed header.
const (
	flagRetain = 0x01
	flagQoS    = 0x06
)

func (m *message) qos() uint8   { return m.flags >> 1 & 3 }
func (m *message) retain() bool { return m.flags&flagRetain != 0 }

// origin is what a message remembers of where it came from.
type origin struct {
	flags   uint8 // message.flags
	from    uint64
	expires int64
}

// messages is the store of message slots and their bytes as one shard sees it.
type messages struct {
	all     []message // shared by all shards, indexed by slot number
	slots   slotCache
	pool    *pool
	scratch []byte // room to lay a chain out flat; valid until the next use
}

// at is the message in slot id.
func (ms *messages) at(id uint32) *message { return &ms.all[id] }

// store copies an Application Message into a slot with one reference; 0 when slots or arena are used up.
func (ms *messages) store(topic, props, payload []byte, o origin) uint32 {
	meta := len(topic) + len(props)
	if meta+len(payload) > pageSize {
		if len(payload) == 0 {
			return ms.storeChain(topic, props, 0, 0, 0, o)
		}
		chain, ok := ms.copyChain(payload)
		if !ok {
			return 0
		}
		id := ms.storeChain(topic, props, chain, 0, len(payload), o)
		if id == 0 {
			ms.pool.freeChain(chain)
		}
		return id
	}
	id := ms.slots.get()
	if id == 0 {
		return 0
	}
	ref := ms.pool.alloc(max(1, meta+len(payload)))
	if ref == 0 {
		ms.slots.put(id)
		return 0
	}
	b := ms.pool.a.block(ref, meta+len(payload))
	copy(b, topic)
	copy(b[len(topic):], props)
	copy(b[meta:], payload)
	m := ms.fill(id, topic, props, len(payload), o)
	m.block = ref
	m.pinned = uint32(blockSize(len(b)))
	return id
}

// storeChain makes a message of a payload that already lies in a chain of pages, from byte at on. It takes the chain
// over unless it fails.
func (ms *messages) storeChain(topic, props []byte, chain uint32, at, size int, o origin) uint32 {
	id := ms.slots.get()
	meta := len(topic) + len(props)
	var block, metaChain uint32
	ok := id != 0
	if ok && meta <= pageSize {
		block = ms.pool.alloc(max(1, meta))
		ok = block != 0
	} else if ok {
		metaChain, ok = ms.copyChain(topic, props)
	}
	if !ok {
		ms.slots.putIf(id)
		return 0
	}
	pinned := (at + size + pageSize - 1) / pageSize * pageSize
	if block != 0 {
		b := ms.pool.a.block(block, meta)
		copy(b[copy(b, topic):], props)
		pinned += blockSize(meta)
	} else {
		pinned += (meta + pageSize - 1) / pageSize * pageSize
	}
	m := ms.fill(id, topic, props, size, o)
	m.block, m.metaChain, m.chain, m.chainAt, m.pinned = block, metaChain, chain, uint32(at), uint32(pinned)
	return id
}

func (ms *messages) fill(id uint32, topic, props []byte, payloadSize int, o origin) *message {
	m := &ms.all[id]
	m.flags, m.from, m.expires = o.flags, o.from, o.expires
	m.topicSize, m.propsSize, m.payloadSize = uint16(len(topic)), uint32(len(props)), uint32(payloadSize)
	m.block, m.metaChain, m.chain, m.chainAt = 0, 0, 0, 0
	m.refused.Store(false)
	m.refs.Store(1)
	return m
}

// putIf returns a slot number unless it is none.
func (c *slotCache) putIf(i uint32) {
	if i != 0 {
		c.put(i)
	}
}

// copyChain copies bytes, one slice behind the other, into a chain of pages; false when the arena is used up.
func (ms *messages) copyChain(parts ...[]byte) (uint32, bool) {
	var head, tail uint32
	at := pageSize
	for _, b := range parts {
		for len(b) > 0 {
			if at == pageSize {
				pg := ms.pool.page()
				if pg == 0 {
					ms.pool.freeChain(head)
					return 0, false
				}
				if head == 0 {
					head = pg
				} else {
					ms.pool.a.pages[tail].next = pg
				}
				tail, at = pg, 0
			}
			n := copy(ms.pool.a.bytes(tail)[at:], b)
			at += n
			b = b[n:]
		}
	}
	return head, true
}

// retain adds n references.
func (ms *messages) retain(id uint32, n int) { ms.all[id].refs.Add(int32(n)) }

// release drops a reference, and with the last one the message.
func (ms *messages) release(id uint32) {
	m := &ms.all[id]
	if m.refs.Load() != 1 && m.refs.Add(-1) > 0 {
		return
	}
	if m.block != 0 {
		ms.pool.free(m.block)
	}
	ms.pool.freeChain(m.metaChain)
	ms.pool.freeChain(m.chain)
	ms.slots.put(id)
}

// meta is the Topic Name and the properties to forward, valid until the message is released or, when they are longer
// than a page, until the scratch room is used again.
func (ms *messages) meta(m *message) (topic, props []byte) {
	n := int(m.topicSize) + int(m.propsSize)
	var b []byte
	if m.block != 0 {
		b = ms.pool.a.block(m.block, n)
	} else {
		b = ms.flat(m.metaChain, n)
	}
	return b[:m.topicSize:m.topicSize], b[m.topicSize:n:n]
}

// flat lays the first n bytes of a chain out in the scratch room.
func (ms *messages) flat(chain uint32, n int) []byte {
	b := ms.scratch[:0]
	for pg := chain; len(b) < n; pg = ms.pool.a.pages[pg].next {
		b = append(b, ms.pool.a.bytes(pg)[:min(pageSize, n-len(b))]...)
	}
	return b
}

// payload appends the payload's bytes from offset at on to vec, as slices that are valid until the message is
// released. It stops when vec is full.
func (ms *messages) payload(m *message, at int, vec [][]byte) [][]byte {
	if m.chain == 0 {
		n := int(m.topicSize) + int(m.propsSize)
		if b := ms.pool.a.block(m.block, n+int(m.payloadSize))[n+at:]; len(b) > 0 && len(vec) < cap(vec) {
			vec = append(vec, b)
		}
		return vec
	}
	pos, end := int(m.chainAt)+at, int(m.chainAt)+int(m.payloadSize)
	pg := m.chain
	for skip := pos / pageSize; skip > 0; skip-- {
		pg = ms.pool.a.pages[pg].next
	}
	for pos < end && len(vec) < cap(vec) {
		from := pos % pageSize
		n := min(pageSize-from, end-pos)
		vec = append(vec, ms.pool.a.bytes(pg)[from:from+n])
		pos += n
		pg = ms.pool.a.pages[pg].next
	}
	return vec
}
