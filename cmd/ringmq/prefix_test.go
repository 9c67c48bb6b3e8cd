package main

import "testing"

// TestParsePrefix: an address that is written as IPv6 and is one of IPv4 is denied as that, for frames know it in no other way.
func TestParsePrefix(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "192.0.2.9/24": "192.0.2.0/24", "2001:db8::1": "2001:db8::1/128",
		"::ffff:192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.9/120": "192.0.2.0/24", "::/0": "::/0"} {
		if p, err := parsePrefix(text); err != nil || p.String() != want {
			t.Errorf("%s is %v, %v; want %s", text, p, err, want)
		}
	}
}
