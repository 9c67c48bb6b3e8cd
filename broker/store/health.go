package store

import (
	"fmt"
	"sync"
	"time"

	"github.com/ringmq/ringmq/broker"
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
	Refusing bool `json:"refusing"`
	// Level is how much is refused: 1 messages, 2 new Sessions and subscriptions too, 3 everything that has to be written.
	Level broker.Refusal `json:"level,omitempty"`
	Why   string         `json:"why,omitempty"`
	Since time.Time      `json:"since,omitzero"`
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
	telling sync.Mutex // is held while the broker is told, which has it hear of one change behind the other; taken before mu

	mu     sync.Mutex // guards what follows
	why    [troubles]string
	levels [troubles]broker.Refusal // RefuseNothing: not this
	health Health
}

// level is what is refused for all reasons.
func (r *refusal) level() broker.Refusal { return max(r.levels[noSpace], r.levels[failing]) }

// Health is how the store is.
func (s *Store) Health() Health {
	s.refusal.mu.Lock()
	defer s.refusal.mu.Unlock()
	return s.refusal.health
}

// over says that a trouble is over.
func (s *Store) over(t trouble) { s.troubled(t, broker.RefuseNothing, "") }

// troubled notes what is refused and why, and tells the broker when that is something else than before: one after the other, for the writer and
// the reaper both come here, and the broker keeps what it is told last. Who asks for the health does not wait for that.
func (s *Store) troubled(t trouble, level broker.Refusal, why string) {
	r := &s.refusal
	r.telling.Lock()
	defer r.telling.Unlock()
	if health, changed := r.note(t, level, why); changed {
		s.answers.Refuse(health.Level, health.Why)
	}
}

// note notes a trouble, and says how the store is then, and whether something else is refused than before.
func (r *refusal) note(t trouble, level broker.Refusal, why string) (health Health, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.level()
	r.levels[t], r.why[t] = level, why
	now := r.level()
	switch {
	case now == broker.RefuseNothing:
		r.health = Health{}
	case before == broker.RefuseNothing:
		r.health = Health{Refusing: true, Since: time.Now()}
		fallthrough
	default:
		r.health.Level = now
		if r.health.Why = r.why[failing]; r.health.Why == "" {
			r.health.Why = r.why[noSpace]
		}
	}
	return r.health, now != before
}
