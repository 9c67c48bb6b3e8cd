package broker

// Config is what a broker is told beside its Limits. The zero value serves anonymous clients on no listener.
type Config struct {
	Listeners           []ListenerConfig // in the order in which planes number them
	Passwords           bool             // clients that give a User Name are verified
	Methods             []string         // Authentication Methods offered
	SharedStrategy      Strategy
	ServerReference     string // where clients are sent when this broker is full or stops (section 4.11 of 5.0)
	ResponseInformation string // for clients that ask; %c is the Client Identifier
	Version             string // of the program, for $SYS
	SysIntervalSeconds  int    // between updates of $SYS; 0: none
	Seed                uint64 // of random choices
}

// ListenerConfig is what a listener decides for its connections.
type ListenerConfig struct {
	AllowAnonymous bool
}

// hasMethod says whether an Authentication Method is offered.
func (c *Config) hasMethod(name string) bool {
	for _, m := range c.Methods {
		if m == name {
			return true
		}
	}
	return false
}
