package bpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func parsePrefixes(t *testing.T, text string) []netip.Prefix {
	t.Helper()
	var parsed []netip.Prefix
	for field := range strings.FieldsSeq(text) {
		prefix, err := netip.ParsePrefix(field)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, prefix)
	}
	return parsed
}

// naive asks every prefix.
func naive(p prefixes, address netip.Addr) listSet {
	var in listSet
	for prefix, lists := range p {
		if prefix.Contains(address) {
			in |= lists
		}
	}
	return in
}

// longest is what the kernel's table gives.
func longest(flat prefixes, address netip.Addr) listSet {
	bits, in := -1, listSet(0)
	for prefix, lists := range flat {
		if prefix.Contains(address) && prefix.Bits() > bits {
			bits, in = prefix.Bits(), lists
		}
	}
	return in
}

// randomPrefixes nest and neighbour each other: they vary in the first four bits and in their length.
func randomPrefixes(random *rand.Rand) prefixes {
	p := prefixes{}
	for range random.IntN(12) {
		prefix := netip.PrefixFrom(randomAddress(random), random.IntN(6))
		p[prefix.Masked()] |= listSet(1 + random.IntN(7))
	}
	return p
}

func randomAddress(random *rand.Rand) netip.Addr {
	high := byte(random.IntN(16) << 4)
	if random.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{high})
	}
	return netip.AddrFrom16([16]byte{high})
}

func TestFlattenAgreesWithNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		p := randomPrefixes(random)
		flat := p.flatten()
		for range 20 {
			address := randomAddress(random)
			if got, want := longest(flat, address), naive(p, address); got != want {
				t.Fatalf("%s in %v: lists %b, want %b", address, p, got, want)
			}
		}
	}
}

// TestChangesAreAtomic takes every step from one table to another: each address is always judged as by one of the two.
func TestChangesAreAtomic(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		from, to := randomPrefixes(random), randomPrefixes(random)
		table := from.flatten()
		for i, step := range changes(from.flatten(), to.flatten()) {
			if step.lists == 0 {
				delete(table, step.prefix)
			} else {
				table[step.prefix] = step.lists
			}
			for range 16 {
				address := randomAddress(random)
				got, before, after := longest(table, address), naive(from, address), naive(to, address)
				if got != before && got != after {
					t.Fatalf("%v to %v, step %d: %s has lists %b, neither %b nor %b", from, to, i, address, got, before, after)
				}
			}
		}
		if want := to.flatten(); fmt.Sprint(table) != fmt.Sprint(want) {
			t.Fatalf("the steps end at %v, want %v", table, want)
		}
	}
}

func TestListEdits(t *testing.T) {
	p, err := prefixes{}.with(Deny, parsePrefixes(t, "10.1.2.3/8 10.0.0.0/8 2001:2::5/48"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.with(Allow, parsePrefixes(t, "10.0.0.0/8 10.5.0.0/16")); err != nil {
		t.Fatal(err)
	}
	if got, want := p.of(Deny), parsePrefixes(t, "10.0.0.0/8 2001:2::/48"); !slices.Equal(got, want) {
		t.Errorf("deny list %v, want %v", got, want)
	}
	p = p.without(Deny, parsePrefixes(t, "10.9.9.9/8 192.0.2.0/24"))
	if got, want := p.of(Allow), parsePrefixes(t, "10.0.0.0/8 10.5.0.0/16"); !slices.Equal(got, want) {
		t.Errorf("allow list %v, want %v", got, want)
	}
	if len(p) != 3 || p.of(Exempt) != nil {
		t.Errorf("left: %v", p)
	}
	for _, wrong := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		if _, err := p.with(Exempt, []netip.Prefix{wrong}); err == nil || !strings.Contains(err.Error(), "exempt") {
			t.Errorf("%s: %v, want an error that names the list", wrong, err)
		}
	}
}

func TestNames(t *testing.T) {
	if got := fmt.Sprint(Deny, Allow, Exempt, List(9), Native, Generic, Offload, Mode(9), Verdict(200)); got !=
		"deny allow exempt list 9 native generic offload mode 9 verdict_200" {
		t.Error(got)
	}
}
