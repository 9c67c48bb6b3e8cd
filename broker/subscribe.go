package broker

import (
	"slices"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/topic"
)

// subscription is one Topic Filter of one Session, or the index's record of a Shared Subscription, whose session is
// nil. It never changes once it is in the index, but for what only its home touches: a change of options replaces it, so that any shard may
// read it.
type subscription struct {
	// What a match reads comes first; all of it is one line of the caches.
	session *Session
	group   *group // the Shared Subscription it is a member of
	id      uint32 // Subscription Identifier; 0 none
	era     uint16 // the Session's when it was made; see isOver
	options subOptions
	state   subState // the home's

	filter string        // without "$share/NAME/"
	next   *subscription // list of the Session's, and of what it had; the home's
	prev   *subscription
	cursor *cursor // delivering its retained messages; the home's
}

// subOptions is a subscription's QoS, in the lowest two bits, and two of its Subscription Options.
type subOptions uint8

const (
	subQoS     subOptions = 0x03
	subNoLocal subOptions = 0x04
	subAsIs    subOptions = 0x08 // Retain As Published
)

func optionsOf(qos uint8, noLocal, asIs bool) subOptions {
	o := subOptions(qos)
	if noLocal {
		o |= subNoLocal
	}
	if asIs {
		o |= subAsIs
	}
	return o
}

func (o subOptions) qos() uint8    { return uint8(o & subQoS) }
func (o subOptions) noLocal() bool { return o&subNoLocal != 0 }
func (o subOptions) asIs() bool    { return o&subAsIs != 0 }

// subState is what the home notes of a subscription.
type subState uint8

const (
	subLeft  subState = 1 << iota // it has ended
	subYoung                      // it was made while the Session arrived, and replaced none; see forward
)

// isOver says whether a subscription ended with all that its Session had, and matches nothing more: the Session may have others by now. Any
// shard may ask. Eras come round after 65,536 ends, each of which has had subscriptions that count until they are off the index.
func (sub *subscription) isOver() bool { return uint16(sub.session.era.Load()) != sub.era }

// named says whether sub is the Session's subscription to a filter, shared by the named group or not shared ("").
func (sub *subscription) named(filter, share string) bool {
	if sub.filter != filter {
		return false
	}
	if sub.group == nil {
		return share == ""
	}
	return sub.group.name == share
}

// onSubscribe handles SUBSCRIBE: one Reason Code per Topic Filter, in order [MQTT-3.8.4-6].
func (s *Shard) onSubscribe(id uint32, c *conn, body []byte) verdict {
	in := &s.inSubscribe
	if r := in.Decode(body, c.version); r != packet.Success {
		return s.violate(id, r)
	}
	if r := s.judgeCount(in.Count); r != packet.Success {
		return s.violate(id, r)
	}
	sess := s.refs[id].session
	s.codes = s.codes[:0]
	s.work += in.Count * filterWork
	granted := false
	for {
		filter, options, ok := in.Next()
		if !ok {
			break
		}
		share, rest, r := s.checkFilter(string(filter), options, c.version)
		if r == packet.ProtocolError {
			return s.violate(id, r)
		}
		if r == packet.Success {
			r = s.subscribe(sess, share, rest, in.SubscriptionID, options)
		}
		if r.Failed() {
			s.counters[CounterSubscribeRefused]++
		}
		granted = granted || !r.Failed()
		s.codes = append(s.codes, r)
	}
	b := packet.AppendSuback(s.small[:0], in.PacketID, s.codes, c.version) // [MQTT-3.8.4-1] [MQTT-3.8.4-2]
	if granted {
		s.answerLater(id, sess, b)
	} else { // Nothing was recorded, and a store that takes nothing is not waited for.
		s.counters[CounterMessagesSent]++
		s.send(id, b)
	}
	s.pump(sess)
	return consumed
}

// judgeCount refuses a SUBSCRIBE or UNSUBSCRIBE of too many Topic Filters.
func (s *Shard) judgeCount(filters int) packet.Reason {
	if filters > s.limits.MaxFilters {
		return packet.QuotaExceeded // Limit: MaxFilters.
	}
	return packet.Success
}

