//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package main

import (
	"fmt"
	"os"
	"runtime"
)

// hideInput knows no terminal here, so that a password is read as from a pipe.
func hideInput(*os.File) (restore func(), err error) {
	return nil, fmt.Errorf("%w that ringmq knows on %s", errNoTerminal, runtime.GOOS)
}
