package main

import "golang.org/x/sys/unix"

// The requests that read and set a terminal's modes.
const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETSF // F: what was typed ahead, and shown, is thrown away.
)