// checkFilter splits "$share/NAME/FILTER" and judges both parts.
func (s *Shard) checkFilter(filter string, o packet.Options, v packet.Version) (share, rest string, r packet.Reason) {
	share, rest, shared, ok := topic.ParseShared(filter)
	switch {
	case shared && !ok && v != packet.V50 && topic.ValidFilter(filter):
		return "", "", packet.TopicFilterInvalid // Section 4.8.2 of 5.0; to 3.x it is a filter like others, and no violation.
	case shared && !ok:
		return "", "", packet.ProtocolError // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
	case shared && o.NoLocal:
		return "", "", packet.ProtocolError // [MQTT-3.8.3-4]
	case !shared:
		share, rest = "", filter
	}
	if !topic.ValidFilter(rest) {
		return "", "", packet.ProtocolError // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
	}
	if topic.Levels(rest) > s.limits.MaxTopicLevels {
		return "", "", packet.TopicFilterInvalid // Limit: MaxTopicLevels.
	}
	return share, rest, packet.Success
}

// subscribe is addSubscription for a client, which has it recorded where the Session is kept.
func (s *Shard) subscribe(sess *Session, share, filter string, id uint32, o packet.Options) packet.Reason {
	if s.refusesSubscription(sess, share, filter) {
		return packet.QuotaExceeded // Limit: the store, subscriptions.
	}
	r := s.addSubscription(sess, share, filter, id, o)
	if sess.kept != nil && !r.Failed() {
		sub := s.findSubscription(sess, share, filter)
		s.recordSubscription(sess, sub, sub.cursor != nil)
	}
	return r
}

// addSubscription adds or replaces one subscription and returns the Reason Code for it.
func (s *Shard) addSubscription(sess *Session, share, filter string, id uint32, o packet.Options) packet.Reason {
	old := s.findSubscription(sess, share, filter)
	if old == nil && !s.admitSubscription(len(share)+len(filter)) {
		return packet.QuotaExceeded // Limit: MaxSubscriptions.
	}
	if share != "" {
		share, filter = strings.Clone(share), strings.Clone(filter) // they are parts of a longer string
	}
	sub := &subscription{session: sess, filter: filter, id: id, era: uint16(sess.era.Load()), options: optionsOf(o.QoS, o.NoLocal, o.RetainAsPublished)}
	if sess.arriving && (old == nil || old.state&subYoung != 0) {
		sub.state = subYoung
		sess.young++
	}
	s.link(sess, sub, share)
	if share != "" {
		sub.group = s.groups.join(s.index, share, filter, sub)
		s.work += len(*sub.group.members.Load()) / membersPerDelivery
		s.counters[CounterSharedSubscriptions]++
	} else {
		s.index.Add(filter, sub)
	}
	// A Shared Subscription gets no retained messages (section 4.8.2); 2 asks for none, 1 only for new subscriptions.
	starts := share == "" && (o.RetainHandling == 0 || o.RetainHandling == 1 && old == nil)
	if old != nil {
		if c := old.cursor; c != nil && !starts {
			old.cursor, sub.cursor, c.sub = nil, c, sub // What it has still to bring is not lost [MQTT-3.8.4-4].
		}
		// [MQTT-3.8.4-3]: replaced, and its retained messages sent again below. After the new one is in place, so that
		// no message misses both.
		s.removeSubscription(sess, old)
	}
	if starts {
		s.startCursor(sess, sub) // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
	}
	return packet.GrantedQoS0 + packet.Reason(o.QoS)
}

// admitSubscription counts a new subscription with a filter of n bytes; false when there is no room for it.
func (s *Shard) admitSubscription(n int) bool {
	count := s.subscribed.Add(1)
	if count > int64(s.limits.MaxSubscriptions) || s.besides(0) > s.limits.filterRoom(count) || !s.chargeName(n) {
		s.subscribed.Add(-1)
		return false
	}
	return true
}

// besides is what subscriptions take beside themselves, and n more of one level may take.
func (s *Shard) besides(n int64) int64 {
	return (s.index.Nodes()+n)*levelBytes + (s.groups.count.Load()+n)*groupBytes + (s.cursorCount.Load()+n)*cursorBytes
}

