package main

import (
	"slices"
	"testing"
)

// TestFootprints: a soak finds what there is too much of, and no more than that.
func TestFootprints(t *testing.T) {
	first := footprint{"shards": 2, "sessions in use": 0, "pages in use": 192, "heap bytes": 7 << 20, "resident bytes": 30 << 20, "descriptors": 14}
	warm := footprint{"shards": 2, "sessions in use": 3, "pages in use": 400, "heap bytes": 9 << 20, "resident bytes": 40 << 20, "descriptors": 14}
	for _, row := range []struct {
		change map[string]int64
		more   []string
	}{
		{nil, nil},
		{map[string]int64{"sessions in use": 1}, []string{"sessions in use"}},
		{map[string]int64{"descriptors": 16, "heap bytes": 10<<20 + 1}, []string{"descriptors", "heap bytes"}},
		{map[string]int64{"pages in use": 192 + 36, "resident bytes": 50 << 20}, nil},
		{map[string]int64{"pages in use": 192 + 37, "resident bytes": 50<<20 + 1}, []string{"pages in use", "resident bytes"}},
	} {
		end := footprint{}
		for name, n := range first {
			end[name] = n
		}
		for name, n := range row.change {
			end[name] = n
		}
		looks := footprints{first, warm, end}
		if got := looks.more(); !slices.Equal(got, row.more) {
			t.Errorf("%v: more of %v, want %v", row.change, got, row.more)
		}
	}
}
