package broker

import "github.com/ringmq/ringmq/broker/record"

// Store keeps what outlives the process: changes go out and their completion comes back through the Loop, so that no shard
// ever waits for a disk. No method blocks. The in-memory one of the tests and broker/store implement it.
type Store interface {
	// Boot is the number of this run, larger than that of any earlier one; see package record.
	Boot() uint32
	// LastCommit is when the last run committed for the last time, in unix milliseconds; 0 when there was none.
	LastCommit() int64
	// Doubt counts how often the store was damaged, in all its life: what the client of a Session that was there before sends again may have been
	// received, and what it sends for the first time may look like that. Each may find damage, and so may any access later on.
	Doubt() uint32
	// Accepted is what Doubt was when the broker last started: what is damaged since then may have brought back more than the limits allow.
	Accepted() uint32
	// Each gives every record of a kind to f, in the order of keys. Called before the loops run only; the slices are valid
	// during the call of f.
	Each(kind record.Kind, f func(key, value []byte) error) error

	// Commit hands a batch of changes over. Batches are committed in the order of the calls over all shards, each whole or not at
	// all, and the shard is told by Loop.Committed, in the same order, once its batch is durable. ops is the store's until then.
	Commit(shard int, ops []byte)
	// Load reads a part of a Session's queue and answers by Loop.Loaded. It sees every batch handed over before.
	Load(Load)
}

// Load asks for the entries of a queue at positions From to To, both included: the first ones, as many as the limits say,
// and at least one if there is one.
type Load struct {
	Shard   int
	Session uint32 // for the shard
	Serial  uint32 // for the shard
	SID     uint64
	From    uint64
	To      uint64
	Entries int
	Bytes   int
	Count   bool // only say when those expire that wait to be sent for the first time; Entries and Bytes are what is looked at
}

// Loaded answers a Load.
type Loaded struct {
	Load
	Entries []LoadedEntry
	Done    bool // there are no more up to To
	Damaged int  // how many of Entries do not decode, or lack their message: the shard counts and deletes them
	// What Count asks for: when the messages expire that wait, in unix milliseconds, 0 for never, and the last position that was looked at.
	Expires []int64
	Last    uint64
}

// LoadedEntry is one record.Entry and, when that is shared, its message.
type LoadedEntry struct {
	Pos     uint64
	Value   []byte
	Message []byte
}
