//go:build !linux

package main

import (
	"context"
	"errors"
)

// runSink is `perf sink`.
func runSink(context.Context, []string) error { return errors.New("AF_XDP needs Linux") }
