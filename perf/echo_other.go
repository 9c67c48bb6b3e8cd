//go:build !linux

package main

import (
	"context"
	"errors"
)

// runEcho is `perf echo`.
func runEcho(context.Context, []string) error { return errors.New("AF_XDP needs Linux") }
