package broker

import (
	"fmt"
	"strings"
	"testing"
)

// TestAssignedClientIdentifierIsNew has a client come with the Client Identifier that the broker would make up next [MQTT-3.2.2-16].
func TestAssignedClientIdentifierIsNew(t *testing.T) {
	b := newBench(t, 1, nil)
	s := b.b.loops[0].shard
	identifiers := *s.identifiers
	foreseen := s.newClientID()
	first := b.open(0, persistent(foreseen))
	*s.identifiers = identifiers
	second := b.open(0, transient(""))
	if !first.live() || !second.live() {
		t.Errorf("a client without Client Identifier got %q, another client's", foreseen)
	}
}

// TestLongUserNamesAreBounded has clients with long User Names: all are served, and what their Sessions keep of the names stays within
// the plan and is given back.
func TestLongUserNamesAreBounded(t *testing.T) {
	const clients = 3000
	b := newBench(t, 1, nil)
	w := b.b.world
	name := []byte(strings.Repeat("u", clientIDMax))
	var hands []*hand
	for i := range clients {
		in := transient(fmt.Sprint("x", i))
		in.HasUser, in.User = true, name
		hands = append(hands, b.open(0, in))
	}
	kept := int64(0)
	for i := range w.sessions {
		if sess := w.sessions[i].Load(); sess != nil {
			kept += int64(len(sess.user))
		}
	}
	if kept > w.limits.longTopics()*clientIDMax/(clientIDMax-plannedName) || kept < w.limits.longTopics()/2 {
		t.Errorf("%d clients with User Names of %d bytes: %d bytes are kept; the plan has room for %d", clients, clientIDMax, kept, w.limits.longTopics())
	}
	for i, h := range hands {
		if !h.live() {
			t.Fatalf("client %d of %d with a long User Name was refused", i, clients)
		}
		h.s.Closed(h.id, "test")
	}
	if n := w.longNames.Load(); n != 0 {
		t.Errorf("%d bytes of long names are counted when all clients are gone", n)
	}
}

// TestLongFiltersLeaveRoomForClients has a client use up what long Topic Filters may take: others still connect, whose Client Identifiers are
// longer than planned.
func TestLongFiltersLeaveRoomForClients(t *testing.T) {
	b := newBench(t, 1, nil)
	h := b.open(0, transient("x"))
	long := strings.Repeat("x", 60<<10)
	for refused, size := range []int{60 << 10, 1 << 10, plannedName + 32, plannedName + 1} {
		for i := 0; h.s.counters[CounterSubscribeRefused] == uint64(refused); i++ {
			h.subscribeMany(0, 0, fmt.Sprintf("%s%05d", long[:size-5], i))
		}
	}
	if c := b.open(0, transient(long[:plannedName+4])); !c.live() {
		t.Errorf("when Topic Filters had used up %d bytes, a client with an Identifier of %d was refused", b.b.world.longNames.Load(), plannedName+4)
	}
}
