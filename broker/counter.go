package broker

import (
	"fmt"
	"strings"
)

// Counter names one of the numbers that every shard counts.
type Counter uint8

// What is counted, by its name in counterNames.
const (
	CounterSockets Counter = iota
	CounterConnects
	CounterDisconnects
	CounterTakeovers
	CounterConnectRefused
	CounterConnectTimeouts
	CounterKeepAliveTimeouts
	CounterPacketTimeouts
	CounterSessionsExpired
	CounterRefusedNoSlot
	CounterRefusedLimit
	CounterRefusedRate
	CounterRefusedSessions
	CounterAuthRefused
	CounterAuthBusy
	CounterViolations
	CounterSubscribeRefused
	CounterSharedSubscriptions
	CounterSharedSubscriptionsEnded
	CounterBytesReceived
	CounterBytesSent
	CounterMessagesReceived // Control Packets
	CounterMessagesSent
	CounterPublishReceived
	CounterPublishSent
	CounterPublishBytesReceived // payloads
	CounterPublishBytesSent
	CounterPublishRefused
	CounterDroppedSlow
	CounterDroppedQueue
	CounterDroppedNoMemory
	CounterDroppedTooLarge
	CounterDroppedExpired
	CounterDroppedOffline
	CounterDroppedDamaged
	CounterNoMemory
	CounterClosedNoMemory
	CounterInputYielded // reads of which a part waited for the next turn
	CounterStalledQueue
	CounterOverflowed
	CounterRetainedSent
	CounterRetainedRefused
	CounterRetainedExpired
	CounterCacheHits
	CounterCacheMisses
	CounterEventsLost
	CounterAcceptFailed
	CounterStalledStore
	CounterStoreRefused
	CounterStoreRefusedSessions
	CounterSessionsLeftOut // of a damaged store, by the limits
	CounterRetainedLeftOut // the same
	counterCount
)

// counterNames are the names in dumps, by Counter; metrics will use the same.
var counterNames = [counterCount]string{
	"sockets_accepted", "connects", "disconnects", "sessions_taken_over", "connects_refused",
	"connect_timeouts", "keep_alive_timeouts", "packet_timeouts", "sessions_expired", "refused_no_slot",
	"refused_max_connections", "refused_connect_rate", "refused_max_sessions", "auth_refused", "auth_busy", "protocol_violations",
	"subscribe_refused", "shared_subscriptions_made", "shared_subscriptions_ended", "bytes_received", "bytes_sent",
	"packets_received", "packets_sent", "publish_received", "publish_sent", "publish_bytes_received",
	"publish_bytes_sent", "publish_refused", "outbound buffer full", "queue full", "no memory",
	"packet too large for the client", "message expired", "nobody to deliver to", "damaged on disk", "memory_exhausted", "closed_no_memory",
	"input_yielded", "publish_stalled_queue", "queue_overflowed", "retained_sent", "retained_refused", "retained_expired",
	"topic_cache_hits", "topic_cache_misses", "events_lost", "accept_failed",
	"publish_stalled_store", "store_refused", "store_refused_sessions", "sessions_left_out", "retained_left_out",
}

// String is the counter's name; for the reasons of dropped messages it is what the log says.
func (c Counter) String() string { return counterNames[c] }

// dropped are the counters of messages that someone did not get.
var dropped = [...]Counter{CounterDroppedSlow, CounterDroppedQueue, CounterDroppedNoMemory, CounterDroppedTooLarge,
	CounterDroppedExpired, CounterDroppedOffline, CounterDroppedDamaged}

// Counters are the sums over all shards.
type Counters [counterCount]uint64

// Of is one counter.
func (c *Counters) Of(n Counter) uint64 { return c[n] }

// Dropped is the number of messages dropped for all reasons.
func (c *Counters) Dropped() (n uint64) {
	for _, r := range dropped {
		n += c[r]
	}
	return n
}

// Names are what the counters are called, such as publish_received, in the order of Counters.
func (*Counters) Names() []string {
	names := make([]string, 0, counterCount)
	for _, n := range counterNames {
		names = append(names, strings.ReplaceAll(n, " ", "_"))
	}
	return names
}

// String is what stands at other than zero, as name=value pairs.
func (c *Counters) String() string {
	var b strings.Builder
	names := c.Names()
	for i, v := range c {
		if v != 0 {
			fmt.Fprintf(&b, "%s=%d ", names[i], v)
		}
	}
	return strings.TrimSpace(b.String())
}
