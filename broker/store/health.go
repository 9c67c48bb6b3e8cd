package store

import (
	"fmt"
	"sync"
	"time"
)

// warnEvery is how often the same warning is passed on: a disk that fails says so at every attempt.
const warnEvery = 10 * time.Second

// warned is the last warning.
type warned struct {
	mu     sync.Mutex // guards what follows
	text   string
	at     time.Time
	passed int // how often it came again and was not passed on
}

// warn passes a warning on, but not the same one again and again.
func (s *Store) warn(text string) {
	w := &s.warned
	w.mu.Lock()
	if text == w.text && time.Since(w.at) < warnEvery {
		w.passed++
		w.mu.Unlock()
		return
	}
	more := ""
	if w.passed > 0 {
		more = fmt.Sprintf(" (the warning before came %d times more)", w.passed)
	}
	w.text, w.at, w.passed = text, time.Now(), 0
	w.mu.Unlock()
	s.config.Warn(text + more)
}

// Health is whether the store takes what is to be kept.
type Health struct {
	Refusing bool      `json:"refusing"`
	Why      string    `json:"why,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

// trouble is a reason to refuse messages.
type trouble int

const (
	noSpace trouble = iota // the disk is nearly full
	failing                // the store cannot be written, or not be opened
	troubles
)

// refusal is what is wrong, set by the store's goroutines and read by who asks.
type refusal struct {
	mu     sync.Mutex       // guards what follows
	why    [troubles]string // empty: not this
	health Health
}

// Health is how the store is.
func (s *Store) Health() Health {
	s.refusal.mu.Lock()
	defer s.refusal.mu.Unlock()
	return s.refusal.health
}

// troubled notes why messages are refused, and tells the broker when that begins.
func (s *Store) troubled(t trouble, why string) {
	r := &s.refusal
	r.mu.Lock()
	begins := !r.health.Refusing
	if begins {
		r.health = Health{Refusing: true, Since: time.Now()}
	}
	r.why[t], r.health.Why = why, why
	r.mu.Unlock()
	if begins {
		s.answers.Refuse(true, why)
	}
}

// over says that a trouble is over, and tells the broker when it was the last one.
func (s *Store) over(t trouble) {
	r := &s.refusal
	r.mu.Lock()
	had := r.why[t] != ""
	r.why[t] = ""
	left := r.why[noSpace] + r.why[failing]
	if r.health.Why = left; left == "" {
		r.health = Health{}
	}
	r.mu.Unlock()
	if had && left == "" {
		s.answers.Refuse(false, "")
	}
}
