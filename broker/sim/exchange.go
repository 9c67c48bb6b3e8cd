package sim

import (
	"bytes"

	"github.com/ringmq/ringmq/broker/packet"
)

// How a CONNECT says who its client is.
const (
	byNothing = iota
	byPassword
	byMethod
	waysToSign
)

// sign gives a CONNECT credentials, in a way that its version and the broker know.
func (c *client) sign(in *packet.Connect, way int) {
	if way %= waysToSign; way == byMethod && in.Version != packet.V50 || way == byNothing && c.w.auth == strangersOut {
		way = byPassword
	}
	if c.w.auth == everybodyIn {
		return
	}
	switch user := userOf(c.index); way {
	case byPassword:
		in.HasUser, in.User, in.HasPassword, in.Password = true, []byte(user), true, []byte(passwordOf(user))
	case byMethod:
		in.AuthMethod, in.HasAuthData, in.AuthData = []byte(methodName), true, []byte(user)
	}
}

// exchanging is where a connection's exchange stands, by which its client proves who it is, or does so anew.
type exchanging struct {
	method    bool // CONNECT named the Authentication Method
	user      string
	wrong     int    // how the client goes wrong, see renew; 0: not at all
	challenge []byte // the last one
	proofs    int    // given since the exchange began
	under     bool   // a re-authentication is under way
	began     int    // step at which it began
}

// methodName is the Authentication Method that CONNECT named; empty for none.
func (l *link) methodName() string {
	if l.exchange.method {
		return methodName
	}
	return ""
}

// onAuth goes on with an exchange as the broker asks.
func (l *link) onAuth(body []byte) packet.Reason {
	var in packet.Auth
	if r := in.DecodeFromServer(body); r != packet.Success {
		return r
	}
	x := &l.exchange
	switch {
	case !x.method, l.accepted != x.under, string(in.AuthMethod) != methodName:
		l.w.violate("exchange", "c%d got an AUTH %v by %q that it did not ask for", l.c.index, in.Reason, in.AuthMethod) // [MQTT-4.12.0-5] [MQTT-4.12.0-6]
	case in.Reason == packet.ContinueAuthentication:
		l.prove(in.AuthData)
	case !l.accepted:
		l.w.violate("exchange", "c%d got AUTH with %v before CONNACK", l.c.index, in.Reason)
	default:
		l.checkWelcome(in.AuthData)
		x.under = false
		l.w.stats.Renewals++
	}
	return packet.Success
}

// prove answers a challenge, which must be this client's.
func (l *link) prove(challenge []byte) {
	x, id := &l.exchange, l.c.id
	if head, _, _ := bytes.Cut(challenge, []byte(" ")); string(head) != id {
		l.w.violate("exchange", "c%d was given the challenge %q, which is another client's", l.c.index, challenge)
	}
	if l.leaving || l.bad || l.halved {
		return
	}
	x.challenge = bytes.Clone(challenge)
	x.proofs++
	answer := packet.Auth{Reason: packet.ContinueAuthentication, AuthMethod: []byte(methodName), HasAuthData: true, AuthData: proof(x.challenge, x.user)}
	if x.wrong == wrongProof {
		answer.AuthData = proof(x.challenge, "another")
	}
	l.out = packet.AppendAuth(l.out, &answer)
	if x.wrong == wrongProof || x.wrong == wrongUser && x.proofs == challengesOf(x.user) {
		l.goWrong(packet.NotAuthorized) // Section 4.12.1.
	}
}

// checkWelcome checks that an exchange ends with the last proof, and with the broker's own.
func (l *link) checkWelcome(data []byte) {
	x := &l.exchange
	if x.proofs != challengesOf(x.user) || !bytes.Equal(data, welcome(x.challenge)) || x.wrong != 0 {
		l.w.violate("let in", "c%d was told %q after %d proofs, the last to %q", l.c.index, data, x.proofs, x.challenge)
	}
	x.proofs = 0
}

// How a re-authentication goes wrong.
const (
	wrongProof  = 1 + iota
	wrongUser   // another one, who has proved it
	wrongTwice  // a second one before the first is done
	wrongMethod // another one than CONNECT's [MQTT-4.12.1-1]
	waysToGoWrong
)

// renew has the client prove again who it is (section 4.12.1), or try to.
func (c *client) renew(o *Op) {
	l := c.link
	x := &l.exchange
	if !l.open() || l.version != packet.V50 || x.under {
		return
	}
	x.wrong = o.get("wrong", 0) % waysToGoWrong
	out := packet.Auth{Reason: packet.ReAuthenticate, AuthMethod: []byte(methodName), HasAuthData: true}
	x.user, x.proofs, x.under, x.began = userOf(c.index), 0, true, c.w.step
	if x.wrong == wrongUser {
		x.user = userOf(c.index + 1)
	}
	if out.AuthData = []byte(x.user); x.wrong == wrongMethod {
		out.AuthMethod = []byte("ANOTHER")
	}
	l.out = packet.AppendAuth(l.out, &out)
	if x.wrong == wrongTwice {
		l.out = packet.AppendAuth(l.out, &out)
	}
	if !x.method || x.wrong == wrongTwice || x.wrong == wrongMethod {
		l.goWrong(packet.ProtocolError)
	}
}

// goWrong notes that the last packet is one for which the broker must end the connection.
func (l *link) goWrong(as ...packet.Reason) {
	l.sound = l.excuse() == ""
	l.bad, l.badAs = true, as
}

// isBusy says whether the authenticator may have been too busy for the connection.
func (l *link) isBusy() bool {
	a, x := l.w.authenticator, &l.exchange
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busyAt > 0 && (!l.accepted && a.busyAt >= l.dialled.step || x.under && a.busyAt >= x.began)
}
