package broker

import (
	"net/netip"
	"sync/atomic"

	"github.com/ringmq/ringmq/broker/packet"
)

// connState is how far a connection has come.
type connState uint8

const (
	connFree     connState = iota
	connOpen               // accepted, CONNECT not yet complete
	connAuth               // CONNECT taken, waiting for the authenticator
	connExchange           // AUTH exchange: waiting for the client
	connClaim              // authenticated, waiting for another shard to hand the Session over
	connLive               // CONNACK sent
	connClosing            // nothing more is read; closes when the outbound buffer is empty
	connReleased           // closed by us, waiting for the Loop to let go
)

// conn is a slot for one Network Connection. It lives in a reserved mapping and holds no Go pointer; what must be on
// the Go heap stands in the connRef of the same number.
type conn struct {
	// generation counts the uses of the slot, from 1, so that a stale event is told. Atomic: written by the shard that owns the connection, and read
	// by any that has a token of an earlier one.
	generation uint32
	connFields
}

// connFields are the state of a Network Connection. Only the shard that owns it touches them.
type connFields struct {
	state    connState
	version  packet.Version
	listener uint8
	flags    connFlags
	unacked  uint16 // tickets whose publications are to be acknowledged to it, at most ticketsMax

	outHead, outTail uint32 // chain of pages with bytes to send
	outBytes         uint32 // bytes pinned by it: whole pages, and payloads sent by reference

	carry    uint32 // block, or chain of pages, with input not yet consumed
	carryLen uint32
	asmHead  uint32 // chain of a packet larger than a page that is arriving
	asmTail  uint32
	asmGot   uint32
	asmNeed  uint32
	asmMark  uint32 // asmGot when its progress was last looked at
	place    uint32 // in the shard's list of its connections
	skip     skipped

	keepAlive  uint16
	receiveMax uint16
	aliasMax   uint8 // Topic Aliases we may send
	aliasUsed  uint8
	inbound    uint16 // QoS 2 messages received and not yet released
	aliasOut   uint32 // block: table of aliases we gave
	aliasIn    uint32 // block: table of aliases the client gave
	maxPacket  uint32

	sessionExpiry uint32
	will          uint32 // message
	willDelay     uint32
	heard         int64 // ms of the last input that had a whole packet, or a part of a large one
}

// connFlags are bits of a connection.
type connFlags uint16

const (
	connDirty       connFlags = 1 << iota // in the shard's list of connections to flush
	connPaused                            // the Loop has paused reading
	connStalled                           // its first carried PUBLISH waits for room
	connBlocked                           // the plane takes no more bytes until it says writable
	connClean                             // Clean Start or Clean Session asked
	connProblemInfo                       // Request Problem Information
	connWantsInfo                         // Request Response Information
	connReauth                            // re-authentication under way
	connAssigned                          // the broker chose the Client Identifier
	connListed                            // on the shard's list of stalled connections
	connEnded                             // the peer has closed its side while input was still waiting
	connLimited                           // counts against the maximum of connections
	connSkipping                          // the large packet under way is thrown away
	connWindingUp                         // what is published with QoS 1 or 2 is thrown away, unacknowledged; see skip.go
	connYielded                           // on the shard's list of connections whose input is not all handled
	connRefused                           // the PUBLISH that it is stalled at has been counted as refused by the store
)

// connRef is the part of a connection that the Go heap holds.
type connRef struct {
	net     Conn
	session *Session
	connect *connecting // while CONNECT is being decided or an AUTH exchange runs
}

// is says whether all of the bits are set.
func (c *conn) is(f connFlags) bool { return c.flags&f == f }

func (c *conn) set(f connFlags)   { c.flags |= f }
func (c *conn) clear(f connFlags) { c.flags &^= f }

// token names connection id in events: its number and the generation of the slot.
func token(id, generation uint32) uint64 { return uint64(generation)<<32 | uint64(id) }

