//go:build !cgo

package store

// inGoHeap says whether Pebble takes memtables and block cache from the Go heap.
const inGoHeap = true

func keepLittle() {}
func giveBack()   {}
