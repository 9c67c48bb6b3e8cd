package xdp

// MissingError says which feature of the kernel, the driver or the process is missing.
type MissingError struct {
	What   string // Such as "AF_XDP in the kernel".
	Remedy string // What to do.
	Err    error  // What the kernel said.
}

// Error is one line.
func (e *MissingError) Error() string {
	return e.What + " is missing: " + e.Remedy + ": " + e.Err.Error()
}

// Unwrap gives the kernel's error.
func (e *MissingError) Unwrap() error { return e.Err }
