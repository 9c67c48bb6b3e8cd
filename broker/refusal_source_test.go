package broker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// twice are the statements that more than one line refuses by, with the reason.
func twice() map[string]string {
	return map[string]string{
		"MQTT-1.5.4-1":                   "strings of fields, and of properties",
		"MQTT-1.5.4-2":                   "strings of fields, and of properties",
		"MQTT-2.2.1-3":                   "PUBLISH is decoded by hand",
		"MQTT-2.2.2-1":                   "PUBLISH is decoded by hand",
		"MQTT-3.1.2-24":                  "CONNACK, before its Session is touched, and every other packet",
		"MQTT-3.1.4-2":                   "with a User Name that nobody checks, and without one",
		"MQTT-4.7.3-1":                   "Topic Names, and Topic Filters",
		"Limit: memory behind the store": "5.0 is told, 3.x is closed",
		"MQTT-4.12.0-5":                  "a method must be there, and be the one of CONNECT",
	}
}

// constant is a Reason Code's name in Go.
func constant(r packet.Reason) string {
	name := ""
	for word := range strings.FieldsFuncSeq(r.String(), func(c rune) bool { return c == ' ' || c == '-' }) {
		name += strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.ReplaceAll(name, "KeepAlivetimeout", "KeepAliveTimeout")
}

// TestEveryRefusalIsNamed reads the code that refuses packets of a client, or the client: each line says by which statement, section or
// limit, and no statement or limit refuses in two places.
func TestEveryRefusalIsNamed(t *testing.T) {
	var codes []string
	for code := range 256 {
		if r := packet.Reason(code); r.Failed() && r.String() != "Reserved" {
			codes = append(codes, constant(r))
		}
	}
	refuses := regexp.MustCompile(`(return |fail\(|reason = |, f\.reason = |violate\(|refuse\(|endSessionAs\(|refusePublish\(|\back\(|[^=!]= (packet\.|s\.elsewhere)).*\b(` +
		strings.Join(codes, "|") + `)\b`)
	named := regexp.MustCompile(`// .*(MQTT-[0-9]|[Ss]ections? [0-9]|Table [0-9]|Limit: )`)
	statement := regexp.MustCompile(`MQTT-[0-9.]+-[0-9]+(\] of 3\.1\.1)?|Limit: [^.]+`)
	places, lines := map[string][]string{}, 0
	for _, folder := range []string{".", "packet", "topic"} {
		paths, _ := filepath.Glob(filepath.Join(folder, "*.go"))
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") || slices.Contains(fromServers[:], filepath.Base(path)) {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			number := 0
			for line := range strings.Lines(string(text)) {
				number++
				if !refuses.MatchString(line) || strings.Contains(line, "return r ==") || strings.HasPrefix(strings.TrimSpace(line), "//") {
					continue
				}
				lines++
				at := fmt.Sprintf("%s:%d", path, number)
				if !named.MatchString(line) {
					t.Errorf("%s: %s: by which statement, section or limit?", at, strings.TrimSpace(line))
				}
				for _, id := range statement.FindAllString(line, -1) {
					places[id] = append(places[id], at)
				}
			}
		}
	}
	t.Logf("%d lines refuse, by %d statements", lines, len(places))
	for id, at := range places {
		if len(at) > 1 && twice()[id] == "" {
			t.Errorf("%s is refused in more than one place: %v", id, at)
		}
	}
	if lines < refusingLinesMin {
		t.Errorf("%d lines refuse: this test looks for the wrong words", lines)
	}
}

// TestCodesStandInTheirTables reads the Reason Codes that the engine refuses by: CONNACK, DISCONNECT and the acknowledgements have each of
// those with which they are named [MQTT-3.2.2-8] [MQTT-3.14.2-1] [MQTT-3.4.2-1] [MQTT-3.9.3-2]. What is named without its packet cannot
// leave with a wrong one either: the engine writes with the encoders that do not let it (packet.TestCodesOutsideTheirTable).
func TestCodesStandInTheirTables(t *testing.T) {
	codes := map[string]packet.Reason{}
	for code := range 256 {
		if r := packet.Reason(code); r.String() != "Reserved" {
			codes[constant(r)] = r
		}
	}
	connack := func(r packet.Reason) bool {
		return packet.AppendConnack(nil, &packet.Connack{Reason: r}, packet.V50)[3] == byte(r)
	}
	disconnect := func(r packet.Reason) bool {
		return r == 0 || packet.AppendDisconnectFromServer(nil, &packet.Disconnect{Reason: r})[2] == byte(r)
	}
	ack := func(r packet.Reason) bool {
		return r == 0 || packet.AppendAck(nil, packet.PUBACK, 1, r, packet.V50)[4] == byte(r)
	}
	suback := func(r packet.Reason) bool {
		return packet.AppendSuback(nil, 1, []packet.Reason{r}, packet.V50)[5] == byte(r)
	}
	word, free := regexp.MustCompile(`[A-Za-z]+`), regexp.MustCompile(`packet\.Append(Disconnect|AckFull|SubackFull|UnsubackFull)\(`)
	seen := 0
	for _, place := range []struct {
		file, says string
		has        func(packet.Reason) bool
	}{
		{"*.go", `\brefuse\(.*`, connack},
		{"connect.go", `return .*packet\..*`, connack},
		{"durable_refusal.go", `return packet\..*`, connack},
		{"*.go", `(violate|endSessionAs|sendDisconnect)\(.*`, disconnect},
		{"*.go", `refusePublish\(.*`, ack},
		{"subscribe.go", `return (.*, )?packet\.(Q|T).*`, suback},
	} {
		says := regexp.MustCompile(place.says)
		for at, line := range engineLines(t, place.file) {
			for _, found := range word.FindAllString(says.FindString(line), -1) {
				if r, isCode := codes[found]; isCode {
					if seen++; !place.has(r) {
						t.Errorf("%s: %s: the packet has no %s", at, strings.TrimSpace(line), r)
					}
				}
			}
		}
	}
	for at, line := range engineLines(t, "*.go") {
		if found := free.FindString(line); found != "" {
			t.Errorf("%s: %s writes any code that it is given", at, found)
		}
	}
	t.Logf("%d codes in their places", seen)
	if seen < refusingLinesMin {
		t.Errorf("%d codes are named: this test looks for the wrong words", seen)
	}
}

// engineLines are the lines of the engine's files without their comments, by FILE:LINE.
func engineLines(t *testing.T, pattern string) map[string]string {
	t.Helper()
	lines := map[string]string{}
	paths, _ := filepath.Glob(pattern)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			code, _, _ := strings.Cut(line, "//")
			lines[fmt.Sprintf("%s:%d", path, number)] = code
		}
	}
	return lines
}

// refusingLinesMin is well below how many lines there are.
const refusingLinesMin = 40

// fromServers are the files that decode what a server sends: what they refuse, clients of ours refuse. reason.go has but names.
var fromServers = [...]string{"connack.go", "suback.go", "reason.go"}
