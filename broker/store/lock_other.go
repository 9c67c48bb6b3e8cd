//go:build !unix

package store

import "errors"

func lockShared(uintptr) error { return errors.ErrUnsupported }
