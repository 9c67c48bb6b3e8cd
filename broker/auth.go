package broker

import (
	"bytes"

	"github.com/ringmq/ringmq/broker/packet"
)

// AuthStep says where in an exchange an AuthRequest stands.
type AuthStep uint8

const (
	AuthPassword AuthStep = iota // User and Password are to be verified
	AuthStart                    // an exchange by Method begins
	AuthContinue                 // the client's next Data
	AuthAbandon                  // the connection is gone: forget the exchange; no answer
)

// AuthRequest asks whoever keeps the credentials to decide. It goes out of the shard and is answered by an AuthResult
// through the Loop's inbox: the shard never waits.
type AuthRequest struct {
	Shard    int
	Token    uint64 // the connection
	Step     AuthStep
	ClientID string
	User     string
	Password []byte
	Method   string // Authentication Method
	Data     []byte // Authentication Data
}

// AuthResult answers an AuthRequest: Success, ContinueAuthentication with Data for the client, or a refusal.
type AuthResult struct {
	Token  uint64
	Reason packet.Reason
	User   string // whom an exchange has authenticated
	Data   []byte
}

// authenticate decides whether a client may connect: at once where there is nothing to verify.
func (s *Shard) authenticate(id uint32, c *conn, in *packet.Connect, clientID string) verdict {
	if len(in.Password) > passwordMax || len(in.AuthData) > authDataMax {
		return s.refuse(id, packet.BadUserNameOrPassword) // Limit: passwordMax and authDataMax.
	}
	if in.AuthMethod != nil {
		if !s.config.hasMethod(string(in.AuthMethod)) {
			return s.refuse(id, packet.BadAuthenticationMethod) // [MQTT-4.12.0-1]
		}
		s.refs[id].connect = &connecting{clientID: clientID, method: string(in.AuthMethod)}
		return s.ask(id, c, AuthRequest{Step: AuthStart, ClientID: clientID, Method: string(in.AuthMethod), Data: bytes.Clone(in.AuthData)})
	}
	switch {
	case in.HasUser && s.config.Passwords:
		s.refs[id].connect = &connecting{clientID: clientID, user: string(in.User)}
		return s.ask(id, c, AuthRequest{Step: AuthPassword, ClientID: clientID, User: string(in.User), Password: bytes.Clone(in.Password)})
	case s.config.Listeners[c.listener].AllowAnonymous:
		return s.authorised(id, clientID, string(in.User))
	case in.HasUser:
		return s.refuse(id, packet.BadUserNameOrPassword) // [MQTT-3.1.4-2]
	}
	return s.refuse(id, packet.NotAuthorized) // [MQTT-3.1.4-2]
}

// ask sends an AuthRequest; when too many are under way the client is told to come back.
func (s *Shard) ask(id uint32, c *conn, r AuthRequest) verdict {
	r.Shard, r.Token = s.id, token(id, c.generation)
	if !s.host.Authenticate(r) {
		s.counters[CounterAuthBusy]++
		busy := packet.ServerBusy // Limit: checks under way.
		if c.state == connLive {
			return s.violate(id, busy)
		}
		return s.refuse(id, busy)
	}
	s.refs[id].connect.asked = true
	if c.state != connLive {
		c.state = connAuth
	}
	return consumed
}

// Authenticated takes the answer to an AuthRequest.
func (s *Shard) Authenticated(r AuthResult) {
	id := s.connOf(r.Token)
	if id == 0 || s.conns[id].state != connAuth && !s.conns[id].isProving() {
		if r.Reason == packet.ContinueAuthentication {
			// The connection went, or is closing, while the first step was still waiting its turn.
			s.host.Authenticate(AuthRequest{Shard: s.id, Token: r.Token, Step: AuthAbandon})
		}
		return
	}
	c, cn := &s.conns[id], s.refs[id].connect
	cn.asked = false
	switch {
	case c.isProving():
		s.reauthenticated(id, c, cn, r)
	case r.Reason == packet.ContinueAuthentication:
		c.state = connExchange
		s.sendAuth(id, r.Reason, cn.method, r.Data) // [MQTT-4.12.0-2] [MQTT-4.12.0-3]
	case r.Reason != packet.Success:
		s.counters[CounterAuthRefused]++
		cn.method = ""         // the exchange is over: there is nothing to abandon
		s.refuse(id, r.Reason) // [MQTT-4.12.0-4]
	default:
		if cn.method != "" {
			cn.user, cn.data = r.User, r.Data
		}
		c.state = connOpen
		s.authorised(id, cn.clientID, cn.user)
	}
	s.resumeInput(id)
	s.settle()
}

