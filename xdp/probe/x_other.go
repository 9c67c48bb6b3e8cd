//go:build !linux

package probe

import (
	"fmt"
	"runtime"
)

// Host gives the facts of a host without XDP; Findings says that XDP needs Linux.
func Host() (HostFacts, error) {
	return HostFacts{System: runtime.GOOS, Architecture: runtime.GOARCH}, nil
}

// Firewall gives nothing: all traffic meets it.
func Firewall() FirewallFacts { return FirewallFacts{} }

// Listeners says that it is not known.
func Listeners(uint16) Fact[[]Listener] {
	return unknown[[]Listener]("only Linux tells")
}

// Programs gives none.
func Programs() ([]Attached, error) { return nil, nil }

// Interface says that XDP needs Linux.
func Interface(name string) (InterfaceFacts, error) {
	return InterfaceFacts{}, fmt.Errorf("interface %q: XDP needs Linux, and this is %s", name, runtime.GOOS)
}

// Interfaces gives none.
func Interfaces() ([]string, error) { return nil, nil }
