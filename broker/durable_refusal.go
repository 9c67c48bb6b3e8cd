package broker

import "github.com/ringmq/ringmq/broker/packet"

// Refusal is how much of what would have to be kept the broker refuses, because of the store. Each level refuses what the ones before
// it do.
type Refusal int32

// The levels.
const (
	RefuseNothing  Refusal = iota // everything is taken
	RefuseMessages                // messages for kept Sessions, and those of QoS 1 and 2 that are retained
	RefuseNew                     // Sessions that are not there yet, and subscriptions that kept Sessions do not have yet
	RefuseAll                     // nothing is written: CONNECT and SUBSCRIBE that would need it
)

// Refuse says what is refused because of the store from now on.
func (b *Broker) Refuse(r Refusal) { b.world.refusing.Store(int32(r)) }

// refuses says whether a level is reached.
func (w *shared) refuses(r Refusal) bool { return w.refusing.Load() >= int32(r) }

// refusesSession says why a CONNECT cannot have its Session, Success if it can: what the store does not take would otherwise wait for it,
// without an answer, or does not fit in what waits already. A Session that exists goes on as long as anything is written, for to deliver what
// waits for it frees space.
func (s *Shard) refusesSession(c *conn, clientID string) packet.Reason {
	if s.refusesWill(c) {
		return packet.ServerBusy // Limit: the store, Wills.
	}
	full := s.stream != nil && !s.streamRoom()
	if !full && !s.refuses(RefuseNew) {
		return packet.Success
	}
	exists, unsure := s.registry.isKept(clientID)
	switch {
	case s.refuses(RefuseNew) && c.sessionExpiry > 0 && (!exists || c.is(connClean)):
		return packet.QuotaExceeded // Limit: the store, new Sessions.
	case !full && !s.refuses(RefuseAll), c.sessionExpiry == 0 && !exists && !unsure:
		return packet.Success
	case exists && !unsure && c.sessionExpiry == neverExpires && !c.is(connClean) && c.will == 0:
		return packet.Success // Its record stays as it is.
	}
	return packet.ServerBusy // Limit: the store, Sessions that exist.
}

// refusesWill says whether a connection has a Will that would have to be written if it were due now, while nothing is written or what waits is
// too much: nothing can be made to wait for it then, and CONNACK says that it will be published [MQTT-3.1.2-8].
func (s *Shard) refusesWill(c *conn) bool {
	if s.stream == nil || c.will == 0 || !s.refuses(RefuseAll) && s.willRoom() {
		return false
	}
	m := s.ms.at(c.will)
	if m.qos() == 0 {
		return false
	}
	name, _ := s.ms.meta(m)
	e := s.lookup(name)
	return e != nil && s.concernsKept(m.retain(), e)
}

// requestWaits says whether a SUBSCRIBE waits for subscriptions that have ended, or like an UNSUBSCRIBE for room in the stream. SUBSCRIBE
// does not, where it is refused anyway.
func (s *Shard) requestWaits(id uint32, c *conn, kind packet.Kind, size int) bool {
	if kind == packet.SUBSCRIBE && c.state == connLive && s.endings.Load() > 0 && !s.admitsAny(size) {
		return true
	}
	if s.stream == nil || c.state != connLive || kind != packet.SUBSCRIBE && kind != packet.UNSUBSCRIBE || s.refs[id].session.kept == nil {
		return false
	}
	return !s.streamRoom() && (kind == packet.UNSUBSCRIBE || !s.refuses(RefuseAll))
}

// refusesSubscription says whether a subscription of a Session cannot be recorded.
func (s *Shard) refusesSubscription(sess *Session, share, filter string) bool {
	return sess.kept != nil && s.refuses(RefuseNew) && (s.refuses(RefuseAll) || s.findSubscription(sess, share, filter) == nil)
}

// refuseKept answers a PUBLISH that the store does not take: in 5.0 with a Reason Code, in 3.x by leaving it unacknowledged until the store
// takes it. It counts once, however often it is tried.
func (s *Shard) refuseKept(id uint32, c *conn, in *packet.Publish) verdict {
	if c.version == packet.V50 {
		v := s.refusePublish(id, in, packet.QuotaExceeded) // Limit: the store, PUBLISH.
		if v != stalled {
			s.counters[CounterStoreRefused]++
		}
		return v
	}
	if !c.is(connRefused) {
		c.set(connRefused)
		s.counters[CounterStoreRefused]++
	}
	s.counters[CounterStalledStore]++
	return stalled
}
