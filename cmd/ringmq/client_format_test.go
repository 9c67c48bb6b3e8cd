package main

import (
	"testing"
	"time"

	"github.com/ringmq/ringmq/cmd/client"
)

func sample() *received {
	expiry, indicator, id := uint32(77), byte(1), 5
	return &received{at: time.Date(2026, 1, 4, 15, 4, 5, 6007000, time.FixedZone("", 3600)), Message: &client.Message{Topic: "a/b",
		Payload: []byte(`{"a":1.50}`), QoS: 1, PacketID: 9, Properties: client.Properties{ContentType: "ct", ResponseTopic: "r/t", CorrelationData: []byte("cd"),
			MessageExpiry: &expiry, PayloadFormat: &indicator, SubscriptionID: &id, User: []client.UserProperty{{Name: "k", Value: "v"}, {Name: "k", Value: "w"}}}}}
}

// TestFormat: widths and precisions are mosquitto_sub's where its manual and its program agree.
func TestFormat(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"plain %% @@":                   "plain % @",
		"%t|%6t|%-6t|%.2t|%6.2t|%06t":   "a/b|   a/b|a/b   |a/|    a/|   a/b",
		"%p|%5p|%-12p|%12p":             `{"a":1.50}|{"a":|{"a":1.50}  |  {"a":1.50}`,
		"%x|%4x|%5X|%-22x|%022x":        "7b2261223a312e35307d|7b22|7B226|7b2261223a312e35307d  |007b2261223a312e35307d",
		"%l|%5l|%05l|%-5l|%m|%q|%r":     "10|   10|00010|10   |9|1|0",
		"%A|%C|%D|%E|%F|%P|%R|%S":       "|ct|cd|77|1|k:v k:w|r/t|5",
		"%5A|%.1C|%4E|%03F|%-4S|":       "     |c|  77|001|5   |",
		"%I|%.10I|%U":                   "2026-01-04T15:04:05+0100|2026-01-04|1767535445.006007000",
		"@Y-@m-@dT@H:@M:@S.@N@z":        "2026-01-04T15:04:05.006007000+0100",
		"@y|@e|@I|@p|@a|@A|@b|@B|@h|@j": "26| 4|03|PM|Sun|Sunday|Jan|January|Jan|004",
		"@s|@F|@T|@D|@R|@C|@g|@G|@V":    "1767535445|2026-01-04|15:04:05|01/04/26|15:04|20|26|2026|01",
		"@k|@l|@u|@w|@U|@W|@n|@t":       "15| 3|7|0|01|00|\n|\t",
		"@c|@x|@X|@r":                   "Sun Jan  4 15:04:05 2026|01/04/26|15:04:05|03:04:05 PM",
		`\\\0\a\e\n\r\t\v`:              "\\\x00\a\x1b\n\r\t\v",
		"%j":                            `{"tst":"2026-01-04T15:04:05.006007+0100","topic":"a/b","qos":1,"retain":0,"payloadlen":10,"mid":9,"properties":{"user-properties":{"k":"v","k":"w"},"content-type":"ct","response-topic":"r/t","correlation-data":"cd","payload-format-indicator":1,"message-expiry-interval":77,"subscription-identifier":5},"payload":"{\"a\":1.50}"}`,
		"%J":                            `{"tst":"2026-01-04T15:04:05.006007+0100","topic":"a/b","qos":1,"retain":0,"payloadlen":10,"mid":9,"properties":{"user-properties":{"k":"v","k":"w"},"content-type":"ct","response-topic":"r/t","correlation-data":"cd","payload-format-indicator":1,"message-expiry-interval":77,"subscription-identifier":5},"payload":{"a":1.50}}`,
	} {
		f, err := compileFormat(text, false)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got, err := f.append([]byte(">"), sample())
		if err != nil || string(got) != ">"+want {
			t.Errorf("%q gives %q, want %q, %v", text, got, want, err)
		}
	}
}

// TestFormatJSONOfBytes: a payload that is no text is marked.
func TestFormatJSONOfBytes(t *testing.T) {
	m := &received{at: time.Unix(0, 0).UTC(), Message: &client.Message{Topic: "<&>", Payload: []byte{0xff, 0}}}
	f, err := compileFormat("%j", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.append(nil, m)
	want := `{"tst":"1970-01-01T00:00:00.000000+0000","topic":"<&>","qos":0,"retain":0,"payloadlen":2,"payload_encoding":"base64","payload":"/wA="}`
	if err != nil || string(got) != want {
		t.Errorf("%s, want %s, %v", got, want, err)
	}
}

// FuzzFormat: what a user types is compiled or refused, and a compiled format prints.
func FuzzFormat(f *testing.F) {
	for _, text := range []string{"%t %p", "%-08.3t", "@Y", `\n`, "%", "%99999999999999999999p", "%j%J", "%.", "é%é"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if compiled, err := compileFormat(text, true); err == nil {
			if _, err := compiled.append(nil, sample()); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
