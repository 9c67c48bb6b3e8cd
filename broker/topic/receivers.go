package topic

import "slices"

// receivers are the values of one filter: one inline, a few in a slice, or a crowd. A published receivers and its
// slice never change, a change makes a new one; only a crowd changes in place, in steps its readers see whole. So a
// single subscriber, by far the usual case, costs no slice and no backing array.
type receivers[V comparable] struct {
	one  V        // The value if many is nil, otherwise the zero V.
	many *many[V] // Two values or more.
}

type many[V comparable] struct {
	few   []V       // Up to fewMax values; nil if there is a crowd.
	crowd *crowd[V] // More; nil if there are few.
}

const (
	// fewMax is how many values a change may copy: 128 bytes of pointers, two cache lines.
	fewMax = 16
	// crowdMin is the size at which a crowd becomes few again: far enough below fewMax that one value that comes and
	// goes does not turn one into the other each time.
	crowdMin = 8
)

// appendTo appends all values to dst.
func (r *receivers[V]) appendTo(dst []V) []V {
	switch {
	case r.many == nil:
		return append(dst, r.one)
	case r.many.crowd == nil:
		return append(dst, r.many.few...)
	}
	return r.many.crowd.appendTo(dst)
}

// with returns the receivers that include v: r itself if it had v already (had) or its crowd took it in.
func (r *receivers[V]) with(v V) (next *receivers[V], had bool) {
	var few []V
	switch {
	case r.many == nil:
		if r.one == v {
			return r, true
		}
		few = []V{r.one, v}
	case r.many.crowd != nil:
		return r, r.many.crowd.add(v)
	default:
		if slices.Contains(r.many.few, v) {
			return r, true
		}
		few = append(append(make([]V, 0, len(r.many.few)+1), r.many.few...), v)
	}
	if len(few) > fewMax {
		return &receivers[V]{many: &many[V]{crowd: newCrowd(few)}}, false
	}
	return &receivers[V]{many: &many[V]{few: few}}, false
}

// without returns the receivers less v: nil if none is left, r itself if it had no v or its crowd let it go.
func (r *receivers[V]) without(v V) (next *receivers[V], had bool) {
	switch {
	case r.many == nil:
		if r.one != v {
			return r, false
		}
		return nil, true
	case r.many.crowd != nil:
		had = r.many.crowd.remove(v)
		if r.many.crowd.size > crowdMin {
			return r, had
		}
		return &receivers[V]{many: &many[V]{few: r.many.crowd.appendTo(nil)}}, had
	}
	i := slices.Index(r.many.few, v)
	switch {
	case i < 0:
		return r, false
	case len(r.many.few) == 2:
		return &receivers[V]{one: r.many.few[1-i]}, true
	}
	few := make([]V, 0, len(r.many.few)-1)
	few = append(append(few, r.many.few[:i]...), r.many.few[i+1:]...)
	return &receivers[V]{many: &many[V]{few: few}}, true
}
