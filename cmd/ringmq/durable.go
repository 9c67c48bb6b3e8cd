package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/store"
)

// storeSettings are the keys of the configuration's table [store]; --data and --durability set the same.
type storeSettings struct {
	Data       string `toml:"data"`       // directory; empty: nothing outlives the process
	Durability string `toml:"durability"` // fsync, os or none
	Reserve    size   `toml:"reserve"`    // free space on its disk that is left alone
}

// check judges what TOML does not, in the file alone: the directory may come from the command line.
func (s *storeSettings) check() error {
	_, err := store.ParseDurability(s.Durability)
	return err
}

// checkDirectory judges file and command line together.
func (s *storeSettings) checkDirectory() error {
	if s.Data == "" && (s.Durability != "" || s.Reserve != 0) {
		return errors.New("store: durability and reserve mean nothing without a directory; name one with --data or store.data")
	}
	return nil
}

// errNoDirectory refuses a name that is there and empty, as that of a variable that is not set: whoever gave it wants messages to be kept.
var errNoDirectory = errors.New("names no directory; give one, or leave it out to keep nothing")

// config is what package store is told; memory is the broker's.
func (s *storeSettings) config(memory int64) store.Config {
	durability, _ := store.ParseDurability(s.Durability) // checked
	// An eighth of the memory, at most what the store takes by itself.
	part := max(memory/8, 8<<20)
	return store.Config{Dir: s.Data, Durability: durability, ReserveBytes: int64(s.Reserve),
		MemTableBytes: min(16<<20, part/8), CacheBytes: min(32<<20, part/4)}
}

// storeDescriptors are a store's: its tables, and its logs, what a backup copies and what a salvage reads.
const storeDescriptors = store.OpenFilesMax + 64

// descriptors is how many of a process's the store is left; where there are few, a quarter.
func (s *storeSettings) descriptors(all int) int {
	if s.Data == "" {
		return 0
	}
	return min(storeDescriptors, all/4)
}

// durable connects the store to the broker's loops.
type durable struct {
	process *process
	store   *store.Store
	loops   []*broker.Loop
}

// openStore opens the store, if there is to be one.
func (p *process) openStore() error {
	if p.settings.Store.Data == "" {
		return nil
	}
	config := p.settings.Store.config(p.limits.Memory)
	config.Warn = func(text string) { p.log.Warn("store", "what", text) }
	config.Idle = new(tidying).collect
	s, err := store.Open(config)
	if err != nil {
		return err
	}
	p.durable = &durable{process: p, store: s}
	return nil
}

// asStore is the store as the broker takes it: nil, and not a nil pointer, where there is none.
func (d *durable) asStore() broker.Store {
	if d == nil {
		return nil
	}
	return d.store
}

func (d *durable) start(b *broker.Broker, took time.Duration) {
	if d == nil {
		return
	}
	d.loops = b.Loops()
	d.store.Start(d)
	d.process.log.Info("store", "directory", d.process.settings.Store.Data, "durability", d.process.settings.Store.config(0).Durability.String(),
		"sessions", b.Sessions(), "retained", b.Retained(), "read_ms", took.Milliseconds())
}

// health is how the store is; nil where there is none.
func (d *durable) health() *store.Health {
	if d == nil {
		return nil
	}
	h := d.store.Health()
	return &h
}

// close commits what the last turns of the loops have handed over.
func (d *durable) close() error {
	if d == nil {
		return nil
	}
	if err := d.store.Close(); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}

// Committed is part of store.Answers.
func (d *durable) Committed(shard int, ops []byte) { d.loops[shard].Committed(ops) }

// Loaded is part of store.Answers.
func (d *durable) Loaded(r broker.Loaded) { d.loops[r.Shard].Loaded(r) }

// Connected is part of store.Answers.
func (d *durable) Connected() int64 { return d.process.broker.Connected() }

// Refuse is part of store.Answers.
func (d *durable) Refuse(level broker.Refusal, why string) {
	d.process.broker.Refuse(level)
	switch level {
	case broker.RefuseNothing:
		d.process.log.Warn("store works again")
	case broker.RefuseMessages:
		d.process.log.Error("store fails: messages that are to be kept are refused until it recovers", "reason", why)
	case broker.RefuseNew:
		d.process.log.Error("store fails: messages that are to be kept, new Sessions and their subscriptions are refused until it recovers", "reason", why)
	case broker.RefuseAll:
		d.process.log.Error("store fails: nothing is written until it recovers; clients that it would have to note are refused", "reason", why)
	}
}
