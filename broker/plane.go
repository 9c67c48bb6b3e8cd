package broker

import (
	"errors"
	"net/netip"
	"time"
)

// ErrWouldBlock is what Conn.Read returns when no byte is there yet.
var ErrWouldBlock = errors.New("no bytes ready")

// Plane carries the Network Connections of one Loop. All methods but Wake are called by that Loop's goroutine only.
//
// A plane never calls the broker; the broker calls it. Its tests are the contract in executable form:
// every implementation passes planetest.Run.
type Plane interface {
	// Wait returns when connections are ready, when Wake was called, or when timeout has passed (negative: no
	// timeout; zero: look and return). The events are valid until the next Wait. An empty result is no error: Wait may
	// return early. One connection may have several events in a batch.
	// Readiness is level-triggered: bytes left unread, and not paused, are reported again by the next Wait.
	Wait(timeout time.Duration) ([]Event, error)

	// Wake makes the current or, if none is under way, the next Wait return at once. Any goroutine may call it.
	// Wakes that come before one Wait may be merged into one.
	Wake()

	// Buffer is the plane's read buffer, the same memory at every call: an anonymous mapping, or a part of the
	// umem in XDP mode. At least 64 KiB. The Loop reads into parts of it; nothing in it outlives the turn.
	Buffer() []byte

	// Flush is called once at the end of each turn, after all writes: a plane that gathers frames sends them now.
	Flush()

	// StopAccepting closes the listening sockets of this plane. Connections live on.
	StopAccepting()

	// Close closes the listening sockets, every connection and the plane's own descriptors.
	Close() error
}

// Laggard is a Plane whose connections may show bytes later than another plane's that were sent after them, because it takes
// them out of rings of its own. Where the order between two connections matters, the broker waits.
type Laggard interface {
	// Lag is how much later bytes may come to where the plane can take them.
	Lag() time.Duration

	// CaughtUp tells whether the last Wait has taken all that there was.
	CaughtUp() bool
}

// EventKind is a set of bits: what has become true of a connection.
type EventKind uint8

const (
	// Accepted: Event.Conn is new, was accepted by listener number Event.Listener, and has Token 0 until SetToken.
	Accepted EventKind = 1 << iota
	// Readable: Read will return bytes, io.EOF or an error. Not reported while paused. After io.EOF it is reported by
	// every Wait until Pause or Close.
	Readable
	// Writable: a Write that took less than all may go on. Reported once for each such Write.
	Writable
	// Hangup: the connection is broken in both directions (Event.Err says why, if known); Close is all that is left.
	// Unread bytes are reported as Readable before it, unless paused: then they are lost.
	Hangup
	// AcceptFailed: a listener could not accept (Event.Err, such as EMFILE); the plane tries again by itself
	// after a pause, so that the condition never spins.
	AcceptFailed
)

// Event reports that something has become true of one connection.
type Event struct {
	Conn     Conn
	Token    uint64 // what SetToken last said
	Kind     EventKind
	Listener int
	Err      error
}

// Conn is one Network Connection of a plane. Only the Loop that owns the plane may call it.
type Conn interface {
	// SetToken names the connection in later events.
	SetToken(uint64)

	// Read moves bytes into p, a part of the plane's Buffer, and says how many: at least 1, or 0 with
	// ErrWouldBlock, io.EOF (the peer closed its side) or another error (broken). One system call at the most.
	Read(p []byte) (int, error)

	// Write takes bytes from the slices of v, in order, and says how many. Less than all, with a nil error, means
	// that the rest must wait for a Writable event, which the plane will report. The slices are the caller's again
	// when Write returns. An error means the connection is broken.
	Write(v [][]byte) (int, error)

	// Pause stops Readable events, and with them the peer (its window fills up); Resume starts them again. Both
	// may be called in any state.
	Pause()
	Resume()

	// Close ends the connection and releases it; bytes that Write took are still sent, for a bounded time and even
	// past unread input. No event for it comes from any later Wait, but the batch at hand may still hold some, which
	// the caller tells by their Token. A second Close does nothing; Read and Write fail with net.ErrClosed.
	Close()

	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
}
