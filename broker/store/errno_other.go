//go:build !unix

package store

func isTaken(error) bool { return true }

func isReadOnly(error) bool { return false }
