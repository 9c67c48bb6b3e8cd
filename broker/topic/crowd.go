package topic

import "sync/atomic"

// crowd is a large set of values for many readers without locks and one writer. Adding is an append to a chunk with
// room; removing copies one chunk. A value never moves from one chunk to another while a reader may be between them:
// only compact moves values, into chunks of a directory of their own, so a reader sees each value that stays.
type crowd[V comparable] struct {
	// directory is written by the writer and read by anyone; the atomic store publishes a filled directory.
	directory atomic.Pointer[directory[V]]

	// The rest is the writer's alone.
	size   int          // Values.
	chunks uint32       // Places of the directory that are or were in use; each is either full or in roomy.
	roomy  []uint32     // Places whose chunk has room, or that have no chunk.
	where  map[V]uint32 // The place of each value's chunk.
}

// directory holds the chunks. Its places are written by the writer and read by anyone; the atomic store publishes a
// chunk. nil is a chunk without values.
type directory[V comparable] []atomic.Pointer[chunk[V]]

// chunk holds values up to used. The writer fills the value after them, then stores used: what readers may look at
// never changes.
type chunk[V comparable] struct {
	used   atomic.Uint32
	values [chunkValues]V
}

const (
	// chunkValues makes a chunk of pointers 128 bytes long, a size of the Go heap.
	chunkValues = 15
	// directoryMin is the directory of the smallest crowd.
	directoryMin = 4
)

func newCrowd[V comparable](values []V) *crowd[V] {
	c := new(crowd[V])
	c.fill(values)
	return c
}

// appendTo appends all values to dst.
func (c *crowd[V]) appendTo(dst []V) []V {
	d := *c.directory.Load()
	for i := range d {
		if k := d[i].Load(); k != nil {
			dst = append(dst, k.values[:k.used.Load()]...)
		}
	}
	return dst
}

// add returns whether v was there. Writer only.
func (c *crowd[V]) add(v V) (had bool) {
	if _, had = c.where[v]; had {
		return true
	}
	if len(c.roomy) == 0 {
		c.extend()
	}
	place := c.roomy[len(c.roomy)-1]
	at := &(*c.directory.Load())[place]
	k := at.Load()
	if k == nil {
		k = new(chunk[V])
		at.Store(k)
	}
	n := k.used.Load()
	k.values[n] = v
	k.used.Store(n + 1)
	if n+1 == chunkValues {
		c.roomy = c.roomy[:len(c.roomy)-1]
	}
	c.where[v] = place
	c.size++
	return false
}

// extend takes one more place into use, in a directory twice as long if need be.
func (c *crowd[V]) extend() {
	old := *c.directory.Load()
	if int(c.chunks) == len(old) {
		next := make(directory[V], 2*len(old))
		for i := range old {
			next[i].Store(old[i].Load())
		}
		c.directory.Store(&next)
	}
	c.roomy = append(c.roomy, c.chunks)
	c.chunks++
}

// remove returns whether v was there. Writer only.
func (c *crowd[V]) remove(v V) (had bool) {
	place, had := c.where[v]
	if !had {
		return false
	}
	delete(c.where, v)
	c.size--
	at := &(*c.directory.Load())[place]
	k := at.Load()
	if k.used.Load() == chunkValues {
		c.roomy = append(c.roomy, place)
	}
	at.Store(k.without(v))
	if c.size*4 < int(c.chunks)*chunkValues && c.chunks > directoryMin {
		c.fill(c.appendTo(make([]V, 0, c.size)))
	}
	return true
}

// without returns a copy less v, or nil if that has no values.
func (k *chunk[V]) without(v V) *chunk[V] {
	used := k.used.Load()
	if used == 1 {
		return nil
	}
	next, n := new(chunk[V]), uint32(0)
	for _, w := range k.values[:used] {
		if w != v {
			next.values[n] = w
			n++
		}
	}
	next.used.Store(n)
	return next
}

// fill makes values the crowd's contents, in chunks, a directory and a map that hold no more than they need. Readers
// see all values of before or all values.
func (c *crowd[V]) fill(values []V) {
	c.size = len(values)
	c.chunks = uint32((len(values) + chunkValues - 1) / chunkValues)
	c.roomy = nil
	c.where = make(map[V]uint32, len(values))
	d := make(directory[V], max(directoryMin, c.chunks))
	for place := range c.chunks {
		k := new(chunk[V])
		n := copy(k.values[:], values[place*chunkValues:])
		k.used.Store(uint32(n))
		for _, v := range k.values[:n] {
			c.where[v] = place
		}
		if n < chunkValues {
			c.roomy = append(c.roomy, place)
		}
		d[place].Store(k)
	}
	c.directory.Store(&d)
}