// isProving says whether a re-authentication is under way.
func (c *conn) isProving() bool { return c.state == connLive && c.is(connReauth) }

// resumeInput lets the Loop read on, and look at what was kept meanwhile.
func (s *Shard) resumeInput(id uint32) {
	c := &s.conns[id]
	if c.carry == 0 && c.is(connEnded) && (c.state == connLive || c.state == connExchange) {
		s.Closed(id, closedByClient)
		return
	}
	if c.carry != 0 && (c.state == connLive || c.state == connExchange) {
		s.listStalled(id, c)
		s.roomAgain = true
	}
	s.touch(id)
}

// reauthenticated goes on with a re-authentication while the connection lives (section 4.12.1).
func (s *Shard) reauthenticated(id uint32, c *conn, cn *connecting, r AuthResult) {
	switch r.Reason {
	case packet.ContinueAuthentication:
		s.sendAuth(id, r.Reason, cn.method, r.Data)
	case packet.Success:
		c.clear(connReauth)
		if r.User != cn.user {
			s.endSessionAs(id, false, packet.NotAuthorized, "re-authenticated as another user") // Section 4.12.1.
			return
		}
		s.sendAuth(id, packet.Success, cn.method, r.Data)
	default:
		s.counters[CounterAuthRefused]++
		s.endSessionAs(id, false, r.Reason, "re-authentication failed") // Section 4.12.1: DISCONNECT.
	}
}

func (s *Shard) sendAuth(id uint32, r packet.Reason, method string, data []byte) {
	s.counters[CounterMessagesSent]++
	s.send(id, packet.AppendAuth(s.small[:0], &packet.Auth{Reason: r, AuthMethod: []byte(method), HasAuthData: data != nil, AuthData: data}))
}

// onAuth handles AUTH: the next step of an exchange, or the start of a re-authentication.
func (s *Shard) onAuth(id uint32, c *conn, body []byte) verdict {
	in := &s.inAuth
	if r := in.Decode(body); r != packet.Success {
		return s.violate(id, r)
	}
	cn := s.refs[id].connect
	if cn == nil || cn.method == "" || string(in.AuthMethod) != cn.method {
		return s.violate(id, packet.ProtocolError) // [MQTT-4.12.0-5] [MQTT-4.12.1-1]
	}
	if len(in.AuthData) > authDataMax {
		return s.violate(id, packet.PacketTooLarge) // Section 3.15.2.2.3 sets no bound: authDataMax does.
	}
	r := AuthRequest{ClientID: cn.clientID, Method: cn.method, Data: bytes.Clone(in.AuthData)}
	switch {
	case c.state == connExchange && in.Reason == packet.ContinueAuthentication:
		r.Step = AuthContinue
	case c.state == connLive && in.Reason == packet.ContinueAuthentication && c.is(connReauth) && !cn.asked:
		r.Step = AuthContinue
	case c.state == connLive && in.Reason == packet.ReAuthenticate && !c.is(connReauth):
		r.Step = AuthStart
		c.set(connReauth)
	default:
		return s.violate(id, packet.ProtocolError) // [MQTT-4.12.0-3]; section 4.12.1: not asked for, or one re-authentication within another.
	}
	return s.ask(id, c, r)
}

// abandonAuth tells the authenticator that an exchange ends with its connection.
func (s *Shard) abandonAuth(id uint32) {
	c := &s.conns[id]
	cn := s.refs[id].connect
	if cn == nil || cn.method == "" || c.state == connLive && !c.is(connReauth) {
		return
	}
	s.host.Authenticate(AuthRequest{Shard: s.id, Token: token(id, c.generation), Step: AuthAbandon})
}
