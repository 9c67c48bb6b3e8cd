//go:build linux

package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/store"
)

// filling takes the store's answers while a test fills it.
type filling struct{ committed chan []byte }

func (f filling) Committed(_ int, ops []byte) { f.committed <- ops }
func (filling) Loaded(broker.Loaded)          {}
func (filling) Refuse(broker.Refusal, string) {}
func (filling) Connected() int64              { return 0 }

// fillStore makes a store with that many Sessions, one subscription each, and messages queued for them in turn.
func fillStore(t *testing.T, dir string, sessions, messages int) {
	t.Helper()
	s, err := store.Open(store.Config{Dir: dir, Durability: store.OS})
	if err != nil {
		t.Fatal(err)
	}
	f := filling{make(chan []byte, 1)}
	s.Start(f)
	var ops []byte
	commit := func() {
		s.Commit(0, ops)
		ops = (<-f.committed)[:0]
	}
	for i := range uint64(sessions) {
		value := (&record.Session{ClientID: fmt.Sprint("device-", i), Expiry: 1<<32 - 1, Offline: time.Now().UnixMilli()}).Append(nil)
		ops = record.AppendSet(ops, record.SessionKey(nil, i+1), value)
		ops = record.AppendSet(ops, record.SubscriptionKey(nil, i+1, "", fmt.Sprint("to/", i, "/#")), (&record.Subscription{QoS: 1}).Append(nil))
		if len(ops) > 1<<20 {
			commit()
		}
	}
	payload := make([]byte, 200)
	for i := range uint64(messages) {
		value := (&record.Entry{Flags: 1}).AppendHead(nil)
		m := record.Message{Flags: 2, Topic: []byte("to/1/x")}
		ops = record.AppendSet(ops, record.EntryKey(nil, i%uint64(sessions)+1, i/uint64(sessions)+1), record.AppendMessage(value, &m, len(payload), payload))
		if len(ops) > 1<<20 {
			commit()
		}
	}
	commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadySoon starts a broker on a store with many Sessions and messages: it is ready for connections within two seconds where there are 100,000
// Sessions and a million messages, in proportion where there are fewer, and what is queued costs no memory. With RINGMQ_LONG there are as many,
// and ten million. A start may be slow because the machine is: of up to ten the best one counts.
func TestReadySoon(t *testing.T) {
	const (
		base    = 400 * time.Millisecond // for a store with nothing in it
		session = 16 * time.Microsecond  // for each: with the base, 100,000 make two seconds
		message = 500 * time.Nanosecond  // for each of the ten millions beyond the first, which are free: their tables have to be opened
		queues  = 32 << 20               // memory: the store's cache
	)
	sessions, counts := 5000, []int{0, 100_000}
	if os.Getenv("RINGMQ_LONG") != "" {
		sessions, counts = 100_000, []int{0, 1_000_000, 10_000_000}
	}
	program, config := buildProgram(t), inFile(t, fmt.Sprintf("memory = \"1GiB\"\nmax_connections = 10000\nmax_sessions = %d\n", sessions+20000))
	empty := int64(0)
	for _, messages := range counts {
		dir := t.TempDir()
		fillStore(t, dir, sessions, messages)
		most := base + time.Duration(sessions)*session + time.Duration(max(0, messages-1_000_000))*message
		best, resident := time.Hour, int64(0)
		for tries := 0; tries < 10 && (tries == 0 || best > most); tries++ {
			start := time.Now()
			p := startProgram(t, program, "serve", "-p", unusedPort(t), "-c", config, "--data", dir, "--admin", "none")
			best = min(best, time.Since(start))
			time.Sleep(time.Second) // what is read in the background is read by then
			resident = residentBytes(t, p.cmd.Process.Pid)
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		t.Logf("%d Sessions, %d messages: ready after %v, %d MiB resident", sessions, messages, best.Round(time.Millisecond), resident>>20)
		if best > most {
			t.Errorf("ready after %v, want %v", best, most)
		}
		if messages == 0 {
			empty = resident
		} else if resident > empty+queues {
			t.Errorf("%d messages that wait cost %d MiB of memory", messages, (resident-empty)>>20)
		}
	}
}
