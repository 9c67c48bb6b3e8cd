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
// Pebble ends the process when a commit fails. Here it may not: its Fatalf ends the goroutine that called it; the writer
// fences the instance, whose every further access to files fails, forgets it, and opens the store anew until that works. Then the
// batch at hand is put again, which does no harm: changes are absolute. Meanwhile nothing is answered, and
// Answers.Refuse tells the broker to refuse what it would have to keep.
//
// # The directory
//
//	FORMAT        format version
//	LOCK          held while a broker or a tool has the store open
//	ballast       space that is given up when the disk is full, so that what frees space can be written
//	db            Pebble's
//	damaged-…     stores that could not be read, kept aside
package store
