package broker_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/script"
)

// TestConversations plays the scripts in testdata, each with one, two and four shards, and compares what the clients
// hear with what is recorded. Connections are dealt out to the shards in turn, so with several shards sessions,
// takeovers and Shared Subscriptions cross them: the clients must not notice. With -update the answers are recorded anew;
// every line of the difference is to be justified by the standard. testdata/README.md describes the language.
func TestConversations(t *testing.T) {
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
				recorded := play(t, scene)
				if update() {
					text = []byte(strings.Replace(string(text), scene.text, recorded, 1))
				}
			}
			if update() {
				if err := os.WriteFile(path, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

var updateFlag = flag.Bool("update", false, "record the answers of the conversations anew")

func update() bool { return *updateFlag }

// scene is a part of a script with a broker of its own: what stands between two lines that begin with "===".
type scene struct {
	path, name, text string
	line             int // of its first line in the file
}

func scenes(path, text string) (list []scene) {
	at, name := 0, ""
	var from int
	line, fromLine := 1, 1
	for at < len(text) {
		end := strings.IndexByte(text[at:], '\n') + at + 1
		if end == at {
			end = len(text)
		}
		if strings.HasPrefix(text[at:end], "===") {
			if strings.TrimSpace(text[from:at]) != "" && name != "" {
				list = append(list, scene{path, name, text[from:at], fromLine})
			}
			from, fromLine, name = at, line, strings.TrimSpace(strings.Trim(text[at:end], "= \n"))
		}
		at = end
		line++
	}
	return append(list, scene{path, name, text[from:], fromLine})
}

// play runs a scene with each number of shards and returns its text with the answers of the first.
func play(t *testing.T, sc scene) string {
	recorded := sc.text
	for i, shards := range shardCounts(sc.text) {
		t.Run(fmt.Sprintf("%s/%d shards", sc.name, shards), func(t *testing.T) {
			got := playOnce(t, sc, shards, nil)
			want := sc.text
			if update() {
				if i == 0 {
					recorded = got
				}
				want = recorded
			}
			if got != want {
				t.Errorf("%s:%d: the conversation differs:\n%s", sc.path, sc.line, difference(want, got, sc.line))
			}
		})
	}
	return recorded
}

// shardCounts is what a line "shards 1|2" says, or 1, 2 and 4.
func shardCounts(text string) (counts []int) {
	said := "1|2|4"
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, "shards "); ok {
			said = strings.TrimSpace(rest)
		}
	}
	for _, f := range strings.Split(said, "|") {
		n, err := strconv.Atoi(f)
		if err != nil {
			panic(err)
		}
		counts = append(counts, n)
	}
	return counts
}

// playOnce runs a scene and returns its text with the answers that were given: behind each block of commands a line of
// dashes, the answers, and an empty line.
func playOnce(t *testing.T, sc scene, shards int, store *memStore) string {
	var w *world
	var out strings.Builder
	answers := false
	number := sc.line - 1
	for text := range strings.Lines(sc.text) {
		number++
		said := strings.TrimSpace(text)
		switch {
		case answers && said != "":
			continue // what was recorded
		case said == "----":
			out.WriteString(text)
			out.WriteString(w.out.String())
			w.out.Reset()
			answers = true
			continue
		case strings.HasPrefix(said, "options"):
			c, err := script.Parse(said)
			if err != nil {
				t.Fatalf("%s:%d: %v", sc.path, number, err)
			}
			w = newWorldOn(t, shards, c, store, startOfTime())
			if name := c.Unused(); name != "" {
				t.Fatalf("%s:%d: there is no option %s", sc.path, number, name)
			}
		case said == "" || said[0] == '#' || said[0] == '=' || strings.HasPrefix(said, "shards "):
			answers = false
		default:
			if w == nil {
				w = newWorldOn(t, shards, script.New("options"), store, startOfTime())
			}
			if err := w.do(said); err != nil {
				t.Fatalf("%s:%d: %s: %v", sc.path, number, said, err)
			}
		}
		out.WriteString(text)
	}
	if w != nil {
		w.end()
	}
	return out.String()
}

// difference shows the lines that differ, by line number of the script, with those that lead up to each.
func difference(want, got string, first int) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		if i < len(a) && j < len(b) && a[i] == b[j] {
			i, j = i+1, j+1
			continue
		}
		for k := max(0, i-3); k < i; k++ {
			fmt.Fprintf(&out, "%5d   %s\n", first+k, a[k])
		}
		ni, nj := meet(a[i:], b[j:])
		for _, text := range a[i : i+ni] {
			fmt.Fprintf(&out, "%5d - %s\n", first+i, text)
			i++
		}
		for _, text := range b[j : j+nj] {
			fmt.Fprintf(&out, "      + %s\n", text)
		}
		j += nj
	}
	return out.String()
}

// meet is how many lines of each to skip until they agree again.
func meet(a, b []string) (int, int) {
	for sum := 1; sum < len(a)+len(b); sum++ {
		for i := max(0, sum-len(b)); i <= min(sum, len(a)); i++ {
			if j := sum - i; i < len(a) && j < len(b) && a[i] == b[j] {
				return i, j
			}
		}
	}
	return len(a), len(b)
}
