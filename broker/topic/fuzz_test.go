package topic

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzValid compares the fast paths with the rules spelled out level by level.
func FuzzValid(f *testing.F) {
	for _, s := range []string{"a/b", "+/a/#", "a#", "$share/g/f", "温度/\x00", "0123456789abcdef+", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := s != "" && len(s) <= 65535 && utf8.ValidString(s) && !strings.Contains(s, "\x00")
		if got, want := ValidName([]byte(s)), text && !strings.ContainsAny(s, "+#"); got != want {
			t.Errorf("ValidName(%q) = %v", s, got)
		}
		filter, levels := text, strings.Split(s, "/")
		for i, level := range levels {
			filter = filter && (level == "+" || level == "#" && i == len(levels)-1 || !strings.ContainsAny(level, "+#"))
		}
		if got := ValidFilter(s); got != filter {
			t.Errorf("ValidFilter(%q) = %v", s, got)
		}
		if Levels(s) != len(levels) {
			t.Errorf("Levels(%q) = %d", s, Levels(s))
		}
		prefix := slices.IndexFunc(levels, func(l string) bool { return l == "+" || l == "#" })
		if prefix < 0 {
			prefix = len(levels)
		}
		if got, want := LiteralPrefix(s), strings.Join(levels[:prefix], "/"); got != want {
			t.Errorf("LiteralPrefix(%q) = %q, want %q", s, got, want)
		}
	})
}

// FuzzMatch compares Match and a one-filter Index with the naive matcher.
func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/b")
	f.Add("#", "$SYS/x")
	f.Add("/+", "/a-level-longer-than-eight")
	f.Fuzz(func(t *testing.T, filter, name string) {
		if !ValidFilter(filter) || !ValidName([]byte(name)) {
			return
		}
		want := naive(filter, name)
		if Match(filter, name) != want {
			t.Errorf("Match(%q, %q) = %v", filter, name, !want)
		}
		var x Index[int] // Without counters, which take long to make, and with hashes that are all 0.
		if HasWildcard(filter) {
			x.tree.add(filter, 1)
		} else {
			x.addExact(filter, 1)
		}
		if got := x.Match([]byte(name), nil); (len(got) == 1) != want {
			t.Errorf("Index of %q matches %q: %v", filter, name, !want)
		}
	})
}

// FuzzIndex plays additions and removals, two bytes each, on an Index and on a plain map; caches are filled on the way
// and checked at the end.
func FuzzIndex(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 1, 1, 128, 1})
	f.Add([]byte("a longer sequence of operations, chosen by nobody, that comes back: a longer sequence"))
	filters := topics(3, []string{"", "a", "$x", "+", "#"}, ValidFilter[string])
	names := topics(3, []string{"", "a", "$x"}, func(s string) bool { return ValidName([]byte(s)) })
	x := NewIndex[int]() // One for all runs: each leaves it empty, and checks that.
	f.Fuzz(func(t *testing.T, operations []byte) {
		type pair struct {
			filter string
			v      int
		}
		model := map[pair]bool{}
		caches := make([]entry, len(names))
		for i := 0; i+1 < len(operations); i += 2 {
			p := pair{filters[int(operations[i]&0x7f)%len(filters)], int(operations[i+1] % 40)}
			if operations[i] < 128 {
				if x.Add(p.filter, p.v) != model[p] {
					t.Fatalf("Add(%v) disagrees", p)
				}
				model[p] = true
			} else {
				if x.Remove(p.filter, p.v) != model[p] {
					t.Fatalf("Remove(%v) disagrees", p)
				}
				delete(model, p)
			}
			at := i % len(names)
			caches[at].load(x, []byte(names[at]))
		}
		for i, name := range names {
			var want []int
			for p := range model {
				if naive(p.filter, name) {
					want = append(want, p.v)
				}
			}
			caches[i].load(x, []byte(name))
			got := slices.Sorted(slices.Values(caches[i].values))
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%q: got %v, want %v", name, got, want)
			}
		}
		if x.Len() != len(model) {
			t.Fatalf("Len is %d, want %d", x.Len(), len(model))
		}
		for p := range model {
			x.Remove(p.filter, p.v)
		}
		checkEmpty(t, x)
	})
}
