//go:build amd64 || arm64

package bpf

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

func TestDenyAndAllow(t *testing.T) {
	p := served(t, true)
	from4, from6, quote := data().over4().frame(), syn().over6().frame(), tooBig4(sent4()).frame()
	set := func(list List, text string) {
		t.Helper()
		must(t, p.SetPrefixes(list, parsePrefixes(t, text)))
	}
	set(Deny, "198.18.0.2/32 2001:2::/48")
	expect(t, p, from4, DroppedDenied)
	expect(t, p, from6, DroppedDenied)
	expect(t, p, quote, RedirectedICMP) // its source is the router
	set(Deny, "198.19.0.0/16")
	expect(t, p, from4, Redirected)
	expect(t, p, from6, Redirected)
	expect(t, p, quote, DroppedDenied)

	// Only some may come in. A list of one family says nothing of the other.
	set(Deny, "0.0.0.0/0")
	expect(t, p, from4, DroppedDenied)
	expect(t, p, from6, Redirected)
	set(Deny, "0.0.0.0/0 ::/0")
	set(Allow, "198.18.0.0/24 2001:2::2/128")
	expect(t, p, from4, Redirected)
	expect(t, p, from6, Redirected)
	expect(t, p, synFrom("198.18.1.1"), DroppedDenied)
	expect(t, p, synFrom("2001:2::3"), DroppedDenied)
	must(t, p.AddPrefixes(Deny, netip.MustParsePrefix("198.18.0.2/32")))
	expect(t, p, from4, Redirected) // a longer prefix in the deny list does not override the allow list

	must(t, p.RemovePrefixes(Allow, netip.MustParsePrefix("198.18.0.0/24")))
	expect(t, p, from4, DroppedDenied)
	for list := range List(lists) {
		set(list, "")
		if left := p.Prefixes(list); len(left) > 0 {
			t.Errorf("the %s list still has %v", list, left)
		}
	}
	expect(t, p, from4, Redirected)
	expect(t, p, from6, Redirected)
	if entries := p.objects.Sources.Iterate(); entries.Next(&steerPrefix{}, new(steerList)) {
		t.Error("the lists are empty, the map is not")
	}
}

// TestDenyComesFirst: what is not a candidate is not dropped, and what is denied takes no token.
func TestDenyComesFirst(t *testing.T) {
	p := served(t, false)
	must(t, p.SetPrefixes(Deny, parsePrefixes(t, "0.0.0.0/0")))
	must(t, p.SetSYNLimit(SYNLimit{Gate: Rate{slow, 1}}))
	must(t, p.AddKernelFlows(flow4))
	expectTimes(t, p, 3, syn().over4().frame(), DroppedDenied)
	expect(t, p, data().over4().frame(), DroppedDenied)
	expect(t, p, tcp{clientPort, otherPort, flagSYN, nil, nil}.over4().frame(), PassedOtherPort)
	expect(t, p, syn().over6().frame(), PassedNoSocket)
}

func TestListBounds(t *testing.T) {
	p := loaded(t, Options{Prefixes: 3})
	must(t, p.SetPrefixes(Deny, parsePrefixes(t, "10.0.0.0/8 11.0.0.0/8 12.0.0.0/8")))
	must(t, p.SetPrefixes(Allow, parsePrefixes(t, "10.0.0.0/8"))) // counted once
	if err := p.AddPrefixes(Exempt, netip.MustParsePrefix("13.0.0.0/8")); !errors.Is(err, ErrFull) {
		t.Fatalf("a fourth prefix: %v, want ErrFull", err)
	}
	if p.Prefixes(Exempt) != nil {
		t.Fatal("what failed stands in the list")
	}
	must(t, p.SetPrefixes(Allow, nil))
	must(t, p.SetPrefixes(Deny, parsePrefixes(t, "13.0.0.0/8 14.0.0.0/8 15.0.0.0/8"))) // room for the old and the new
	if got, want := p.Prefixes(Deny), parsePrefixes(t, "13.0.0.0/8 14.0.0.0/8 15.0.0.0/8"); !slices.Equal(got, want) {
		t.Fatalf("the deny list is %v, want %v", got, want)
	}
	if p.AddPrefixes(lists) == nil {
		t.Error("a list that is not there can be changed")
	}
}

// TestReplacingDeniesThroughout runs traffic while lists are exchanged that all deny it, in different ways.
func TestReplacingDeniesThroughout(t *testing.T) {
	p := served(t, true)
	sets := [][]netip.Prefix{
		parsePrefixes(t, "198.18.0.0/15"), parsePrefixes(t, "198.18.0.2/32 203.0.113.0/24"), parsePrefixes(t, "198.0.0.0/8 198.18.0.0/24"),
	}
	must(t, p.SetPrefixes(Deny, sets[0]))
	must(t, p.SetPrefixes(Allow, parsePrefixes(t, "198.18.0.3/32")))
	done := make(chan error)
	go func() {
		_, err := p.objects.RingmqSteer.Run(&ebpf.RunOptions{Data: data().over4().frame(), Repeat: 2_000_000})
		done <- err
	}()
	for changed := 0; ; changed++ {
		must(t, p.SetPrefixes(Deny, sets[changed%len(sets)]))
		select {
		case err := <-done:
			must(t, err)
			if counts := total(t, p); counts[DroppedDenied].Packets < 2_000_000 || counts[Redirected].Packets > 0 {
				t.Fatalf("%d dropped, %d redirected", counts[DroppedDenied].Packets, counts[Redirected].Packets)
			}
			t.Logf("the list was replaced %d times", changed)
			return
		default:
		}
	}
}
