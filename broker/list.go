package broker

import (
	"context"
	"net/netip"
	"time"
)

// listBatch is how many connections one visit to a shard copies: some 100 µs of its time.
const listBatch = 512

// ConnectionInfo is one Network Connection of a client, as it was when its shard was asked.
type ConnectionInfo struct {
	ClientID string         `json:"client"`
	User     string         `json:"user,omitempty"`
	Remote   netip.AddrPort `json:"remote"`
	Local    netip.AddrPort `json:"local"`
	Shard    int            `json:"shard"`
	Version  byte           `json:"version"` // 3, 4 or 5, as CONNECT has it
	// KeepAliveSeconds is what the broker holds the client to; 0: nothing.
	KeepAliveSeconds int `json:"keep_alive_s"`
	// OutboundBytes are pinned by what the client has not taken yet; QueuedBytes by what waits in its Session.
	OutboundBytes int   `json:"outbound_bytes"`
	QueuedBytes   int64 `json:"queued_bytes"`
	// SilentMilliseconds have passed since the client was last heard.
	SilentMilliseconds int64 `json:"silent_ms"`
}

// Connections gives each connected client to f until f returns false, shard by shard in batches: what connects or goes
// meanwhile may be missing. It returns ctx's error when a loop does not answer in time.
func (b *Broker) Connections(ctx context.Context, f func(ConnectionInfo) bool) error {
	batch := make([]ConnectionInfo, 0, listBatch)
	for _, l := range b.loops {
		for from := 0; from >= 0; {
			done := make(chan int, 1)
			taken := batch[:0:listBatch]
			l.Do(func(s *Shard) {
				var next int
				taken, next = s.list(taken, from)
				done <- next
			})
			select {
			case from = <-done:
			case <-ctx.Done():
				return ctx.Err()
			}
			for _, c := range taken {
				if !f(c) {
					return nil
				}
			}
		}
	}
	return nil
}

// list appends up to listBatch connections from the given place of the shard's list, and says where to go on: -1 at the end.
func (s *Shard) list(to []ConnectionInfo, from int) ([]ConnectionInfo, int) {
	until := min(from+listBatch, len(s.owned))
	for _, id := range s.owned[min(from, until):until] {
		c, ref := &s.conns[id], &s.refs[id]
		if c.state != connLive || ref.session == nil {
			continue
		}
		to = append(to, ConnectionInfo{ClientID: ref.session.clientID, User: ref.session.user, Remote: ref.net.RemoteAddr(),
			Local: ref.net.LocalAddr(), Shard: s.id, Version: byte(c.version), KeepAliveSeconds: int(c.keepAlive),
			OutboundBytes: int(c.outBytes), QueuedBytes: ref.session.waitBytes, SilentMilliseconds: s.now - c.heard})
	}
	if until == len(s.owned) {
		return to, -1
	}
	return to, until
}

// Uptime is how long the broker has run.
func (b *Broker) Uptime() time.Duration { return time.Duration(b.loops[0].clock()) * time.Millisecond }

// Connected is how many clients are connected, as of the shards' last change.
func (b *Broker) Connected() int64 { return b.world.connected.Load() }

// Sessions is how many Sessions there are, connected or not.
func (b *Broker) Sessions() int64 { return b.world.sessionCount.Load() }

// Retained is how many Retained Messages there are.
func (b *Broker) Retained() int64 { return b.world.retained.count.Load() }
