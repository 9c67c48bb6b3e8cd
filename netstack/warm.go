// Unsafe: the stack's structures are read without their fields' names, which only the stack may use; nothing is written or believed.

package netstack

import (
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// cacheLine is the unit in which memory comes into the caches, in bytes; where it is more, lines are read twice.
const cacheLine = 64

// endpointExtent is what of an endpoint the stack looks at for a segment: the endpoint itself and what these fields point at.
func endpointExtent() extent {
	return extentOf(reflect.TypeFor[tcp.Endpoint](), "snd", "rcv", "waiterQueue", "route", "scoreboard")
}

// extent is the size of a structure in bytes, and of what some of its fields point at.
type extent struct {
	size     uintptr
	pointers []pointer
}

// pointer is a field that points at a structure.
type pointer struct{ offset, size uintptr }

// extentOf finds fields by their names. What is not there, as in another version of the stack, is left out.
func extentOf(t reflect.Type, names ...string) extent {
	e := extent{size: t.Size()}
	for _, name := range names {
		if f, ok := t.FieldByName(name); ok && f.Type.Kind() == reflect.Pointer {
			e.pointers = append(e.pointers, pointer{f.Offset, f.Type.Elem().Size()})
		}
	}
	return e
}

// warm has the memory of a connection come into the caches all at once, and gives the sum of what it has read, which means nothing.
// With thousands of connections each segment finds its own outside of them, and the stack, which goes from one line to the next,
// waits for every one of some forty.
//
// Nothing is done with what is read, so it may be read while others write it.
//
//go:norace
func (x *extent) warm(e *tcp.Endpoint) (sum byte) {
	at := unsafe.Pointer(e)
	sum = readLines(at, x.size)
	for i := range x.pointers {
		p := &x.pointers[i]
		if target := *(*unsafe.Pointer)(unsafe.Add(at, p.offset)); target != nil {
			sum += readLines(target, p.size)
		}
	}
	return sum
}

// readLines reads a byte of each cache line.
//
//go:norace
func readLines(at unsafe.Pointer, size uintptr) (sum byte) {
	for i := uintptr(0); i < size; i += cacheLine {
		sum += *(*byte)(unsafe.Add(at, i))
	}
	return sum
}
