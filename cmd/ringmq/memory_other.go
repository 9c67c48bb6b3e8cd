//go:build !linux

package main

// memoryBytes is not known here; the default is used.
func memoryBytes() int64 { return 0 }
