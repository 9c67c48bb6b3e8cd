package relay

// Answerer is a relay without sockets, for one client on a network of any kind: it answers what the protocol wants an answer
// to, and passes nothing on.
type Answerer struct {
	relay Relay
	conn  conn
}

// Take is given what the client has sent and tells what to send back, valid until the next call; false when the connection is
// to be closed.
func (a *Answerer) Take(b []byte) (answers []byte, ok bool) {
	c := &a.conn
	c.out, c.dirty, a.relay.dirty = c.out[:0], false, a.relay.dirty[:0]
	if len(c.partial) > 0 {
		c.partial = append(c.partial, b...)
		b = c.partial
	}
	used, ok := a.relay.packets(c, b)
	c.partial = append(c.partial[:0], b[used:]...)
	return c.out, ok
}
