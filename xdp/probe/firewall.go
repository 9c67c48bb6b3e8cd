package probe

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// nftObject is one element of what nft -j list ruleset writes; one of its fields is set. The format is described in
// libnftables-json(5).
type nftObject struct {
	Chain *nftChain `json:"chain"`
	Rule  *nftRule  `json:"rule"`
	Set   *nftSet   `json:"set"`
	Map   *nftSet   `json:"map"`
}

type nftChain struct {
	Family, Table, Name, Hook, Policy string
}

type nftRule struct {
	Family, Table, Chain string
	Handle               int
	Expr                 []map[string]json.RawMessage
}

type nftSet struct {
	Family, Table, Name string
	Elem                []any
}

// parseNft reads a ruleset as nft -j prints it. Chains that see only what leaves or passes through are left out. The second
// result counts rules with matches that nft shows no more of than that they are there: those made by iptables.
func parseNft(data []byte) (chains []Chain, opaque int, err error) {
	var ruleset struct {
		Nftables []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(data, &ruleset); err != nil {
		return nil, 0, fmt.Errorf("the ruleset that nft printed is not understood: %w", err)
	}
	reader := nftReader{sets: map[string][]any{}, at: map[string]int{}}
	for _, o := range ruleset.Nftables {
		for _, set := range []*nftSet{o.Set, o.Map} {
			if set != nil {
				reader.sets[set.Family+" "+set.Table+" "+set.Name] = set.Elem
			}
		}
		if c := o.Chain; c != nil {
			reader.chain(*c)
		}
	}
	for _, o := range ruleset.Nftables {
		if o.Rule != nil {
			reader.rule(*o.Rule)
		}
	}
	return reader.chains, reader.opaque, nil
}

type nftReader struct {
	sets   map[string][]any // by family, table and name
	at     map[string]int   // index into chains by name
	chains []Chain
	opaque int
}

func (r *nftReader) chain(c nftChain) {
	if slices.Contains([]string{"output", "postrouting", "forward", "egress"}, c.Hook) {
		return
	}
	name := c.Family + " " + c.Table + " " + c.Name
	r.at[name] = len(r.chains)
	chain := Chain{Tool: "nftables", Name: name, Hook: c.Hook, Policy: c.Policy}
	if c.Hook != "" && c.Policy == "" {
		chain.Policy = "accept"
	}
	r.chains = append(r.chains, chain)
}

func (r *nftReader) rule(n nftRule) {
	at, reads := r.at[n.Family+" "+n.Table+" "+n.Chain]
	if !reads {
		return
	}
	chain := &r.chains[at]
	rule := Rule{Handle: n.Handle}
	other := false // about a protocol that is not ours
	for _, expr := range n.Expr {
		for kind, raw := range expr {
			switch kind {
			case "match":
				ports, notOurs := r.match(n, raw)
				rule.Ports = append(rule.Ports, ports...)
				other = other || notOurs
			case "vmap":
				rule.Ports = append(rule.Ports, r.verdictMap(n, raw)...)
				rule.Verdict = "vmap"
			case "accept", "drop", "reject", "jump", "goto", "queue", "dnat", "redirect", "tproxy":
				rule.Verdict = kind
			case "xt":
				r.opaque++
				other = true
			}
		}
	}
	switch {
	case len(rule.Ports) > 0:
		chain.Rules = append(chain.Rules, rule)
	case !other && (rule.Verdict == "drop" || rule.Verdict == "reject"):
		chain.Blocks++
	}
}

// match gives the TCP destination ports that a match names, or says that it is about another protocol.
func (r *nftReader) match(n nftRule, raw json.RawMessage) (ports []PortRange, other bool) {
	var m struct {
		Op    string `json:"op"`
		Left  any    `json:"left"`
		Right any    `json:"right"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return nil, false
	}
	place, found := portPlace(m.Left)
	if !found {
		return nil, otherProtocol(m.Left, m.Right, m.Op)
	}
	ports = r.ports(n, m.Right, place)
	if m.Op == "!=" {
		ports = complement(ports)
	}
	return ports, false
}

func (r *nftReader) verdictMap(n nftRule, raw json.RawMessage) []PortRange {
	var m struct {
		Key  any `json:"key"`
		Data any `json:"data"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	place, found := portPlace(m.Key)
	if !found {
		return nil
	}
	return r.ports(n, m.Data, place)
}

// whole is the place of a port that is the whole key and not part of a concatenation.
const whole = -1

// portPlace finds the TCP destination port in the left side of a match: alone, or as a part of a concatenation.
func portPlace(left any) (place int, found bool) {
	object, _ := left.(map[string]any)
	if parts, isConcat := object["concat"].([]any); isConcat {
		for at, part := range parts {
			if _, found := portPlace(part); found {
				return at, true
			}
		}
		return 0, false
	}
	payload, _ := object["payload"].(map[string]any)
	return whole, payload["field"] == "dport" && (payload["protocol"] == "tcp" || payload["protocol"] == "th")
}

// otherProtocol says that a match leaves TCP out: udp dport, icmp type, meta l4proto udp.
func otherProtocol(left, right any, op string) bool {
	object, _ := left.(map[string]any)
	meta, _ := object["meta"].(map[string]any)
	payload, _ := object["payload"].(map[string]any)
	if meta["key"] == "l4proto" || payload["field"] == "protocol" || payload["field"] == "nexthdr" {
		return leavesOut("tcp", right) == (op != "!=")
	}
	return slices.Contains([]any{"udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "arp", "esp", "ah"}, payload["protocol"])
}

// leavesOut says that the right side of a match is names without this one; what it is otherwise is not known here.
func leavesOut(name string, right any) bool {
	switch v := right.(type) {
	case string:
		return v != name && !strings.HasPrefix(v, "@")
	case map[string]any:
		elements, isSet := v["set"].([]any)
		return isSet && !slices.Contains(elements, any(name))
	}
	return false
}

// ports reads the right side of a match: a number, a range, a set, a map or the name of one.
func (r *nftReader) ports(n nftRule, right any, place int) []PortRange {
	switch v := right.(type) {
	case float64:
		if v < 0 || v > 65535 {
			return nil
		}
		return []PortRange{{uint16(v), uint16(v)}}
	case string:
		if name, isSet := strings.CutPrefix(v, "@"); isSet {
			elements := r.sets[n.Family+" "+n.Table+" "+name]
			return new(nftReader).ports(n, elements, place) // Which knows no sets: none names another, or itself without end.
		}
	case []any:
		var ports []PortRange
		for _, element := range v {
			if pair, isPair := element.([]any); isPair && len(pair) == 2 { // A map's element: key and verdict.
				element = pair[0]
			}
			ports = append(ports, r.ports(n, element, place)...)
		}
		return ports
	case map[string]any:
		return r.portsOfObject(n, v, place)
	}
	return nil
}

func (r *nftReader) portsOfObject(n nftRule, v map[string]any, place int) []PortRange {
	if ends, isRange := v["range"].([]any); isRange && len(ends) == 2 {
		first, last := r.ports(n, ends[0], whole), r.ports(n, ends[1], whole)
		if len(first) == 1 && len(last) == 1 && first[0].First <= last[0].Last {
			return []PortRange{{first[0].First, last[0].Last}}
		}
	}
	if element, is := v["elem"].(map[string]any); is { // An element with a timeout, counter or comment.
		return r.ports(n, element["val"], place)
	}
	if parts, is := v["concat"].([]any); is && place >= 0 && place < len(parts) {
		return r.ports(n, parts[place], whole)
	}
	if set, is := v["set"]; is {
		return r.ports(n, set, place)
	}
	return nil
}

// complement is every port outside the ranges, which need not be in order.
func complement(ports []PortRange) []PortRange {
	slices.SortFunc(ports, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var rest []PortRange
	next := 0
	for _, p := range ports {
		if int(p.First) > next {
			rest = append(rest, PortRange{uint16(next), p.First - 1})
		}
		next = max(next, int(p.Last)+1)
	}
	if next <= 65535 {
		rest = append(rest, PortRange{uint16(next), 65535})
	}
	return rest
}

// withoutIptables leaves out the chains that iptables-nft has put into nftables and has told itself, in full.
func withoutIptables(chains, told []Chain) []Chain {
	families := map[string]string{"iptables": "ip ", "ip6tables": "ip6 "}
	return slices.DeleteFunc(chains, func(c Chain) bool {
		return slices.ContainsFunc(told, func(t Chain) bool { return families[t.Tool]+t.Name == c.Name })
	})
}

// parseIptables reads what iptables-save or ip6tables-save prints, of rules that may match sets. Chains that see only what leaves
// or passes through are left out.
func parseIptables(tool, text string, sets map[string]ipset) []Chain {
	var chains []Chain
	at := map[string]int{}
	table := ""
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case strings.HasPrefix(fields[0], "*"):
			table = fields[0][1:]
		case strings.HasPrefix(fields[0], ":") && len(fields) > 1:
			if chain, reads := iptablesChain(tool, table, fields[0][1:], fields[1]); reads {
				at[chain.Name] = len(chains)
				chains = append(chains, chain)
			}
		case fields[0] == "-A" && len(fields) > 1:
			if i, reads := at[table+" "+fields[1]]; reads {
				iptablesRule(&chains[i], fields[2:], sets)
			}
		}
	}
	return chains
}

// iptablesChain makes a chain of a line such as :INPUT DROP [0:0]; the policy of a chain that others jump to is a dash.
func iptablesChain(tool, table, name, policy string) (chain Chain, reads bool) {
	chain = Chain{Tool: tool, Name: table + " " + name}
	switch name {
	case "OUTPUT", "POSTROUTING", "FORWARD":
		return chain, false
	case "INPUT", "PREROUTING":
		chain.Hook, chain.Policy = strings.ToLower(name), strings.ToLower(policy)
	}
	return chain, true
}

func iptablesRule(chain *Chain, fields []string, sets map[string]ipset) {
	rule := Rule{}
	other, not := false, false
	word := func(at int) string {
		if at < len(fields) {
			return fields[at]
		}
		return ""
	}
	name := func(ports []PortRange, about bool) {
		if about && not {
			ports = complement(ports)
		}
		rule.Ports = append(rule.Ports, ports...)
	}
	for at, flag := range fields {
		value := word(at + 1)
		switch flag {
		case "-p":
			other = other || (value != "tcp" && value != "all") != not
		case "--dport", "--dports", "--ports", "--destination-port", "--destination-ports":
			name(iptablesPorts(value), true)
		case "--match-set":
			name(ipsetPorts(sets, value, word(at+2)))
		case "-j", "-g":
			rule.Verdict = value
			if slices.Contains([]string{"ACCEPT", "DROP", "REJECT", "REDIRECT", "DNAT"}, value) {
				rule.Verdict = strings.ToLower(value) // In nftables' words; other targets and chains keep their names.
			}
		}
		not = flag == "!"
	}
	switch {
	case other:
	case len(rule.Ports) > 0:
		chain.Rules = append(chain.Rules, rule)
	case rule.Verdict == "drop" || rule.Verdict == "reject":
		chain.Blocks++
	}
}

// iptablesPorts reads 1883,8883,9000:9100.
func iptablesPorts(text string) []PortRange {
	var ports []PortRange
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, ":")
		first, err := strconv.ParseUint(low, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 16)
		}
		if err == nil && first <= last {
			ports = append(ports, PortRange{uint16(first), uint16(last)})
		}
	}
	return ports
}
