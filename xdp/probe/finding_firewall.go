package probe

import (
	"fmt"
	"strings"
)

// judgeFirewall says what stands in the way of the host's TCP and not in that of XDP.
func (j *judge) judgeFirewall() {
	j.at = ""
	if j.host.System != "linux" {
		return
	}
	remedy := serveCommand("--mode standard", nil, j.plan)
	f := j.host.Firewall
	if !f.Chains.Known() {
		j.add(Note, "firewall", j.doctor(), "whether a firewall is about port %d is unknown: %s", j.plan.Port, f.Chains.Unknown)
	}
	silent := true
	for _, c := range f.Chains.Value {
		silent = j.chain(c, remedy) && silent
	}
	if f.Conntrack.Value > 0 && !silent {
		j.add(Note, "firewall", "", "conntrack follows %s and none that XDP carries", count(f.Conntrack.Value, "connection")).
			without("it is so for all that XDP carries")
	}
	if f.IPsecPolicies.Value > 0 {
		j.add(Warning, "ipsec", remedy, "%s for incoming packets: what XDP takes is not checked against them", plural(f.IPsecPolicies.Value, "IPsec policy", "IPsec policies"))
	}
	if f.Chains.Known() && silent {
		j.add(OK, "firewall", "", "no rule of the host's firewall is about port %d", j.plan.Port)
	}
}

// noFirewallTool is why rules are unknown where no program tells them.
const noFirewallTool = "neither nft nor iptables-save is installed"

// doctor is the command that reads the rules as root; whoever is root already sees by another why they cannot be read.
func (j *judge) doctor() string {
	switch why := j.host.Firewall.Chains.Unknown; {
	case why == noFirewallTool:
		return j.as("apt-get install nftables")
	case strings.Contains(why, "ipset is not installed"):
		return j.as("apt-get install ipset")
	case strings.Contains(why, "-save is not installed"):
		return j.as("apt-get install iptables")
	case j.host.UserID == 0:
		return "nft list ruleset"
	}
	command := fmt.Sprintf("sudo ringmq doctor --mode %s --port %d", j.plan.Wish, j.plan.Port)
	for _, name := range j.names() {
		command += " --interface " + name
	}
	return command
}

// chain says what bypassed segments do not meet in one chain, and whether that is nothing.
func (j *judge) chain(c Chain, remedy string) (silent bool) {
	var rules []string
	for _, r := range c.Rules {
		if r.names(j.plan.Port) {
			rules = append(rules, r.title())
		}
	}
	drops := c.Hook != "" && c.Policy == "drop"
	var parts []string
	if len(rules) > 0 {
		parts = append(parts, fmt.Sprintf("%s about port %d (%s)", count(len(rules), "rule"), j.plan.Port, and(rules)))
	}
	if drops {
		parts = append(parts, "drops by policy")
	}
	if c.Blocks > 0 {
		parts = append(parts, fmt.Sprintf("%s that block whatever the port", count(c.Blocks, "rule")))
	}
	if len(parts) == 0 {
		return true
	}
	severity, alternative := Warning, "ringmq xdp deny and ringmq xdp allow filter what XDP takes, by source"
	if len(rules) == 0 && !drops {
		severity, remedy = Note, j.as(c.listing())
	}
	says := and(parts)
	if !strings.HasPrefix(says, "drops") {
		says = "has " + says
	}
	j.add(severity, "firewall", remedy, "%s chain %s %s: what XDP takes does not meet it", c.Tool, c.Name, says).or("%s", alternative)
	return false
}

// listing is the command that shows the chain.
func (c Chain) listing() string {
	if c.Tool == "nftables" {
		return "nft list chain " + c.Name
	}
	table, name, _ := strings.Cut(c.Name, " ")
	return fmt.Sprintf("%s -t %s -S %s", c.Tool, table, name)
}

func (r Rule) title() string {
	verdict := r.Verdict
	if verdict == "" {
		verdict = "no verdict"
	}
	if r.Handle != 0 {
		return fmt.Sprintf("handle %d: %s", r.Handle, verdict)
	}
	return verdict
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
