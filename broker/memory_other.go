//go:build !unix || race

// Unsafe: only for the size of a type.

package broker

import "unsafe"

// reserve falls back to the Go heap where there is no mmap, and for the race detector, which sees no other memory.
func reserve[T any](n int) ([]T, error) { return make([]T, n), nil }

// release undoes reserve: the collector does it here.
func release[T any]([]T) error { return nil }

// mappingBytes has nothing to prefault here.
func mappingBytes[T any]([]T) []byte { return nil }

// sizeOf is the size of one T in bytes.
func sizeOf[T any]() int64 {
	var t T
	return int64(unsafe.Sizeof(t))
}
