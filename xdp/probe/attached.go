package probe

// Attached is an XDP program and where it is.
type Attached struct {
	Interface string // empty when it is in another network namespace
	Index     int    // of the interface there, 0 when its link holds the program on none any more
	Program
}

// IsOurs says that a ringmq has loaded the program.
func (a Attached) IsOurs() bool { return a.isOurs() }

// IsLeft says that no process has the program any more, as far as this one may look.
func (a Attached) IsLeft() bool { return a.isLeft() }

// Removal is the command that takes the program off its interface, for root.
func (a Attached) Removal() string { return a.removal(a.Interface) }
