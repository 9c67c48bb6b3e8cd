//go:build unix && !race

// Unsafe: this file turns anonymous mappings into slices of pointer-free structures.

package broker

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve maps room for n values of T outside the Go heap. The pages are zero and take no memory until touched.
// T must hold no Go pointer: the collector does not look there.
func reserve[T any](n int) ([]T, error) {
	var t T
	size := n * int(unsafe.Sizeof(t))
	if size == 0 {
		return nil, nil
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of memory: %w", size, err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// release undoes reserve.
func release[T any](s []T) error {
	if len(s) == 0 {
		return nil
	}
	return unix.Munmap(mappingBytes(s))
}

// mappingBytes is the same memory as bytes.
func mappingBytes[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	var t T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(t)))
}

// sizeOf is the size of one T in bytes.
func sizeOf[T any]() int64 {
	var t T
	return int64(unsafe.Sizeof(t))
}
