//go:build !linux

package store

import "time"

// pause sleeps.
func pause(d time.Duration) { time.Sleep(d) }
