package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestChosenMemberLeaves has a Shared Subscription's member on another shard unsubscribe, or begin a new Session, while a message
// that was chosen for it is on its way there: another member gets it, and the one that left does not.
func TestChosenMemberLeaves(t *testing.T) {
	for _, how := range []string{"unsubscribe", "clean start"} {
		b := newBench(t, 2, nil)
		first, second := b.open(1, transient("first")), b.open(1, transient("second"))
		pub := b.open(0, transient("pub"))
		for _, h := range []*hand{first, second} {
			h.subscribeMany(0, 2, "$share/g/t")
		}
		b.settleAll(0)
		first.hear()
		second.hear()
		pub.give(packet.AppendPublish(nil, &packet.PublishHead{Flags: packet.PublishFlags(false, 2, false), Topic: []byte("t"), PacketID: 1}, []byte("x"), packet.V50))
		// Shard 1 has not taken it in yet: round robin chose the first member.
		if how == "unsubscribe" {
			first.give(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 2}, [][]byte{[]byte("$share/g/t")}, packet.V50))
		} else {
			first = b.open(1, transient("first"))
		}
		b.settleAll(1)
		for _, c := range []struct {
			h    *hand
			want int
		}{{first, 0}, {second, 1}} {
			n := 0
			for _, p := range c.h.hear() {
				if p.kind == packet.PUBLISH {
					n++
				}
			}
			if n != c.want {
				t.Errorf("%s: a member got %d messages; want %d", how, n, c.want)
			}
		}
	}
}
