package cable

import (
	"errors"
	"time"
)

// ErrUnplugged is what Wait says when the end is gone.
var ErrUnplugged = errors.New("the cable is unplugged")

// End is one queue of the interface at one end of a cable: a netstack.Device. A Receive, a Wait and the transmit
// methods may each be called by another goroutine.
type End struct {
	cable  *Cable
	addr   [6]byte
	buffer []byte
	notice chan struct{} // room for one: look again
	timer  *time.Timer   // of Wait

	// Everything below is guarded by the cable's mutex.
	free      [][]byte // transmit frames that nobody has
	committed [][]byte
	rooms     [][]byte // memory for frames to come
	arrived   [][]byte
	first     int // of arrived
	delayed   []delayed
	isWoken   bool
	isGone    bool
}

// delayed is a frame that is overtaken by as many others as steps says.
type delayed struct {
	frame []byte
	steps int
}

func newEnd(c *Cable, addr [6]byte) *End {
	e := &End{cable: c, addr: addr, buffer: make([]byte, bufferBytes), notice: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	e.timer.Stop()
	size := c.config.MTU + linkHeaderMax
	memory := make([]byte, 2*c.config.Frames*size)
	for range c.config.Frames {
		e.free, memory = append(e.free, memory[:size:size]), memory[size:]
		e.rooms, memory = append(e.rooms, memory[:size:size]), memory[size:]
	}
	return e
}

// Receive is part of netstack.Device.
func (e *End) Receive(most int, deliver func(frame []byte)) int {
	n := 0
	for ; n < most; n++ {
		e.cable.mu.Lock()
		if e.waiting() == 0 {
			e.step()
		}
		if e.waiting() == 0 {
			e.cable.mu.Unlock()
			break
		}
		frame := e.arrived[e.first]
		e.arrived[e.first] = nil
		e.first++
		if e.first == len(e.arrived) {
			e.arrived, e.first = e.arrived[:0], 0
		}
		e.cable.mu.Unlock()
		deliver(frame)
		e.cable.mu.Lock()
		e.rooms = append(e.rooms, frame[:cap(frame)])
		e.cable.mu.Unlock()
	}
	return n
}

func (e *End) waiting() int { return len(e.arrived) - e.first }

// step brings every delayed frame closer.
func (e *End) step() {
	still := e.delayed[:0]
	for _, d := range e.delayed {
		if d.steps--; d.steps <= 0 {
			e.arrived = append(e.arrived, d.frame)
			continue
		}
		still = append(still, d)
	}
	e.delayed = still
}

// takeRoom copies a frame into memory of this end.
func (e *End) takeRoom(frame []byte) []byte {
	room := e.rooms[len(e.rooms)-1]
	e.rooms = e.rooms[:len(e.rooms)-1]
	return room[:copy(room, frame)]
}

// Reserve is part of netstack.Device.
func (e *End) Reserve() []byte {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	if len(e.free) == 0 {
		return nil
	}
	frame := e.free[len(e.free)-1]
	e.free = e.free[:len(e.free)-1]
	return frame
}

// Commit is part of netstack.Device.
func (e *End) Commit(frame []byte, n int) {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	e.committed = append(e.committed, frame[:n])
}

// Discard is part of netstack.Device.
func (e *End) Discard(frame []byte) {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	e.free = append(e.free, frame[:cap(frame)])
}

// Kick is part of netstack.Device.
func (e *End) Kick() {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	for i, frame := range e.committed {
		e.cable.carry(e, frame)
		e.free = append(e.free, frame[:cap(frame)])
		e.committed[i] = nil
	}
	e.committed = e.committed[:0]
}

// Wait is part of netstack.Device.
func (e *End) Wait(timeout time.Duration) error {
	if done, err := e.look(); done || timeout == 0 {
		return err
	}
	if timeout < 0 {
		<-e.notice
		_, err := e.look()
		return err
	}
	e.timer.Reset(timeout)
	defer e.timer.Stop()
	select {
	case <-e.notice:
	case <-e.timer.C:
	}
	_, err := e.look()
	return err
}

// look tells whether there is a reason to return from Wait.
func (e *End) look() (done bool, err error) {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	if e.isGone {
		return true, ErrUnplugged
	}
	done = e.isWoken || e.waiting() > 0 || len(e.delayed) > 0
	e.isWoken = false
	return done, nil
}

// Wake is part of netstack.Device.
func (e *End) Wake() {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	e.isWoken = true
	e.signal()
}

// Unplug makes Wait fail from now on.
func (e *End) Unplug() {
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	e.isGone = true
	e.signal()
}

func (e *End) signal() {
	select {
	case e.notice <- struct{}{}:
	default: // It is there already.
	}
}

// Buffer is part of netstack.Device.
func (e *End) Buffer() []byte { return e.buffer }

// MTU is part of netstack.Device.
func (e *End) MTU() int { return int(e.cable.mtu.Load()) }

// HardwareAddr is part of netstack.Device.
func (e *End) HardwareAddr() [6]byte { return e.addr }