// admitsAny says whether there is room for the subscriptions of any SUBSCRIBE with a body of n bytes.
func (s *Shard) admitsAny(n int) bool {
	filters := int64(n)/4 + 1 // Each has a length, a byte, and options.
	count := s.subscribed.Load() + filters
	return count <= int64(s.limits.MaxSubscriptions) && s.longNames.Load()+int64(n) <= s.limits.longTopics() &&
		s.besides(filters)+int64(n)/2*levelBytes <= s.limits.filterRoom(count)
}

// dismissSubscription undoes admitSubscription.
func (s *Shard) dismissSubscription(n int) {
	s.subscribed.Add(-1)
	s.dischargeName(n)
}

// link puts a subscription on the Session's list.
func (s *Shard) link(sess *Session, sub *subscription, share string) {
	if sub.next = sess.subs; sub.next != nil {
		sub.next.prev = sub
	}
	sess.subs = sub
	sess.subsLen++
	if sess.names == nil && sess.subsLen > manySubscriptions {
		s.nameAll(sess, sub.next)
	}
	if sess.names != nil {
		sess.names.put(s.nameHash(share, sub.filter), share, sub)
		sess.namesMost = max(sess.namesMost, sess.subsLen)
	}
}

// nameAll makes the map, of subscriptions from one on.
func (s *Shard) nameAll(sess *Session, from *subscription) {
	sess.names, sess.namesMost = make(names, sess.subsLen), sess.subsLen
	for at := from; at != nil; at = at.next {
		sess.names.put(s.nameHash(at.share(), at.filter), at.share(), at)
	}
}

// sparseNames is from which part of what it has had room for, as a divisor, the map is made anew.
const sparseNames = 4

// shrinkNames makes the map anew, or does without, when few are left of what it has had: a map of Go keeps its room, of some 30 bytes for
// each name, and what one client has given up others may have next.
func (s *Shard) shrinkNames(sess *Session) {
	if sess.subsLen > sess.namesMost/sparseNames {
		return
	}
	if sess.names = nil; sess.subsLen > manySubscriptions {
		s.nameAll(sess, sess.subs)
	}
}

// share is the name of the Shared Subscription that it is a member of; "": of none.
func (sub *subscription) share() string {
	if sub.group != nil {
		return sub.group.name
	}
	return ""
}

func (s *Shard) findSubscription(sess *Session, share, filter string) *subscription {
	if sess.names != nil {
		return sess.names.find(s.nameHash(share, filter), share, filter)
	}
	for sub := sess.subs; sub != nil; sub = sub.next {
		if sub.named(filter, share) {
			return sub
		}
	}
	return nil
}

// removeSubscription takes a subscription off its Session and off the index.
func (s *Shard) removeSubscription(sess *Session, sub *subscription) {
	if sub.prev == nil {
		sess.subs = sub.next
	} else {
		sub.prev.next = sub.next
	}
	if sub.next != nil {
		sub.next.prev = sub.prev
	}
	sess.subsLen--
	if sub.state&subYoung != 0 {
		sess.young--
	}
	if sess.names != nil {
		sess.names.remove(s.nameHash(sub.share(), sub.filter), sub)
		s.shrinkNames(sess)
	}
	s.unindex(sub)
	s.stopCursor(sess, sub)
}

// grown makes the young subscriptions of a Session that has arrived like others. They are among the first of the list.
func (sess *Session) grown() {
	for sub := sess.subs; sess.young > 0; sub = sub.next {
		if sub.state&subYoung != 0 {
			sub.state &^= subYoung
			sess.young--
		}
	}
}

func (s *Shard) unindex(sub *subscription) {
	sub.state |= subLeft
	if sub.group != nil {
		s.counters[CounterSharedSubscriptionsEnded]++
		s.work += len(*sub.group.members.Load()) / membersPerDelivery
		s.groups.leave(s.index, sub)
		return
	}
	s.index.Remove(sub.filter, sub)
}

