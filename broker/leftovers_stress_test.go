package broker

// Leftovers says what a broker still holds although every client is gone, every Session has ended and no message is
// retained. No loop may run meanwhile.
func (b *Broker) Leftovers() []error { return b.leftovers() }
