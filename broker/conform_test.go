package broker_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// conformance holds packet sequences of other projects; its README.md says what they look like. It is no part of the
// repository.
const conformance = "../../shared/conformance"

// How many cases there are: 1,261 in all.
const (
	sequencesKnown = 1201
	malformedKnown = 60
)

// conformGroup is a group of cases in one of the files of the folder seq.
type conformGroup struct {
	Group   string        `json:"group"`
	Version *int          `json:"ver"`
	Connect *bool         `json:"connect"`
	Close   *bool         `json:"expect_disconnect"`
	Tests   []conformCase `json:"tests"`
}

type conformCase struct {
	Name     string `json:"name"`
	Version  *int   `json:"ver"`
	Connect  *bool  `json:"connect"`
	Close    *bool  `json:"expect_disconnect"`
	Messages []struct {
		Type    string `json:"type"`
		Payload string `json:"payload"`
	} `json:"msgs"`
}

// either is the first of two settings that is there.
func either[T any](own, group *T, otherwise T) T {
	switch {
	case own != nil:
		return *own
	case group != nil:
		return *group
	}
	return otherwise
}

// needsConformance skips the test where nobody has given the cases; where the folder is, a case that is missing is an error.
func needsConformance(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(conformance); os.IsNotExist(err) {
		t.Skipf("%s is not part of the repository and not there", conformance)
	}
}

func conformFile(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(conformance, name))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func conformWorld(t *testing.T, shards int) *world {
	c, err := script.Parse("options aliasmax=10") // the maximum that one case counts on
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, shards, c)
}

// TestConformance plays the sequences: the connection must end or live as the case says, and what is received must be
// what the case says, where the standard does not leave the choice. deviations lists the cases in
// which this broker makes another choice.
func TestConformance(t *testing.T) {
	needsConformance(t)
	folder := filepath.Join(conformance, "seq")
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s has no sequences: %v", folder, err)
	}
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			played, held, differ := 0, 0, map[string]int{}
			for _, path := range paths {
				var groups []conformGroup
				conformFile(t, filepath.Join("seq", filepath.Base(path)), &groups)
				for _, g := range groups {
					held += conformGroupOf(t, shards, g, differ)
					played += len(g.Tests)
				}
			}
			for _, d := range deviations() {
				t.Logf("%d sequences differ: %s", differ[d.reason], d.reason)
				if differ[d.reason] == 0 {
					t.Errorf("no sequence needs the deviation %s", d.cases)
				}
			}
			t.Logf("%d of %d sequences hold", held, played)
			if played < sequencesKnown {
				t.Errorf("%d sequences were played of the %d that are known", played, sequencesKnown)
			}
		})
	}
}

// conformGroupOf plays the cases of a group on one broker, with a bystander who must not notice.
func conformGroupOf(t *testing.T, shards int, g conformGroup, differ map[string]int) (held int) {
	w := conformWorld(t, shards)
	bystander := w.dial("bystander", packet.V50)
	bystander.write(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, CleanStart: true, ClientID: []byte("bystander")}))
	w.settle()
	for i, c := range g.Tests {
		name := g.Group + ": " + c.Name
		err := conformPlay(w, fmt.Sprint("case", i), g, c)
		reason := deviationOf(name)
		switch {
		case err == nil:
			held++
		case reason != "":
			differ[reason]++
		default:
			t.Errorf("%s: %v", name, err)
		}
	}
	bystander.heard = nil
	bystander.write(packet.AppendPingreq(nil))
	w.settle()
	if got := fmt.Sprint(bystander.heard); got != "[PINGRESP]" {
		t.Errorf("%s: the bystander hears %s", g.Group, got)
	}
	w.end()
	return held
}

// conformPlay plays one case as a client of its own.
func conformPlay(w *world, name string, g conformGroup, c conformCase) error {
	v := packet.Version(either(c.Version, g.Version, 4))
	p := w.dial(name, v)
	p.anyVersion = !either(c.Connect, g.Connect, true)
	defer func() {
		p.leave(p.peer.Close)
		w.settle()
		for _, name := range []string{"p", "test", "conform"} {
			w.known[name] = true
		}
	}()
	if either(c.Connect, g.Connect, true) {
		p.write(packet.AppendConnect(nil, &packet.Connect{Version: v, CleanStart: true, ClientID: []byte("conform"), KeepAlive: 60}))
		w.settle()
		if len(p.heard) != 1 {
			return fmt.Errorf("CONNECT: %q", p.heard)
		}
		p.heard = nil
	}
	for i, m := range c.Messages {
		b, err := script.Bytes(m.Payload)
		if err != nil {
			return err
		}
		if m.Type == "send" {
			p.write(b)
			w.settle()
			continue
		}
		if err := p.expect(b); err != nil {
			return fmt.Errorf("message %d: %w", i+1, err)
		}
	}
	want, ended := either(c.Close, g.Close, true), p.closed != ""
	switch {
	case want != ended:
		return fmt.Errorf("connection closed: %v; heard %q", ended, p.heard)
	case !ended && len(p.heard) > 0:
		return fmt.Errorf("heard too much: %q", p.heard)
	}
	return nil
}

