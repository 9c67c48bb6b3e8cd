package conform

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestMatch compares expectations with packets: what is not as expected must be told, and what is left open must not.
func TestMatch(t *testing.T) {
	publish := packet.AppendPublish(nil, &packet.PublishHead{Flags: packet.PublishFlags(true, 1, true), Topic: []byte("t"), PacketID: 7, HasExpiry: true, Expiry: 50,
		Forwarded: packet.AppendUserProperty(nil, []byte("a"), []byte("b"))}, []byte("x"), packet.V50)
	puback := packet.AppendAck(nil, packet.PUBACK, 7, packet.QuotaExceeded, packet.V50)
	suback := packet.AppendSuback(nil, 7, []packet.Reason{0, 2, packet.NotAuthorized}, packet.V50)
	connack := packet.AppendConnack(nil, &packet.Connack{SessionPresent: true, TopicAliasMaximum: 5}, packet.V50)
	for _, row := range []struct {
		wire    []byte
		pattern string
		matches bool
	}{
		{publish, `PUBLISH t "x" qos=1 dup retain prop=a:b`, true},
		{publish, `PUBLISH t "x" qos=1 id=7 dup? retain prop=a:b expiry=49..50`, true},
		{publish, `PUBLISH t "x" qos=1 id={i} retain dup prop=a:b expiry=..`, false},
		{publish, `PUBLISH t "x" *`, true},
		{publish, `PUBLISH {name} "x" qos=1 *`, true},
		{publish, `PUBLISH t "y" qos=1 dup retain prop=a:b`, false},
		{publish, `PUBLISH t "x" qos=2 dup retain prop=a:b`, false},
		{publish, `PUBLISH t "x" qos=1 retain prop=a:b`, false},
		{publish, `PUBLISH t "x" qos=1 dup prop=a:b`, false},
		{publish, `PUBLISH t "x" qos=1 dup retain`, false},
		{publish, `PUBLISH t "x" qos=1 dup retain prop=a:b prop=c:d`, false},
		{publish, `PUBLISH t "x" qos=1 id=8 dup retain prop=a:b`, false},
		{publish, `PUBLISH t "x" qos=1 dup retain prop=a:b expiry=-`, false},
		{publish, `PUBLISH t "x" qos=1 dup retain prop=a:b expiry=51..60`, false},
		{puback, `PUBACK 7`, false},
		{puback, `PUBACK 7 0x97`, true},
		{puback, `PUBACK 7 0x80..`, true},
		{puback, `PUBACK 8 0x97`, false},
		{puback, `PUBREC 7 0x97`, false},
		{suback, `SUBACK 7 0x00 0x02 0x80..`, true},
		{suback, `SUBACK 7 0x00 0x02`, false},
		{suback, `SUBACK 7 0x02 0x00 0x87`, false},
		{connack, `CONNACK 0x00 present aliasmax=5 assigned=-`, true},
		{connack, `CONNACK 0x00`, false},
		{connack, `CONNACK 0x00 present aliasmax=4`, false},
	} {
		h, r := packet.ParseHeader(row.wire)
		if r != packet.Success {
			t.Fatal(r)
		}
		heard, err := hear(h, row.wire[h.Size:], packet.V50)
		if err != nil {
			t.Fatal(err)
		}
		difference, err := match(row.pattern, &heard, packet.V50, variables{})
		if err != nil || (difference == "") != row.matches {
			t.Errorf("%s with %s: %q, %v", heard.text, row.pattern, difference, err)
		}
	}
}

// TestHearRefuses: what no broker may send is told, whatever the conversation expects.
func TestHearRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		wire []byte
		v    packet.Version
	}{
		{"flags of PUBACK", []byte{0x41, 2, 0, 1}, packet.V311},
		{"a Reason Code that PUBACK does not have", []byte{0x40, 3, 0, 1, 1}, packet.V50},
		{"DISCONNECT in 3.1.1", []byte{0xE0, 0}, packet.V311},
		{"a wildcard in a Topic Name", []byte{0x30, 3, 0, 1, '+'}, packet.V311},
		{"a Topic Name that is not UTF-8", []byte{0x30, 3, 0, 1, 0xFF}, packet.V311},
		{"Session Expiry Interval in DISCONNECT", []byte{0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1}, packet.V50},
		{"reserved flags of CONNACK", []byte{0x20, 2, 2, 0}, packet.V311},
		{"Session Present in a CONNACK that refuses", []byte{0x20, 3, 1, 0x87, 0}, packet.V50},
	} {
		h, r := packet.ParseHeader(row.wire)
		if r != packet.Success {
			t.Fatal(r)
		}
		if heard, err := hear(h, row.wire[h.Size:], row.v); err == nil {
			t.Errorf("%s: heard %s", row.name, heard.text)
		}
	}
}

// TestMistakesInConversations: a file that is not understood says where.
func TestMistakesInConversations(t *testing.T) {
	for text, want := range map[string]string{
		"connect a\n":                              "x.txt:1: stands before the first conversation",
		"=== a\nconnect a\n":                       "proves nothing",
		"=== a\nproves 5.0: 1.2.3-4\n":             "says nothing",
		"=== a\nproves 5: 1.2.3-4\nconnect a\n":    "x.txt:2: proves 5: 1.2.3-4: want",
		"=== a\nproves 5.0: 1\nneeds luck\nopen\n": `x.txt:3: there is no feature "luck"`,
	} {
		if _, err := parse("x.txt", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestKnownTraps: the conversations that testdata/README.md names are there.
func TestKnownTraps(t *testing.T) {
	page, err := os.ReadFile("../testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	checks, err := Checks()
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "| trap | conversation |\n")
	section, _, _ = strings.Cut(section, "\n\n")
	names := regexp.MustCompile(`(?m)\| ([a-z]+/[^|]+) \|$`).FindAllStringSubmatch(section, -1)
	if len(names) < 9 {
		t.Errorf("%d traps are named: %q", len(names), section)
	}
	for _, found := range names {
		for name := range strings.SplitSeq(found[1], ", ") {
			if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
				t.Errorf("there is no conversation %q", name)
			}
		}
	}
}
