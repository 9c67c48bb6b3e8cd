package netstack

import (
	"reflect"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// TestWarmth: what warm reads is there in this version of the stack, and what is not there is left out.
func TestWarmth(t *testing.T) {
	warmth := endpointExtent()
	if len(warmth.pointers) != 5 {
		t.Errorf("%d of 5 fields of an endpoint are found: the stack has renamed some, and warm reads less", len(warmth.pointers))
	}
	if warmth.size != reflect.TypeFor[tcp.Endpoint]().Size() {
		t.Errorf("an endpoint has %d bytes", warmth.size)
	}
	type other struct {
		Sender   int
		Receiver *[100]byte
	}
	if got := extentOf(reflect.TypeFor[other](), "Sender", "Receiver", "Route"); len(got.pointers) != 1 || got.pointers[0] != (pointer{8, 100}) {
		t.Errorf("of a structure with one pointer: %+v", got)
	}
}
