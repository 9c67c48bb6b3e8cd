package topic

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// naive is section 4.7 once more, written apart from the package: the model of all tests here.
func naive(filter, name string) bool {
	if strings.HasPrefix(name, "$") && (filter[0] == '+' || filter[0] == '#') { // [MQTT-4.7.2-1]
		return false
	}
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	for i := range f {
		if f[i] == "#" {
			return len(n) >= i
		}
		if i >= len(n) || f[i] != "+" && f[i] != n[i] {
			return false
		}
	}
	return len(f) == len(n)
}

// topics returns every sequence of up to depth levels out of alphabet that keep accepts.
func topics(depth int, alphabet []string, keep func(string) bool) []string {
	var all []string
	level := slices.Clone(alphabet)
	for range depth {
		var next []string
		for _, t := range level {
			if keep(t) {
				all = append(all, t)
			}
			for _, a := range alphabet {
				next = append(next, t+"/"+a)
			}
		}
		level = next
	}
	return all
}

func allFilters() []string {
	return topics(4, []string{"", "a", "b", "$x", "+", "#"}, ValidFilter[string])
}

func allNames() []string {
	return topics(4, []string{"", "a", "b", "$x"}, func(s string) bool { return ValidName([]byte(s)) })
}

func TestMatchAgainstNaive(t *testing.T) {
	names := allNames()
	for _, filter := range allFilters() {
		for _, name := range names {
			if got, want := Match(filter, name), naive(filter, name); got != want {
				t.Fatalf("Match(%q, %q) = %v, want %v", filter, name, got, want)
			}
		}
	}
}

func TestMatchTraps(t *testing.T) {
	for _, c := range []struct {
		filter, name string
		want         bool
	}{
		{"a/+/#", "a/b", true},
		{"a/+/#", "a/b/c", true},
		{"a/+/#", "a", false},
		{"a/#", "a", true},
		{"a/#", "ab", false},
		{"+/+", "/x", true},
		{"/+", "/x", true},
		{"+", "/x", false},
		{"#", "a/b", true},
		{"#", "$SYS/x", false},      // [MQTT-4.7.2-1]
		{"+/x", "$SYS/x", false},    // [MQTT-4.7.2-1]
		{"+/#", "$SYS/x", false},    // [MQTT-4.7.2-1]
		{"$SYS/#", "$SYS/x", true},  // [MQTT-4.7.2-1]
		{"$SYS/+", "$SYS/x", true},  // [MQTT-4.7.2-1]
		{"a/+", "a/$SYS", true},     // Only the first level is special.
		{"sport/+", "sport", false}, // The specification's own example.
		{"sport/+", "sport/", true},
		{"a", "A", false}, // [MQTT-4.7.3-4]
	} {
		if got := Match(c.filter, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.name, got)
		}
		x := NewIndex[int]()
		x.Add(c.filter, 1)
		if got := len(x.Match([]byte(c.name), nil)) == 1; got != c.want {
			t.Errorf("Index with %q matches %q: %v", c.filter, c.name, got)
		}
	}
}

