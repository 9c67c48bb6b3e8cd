package xdp

import (
	"fmt"
	"net"
	"net/netip"
)

// EventKind says what happened to an Interface.
type EventKind uint8

// What happens to interfaces. The watcher compares the state of the interface with what it last knew, so that two changes
// in quick succession may come as one Event, and a change that was undone at once as none.
const (
	// LinkDown: nothing can be sent or received. Sockets, stacks and connections stay.
	LinkDown EventKind = iota + 1
	// LinkUp: the link is back.
	LinkUp
	// MTUChanged: MTU is the interface's; Fits is false if our frames cannot carry it (Queue.MTU is then what they can).
	MTUChanged
	// AddressesChanged: Addresses has all addresses of the interface.
	AddressesChanged
	// HardwareAddrChanged: the interface has another MAC address, HardwareAddr, which Queue.HardwareAddr gives, too.
	HardwareAddrChanged
	// Removed: the interface is gone, and no frame moves until one of its name appears; then Reopened.
	Removed
	// ProgramDetached: somebody removed our program, and it was attached again.
	ProgramDetached
	// ForeignProgram: another program, ProgramID, stands where ours stood. We leave it and attach again when it is gone.
	ForeignProgram
	// QueuesChanged: the interface now has Queues RX queues; we keep to those of Open. Unbound are the others: what arrives
	// there is the kernel's, which resets connections of ours that move there.
	QueuesChanged
	// QueueStalled: the queue Queue made no progress and is being reopened.
	QueueStalled
	// Reopened: the queue Queue has a new socket and umem; with Queue -1, all of them have.
	Reopened
	// Failed: a repair failed with Err, and is tried again.
	Failed
)

// Event is one change of an Interface. Fields that the Kind does not name are zero.
type Event struct {
	Kind      EventKind
	Interface string
	Queue     int // Of QueueStalled, Reopened and Failed; -1 is the whole interface.
	MTU       int
	Fits      bool
	Addresses []netip.Prefix
	Queues    int
	Unbound   []int
	ProgramID uint32
	Err       error

	HardwareAddr net.HardwareAddr
}

// String is one line for the log.
func (e Event) String() string {
	return "interface " + e.Interface + ": " + e.text()
}

func (e Event) text() string {
	switch e.Kind {
	case LinkDown:
		return "link down: connections are kept, nothing is sent"
	case LinkUp:
		return "link up"
	case MTUChanged:
		if !e.Fits {
			return fmt.Sprintf("MTU is now %d, which our frames cannot carry: lower it, or restart with larger frames", e.MTU)
		}
		return fmt.Sprintf("MTU is now %d", e.MTU)
	case AddressesChanged:
		return fmt.Sprintf("addresses are now %v", e.Addresses)
	case HardwareAddrChanged:
		return fmt.Sprintf("MAC address is now %v: peers reach us when they have learned it", e.HardwareAddr)
	case Removed:
		return "removed: waiting for an interface of this name"
	case ProgramDetached:
		return "our XDP program was removed by somebody and is attached again"
	case ForeignProgram:
		return fmt.Sprintf("XDP program %d has taken the place of ours: new connections go to the kernel until it is gone (bpftool prog show id %d)",
			e.ProgramID, e.ProgramID)
	case QueuesChanged:
		if len(e.Unbound) == 0 {
			return fmt.Sprintf("now has %d RX queues, on each of which we have a socket", e.Queues)
		}
		return fmt.Sprintf("now has %d RX queues, and we have no socket on %v: connections that come there are left to the kernel, "+
			"and those that move there break; restart to take these queues too, or undo it (ethtool -L)", e.Queues, e.Unbound)
	case QueueStalled:
		return fmt.Sprintf("queue %d made no progress: reopening it", e.Queue)
	case Reopened:
		if e.Queue < 0 {
			return "reopened"
		}
		return fmt.Sprintf("queue %d reopened", e.Queue)
	case Failed:
		return fmt.Sprintf("repair failed, will be tried again: %v", e.Err)
	}
	return fmt.Sprintf("event %d", e.Kind)
}
