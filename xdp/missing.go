package xdp

import "fmt"

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

// WeakDriverError says that the driver cannot do the mode that Config.Require asks for.
type WeakDriverError struct {
	Required Mode
	Err      error // What the driver said to it.
}

// Error is one line.
func (e *WeakDriverError) Error() string {
	return fmt.Sprintf("%v mode is required and cannot be had (--xdp-require any takes what there is): %v", e.Required, e.Err)
}

// Unwrap gives the driver's error.
func (e *WeakDriverError) Unwrap() error { return e.Err }
