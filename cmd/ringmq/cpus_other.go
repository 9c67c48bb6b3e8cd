//go:build !linux

package main

import "errors"

var errNoPinning = errors.New("cpus: choosing processors needs Linux")

func pinProcess([]int) error { return errNoPinning }

func pinInterrupts(string, []int, []int) (restore func(), err error) { return func() {}, errNoPinning }
