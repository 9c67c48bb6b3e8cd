package broker

import (
	"bytes"

	"github.com/ringmq/ringmq/broker/packet"
)

// A table of Topic Aliases is a block with one reference per alias; each refers to a stored message that has nothing but
// the Topic Name, so that a name may have any length. Aliases are numbered from 1 and belong to one Network Connection [MQTT-3.3.2-7].

// aliasSlot is the table's place for an alias.
func (s *Shard) aliasSlot(table uint32, alias int) []byte {
	return s.pool.a.block(table, 4*s.limits.TopicAliasMaximum)[4*(alias-1):]
}

// aliasName is a stored Topic Name, valid until the alias is given another; a name longer than a page is laid out in
// room of its own, valid until the next such name.
func (s *Shard) aliasName(ref uint32) []byte {
	m := s.ms.at(ref)
	name, _ := s.ms.meta(m)
	if m.block == 0 {
		s.longName = append(s.longName[:0], name...)
		return s.longName
	}
	return name
}

// storeAlias puts a Topic Name into a table, making the table first if need be; false when memory is used up.
func (s *Shard) storeAlias(table *uint32, alias int, name []byte) bool {
	size := 4 * s.limits.TopicAliasMaximum
	if *table == 0 {
		if *table = s.pool.alloc(size); *table == 0 {
			return false
		}
		clear(s.pool.a.block(*table, size))
	}
	ref := s.ms.store(name, nil, nil, origin{})
	if ref == 0 {
		return false
	}
	slot := s.aliasSlot(*table, alias)
	if old := le32(slot); old != 0 {
		s.ms.release(old)
	}
	putLE32(slot, ref)
	return true
}

// resolveAlias replaces an empty Topic Name by that of the alias, or remembers the alias (section 3.3.2.3.4).
func (s *Shard) resolveAlias(c *conn, in *packet.Publish) packet.Reason {
	if int(in.Alias) > s.limits.TopicAliasMaximum {
		return packet.TopicAliasInvalid // [MQTT-3.3.2-9]
	}
	var known []byte
	if c.aliasIn != 0 {
		if ref := le32(s.aliasSlot(c.aliasIn, int(in.Alias))); ref != 0 {
			known = s.aliasName(ref)
		}
	}
	switch {
	case len(in.Topic) == 0 && known == nil:
		return packet.ProtocolError // Section 3.3.2.3.4: nobody has said what it stands for.
	case len(in.Topic) == 0:
		in.Topic = known
	case !bytes.Equal(known, in.Topic):
		if !s.storeAlias(&c.aliasIn, int(in.Alias), in.Topic) {
			return packet.QuotaExceeded // Limit: memory for Topic Aliases.
		}
	}
	return packet.Success
}

// sendAliased is sendTemplate for a client that takes Topic Aliases: the first topics it gets have one each.
func (s *Shard) sendAliased(p *publication, sess *Session, c *conn, flags uint8, r *receiver, pid uint16) sendResult {
	topic := p.topic
	alias, known := s.aliasFor(c, topic)
	if known {
		p.topic = nil
	}
	from := len(p.heads)
	t := template{id: r.id, flags: flags, version5: true}
	s.encode(p, &t, alias, r.more)
	p.topic = topic
	result := s.sendTemplate(p, sess, c, &t, pid)
	p.heads = p.heads[:from]
	if result == sendDone && alias != 0 && !known {
		c.aliasUsed++
	}
	return result
}

// aliasFor says which alias to send with a Topic Name (0 for none) and whether the client knows it already.
func (s *Shard) aliasFor(c *conn, topic []byte) (alias uint16, known bool) {
	if len(topic) > pageSize {
		return 0, false // it may lie in the room that looking at names of its kind uses
	}
	for i := 1; i <= int(c.aliasUsed); i++ {
		if bytes.Equal(s.aliasName(le32(s.aliasSlot(c.aliasOut, i))), topic) {
			return uint16(i), true
		}
	}
	// A name that is no longer than the property that replaces it gains nothing.
	if c.aliasUsed == c.aliasMax || len(topic) <= 3 {
		return 0, false
	}
	next := int(c.aliasUsed) + 1
	if !s.storeAlias(&c.aliasOut, next, topic) {
		return 0, false
	}
	return uint16(next), false
}

func (s *Shard) dropAliases(c *conn) {
	for _, table := range []*uint32{&c.aliasIn, &c.aliasOut} {
		if *table == 0 {
			continue
		}
		for i := 1; i <= s.limits.TopicAliasMaximum; i++ {
			if ref := le32(s.aliasSlot(*table, i)); ref != 0 {
				s.ms.release(ref)
			}
		}
		s.pool.free(*table)
		*table = 0
	}
}
