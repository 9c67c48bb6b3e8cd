package probe

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

func recorded(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// about are the rules of a chain that name a port: handle and verdict.
func about(c Chain, port uint16) string {
	var parts []string
	for _, r := range c.Rules {
		if r.names(port) {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d %s", r.Handle, r.Verdict)))
		}
	}
	return strings.Join(parts, ", ")
}

// TestNft reads a ruleset that nft 1.0.6 wrote: ports alone, in ranges, sets, maps and concatenations, and all but some.
func TestNft(t *testing.T) {
	chains, opaque, err := parseNft(recorded(t, "nft.json"))
	if err != nil || opaque != 0 || len(chains) != 3 {
		t.Fatalf("%d chains, %d opaque, %v", len(chains), opaque, err)
	}
	input := chainNamed(t, chains, "inet filter input")
	if input.Hook != "input" || input.Policy != "drop" || input.Blocks != 1 { // ct state invalid drop
		t.Errorf("%+v", input)
	}
	for port, want := range map[uint16]string{
		1883: "17 accept, 19 drop, 20 reject, 21 jump, 22 drop, 23 accept, 25 vmap, 26 vmap, 28 drop, 30",
		8883: "19 drop, 21 jump, 28 drop, 29 drop",
		22:   "16 accept, 23 accept, 26 vmap, 29 drop",
		80:   "25 vmap, 29 drop",
		443:  "29 drop",
	} {
		if got := about(input, port); got != want {
			t.Errorf("port %d: %s, not %s", port, got, want)
		}
	}
	if c := chainNamed(t, chains, "inet filter mqtt"); about(c, 1883) != "9 accept" || c.Hook != "" || c.Blocks != 1 {
		t.Errorf("%+v", c)
	}
	if c := chainNamed(t, chains, "ip nat pre"); about(c, 1883) != "3 redirect" || about(c, 80) != "2 dnat" || c.Hook != "prerouting" {
		t.Errorf("%+v", c)
	}
}

// TestNftOfIptables: nft shows the rules of iptables-nft in part, which is noticed, and iptables-save tells them whole.
func TestNftOfIptables(t *testing.T) {
	chains, opaque, err := parseNft(recorded(t, "nft-of-iptables.json"))
	if err != nil || opaque != 3 {
		t.Fatalf("%d opaque, %v", opaque, err)
	}
	told := parseIptables("iptables", string(recorded(t, "iptables-save.txt")), nil)
	own := Chain{Tool: "nftables", Name: "inet filter input"}
	if left := withoutIptables(append(chains, own), told); len(left) != 1 || left[0].Name != own.Name {
		t.Errorf("left: %+v", left)
	}
	input := chainNamed(t, told, "filter INPUT")
	if input.Hook != "input" || input.Policy != "drop" || input.Blocks != 1 { // -s 198.51.100.0/24
		t.Errorf("%+v", input)
	}
	for port, want := range map[uint16]string{1883: "0 MQTT, 0 drop, 0 reject", 9050: "0 drop, 0 reject", 22: "", 80: "0 reject"} {
		if got := about(input, port); got != want {
			t.Errorf("port %d: %s, not %s", port, got, want)
		}
	}
	if c := chainNamed(t, told, "filter MQTT"); about(c, 1885) != "0 accept" || c.Hook != "" || c.Policy != "" {
		t.Errorf("%+v", c)
	}
	if c := chainNamed(t, told, "nat PREROUTING"); about(c, 80) != "0 redirect" || c.Policy != "accept" {
		t.Errorf("%+v", c)
	}
}

// TestNftStrange: what nobody expects is left out, and is no panic.
func TestNftStrange(t *testing.T) {
	const head = `{"nftables":[{"chain":{"family":"inet","table":"t","name":"c","hook":"input"}},{"rule":{"family":"inet","table":"t","chain":"c","expr":`
	const dport = `{"payload":{"protocol":"tcp","field":"dport"}}`
	for _, expr := range []string{
		`[]`, `[{}]`, `[{"match":5}]`, `[{"match":{"left":null,"right":null}}]`,
		`[{"match":{"op":"==","left":` + dport + `,"right":"http"}}]`,
		`[{"match":{"op":"==","left":` + dport + `,"right":70000}}]`,
		`[{"match":{"op":"==","left":` + dport + `,"right":{"range":[1]}}}]`,
		`[{"match":{"op":"==","left":` + dport + `,"right":{"range":["a","b"]}}}]`,
		`[{"match":{"op":"==","left":` + dport + `,"right":"@missing"}}]`,
		`[{"match":{"op":"==","left":{"concat":[` + dport + `]},"right":{"set":[{"concat":[]}]}}}]`,
		`[{"vmap":{"key":null,"data":[]}}]`, `[{"vmap":7}]`,
	} {
		chains, _, err := parseNft([]byte(head + expr + `}}]}`))
		if err != nil || len(chains) != 1 || len(chains[0].Rules) != 0 || chains[0].Policy != "accept" {
			t.Errorf("%s: %+v, %v", expr, chains, err)
		}
	}
	for _, text := range []string{"", "nothing", `{"nftables":5}`} {
		if _, _, err := parseNft([]byte(text)); err == nil || !strings.Contains(err.Error(), "nft") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if chains, _, err := parseNft([]byte(`{"nftables":[{"rule":{"family":"inet","table":"t","chain":"gone","expr":[{"drop":null}]}}]}`)); err != nil || len(chains) != 0 {
		t.Errorf("%+v, %v", chains, err)
	}
}

// TestIPSets: rules that match sets are about the ports in these, where the set has ports and the rule means destinations.
func TestIPSets(t *testing.T) {
	sets := parseIPSets(string(recorded(t, "ipset-save.txt")))
	chains := parseIptables("iptables", string(recorded(t, "iptables-legacy-save.txt")), sets)
	input := chainNamed(t, chains, "filter INPUT")
	if input.Blocks != 1 { // those of the set nets
		t.Errorf("%+v", input)
	}
	for port, want := range map[uint16]string{
		1883: "0 LOG, 0 drop, 0 accept, 0 RETURN",
		8883: "0 drop, 0 RETURN",
		5353: "0 reject",
		7001: "0 reject, 0 accept",
		9050: "0 LOG, 0 reject",
		22:   "0 reject",
	} {
		if got := about(input, port); got != want {
			t.Errorf("port %d: %s, not %s", port, got, want)
		}
	}
	for _, text := range []string{"create", "add a 5", "create a bitmap:port\nadd a\nadd a x\nadd a tcp:\nadd a 70000\n", "create a hash:ip,port\nadd a 192.0.2.1\n"} {
		for name := range parseIPSets(text) {
			if ports, _ := ipsetPorts(parseIPSets(text), name, "dst,dst"); len(ports) > 0 {
				t.Errorf("%q: %v", text, ports)
			}
		}
	}
}

func TestIptablesStrange(t *testing.T) {
	for _, text := range []string{"", "*\n:\n-A\n", ":INPUT\n-A INPUT --dport", "*filter\n-A INPUT -p tcp --dport 1883 -j ACCEPT\n"} {
		if chains := parseIptables("iptables", text, nil); len(chains) != 0 {
			t.Errorf("%q: %+v", text, chains)
		}
	}
	chains := parseIptables("iptables", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport mqtt -j ACCEPT\n-A INPUT -p tcp --dport\n", nil)
	if len(chains) != 1 || len(chains[0].Rules) != 0 {
		t.Errorf("%+v", chains)
	}
}

func TestComplement(t *testing.T) {
	for want, ports := range map[string][]PortRange{
		"[0-65535]":       nil,
		"[0-21 23-65535]": {{22, 22}},
		"[11-65535]":      {{5, 10}, {0, 6}},
		"[]":              {{0, 65535}},
		"[0-99]":          {{100, 65535}},
	} {
		if got := fmt.Sprint(complement(ports)); got != want {
			t.Errorf("%v: %s, not %s", ports, got, want)
		}
	}
}

// FuzzNft: whatever nft prints, or somebody in its place, is read or refused.
func FuzzNft(f *testing.F) {
	for _, name := range []string{"nft.json", "nft-of-iptables.json"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, right := range []string{`"@a"`, `{"range":[20,10]}`} {
		f.Add([]byte(`{"nftables":[{"chain":{"table":"t","name":"c"}},{"set":{"table":"t","name":"a","elem":["@a"]}},{"rule":{"table":"t","chain":"c",
			"expr":[{"match":{"left":{"payload":{"protocol":"tcp","field":"dport"}},"right":` + right + `}}]}}]}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		chains, _, err := parseNft(data)
		if err == nil && !json.Valid(data) {
			t.Errorf("accepted: %q gives %+v", data, chains)
		}
		for _, c := range chains {
			for _, r := range c.Rules {
				inOrder(t, r.Ports)
			}
		}
	})
}
