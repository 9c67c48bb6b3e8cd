package netstack

import (
	"hash/maphash"
)

// remotesMax bounds the link addresses of remotes without a connection. It takes as many as can be answered between
// two turns, for such an answer (a SYN cookie, an RST) goes out right after what asked for it.
const remotesMax = 1024

// remoteTable knows the link addresses from which remotes were last heard, for answers outside any flow. An address
// has one place in it; a newcomer takes the place of who was there. The link's mutex guards it.
type remoteTable struct {
	seed    maphash.Seed
	entries [remotesMax]remote
	count   int
}

type remote struct {
	addr   [16]byte
	link   linkAddr
	isUsed bool
}

func (t *remoteTable) place(addr *[16]byte) *remote {
	return &t.entries[maphash.Bytes(t.seed, addr[:])%remotesMax]
}

func (t *remoteTable) learn(addr *[16]byte, at linkAddr) {
	e := t.place(addr)
	if !e.isUsed {
		t.count++
	}
	*e = remote{*addr, at, true}
}

func (t *remoteTable) find(addr *[16]byte) (linkAddr, bool) {
	e := t.place(addr)
	return e.link, e.isUsed && e.addr == *addr
}
