package broker

import "testing"

// TestAssignedClientIdentifierIsNew has a client come with the Client Identifier that the broker would make up next [MQTT-3.2.2-16].
func TestAssignedClientIdentifierIsNew(t *testing.T) {
	b := newBench(t, 1, nil)
	s := b.b.loops[0].shard
	random := s.random
	s.draw() // by Accept
	foreseen := s.newClientID()
	first := b.open(0, persistent(foreseen))
	s.random = random
	second := b.open(0, transient(""))
	if !first.live() || !second.live() {
		t.Errorf("a client without Client Identifier got %q, another client's", foreseen)
	}
}