// Each byte at each place of a name that spans the word loop and its tail.
func TestValidNameBytes(t *testing.T) {
	for size := 1; size <= 19; size++ {
		for at := range size {
			for c := range 256 {
				b := bytes.Repeat([]byte("m"), size)
				b[at] = byte(c)
				want := c < 0x80 && c != 0 && c != '+' && c != '#' // [MQTT-4.7.0-1] [MQTT-4.7.3-2]
				if ValidName(b) != want {
					t.Fatalf("ValidName(%q) = %v", b, !want)
				}
			}
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"":                         false, // [MQTT-4.7.3-1]
		"/":                        true,
		"a//b":                     true,
		"$SYS/x":                   true,
		"grün/straße/温度":           true,
		"0123456温/+":               false, // [MQTT-4.7.0-1]
		"0123456温\x00":             false, // [MQTT-1.5.4-2]
		"\ufeffbom":                true,  // [MQTT-1.5.4-3]
		"surrogate \xed\xa0\x80":   false, // [MQTT-1.5.4-1]
		"overlong \xc0\xaf":        false, // [MQTT-1.5.4-1]
		"cut \xe6\xb8":             false, // [MQTT-1.5.4-1]
		strings.Repeat("a", 65535): true,
		strings.Repeat("a", 65536): false, // [MQTT-4.7.3-3]
	} {
		if got := ValidName([]byte(name)); got != want {
			t.Errorf("ValidName(%.20q, %d bytes) = %v", name, len(name), got)
		}
	}
}

func TestValidFilter(t *testing.T) {
	for filter, want := range map[string]bool{
		"":                         false, // [MQTT-4.7.3-1]
		"#":                        true,
		"+":                        true,
		"/":                        true,
		"+/+/#":                    true,
		"/#":                       true,
		"温/+":                      true,
		"a#":                       false, // [MQTT-4.7.1-1]
		"a/#/b":                    false, // [MQTT-4.7.1-1]
		"#/":                       false, // [MQTT-4.7.1-1]
		"a/##":                     false, // [MQTT-4.7.1-1]
		"a+":                       false, // [MQTT-4.7.1-2]
		"+a/b":                     false, // [MQTT-4.7.1-2]
		"a/++/b":                   false, // [MQTT-4.7.1-2]
		"a/+#":                     false, // [MQTT-4.7.1-2]
		"a\x00":                    false, // [MQTT-4.7.3-2]
		"a\xed\xa0\x80":            false, // [MQTT-1.5.4-1]
		strings.Repeat("a", 65535): true,
		strings.Repeat("a", 65536): false, // [MQTT-4.7.3-3]
	} {
		if got := ValidFilter(filter); got != want {
			t.Errorf("ValidFilter(%.20q) = %v", filter, got)
		}
		if got := ValidFilter([]byte(filter)); got != want {
			t.Errorf("ValidFilter([]byte(%.20q)) = %v", filter, got)
		}
	}
}

func TestParseShared(t *testing.T) {
	for _, c := range []struct {
		filter, group, rest string
		shared, ok          bool
	}{
		{"a/+", "", "a/+", false, true},
		{"a+", "", "a+", false, false},
		{"", "", "", false, false},
		{"$share", "", "$share", false, true},
		{"$shared/g/f", "", "$shared/g/f", false, true},
		{"$share/g/f", "g", "f", true, true},
		{"$share/g//", "g", "/", true, true},
		{"$share/g/a/+/#", "g", "a/+/#", true, true},
		{"$share/g/#", "g", "#", true, true},
		{"$share/", "", "", true, false},      // [MQTT-4.8.2-1]
		{"$share//f", "", "f", true, false},   // [MQTT-4.8.2-1]
		{"$share/g", "g", "", true, false},    // [MQTT-4.8.2-2]
		{"$share/g/", "g", "", true, false},   // [MQTT-4.7.3-1]
		{"$share/+/f", "+", "f", true, false}, // [MQTT-4.8.2-2]
		{"$share/#", "#", "", true, false},    // [MQTT-4.8.2-2]
		{"$share/g+/f", "g+", "f", true, false},
		{"$share/g/f#", "g", "f#", true, false}, // [MQTT-4.7.1-1]
		{"$share/g\x00/f", "g\x00", "f", true, false},
	} {
		group, rest, shared, ok := ParseShared(c.filter)
		if group != c.group || rest != c.rest || shared != c.shared || ok != c.ok {
			t.Errorf("ParseShared(%q) = %q %q %v %v", c.filter, group, rest, shared, ok)
		}
	}
}

func TestLiteralPrefix(t *testing.T) {
	for filter, want := range map[string]string{
		"a/b/+/c": "a/b", "a/b/#": "a/b", "a/b": "a/b", "+/x": "", "#": "", "+": "", "/+": "", "//+": "/", "a//#": "a/",
		"": "", "$x/#": "$x",
	} {
		if got := LiteralPrefix(filter); got != want {
			t.Errorf("LiteralPrefix(%q) = %q, want %q", filter, got, want)
		}
	}
}

func TestLevels(t *testing.T) {
	for name, want := range map[string]int{"": 1, "a": 1, "/": 2, "a/b/c": 3, "//a/": 4} {
		if Levels(name) != want || Levels([]byte(name)) != want {
			t.Errorf("Levels(%q) = %d, want %d", name, Levels(name), want)
		}
	}
}

func TestLevelEnd(t *testing.T) {
	// 0xae and 0x2e are '/' with one bit changed, the neighbours that masks confuse.
	b := []byte("0/23456\xae89\x2e0123456789/\x30//567890123456")
	for i := range len(b) + 1 {
		want := len(b)
		if n := bytes.IndexByte(b[i:], '/'); n >= 0 {
			want = i + n
		}
		if got := levelEnd(b, i); got != want {
			t.Errorf("levelEnd(%q, %d) = %d, want %d", b, i, got, want)
		}
	}
}
