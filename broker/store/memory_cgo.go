//go:build cgo

package store

// #include <stdlib.h>
// #ifdef __GLIBC__
// #include <malloc.h>
// #endif
//
// // The C library's allocator keeps what is freed in as many arenas as threads have ever met each other in it, and raises the size
// // from which on it maps blocks of their own as such blocks are freed. Pebble's goroutines wander over all threads: ten minutes of
// // churn leave tens of megabytes in arenas of which nothing is used. So there is one arena, and memtables are mapped.
// static void keep_little(void) {
// #ifdef __GLIBC__
// 	mallopt(M_ARENA_MAX, 1);
// 	mallopt(M_MMAP_THRESHOLD, 128 << 10);
// 	mallopt(M_TRIM_THRESHOLD, 1 << 20);
// #endif
// }
//
// static void give_back(void) {
// #ifdef __GLIBC__
// 	malloc_trim(0);
// #endif
// }
import "C"

// inGoHeap says whether Pebble takes memtables and block cache from the Go heap.
const inGoHeap = false

// keepLittle has the C library keep little of what Pebble frees.
func keepLittle() { C.keep_little() }

// giveBack gives the machine what the C library keeps all the same.
func giveBack() { C.give_back() }
