package sim

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

// methodName is the Authentication Method on offer: the broker gives so many challenges, and the client answers each with what only
// somebody who knows the password can say.
const methodName = "CHALLENGE"

// answerTurnsMax is how many turns an answer of the authenticator takes at most.
const answerTurnsMax = 20

// authenticator is a broker.Host that answers a few turns later, in any order, and keeps exchanges until it is told that they are over.
type authenticator struct {
	w *world

	mu        sync.Mutex // guards what follows: shards on goroutines of their own ask
	most      int        // requests that may wait; beyond that it is busy
	waits     []question
	exchanges map[exchangeKey]*exchange
	begun     int
	step      int // of its last work
	busyAt    int // the same, when it was last too busy
	refused   int // answers that refuse
}

// question is a request, and how many turns it has waited.
type question struct {
	broker.AuthRequest
	turns int
}

type exchangeKey struct {
	shard int
	token uint64
}

// exchange is one by methodName: the challenges that are left, and the last one.
type exchange struct {
	user      string
	challenge []byte
	left      int
}

func newAuthenticator(w *world, most int) *authenticator {
	return &authenticator{w: w, most: most, exchanges: map[exchangeKey]*exchange{}}
}

// Log is part of broker.Host: it tells when the broker has decided to end a connection.
func (a *authenticator) Log(e broker.LogEvent) bool {
	if e.Kind == broker.EventDisconnected {
		a.w.judgeEnd(e.Address)
	}
	return true
}

// Authenticate is part of broker.Host.
func (a *authenticator) Authenticate(r broker.AuthRequest) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case r.Step == broker.AuthAbandon:
		delete(a.exchanges, exchangeKey{r.Shard, r.Token})
		return true
	case len(a.waits) >= a.most:
		a.busyAt = a.step
		return false
	}
	a.waits = append(a.waits, question{AuthRequest: r})
	return true
}

// work answers some of the requests that wait, in a calm turn all.
func (a *authenticator) work(number uint64) {
	var due []question
	a.mu.Lock()
	if a.step = a.w.step; a.w.resting {
		a.most = 1 << 20 // All come at once then, and again at once.
	}
	still := a.waits[:0]
	for _, q := range a.waits {
		if q.turns++; a.w.calm || q.turns >= answerTurnsMax || mix(number, q.Token^uint64(q.Shard)<<60)&3 == 0 {
			due = append(due, q)
		} else {
			still = append(still, q)
		}
	}
	a.waits = still
	a.mu.Unlock()
	if !a.w.calm {
		a.w.chance.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	}
	for i := range due {
		a.w.broker.Loops()[due[i].Shard].Authenticated(a.answer(&due[i].AuthRequest))
	}
}

// answer decides on a request.
func (a *authenticator) answer(r *broker.AuthRequest) (out broker.AuthResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if out.Token = r.Token; r.Step != broker.AuthPassword {
		a.proceed(r, &out)
	} else if out.User = r.User; passwordOf(r.User) != string(r.Password) {
		out.Reason = packet.BadUserNameOrPassword
	}
	if out.Reason.Failed() {
		a.refused++
	}
	return out
}

// proceed takes an exchange one step further.
func (a *authenticator) proceed(r *broker.AuthRequest, out *broker.AuthResult) {
	key := exchangeKey{r.Shard, r.Token}
	e := a.exchanges[key]
	switch {
	case r.Step == broker.AuthStart:
		e = &exchange{user: string(r.Data), left: challengesOf(string(r.Data))}
		a.exchanges[key] = e
	case e == nil || !bytes.Equal(r.Data, proof(e.challenge, e.user)):
		delete(a.exchanges, key)
		out.Reason = packet.NotAuthorized
		return
	}
	if e.left == 0 {
		delete(a.exchanges, key)
		out.User, out.Data = e.user, welcome(e.challenge)
		return
	}
	a.begun++
	e.left--
	e.challenge = fmt.Appendf(nil, "%s %d", r.ClientID, a.begun)
	out.Reason, out.Data = packet.ContinueAuthentication, e.challenge
}

// left counts what nobody has taken back: for a broker without connections.
func (a *authenticator) left() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.exchanges) + len(a.waits); n > 0 {
		return fmt.Errorf("authenticator: %d exchanges were not abandoned, and %d requests are left", len(a.exchanges), len(a.waits))
	}
	return nil
}

// userOf is whom a client says that it is; passwordOf what that user knows, and nobody else.
func userOf(client int) string { return fmt.Sprint("u", client) }

func passwordOf(user string) string {
	if user == "" || user[0] != 'u' {
		return "that nobody knows"
	}
	return "p" + user[1:]
}

func challengesOf(user string) int { return 1 + len(user)%2 }

// proof answers a challenge, welcome the last proof.
func proof(challenge []byte, user string) []byte {
	return fmt.Appendf(nil, "%s by %s", challenge, passwordOf(user))
}

func welcome(challenge []byte) []byte { return fmt.Appendf(nil, "%s is right", challenge) }
