package netstack

import (
	crypto "crypto/rand"
	"crypto/sha1"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// secrets are what the stacks of a group have in common. A SYN cookie, and a timestamp's offset, are made of secrets that a
// stack draws while it is built, and of its clock. A stack does not remember to whom it has sent a cookie; when the sender's
// hash, or ethtool, then moves the connection to another queue, that queue's stack must take the cookie for its own, or it
// answers the first segment of the new connection with RST.
type secrets struct {
	seed [32]byte
	base time.Time // of the clocks
}

func newSecrets() secrets {
	s := secrets{base: time.Now()}
	_, _ = crypto.Read(s.seed[:]) // It never fails: it ends the process instead.
	return s
}

// random is one stack's source of random numbers: the same for all stacks of a group until the stack is built, which asks
// for the same things in the same order; its own from then on.
type random struct {
	shared  io.Reader   // for the goroutine that builds the stack
	isBuilt atomic.Bool // set by that goroutine, read by whoever asks

	// blocks are what was drawn in pieces of this size: a listener's secrets for SYN cookies, and nothing else; see cookies.
	blocks [][sha1.BlockSize]byte
}

func (s *secrets) random() *random { return &random{shared: rand.NewChaCha8(s.seed)} }

// Read implements io.Reader.
func (r *random) Read(p []byte) (int, error) {
	if r.isBuilt.Load() {
		return crypto.Read(p)
	}
	n, err := r.shared.Read(p)
	if err == nil && len(p) == sha1.BlockSize {
		r.blocks = append(r.blocks, [sha1.BlockSize]byte(p))
	}
	return n, err
}
