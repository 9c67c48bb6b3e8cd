package broker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/record"
)

// TestConversationsKept plays the scripts of testdata once more with a store: no client may notice, but for what the store is there
// to change.
func TestConversationsKept(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, scene := range scenes(path, string(text)) {
				for _, shards := range shardCounts(scene.text) {
					t.Run(scene.name+"/"+strconv.Itoa(shards), func(t *testing.T) { playKept(t, scene, shards) })
				}
			}
		})
	}
}

// differs says of scenes that they cannot be the same with a store, and why.
func differs(scene string) string {
	return map[string]string{
		"memory used up, 5.0":                        "what waits for an absent client is on disk and does not use memory up",
		"what a client says while its PUBLISH waits": "what waits for an absent client is on disk and does not use memory up",
		"the reader leaves in the middle":            "what waits for an absent client is on disk and not in memory",
		"Message Expiry Interval":                    "Packet Identifiers follow places in the queue, expired ones' too",
		"expired ones make room":                     "what has expired on disk counts until it is loaded",
	}[scene]
}

func playKept(t *testing.T, sc scene, shards int) {
	store := newMemStore()
	if why := differs(sc.name); why != "" {
		if playOnce(t, sc, shards, store) == sc.text {
			t.Errorf("it is the same with a store, and was not, for %s: take it off the list", why)
		}
		return
	}
	if got := playOnce(t, sc, shards, store); got != sc.text {
		t.Errorf("%s:%d: the conversation differs:\n%s", sc.path, sc.line, difference(sc.text, got, sc.line))
	}
	left := ""
	for _, k := range []record.Kind{record.KindSession} {
		if n := store.of(k); n > 0 {
			left += fmt.Sprintf(" %c %d", k, n)
		}
	}
	if left != "" && !strings.Contains(sc.text, "\nstop\n") {
		t.Error("records are left: ", left)
	}
}
