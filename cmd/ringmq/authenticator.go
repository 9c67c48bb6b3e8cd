package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/credentials"
	"github.com/ringmq/ringmq/broker/packet"
)

const (
	// scramMethod is the Authentication Method on offer (RFC 7677).
	scramMethod = "SCRAM-SHA-256"
	// authQueue is how many requests may wait; the next client is told that the server is busy.
	authQueue = 1024
)

// verifiers is how many hashes are computed at a time: each takes a core for a tenth of a second and tens of MiB, and
// half of the cores stay with the clients that are in.
func verifiers() int { return max(1, runtime.NumCPU()/2) }

// authBytes is what verifying users may take of memory: a set of hashes at work, and one that the collector has not taken yet.
func authBytes(users *credentials.File) int64 {
	return 2 * int64(verifiers()) * users.MemoryMaxBytes()
}

// authTask is a request and when it came.
type authTask struct {
	broker.AuthRequest
	since time.Time
}

// authenticator answers the shards' requests on goroutines of its own, so that no shard ever computes a hash.
type authenticator struct {
	users    atomic.Pointer[credentials.File] // replaced whole on reload
	loops    []*broker.Loop
	queue    chan authTask
	patience time.Duration // a request that waited longer is refused unanswered: its client is about to give up
	closing  atomic.Bool
	workers  sync.WaitGroup

	mu        sync.Mutex // guards exchanges
	exchanges map[exchangeKey]*credentials.Conversation
}

type exchangeKey struct {
	shard int
	token uint64
}

func newAuthenticator(users *credentials.File, patience time.Duration) *authenticator {
	a := &authenticator{queue: make(chan authTask, authQueue), patience: patience, exchanges: make(map[exchangeKey]*credentials.Conversation)}
	a.users.Store(users)
	return a
}

func (a *authenticator) start(loops []*broker.Loop) {
	a.loops = loops
	for range verifiers() {
		a.workers.Go(func() {
			for t := range a.queue {
				a.answer(t)
			}
		})
	}
}

// close waits for the workers, which refuse what still waits. No shard may ask any more.
func (a *authenticator) close() {
	a.closing.Store(true)
	close(a.queue)
	a.workers.Wait()
}

// ask queues a request; false when too many wait. An abandoned exchange is forgotten at once.
func (a *authenticator) ask(r broker.AuthRequest) bool {
	if r.Step == broker.AuthAbandon {
		a.forget(r)
		return true
	}
	select {
	case a.queue <- authTask{r, time.Now()}:
		return true
	default:
		return false
	}
}

func (a *authenticator) forget(r broker.AuthRequest) {
	a.mu.Lock()
	delete(a.exchanges, exchangeKey{r.Shard, r.Token})
	a.mu.Unlock()
}

func (a *authenticator) answer(t authTask) {
	r := t.AuthRequest
	out := broker.AuthResult{Token: r.Token}
	if a.closing.Load() || time.Since(t.since) > a.patience {
		a.forget(r)
		out.Reason = packet.ServerBusy
	} else if r.Step == broker.AuthPassword {
		out.User = r.User
		if !a.users.Load().Verify(r.User, r.Password) {
			out.Reason = packet.BadUserNameOrPassword
		}
	} else {
		a.step(r, &out)
	}
	a.loops[r.Shard].Authenticated(out)
}

// step takes a SCRAM exchange one message further.
func (a *authenticator) step(r broker.AuthRequest, out *broker.AuthResult) {
	key := exchangeKey{r.Shard, r.Token}
	a.mu.Lock()
	c := a.exchanges[key]
	if r.Step == broker.AuthStart {
		c = a.users.Load().SCRAM()
		a.exchanges[key] = c
	}
	a.mu.Unlock()
	if c == nil {
		out.Reason = packet.NotAuthorized
		return
	}
	data, done, err := c.Step(r.Data)
	switch {
	case err != nil:
		a.forget(r)
		out.Reason = packet.NotAuthorized
	case !done:
		out.Reason, out.Data = packet.ContinueAuthentication, data
	default:
		a.forget(r)
		out.Data, out.User = data, c.User()
	}
}