// onUnsubscribe handles UNSUBSCRIBE [MQTT-3.10.4-4]: nothing new is added for the filter; what is in flight completes
// [MQTT-3.10.4-3].
func (s *Shard) onUnsubscribe(id uint32, c *conn, body []byte) verdict {
	in := &s.inUnsubscribe
	if r := in.Decode(body, c.version); r != packet.Success {
		return s.violate(id, r)
	}
	if r := s.judgeCount(in.Count); r != packet.Success {
		return s.violate(id, r)
	}
	sess := s.refs[id].session
	s.codes = s.codes[:0]
	s.work += in.Count * filterWork
	for {
		filter, ok := in.Next()
		if !ok {
			break
		}
		r := packet.NoSubscriptionExisted
		share, rest, reason := s.checkFilter(string(filter), packet.Options{}, c.version)
		if reason == packet.ProtocolError {
			return s.violate(id, reason)
		}
		if reason != packet.Success {
			r = reason
		} else if sub := s.findSubscription(sess, share, rest); sub != nil {
			s.removeSubscription(sess, sub) // [MQTT-3.10.4-1]
			s.forgetSubscription(sess, share, rest)
			s.dismissSubscription(len(share) + len(rest))
			r = packet.Success
		}
		s.codes = append(s.codes, r)
	}
	s.answerLater(id, sess, packet.AppendUnsuback(s.small[:0], in.PacketID, s.codes, c.version)) // [MQTT-3.10.4-5]
	return consumed
}

// endSubscriptions ends all subscriptions of a Session, at once if they are few.
func (s *Shard) endSubscriptions(sess *Session) {
	if int(sess.subsLen) > s.limits.endsAtOnce() {
		s.endLater(s.detach(sess))
		return
	}
	s.dropSubscriptions(sess)
}

// dropSubscriptions ends all subscriptions of a Session at once.
func (s *Shard) dropSubscriptions(sess *Session) {
	for sub := sess.subs; sub != nil; sub = sub.next {
		s.endSubscription(sub)
	}
	sess.forgetSubscriptions()
}

func (sess *Session) forgetSubscriptions() {
	sess.subs, sess.names, sess.subsLen, sess.young, sess.cursors = nil, nil, 0, 0, nil
}

// endSubscription takes a subscription that is on no list any more off the index.
func (s *Shard) endSubscription(sub *subscription) {
	if sub.cursor != nil {
		s.cursorCount.Add(-1)
	}
	s.unindex(sub)
	s.dismissSubscription(len(sub.share()) + len(sub.filter))
}

// endsAtOnce is how many subscriptions end at once with their Session, some 100 µs; more do by and by.
func (l Limits) endsAtOnce() int { return l.InputWork / filterWork / 16 }

// detach takes all subscriptions off a Session: they match nothing from here on, and are in the index still.
func (s *Shard) detach(sess *Session) (list *subscription) {
	if sess.subs == nil {
		return nil
	}
	s.update(sess, func(uint64) { sess.era.Add(1) })
	list = sess.subs
	sess.forgetSubscriptions()
	return list
}

// update makes a change to a Session that changes what its Topic Filters match. It invalidates what is known of their topics, and
// of all topics where they are so many that it would take milliseconds.
func (s *Shard) update(sess *Session, fn func(next uint64)) {
	if int(sess.subsLen) > s.limits.InputWork/2 {
		s.index.UpdateAll(fn)
		return
	}
	s.index.Update(sess.filters, fn)
}

// endLater takes a list of subscriptions that match nothing off the index by and by. They count until then, and who has no room waits for
// them.
func (s *Shard) endLater(list *subscription) {
	if list != nil {
		s.ending = append(s.ending, list)
		s.endings.Add(1)
	}
}

// endingShare is which part of the work that a connection's input may cause in a turn is done for subscriptions that have ended: nobody waits
// for them, mostly.
const endingShare = 8

// endSome goes on with what endLater has begun, for a part of a turn, and says whether something is left.
func (s *Shard) endSome() (more bool) {
	s.work = 0
	ended, most := 0, s.limits.InputWork/endingShare
	for ; ended < len(s.ending) && s.work <= most; ended++ {
		sub := s.ending[ended]
		for ; sub != nil && s.work <= most; sub = sub.next {
			s.work += filterWork
			s.endSubscription(sub)
		}
		if s.ending[ended] = sub; sub != nil {
			break
		}
	}
	s.ending = slices.Delete(s.ending, 0, ended)
	s.endings.Add(-int64(ended))
	return len(s.ending) > 0
}
