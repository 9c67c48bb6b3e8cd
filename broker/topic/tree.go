package topic

import (
	"strings"
	"sync/atomic"
)

// tree holds the filters with wildcards, one node per level, for many readers without locks and one writer. A node's
// literal children are in one table for the whole tree, so that a node is one cache line, and a level with a million
// children is no different from one with two.
type tree[V comparable] struct {
	hasher
	root     node[V]
	children table[node[V]] // By path, that is by node.path.

	// nodes counts what hangs below the root. The writer writes it, anyone reads it.
	nodes atomic.Int64
}

// node is a path of levels that some filter begins with. The fields without atomics are set before the node is
// published and never change. The others are written by the writer and read by anyone; the atomic stores publish.
//
// A node that leads nowhere is unlinked. A reader in it finds nothing, as it should: whatever is added to the same path
// after that is later than this reader.
type node[V comparable] struct {
	path   uint64 // The hash of the levels.
	parent *node[V]
	level  string // The last level.

	plus     atomic.Pointer[node[V]]      // The child for '+'.
	multi    atomic.Pointer[receivers[V]] // Of the filter that goes on with "/#" and ends.
	end      atomic.Pointer[receivers[V]] // Of the filter that ends here.
	literals atomic.Int32                 // Children in the table: at 0 a reader need not look there.
}

// levelPinMaxBytes is how long a filter may be for its nodes to point into it: longer ones are not kept alive by a
// node with a short level that other filters need.
const levelPinMaxBytes = 128

// match appends the receivers of every filter below n that matches rest. dollar says that rest is a whole Topic Name
// that begins with '$', which no wildcard at the first level matches.
//
// A node is visited at most once, and a visited node stands for one choice of '+' or the level itself at each level so
// far: at depth i there are at most min(2^i, nodes of that depth) of them, and each is the beginning of a filter that
// somebody subscribed to. So a match costs at most (filters with wildcards) × (levels) node visits, however they were
// chosen, and takes as many stack frames as the name has levels.
func (t *tree[V]) match(n *node[V], rest []byte, dollar bool, dst []V) []V {
	for {
		var plus *node[V]
		if !dollar { // [MQTT-4.7.2-1]
			if r := n.multi.Load(); r != nil {
				dst = r.appendTo(dst)
			}
			plus = n.plus.Load()
		}
		literal, end := t.child(n, rest)
		if end == len(rest) {
			return literal.finish(plus.finish(dst))
		}
		rest, dollar = rest[end+1:], false
		switch {
		case plus == nil && literal == nil:
			return dst
		case plus == nil:
			n = literal
		case literal == nil:
			n = plus
		default:
			dst = t.match(plus, rest, false, dst)
			n = literal
		}
	}
}

// finish appends the receivers for a name that ends at n, which may be nil. "a/#" matches "a": section 4.7.1.2.
func (n *node[V]) finish(dst []V) []V {
	if n == nil {
		return dst
	}
	if r := n.end.Load(); r != nil {
		dst = r.appendTo(dst)
	}
	if r := n.multi.Load(); r != nil {
		dst = r.appendTo(dst)
	}
	return dst
}

// child returns the child for the first level of rest, or nil, and where that level ends.
func (t *tree[V]) child(n *node[V], rest []byte) (c *node[V], end int) {
	if n.literals.Load() == 0 {
		return nil, levelEnd(rest, 0)
	}
	path, end := t.step(n.path, rest, 0)
	p := t.children.probe(path)
	for {
		c := p.next()
		if c == nil || c.parent == n && c.level == string(rest[:end]) {
			return c, end
		}
	}
}

// add returns whether (filter, v) was there, and whether it is the first of its filter. Writer only.
func (t *tree[V]) add(filter string, v V) (had, first bool) {
	_, at := t.find(filter, true)
	r := at.Load()
	if r == nil {
		at.Store(&receivers[V]{one: v})
		return false, true
	}
	next, had := r.with(v)
	if next != r {
		at.Store(next)
	}
	return had, false
}

// remove returns whether (filter, v) was there, and whether it was the last of its filter. Writer only.
func (t *tree[V]) remove(filter string, v V) (had, last bool) {
	n, at := t.find(filter, false)
	if n == nil || at.Load() == nil {
		return false, false
	}
	r := at.Load()
	next, had := r.without(v)
	if next != r {
		at.Store(next)
	}
	if next == nil {
		t.prune(n)
	}
	return had, next == nil
}

// find returns the node of a filter and the place of its receivers. Without grow it returns nil if there is none; with
// grow it makes the nodes that are missing.
func (t *tree[V]) find(filter string, grow bool) (*node[V], *atomic.Pointer[receivers[V]]) {
	n, pin := &t.root, len(filter) <= levelPinMaxBytes
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" && !more {
			return n, &n.multi
		}
		next := n.plus.Load()
		if level != "+" {
			next, _ = t.child(n, []byte(level))
		}
		if next == nil {
			if !grow {
				return nil, nil
			}
			if !pin {
				level = strings.Clone(level)
			}
			next = t.sprout(n, level)
		}
		n = next
	}
	return n, &n.end
}

// sprout adds a child to n.
func (t *tree[V]) sprout(n *node[V], level string) *node[V] {
	path, _ := t.step(n.path, []byte(level), 0)
	c := &node[V]{path: path, parent: n, level: level}
	t.nodes.Add(1)
	if level == "+" {
		n.plus.Store(c)
		return c
	}
	n.literals.Add(1) // Before the child can be found, or a reader could overlook it for longer than this call.
	t.children.insert(c.path, c)
	return c
}

// prune unlinks n and those above it that no filter needs.
func (t *tree[V]) prune(n *node[V]) {
	for n.parent != nil && n.end.Load() == nil && n.multi.Load() == nil && n.plus.Load() == nil && n.literals.Load() == 0 {
		if n.level == "+" {
			n.parent.plus.Store(nil)
		} else {
			t.children.remove(n.path, n)
			n.parent.literals.Add(-1)
		}
		t.nodes.Add(-1)
		n = n.parent
	}
}
