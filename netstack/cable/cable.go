// Package cable is Ethernet in memory, for tests of package netstack: a far end, the client's, and one near end for
// each queue of a multi-queue interface. Each End is a netstack.Device.
//
// A cable loses, duplicates, reorders and corrupts frames as its seed says: the same frames sent in the same order
// meet the same fate. It has no clock and no goroutine. A frame that is delayed is overtaken by up to delayMax of the
// frames behind it; when none come, every look at the receiving end brings it closer.
package cable

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

const (
	framesDefault = 512
	mtuDefault    = 1500
	linkHeaderMax = 22 // Ethernet and two VLAN tags
	bufferBytes   = 64 << 10

	// delayMax is how many frames overtake a delayed one at most: more than the three duplicate ACKs that make a sender
	// think of a loss.
	delayMax = 5
)

// Config shapes a cable. The zero value is a perfect one with one queue.
type Config struct {
	Queues int // near ends; zero means one
	Frames int // transmit frames of each end, and received frames that wait there at most; zero means 512
	MTU    int // zero means 1500

	// NearAddr and FarAddr are the ends' MAC addresses; all near ends have the same. Zero means 02:00:00:00:00:01
	// and 02:00:00:00:00:02.
	NearAddr, FarAddr [6]byte

	// Steer chooses the queue of a frame for the near end. Nil means the first.
	Steer func(frame []byte) int

	Faults Faults
}

// Faults are what a cable does to frames: probabilities from 0 to 1.
type Faults struct {
	Seed      uint64
	Loss      float64
	Duplicate float64
	Reorder   float64
	Corrupt   float64 // one bit of the frame, anywhere behind the addresses
}

// Cable connects its ends.
type Cable struct {
	mu     sync.Mutex // guards everything in the cable and its ends
	config Config
	faults Faults
	random *rand.Rand
	near   []*End
	far    *End
	counts Counts
	mtu    atomic.Int64
	tap    func(toNear bool, frame []byte)
}

// Counts is what a cable has done.
type Counts struct {
	Sent, Lost, Duplicated, Delayed, Corrupted int
	NoRoom                                     int // the receiving end was full
}

// New makes a cable.
func New(config Config) *Cable {
	setDefault(&config.Queues, 1)
	setDefault(&config.Frames, framesDefault)
	setDefault(&config.MTU, mtuDefault)
	setDefault(&config.NearAddr, [6]byte{2, 0, 0, 0, 0, 1})
	setDefault(&config.FarAddr, [6]byte{2, 0, 0, 0, 0, 2})
	c := &Cable{config: config}
	c.mtu.Store(int64(config.MTU))
	c.setFaults(config.Faults)
	for range config.Queues {
		c.near = append(c.near, newEnd(c, config.NearAddr))
	}
	c.far = newEnd(c, config.FarAddr)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Near returns the near ends, one per queue.
func (c *Cable) Near() []*End { return c.near }

// Far returns the far end.
func (c *Cable) Far() *End { return c.far }

// SetFaults changes what happens to frames from now on.
func (c *Cable) SetFaults(f Faults) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setFaults(f)
}

func (c *Cable) setFaults(f Faults) {
	c.faults = f
	c.random = rand.New(rand.NewPCG(f.Seed, f.Seed))
}

// SetMTU changes what MTU of the ends says. Frames that are larger are lost.
func (c *Cable) SetMTU(mtu int) { c.mtu.Store(int64(mtu)) }

// Tap has f see every frame before anything happens to it. The frame is valid until f returns; f must not call the
// cable. Nil ends it.
func (c *Cable) Tap(f func(toNear bool, frame []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tap = f
}

// Counts returns what the cable has done so far.
func (c *Cable) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Conserved tells whether every frame of every end is where it belongs: free, or received and waiting. It is false
// while an end's owner holds a frame.
func (c *Cable) Conserved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range append([]*End{c.far}, c.near...) {
		if len(e.free) != c.config.Frames || len(e.committed) != 0 {
			return false
		}
		if len(e.rooms)+e.waiting()+len(e.delayed) != c.config.Frames {
			return false
		}
	}
	return true
}

// carry takes a frame from one end to where it goes. The mutex is held.
func (c *Cable) carry(from *End, frame []byte) {
	c.counts.Sent++
	toNear := from == c.far
	if c.tap != nil {
		c.tap(toNear, frame)
	}
	if int64(len(frame)) > c.mtu.Load()+linkHeaderMax || c.happens(c.faults.Loss) {
		c.counts.Lost++
		return
	}
	to := c.far
	if toNear {
		to = c.near[0]
		if c.config.Steer != nil {
			to = c.near[c.config.Steer(frame)%len(c.near)]
		}
	}
	copies := 1
	if c.happens(c.faults.Duplicate) {
		c.counts.Duplicated++
		copies = 2
	}
	for range copies {
		c.hand(to, frame)
	}
}

// hand puts a copy of the frame into an end, now or later.
func (c *Cable) hand(to *End, frame []byte) {
	if len(to.rooms) == 0 {
		c.counts.NoRoom++
		return
	}
	room := to.takeRoom(frame)
	if c.happens(c.faults.Corrupt) && len(room) > 12 {
		c.counts.Corrupted++
		room[12+c.random.IntN(len(room)-12)] ^= 1 << c.random.IntN(8)
	}
	if c.happens(c.faults.Reorder) {
		c.counts.Delayed++
		to.delayed = append(to.delayed, delayed{room, 1 + c.random.IntN(delayMax)})
		to.signal()
		return
	}
	to.arrived = append(to.arrived, room)
	to.step()
	to.signal()
}

func (c *Cable) happens(probability float64) bool {
	return probability > 0 && c.random.Float64() < probability
}
