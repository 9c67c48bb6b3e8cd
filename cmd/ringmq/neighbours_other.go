//go:build !linux

package main

import "net/netip"

// neighbours is for XDP mode, which needs Linux.
func neighbours(string) func(netip.Addr) (mac [6]byte, ok bool) { return nil }