// expect compares the next packet that was heard with that of the case. Which limits a CONNACK names and which of the
// Reason Codes a refusal has is the broker's choice, and so is whether CONNACK is sent at all before a refused connection
// is closed [MQTT-3.1.4-1].
func (c *client) expect(b []byte) error {
	h, r := packet.ParseHeader(b)
	if r != packet.Success || h.Size == 0 || h.Size+h.Remaining > len(b) {
		return fmt.Errorf("the case expects % x", b)
	}
	want, r := script.Describe(h, b[h.Size:h.Size+h.Remaining], c.version, usual())
	if h.Kind == packet.CONNACK && r != packet.Success {
		want = "CONNACK 0x8" // in the form of another version
	}
	want = essence(want)
	if len(c.heard) == 0 {
		if c.closed != "" && want == "refused" {
			return nil
		}
		return fmt.Errorf("heard nothing; want %q; closed %q", want, c.closed)
	}
	got := c.heard[0]
	c.heard = c.heard[1:]
	if essence(got) != want {
		return fmt.Errorf("heard %q; want %q", got, want)
	}
	return nil
}

// essence is what of a line is not left to the broker.
func essence(text string) string {
	words := strings.Fields(text)
	switch {
	case words[0] == "DISCONNECT":
		return "DISCONNECT"
	case words[0] == "CONNACK" && (words[1] == "return" || words[1] >= "0x8"):
		return "refused"
	case words[0] == "CONNACK":
		return fmt.Sprint("accepted ", slices.Contains(words, "present"))
	}
	// Whether anybody subscribes is not the case's business.
	return strings.TrimSuffix(text, " 0x10 No matching subscribers")
}

// deviation is a set of cases, by name, that this broker answers otherwise, with the reason why it may.
type deviation struct {
	cases  *regexp.Regexp
	reason string
}

func deviations() []deviation {
	return []deviation{
		{regexp.MustCompile(`(U\+|0x)00(01|1F|7F|9F)$`),
			"control characters: a sender SHOULD NOT use them and a receiver MAY close (section 1.5.4 of 5.0, 1.5.3 of 3.1.1); this one " +
				"passes them on, as it does non-characters"},
		{regexp.MustCompile(`^v(3.1.1|5.0  ) PUBLISH: 34 QoS 2 Dup flow\*3$`),
			"until PUBREL each PUBLISH with that Packet Identifier gets its PUBREC, however many (5.0 [MQTT-4.3.3-10], 3.1.1 " +
				"[MQTT-4.3.3-2]); the case closes at the third"},
		{regexp.MustCompile(`^v5.0   PUBLISH: PUBLISH with \$ topic - connection/state$`),
			"a bridge's topic in that broker; here it is one of $SYS, refused like its neighbours (section 4.7.2)"},
	}
}

func deviationOf(name string) (reason string) {
	for _, d := range deviations() {
		if d.cases.MatchString(name) {
			return d.reason
		}
	}
	return ""
}

// TestConformanceMalformed sends the packets that the parser tests of another project refuse, one after another: each
// is refused, or the connection closed.
func TestConformanceMalformed(t *testing.T) {
	var list []struct {
		Name string
		Hex  string
		Opts struct{ ProtocolVersion uint8 }
	}
	needsConformance(t)
	conformFile(t, "mqtt-packet.json", &list)
	if len(list) < malformedKnown {
		t.Errorf("%d packets are there of the %d that are known", len(list), malformedKnown)
	}
	for _, shards := range []int{1, 4} {
		w := conformWorld(t, shards)
		for i, c := range list {
			b, err := hex.DecodeString(c.Hex)
			if err != nil {
				t.Fatal(err)
			}
			v := packet.Version(c.Opts.ProtocolVersion)
			if v == 0 {
				v = packet.V311
			}
			p := w.dial(fmt.Sprint("case", i), v)
			if b[0]>>4 != byte(packet.CONNECT) {
				p.write(packet.AppendConnect(nil, &packet.Connect{Version: v, CleanStart: true, ClientID: []byte("conform")}))
				w.settle()
			}
			p.write(b)
			w.settle()
			// 3.1 lets the Remaining Length take precedence over the flag of a User Name that is not there.
			if p.closed == "" && c.Name != "Cannot parse username" {
				t.Errorf("%d: %s: %s: heard %q, and it is open", i, c.Name, c.Hex, p.heard)
			}
			p.leave(p.peer.Close)
			w.settle()
		}
		w.known["conform"], w.known["topic"], w.topics["payload"] = true, true, true
		w.end()
	}
}
