package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// readTimeout bounds a program that lists rules.
	readTimeout = 5 * time.Second
	// readMaxBytes bounds what it prints: some 100,000 rules.
	readMaxBytes = 32 << 20
)

// Firewall reads what stands between the NIC and the host's TCP. It runs nft and, where there is need, iptables-save and
// ip6tables-save, which is not for a broker's start: Choose needs none of it.
func Firewall() FirewallFacts {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	root := files{os.DirFS("/")}
	f := FirewallFacts{Chains: readChains(root)}
	count, err := root.integer("proc/sys/net/netfilter/nf_conntrack_count")
	if errors.Is(err, fs.ErrNotExist) {
		count, err = 0, nil
	}
	f.Conntrack = factOf(count, err)
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	incoming := 0
	for _, p := range policies {
		if p.Dir == netlink.XFRM_DIR_IN {
			incoming++
		}
	}
	f.IPsecPolicies = factOf(incoming, err)
	return f
}

// readChains reads the rules of nftables, and those of both kinds of iptables. Rules of iptables-nft stand in nftables: nft shows
// their chains, but their matches only in part, so that iptables is asked for the rest. Those of iptables-legacy stand nowhere else.
func readChains(root files) Fact[[]Chain] {
	listing, err := run("nft", "-j", "list", "ruleset")
	missing := errors.Is(err, exec.ErrNotFound)
	if err != nil && !missing {
		return unknown[[]Chain](err.Error())
	}
	var chains []Chain
	opaque := 0
	if !missing {
		if chains, opaque, err = parseNft(listing); err != nil {
			return unknown[[]Chain](err.Error())
		}
	}
	legacy, err := legacyTables(root)
	if err != nil {
		return unknown[[]Chain]("iptables shows its rules to root only")
	}
	told, err := readIptables(opaque > 0 || missing, len(legacy) > 0)
	switch {
	case errors.Is(err, exec.ErrNotFound) && missing && len(legacy) == 0:
		return unknown[[]Chain](noFirewallTool)
	case err != nil:
		return unknown[[]Chain](err.Error())
	}
	return known(append(withoutIptables(chains, told.nft), append(told.nft, told.legacy...)...))
}

// iptablesChains are those that iptables has told: of nftables, and of its own.
type iptablesChains struct{ nft, legacy []Chain }

// readIptables asks iptables for its rules in nftables, its own, or both.
func readIptables(inNft, own bool) (told iptablesChains, err error) {
	var listings []iptablesListing
	for _, tool := range []string{"iptables", "ip6tables"} {
		for kind, wanted := range map[string]bool{"nft": inNft, "legacy": own} {
			if !wanted {
				continue
			}
			l, err := listIptables(tool, kind)
			if err != nil {
				return told, err
			}
			listings = append(listings, l)
		}
	}
	sets, err := readIPSets(listings)
	for _, l := range listings {
		if l.kind == "nft" {
			told.nft = append(told.nft, parseIptables(l.tool, l.text, sets)...)
		} else {
			told.legacy = append(told.legacy, parseIptables(l.tool, l.text, sets)...)
		}
	}
	return told, err
}

// iptablesListing is what a program of iptables has printed.
type iptablesListing struct{ tool, kind, text string }

// listIptables asks the program of that kind. Where there is none of that name, the one without a kind may be it: it says so.
func listIptables(tool, kind string) (iptablesListing, error) {
	for _, program := range []string{tool + "-" + kind + "-save", tool + "-save"} {
		text, err := run(program)
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if isNft := strings.Contains(string(text), "(nf_tables)"); err != nil || isNft == (kind == "nft") || len(text) == 0 {
			return iptablesListing{tool, kind, string(text)}, err
		}
	}
	return iptablesListing{}, fmt.Errorf("there may be rules made by iptables, and %s-%s-save is not installed: %w", tool, kind, exec.ErrNotFound)
}

// readIPSets reads the sets that rules match, where any does.
func readIPSets(listings []iptablesListing) (map[string]ipset, error) {
	if !slices.ContainsFunc(listings, func(l iptablesListing) bool { return strings.Contains(l.text, "--match-set") }) {
		return nil, nil
	}
	text, err := run("ipset", "save")
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("there are rules that match sets, and ipset is not installed: %w", err)
	}
	return parseIPSets(string(text)), err
}

// legacyTables are the tables of iptables that do not live in nftables.
func legacyTables(root files) ([]string, error) {
	var tables []string
	for _, name := range []string{"ip_tables_names", "ip6_tables_names"} {
		text, err := root.text("proc/net/" + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		tables = append(tables, strings.Fields(text)...)
	}
	return tables, nil
}

// run gives what a program prints. It is looked for where administrators' programs are, too: an ordinary user's PATH leaves
// these folders out.
func run(program string, arguments ...string) ([]byte, error) {
	found := ""
	for _, name := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if p, err := exec.LookPath(name); err == nil {
			found = p
			break
		}
	}
	if found == "" {
		return nil, fmt.Errorf("%s: %w", program, exec.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, found, arguments...)
	out, errs := &bounded{left: readMaxBytes}, &bounded{left: readMaxBytes}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = readTimeout
	if err := cmd.Run(); err != nil {
		return nil, programError(program, err, string(errs.data))
	}
	return out.data, nil
}

// programError puts a program's complaint into one line.
func programError(program string, err error, complaint string) error {
	line, _, _ := strings.Cut(strings.TrimSpace(complaint), "\n")
	if strings.Contains(strings.ToLower(complaint), "permi") || strings.Contains(complaint, "root") {
		return fmt.Errorf("%s shows its rules to root only", program)
	}
	return fmt.Errorf("%s: %w: %s", program, err, line)
}

// bounded is a buffer that refuses more than it may hold, which ends the program that writes. The buffer is no embedded
// field: its ReadFrom would pass Write by.
type bounded struct {
	data []byte
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errors.New("too much output")
	}
	b.left -= len(p)
	b.data = append(b.data, p...)
	return len(p), nil
}
