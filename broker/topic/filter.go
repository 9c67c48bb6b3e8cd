package topic

import (
	"strings"
	"unicode/utf8"
)

// sharePrefix begins the Topic Filter of a Shared Subscription.
const sharePrefix = "$share/"

// ValidFilter says whether s is a Topic Filter: 1 to 65,535 bytes of MQTT UTF-8 whose wildcards stand alone in their
// level, '#' in the last one. It does not look at "$share/"; ParseShared does.
func ValidFilter[T string | []byte](s T) bool {
	return validFilter([]byte(s)) // The compiler does not copy here: nothing keeps or changes the bytes.
}

func validFilter(b []byte) bool {
	if len(b) == 0 || len(b) > lengthMaxBytes || !utf8.Valid(b) { // [MQTT-4.7.3-1] [MQTT-4.7.3-3] [MQTT-1.5.4-1]
		return false
	}
	for i, c := range b {
		if c == 0 { // [MQTT-4.7.3-2]
			return false
		}
		alone := (i == 0 || b[i-1] == '/') && (i+1 == len(b) || b[i+1] == '/')
		if c == '+' && !alone { // [MQTT-4.7.1-2]
			return false
		}
		if c == '#' && (!alone || i+1 != len(b)) { // [MQTT-4.7.1-1]
			return false
		}
	}
	return true
}

// ParseShared splits "$share/group/filter". shared says that filter has the "$share/" form, ok that it is well-formed;
// for any other filter group is empty, rest is filter itself, and ok is ValidFilter.
func ParseShared(filter string) (group, rest string, shared, ok bool) {
	ok = ValidFilter(filter)
	rest, shared = strings.CutPrefix(filter, sharePrefix) // [MQTT-4.8.2-1]
	if !shared {
		return "", filter, false, ok
	}
	group, rest, cut := strings.Cut(rest, "/")                         // [MQTT-4.8.2-2]
	ok = ok && cut && group != "" && !HasWildcard(group) && rest != "" // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
	return group, rest, true, ok
}

// Match says whether a Topic Name matches a valid Topic Filter. It is for single questions (authorisation, retained
// messages, tests); Index.Match asks all filters at once.
func Match(filter, name string) bool {
	if name == "" || name[0] == '$' && (filter == "" || filter[0] == '+' || filter[0] == '#') { // [MQTT-4.7.2-1]
		return false
	}
	for {
		want, filterRest, filterMore := strings.Cut(filter, "/")
		if want == "#" {
			return true
		}
		have, nameRest, nameMore := strings.Cut(name, "/")
		if want != "+" && want != have {
			return false
		}
		if !nameMore {
			return !filterMore || filterRest == "#" // "a/#" matches "a" too: section 4.7.1.2.
		}
		if !filterMore {
			return false
		}
		filter, name = filterRest, nameRest
	}
}

// HasWildcard says whether a Topic Filter is not exact.
func HasWildcard(filter string) bool {
	return strings.IndexByte(filter, '+') >= 0 || strings.IndexByte(filter, '#') >= 0
}

// LiteralPrefix returns the levels before the first wildcard, joined: "a/b" for "a/b/+/c", "" for "+/x" and "#", and
// the whole of an exact filter. The prefix of "/+", which is one empty level, is "" as well.
func LiteralPrefix(filter string) string {
	for i := 0; ; {
		level, _, more := strings.Cut(filter[i:], "/")
		if level == "+" || level == "#" {
			return filter[:max(i-1, 0)]
		}
		if !more {
			return filter
		}
		i += len(level) + 1
	}
}
