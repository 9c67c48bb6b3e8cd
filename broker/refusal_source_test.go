package broker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// twice are the statements that more than one line refuses by, with the reason.
func twice() map[string]string {
	return map[string]string{
		"MQTT-1.5.4-1":  "strings of fields, and of properties",
		"MQTT-1.5.4-2":  "strings of fields, and of properties",
		"MQTT-2.2.1-3":  "PUBLISH is decoded by hand",
		"MQTT-2.2.2-1":  "PUBLISH is decoded by hand",
		"MQTT-3.1.2-24": "CONNACK, before its Session is touched, and every other packet",
		"MQTT-4.12.0-5": "a method must be there, and be the one of CONNECT",
	}
}

// TestEveryRefusalIsNamed reads the code that refuses packets of a client: each line says by which statement or section, and no
// statement is refused in two places.
func TestEveryRefusalIsNamed(t *testing.T) {
	refuses := regexp.MustCompile(`(return |fail\(|reason = |, f\.reason = |violate\(|refuse\().*\b(MalformedPacket|ProtocolError|TopicAliasInvalid|TopicNameInvalid|` +
		`ReceiveMaximumExceeded|PacketTooLarge|UnsupportedProtocolVersion|BadAuthenticationMethod|ClientIdentifierNotValid)\b`)
	named := regexp.MustCompile(`// .*(MQTT-[0-9]|[Ss]ections? [0-9]|Table [0-9])`)
	statement := regexp.MustCompile(`MQTT-[0-9.]+-[0-9]+`)
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
				if !refuses.MatchString(line) || strings.HasPrefix(strings.TrimSpace(line), "//") {
					continue
				}
				lines++
				at := fmt.Sprintf("%s:%d", path, number)
				if !named.MatchString(line) {
					t.Errorf("%s: %s: by which statement or section?", at, strings.TrimSpace(line))
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

// refusingLinesMin is well below how many lines there are.
const refusingLinesMin = 40

// fromServers are the files that decode what a server sends: what they refuse, clients of ours refuse. reason.go has but names.
var fromServers = [...]string{"connack.go", "suback.go", "reason.go"}
