//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// hideInput stops the terminal from showing what is typed, until restore is called or a signal ends the program.
func hideInput(terminal *os.File) (restore func(), err error) {
	fd := int(terminal.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTerminal, err)
	}
	hidden := *old
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, setTermios, &hidden); err != nil {
		return nil, fmt.Errorf("hide the password: %w", err)
	}
	stop := restoreOnSignal(func() { unix.IoctlSetTermios(fd, setTermios, old) })
	return func() {
		stop()
		unix.IoctlSetTermios(fd, setTermios, old)
	}, nil
}

// restoreOnSignal keeps an interrupt from leaving a shell that shows nothing.
func restoreOnSignal(restore func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if received, open := <-signals; open {
			restore()
			fmt.Fprintln(os.Stderr)
			os.Exit(128 + int(received.(unix.Signal))) // As a shell counts it.
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-ended
	}
}
