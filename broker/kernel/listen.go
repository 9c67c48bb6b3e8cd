//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// listener is one listening socket. After Open it belongs to the plane that polls it.
type listener struct {
	fd      int
	number  int // its place in Config.Addresses
	address netip.AddrPort
	next    int       // the plane whose turn it is to get a connection
	offTill time.Time // not polled until then; zero while it is polled
}

// listenAll opens all the listening sockets or none.
func listenAll(config Config) ([]*listener, error) {
	listeners := make([]*listener, 0, len(config.Addresses))
	for i, address := range config.Addresses {
		l, err := listen(config, address)
		if config.Later && err == nil && slices.ContainsFunc(listeners, l.meets) {
			_ = unix.Close(l.fd)
			err = unix.EADDRINUSE // as Listen would say, when much has been done
		}
		if err != nil {
			closeListeners(listeners)
			return nil, fmt.Errorf("listen %v: %w%s", address, err, listenAdvice(err))
		}
		l.number, l.next = i, i
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// meets tells whether two sockets that are bound cannot both listen.
func (l *listener) meets(other *listener) bool {
	a, b := l.address.Addr(), other.address.Addr()
	return l.address.Port() == other.address.Port() && a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

func closeListeners(listeners []*listener) {
	for _, l := range listeners {
		_ = unix.Close(l.fd) // A listening socket has nothing to lose.
	}
}

func listen(config Config, address netip.AddrPort) (*listener, error) {
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	to, family, err := sockaddrOf(address)
	if err != nil {
		return nil, err
	}
	fd, err := openSocket(family)
	if err != nil {
		return nil, err
	}
	if err := bindAndListen(fd, family, to, config); err != nil {
		_ = unix.Close(fd) // The first error is the one to report.
		return nil, err
	}
	bound, err := localAddress(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &listener{fd: fd, address: bound}, nil
}

func bindAndListen(fd, family int, to unix.Sockaddr, config Config) error {
	type option struct{ level, name, value int }
	options := []option{
		// A broker that restarts must not wait for the TIME-WAIT of its last connections.
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		// Connections inherit it: one call here instead of one for each.
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		// So do they this. A client without Keep Alive whose host has gone would never be missed, and its connection stay for ever. How long the
		// host waits is its own setting: on Linux some two hours (tcp(7), tcp_keepalive_time).
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	}
	if family == unix.AF_INET6 {
		// So that 0.0.0.0 and [::] can be listened on side by side, whatever the host's default.
		options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	}
	if n := config.SendBufferBytes; n > 0 {
		options = append(options, option{unix.SOL_SOCKET, unix.SO_SNDBUF, n})
	}
	if n := config.ReceiveBufferBytes; n > 0 {
		options = append(options, option{unix.SOL_SOCKET, unix.SO_RCVBUF, n})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, to); err != nil || config.Later {
		return err
	}
	return unix.Listen(fd, config.Backlog)
}

// listenNow ends the time of a listener that Config.Later has made: it is polled from now on, for a socket that does not listen would be
// ready all the time.
func (p *Plane) listenNow(l *listener, backlog int) error {
	if err := unix.Listen(l.fd, backlog); err != nil {
		return fmt.Errorf("listen %v: %w%s", l.address, err, listenAdvice(err))
	}
	return p.poller.addListener(l)
}

// listenAdvice says what the user can do about an error.
func listenAdvice(err error) string {
	switch err {
	case unix.EADDRINUSE:
		return " (another broker? choose another port)"
	case unix.EACCES:
		return " (ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another port)"
	case unix.EADDRNOTAVAIL:
		return " (no interface of this host has that address)"
	case unix.EAFNOSUPPORT:
		return " (this host does not speak that kind of address: is IPv6 switched off?)"
	}
	return ""
}
