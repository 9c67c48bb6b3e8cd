package netstack

import "sync/atomic"

// Counters is what one plane has counted since Open, and a few sizes as they are now.
type Counters struct {
	FramesIn, BytesIn   uint64 // frames taken from the device
	FramesOut, BytesOut uint64 // frames given to the device

	// Frames that were received and dropped, by reason.
	Malformed       uint64 // neither IPv4 nor IPv6, or cut short
	NotOurs         uint64 // another protocol, address or port than we listen on, or a fragment: the kernel's business
	AddressGone     uint64 // a SYN for an address that the host no longer has
	ICMPRefused     uint64 // an ICMP error for no connection of ours, or one that is not plausible
	HandoverDropped uint64 // for another plane, whose inbox was full
	Poisoned        uint64 // of a connection whose processing has panicked
	ChecksumErrors  uint64 // found by the stack, in IP and TCP

	// Frames that were to be sent and dropped, by reason.
	NoLinkAddress    uint64 // nobody knows the remote's link address any more
	OverflowDropped  uint64 // no transmit frame and the overflow queue full
	NotTCP           uint64 // the stack wanted to send something that is the kernel's business
	TooLong          uint64 // longer than a transmit frame
	OverflowQueued   uint64 // frames that had to wait in the overflow queue
	OverflowHighTide uint64 // the most bytes that ever waited there

	HeldACKs       uint64 // pure ACKs that were held back
	SupersededACKs uint64 // of these, how many were never sent: later data carried them

	HandedOver uint64 // frames given to the plane that owns their connection
	TakenOver  uint64 // frames got from other planes

	LinkLearned uint64 // link addresses learned from frames
	LinkChanged uint64 // of these, changes of a connection's
	LinkRefused uint64 // frames whose link address was not believed

	Accepted       uint64
	AcceptRefused  uint64 // connections reset because the plane was full
	Panics         uint64 // in the processing of a received frame
	Retransmits    uint64
	ResetsSent     uint64
	ResetsReceived uint64

	HandshakesExpired uint64 // handshakes given up because the remote did not answer

	CookiesSent     uint64 // SYN cookies, because too many handshakes were under way
	CookiesReturned uint64 // of these, how many made a connection
	CookiesRefused  uint64 // acknowledgements of no connection, whose number is no SYN cookie of ours either

	SendLimited uint64 // Writes that were cut short because what clients do not acknowledge has used up its memory
	StuckReset  uint64 // connections reset then because their clients acknowledged nothing for seconds
	PinnedBytes uint64 // now: the heap that what was not acknowledged takes, as it is counted

	ReceiveLimited uint64 // segments that were dropped because what the broker has not read has used up its memory
	UnreadBytes    uint64 // now: the heap that what was not read takes, as it is counted

	Established uint64 // now
	HalfOpen    uint64 // now: handshakes that are tracked
	Connections uint64 // now: slots taken, with those that are being closed
	Flows       uint64 // now: size of the table of connections with their link addresses
	Remotes     uint64 // now: size of the table of link addresses by remote address
}

// counter is added to by whoever does what it counts, and read by anyone.
type counter = atomic.Uint64

// counterSet is where a plane counts. Sizes are kept where they are.
type counterSet struct {
	framesIn, bytesIn, framesOut, bytesOut           counter
	drops                                            [dropReasons]counter
	noLinkAddress, overflowDropped, notTCP, tooLong  counter
	overflowQueued, overflowHighTide                 counter
	held, superseded, handedOver, takenOver, cookies counter
	linkLearned, linkChanged, linkRefused            counter
	accepted, acceptRefused, panics, connections     counter
	sendLimited, stuckReset, pinnedBytes             counter
	unreadBytes, handshakesExpired                   counter
}

// snapshot is what the plane itself has counted.
func (c *counterSet) snapshot() Counters {
	return Counters{
		FramesIn: c.framesIn.Load(), BytesIn: c.bytesIn.Load(), FramesOut: c.framesOut.Load(), BytesOut: c.bytesOut.Load(),
		Malformed: c.drops[malformed].Load(), NotOurs: c.drops[notOurs].Load(), AddressGone: c.drops[addressGone].Load(),
		ICMPRefused: c.drops[icmpRefused].Load(), HandoverDropped: c.drops[inboxFull].Load(), Poisoned: c.drops[poisoned].Load(),
		ChecksumErrors: c.drops[damaged].Load(),
		NoLinkAddress:  c.noLinkAddress.Load(), OverflowDropped: c.overflowDropped.Load(), NotTCP: c.notTCP.Load(),
		TooLong: c.tooLong.Load(), OverflowQueued: c.overflowQueued.Load(), OverflowHighTide: c.overflowHighTide.Load(),
		HeldACKs: c.held.Load(), SupersededACKs: c.superseded.Load(),
		HandedOver: c.handedOver.Load(), TakenOver: c.takenOver.Load(),
		LinkLearned: c.linkLearned.Load(), LinkChanged: c.linkChanged.Load(), LinkRefused: c.linkRefused.Load(),
		Accepted: c.accepted.Load(), AcceptRefused: c.acceptRefused.Load(), Panics: c.panics.Load(),
		Connections: c.connections.Load(),
		SendLimited: c.sendLimited.Load(), StuckReset: c.stuckReset.Load(), PinnedBytes: c.pinnedBytes.Load(),
		ReceiveLimited: c.drops[unreadFull].Load(), UnreadBytes: c.unreadBytes.Load(),
		HandshakesExpired: c.handshakesExpired.Load(),
	}
}

// Add adds the counts of another plane; of high tides it keeps the higher one.
func (c *Counters) Add(o Counters) {
	high := max(c.OverflowHighTide, o.OverflowHighTide)
	mine, other := c.fields(), o.fields()
	for i := range mine {
		*mine[i] += *other[i]
	}
	c.OverflowHighTide = high
}

func (c *Counters) fields() [44]*uint64 {
	return [...]*uint64{
		&c.FramesIn, &c.BytesIn, &c.FramesOut, &c.BytesOut, &c.Malformed, &c.NotOurs, &c.AddressGone, &c.ICMPRefused,
		&c.HandoverDropped, &c.Poisoned, &c.ChecksumErrors, &c.NoLinkAddress, &c.OverflowDropped, &c.NotTCP, &c.TooLong,
		&c.OverflowQueued, &c.OverflowHighTide, &c.HeldACKs, &c.SupersededACKs, &c.HandedOver, &c.TakenOver,
		&c.LinkLearned, &c.LinkChanged, &c.LinkRefused, &c.Accepted, &c.AcceptRefused, &c.Panics, &c.Retransmits,
		&c.ResetsSent, &c.ResetsReceived, &c.Established, &c.HalfOpen, &c.Connections, &c.Flows, &c.Remotes,
		&c.CookiesSent, &c.CookiesReturned, &c.CookiesRefused,
		&c.SendLimited, &c.StuckReset, &c.PinnedBytes, &c.ReceiveLimited, &c.UnreadBytes,
		&c.HandshakesExpired,
	}
}
