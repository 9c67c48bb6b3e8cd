// Package store keeps what package record describes in a directory, on Pebble: it is the engine's broker.Store.
//
// # What it is
//
// One goroutine, the writer, takes the batches that shards hand over, in the order in which they were handed over, puts
// as many as there are into one Pebble batch, has it made durable, and answers all of them. Loads go through the same queue,
// so that a load sees whatever was handed over before it, and run on readers beside it. A reaper removes what nothing refers
// to any more.
//
// # When the disk fails
//
// Pebble ends the process when a commit fails. Here it may not: it is not told (see fenceFS), and what it does after the first failure goes
// nowhere and is not believed. The writer closes it and opens the store anew until that works. Then the
// batch at hand is put again, which does no harm: changes are absolute. Meanwhile nothing is answered, and
// Answers.Refuse tells the broker to refuse what it would have to keep.
//
// # When the disk lies or decays
//
// A block that cannot be read makes the writer salvage: what can be read goes into a new store, what cannot is counted, the old one is
// kept. A file beside the database notes after each commit how many there were; when the database has fewer at the next
// start, the disk has lost what it had confirmed, and where logs lack some in between, too. In all these cases there is doubt, and messages of QoS 2 that may have been
// delivered since the state at hand are given up (see settleDoubt) rather than delivered twice: all that wait, or, where a salvage could
// read everything, those that were sent.
//
// # The directory
//
//	FORMAT        format version
//	LOCK          held while a broker or a tool has the store open
//	ballast       space that is given up when the disk is full, so that what frees space can be written
//	progress      how many commits there were, in which run
//	db            Pebble's, and a note of how much of its MANIFEST was synced
//	salvaged      what becomes db, while a damaged store is salvaged
//	damaged-…     stores that could not be read, kept aside
package store