// connOf finds the connection that a token names; 0 when it is gone.
func (s *Shard) connOf(token uint64) uint32 {
	id := uint32(token)
	if id == 0 || int(id) >= len(s.conns) || atomic.LoadUint32(&s.conns[id].generation) != uint32(token>>32) || s.conns[id].state == connFree {
		return 0
	}
	return id
}

// Accept takes a new Network Connection that listener number l accepted and returns the token for its events; 0 when
// there is no slot even to refuse it, and the caller closes it.
func (s *Shard) Accept(net Conn, l int) uint64 {
	id := s.connSlots.get()
	if id == 0 {
		s.counters[CounterRefusedNoSlot]++
		return 0
	}
	c := &s.conns[id]
	if c.generation == 0 { // The slot's first use.
		atomic.StoreUint32(&c.generation, 1)
	}
	c.connFields = connFields{place: uint32(len(s.owned)), state: connOpen, listener: uint8(l), heard: s.now, maxPacket: ^uint32(0), receiveMax: 65535}
	s.owned = append(s.owned, id)
	s.refs[id] = connRef{net: net}
	s.counters[CounterSockets]++
	s.wheel.start(id, s.tickAfter(s.connectPatience()))
	return token(id, c.generation)
}

// connectPatience is how long in milliseconds a new connection has for its CONNECT: not the same for all, so that those who came
// together do not all leave, and come again, at the same moment.
func (s *Shard) connectPatience() int64 {
	most := s.limits.ConnectTimeout.Milliseconds()
	return most - int64(s.draw()%uint64(most/connectSpread+1))
}

// connectSpread is the part of ConnectTimeout, as a divisor, by which patience differs.
const connectSpread = 4

// Closed says that the peer or the network ended the connection: without DISCONNECT, its Will is due.
func (s *Shard) Closed(id uint32, why string) {
	c := &s.conns[id]
	if c.state == connFree || c.state == connReleased {
		return
	}
	s.endSession(id, false, why)
	s.release(id)
}

// close ends a connection from our side, after its outbound bytes are sent. The Session has been told already.
func (s *Shard) close(id uint32) {
	c := &s.conns[id]
	if c.state == connFree || c.state == connReleased {
		return
	}
	c.state = connClosing
	s.dropInput(c)
	s.unstall(id)
	// The peer gets a moment to take what is left; then the Loop closes whatever remains.
	s.wheel.start(id, s.tickAfter(closeGraceMS))
	s.touch(id)
}

// closeGraceMS is how long a closing connection may take to accept its last bytes.
const closeGraceMS = 2000

// release frees everything a connection holds and asks the Loop to close it.
func (s *Shard) release(id uint32) {
	c := &s.conns[id]
	s.wheel.stop(id)
	s.dropOutput(c)
	s.dropInput(c)
	s.unstall(id)
	s.dropAliases(c)
	if c.will != 0 {
		s.ms.release(c.will)
		c.will = 0
	}
	if c.is(connLimited) {
		c.clear(connLimited)
		s.connected.Add(-1)
	}
	s.refs[id].session, s.refs[id].connect = nil, nil
	c.state = connReleased
	s.touch(id)
}

// free gives the slot back; the Loop calls it after it closed the plane's connection.
func (s *Shard) free(id uint32) {
	s.refs[id] = connRef{}
	c := &s.conns[id]
	// From here on no token names the slot: the next to use it may be another shard.
	c.state, c.flags = connFree, 0
	atomic.StoreUint32(&c.generation, max(c.generation+1, 1))
	last := s.owned[len(s.owned)-1]
	s.owned[c.place], s.conns[last].place = last, c.place
	s.owned = s.owned[:len(s.owned)-1]
	s.connSlots.put(id)
}

// touch puts a connection on the list to flush at the end of the turn.
func (s *Shard) touch(id uint32) {
	if c := &s.conns[id]; !c.is(connDirty) {
		c.set(connDirty)
		s.dirty = append(s.dirty, id)
	}
}

// remote is the peer's address, for log lines.
func (s *Shard) remote(id uint32) netip.AddrPort {
	if n := s.refs[id].net; n != nil {
		return n.RemoteAddr()
	}
	return netip.AddrPort{}
}
