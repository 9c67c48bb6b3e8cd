package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Endpoint is where a broker listens.
type Endpoint struct {
	// Network is tcp or unix.
	Network string
	// Address is host:port, or the path of a socket.
	Address string
	// LocalHost is a host or address to connect from, or empty.
	LocalHost string
	// TLS is nil for a connection in the clear. ServerName must be set.
	TLS *tls.Config
}

// String is the address.
func (e Endpoint) String() string { return e.Address }

// dial opens the connection, TLS included.
func (e Endpoint) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{}
	if e.LocalHost != "" {
		local, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(e.LocalHost, "0"))
		if err != nil {
			return nil, &Unreachable{Endpoint: e, Remedy: "-A wants an address or name of this machine", Cause: err}
		}
		dialer.LocalAddr = local
	}
	raw, err := dialer.DialContext(ctx, e.Network, e.Address)
	if err != nil {
		return nil, e.unreachable(ctx, err)
	}
	if e.TLS == nil {
		return raw, nil
	}
	secure := tls.Client(raw, e.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, e.noTLS(ctx, err)
	}
	return secure, nil
}

func (e Endpoint) unreachable(ctx context.Context, err error) error {
	result := &Unreachable{Endpoint: e, Cause: shorten(err)}
	var name *net.DNSError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case ctx.Err() != nil:
		result.Cause, result.Remedy = cause(ctx), "is the address right, and does a firewall let it through? --connect-timeout waits longer"
	case errors.As(err, &name) && name.IsNotFound:
		result.Cause, result.Remedy = fmt.Errorf("no such host: %s", name.Name), "-h names the host"
	case errors.Is(err, syscall.ECONNREFUSED):
		result.Cause, result.Remedy = errors.New("connection refused"), "does a broker listen there? -h and -p say where"
	case errors.Is(err, os.ErrNotExist):
		result.Cause, result.Remedy = errors.New("no such socket"), "--unix wants the path of the broker's socket"
	}
	return result
}

// shorten leaves the operation and the addresses out: the endpoint is named already.
func shorten(err error) error {
	var operation *net.OpError
	if errors.As(err, &operation) {
		return operation.Err
	}
	return err
}

func (e Endpoint) noTLS(ctx context.Context, err error) error {
	result := &Unreachable{Endpoint: e, Cause: fmt.Errorf("TLS: %w", shorten(err))}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case ctx.Err() != nil:
		result.Cause, result.Remedy = cause(ctx), "does that port speak TLS?"
	case errors.As(err, &unknown):
		result.Cause, result.Remedy = errors.New("TLS: the certificate is signed by an unknown authority"), "--cafile names the one to trust"
	case errors.As(err, &name):
		result.Cause, result.Remedy = fmt.Errorf("TLS: %s", strings.TrimPrefix(name.Error(), "x509: ")), "--servername gives the name to expect"
	case errors.As(err, &invalid):
		result.Cause = fmt.Errorf("TLS: %s", strings.TrimPrefix(invalid.Error(), "x509: "))
	case errors.As(err, &record), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		result.Cause, result.Remedy = errors.New("TLS: the port does not speak it"), "without TLS the port is 1883 as a rule"
	case isAlert(err):
		result.Cause = fmt.Errorf("TLS: the broker refused: %s", strings.TrimPrefix(shorten(err).Error(), "tls: "))
		result.Remedy = "does it want other --cert and --key, --tls-version or --tls-alpn?"
	}
	return result
}

// isAlert says whether the peer has ended TLS with an alert, for which package tls has no type.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

// notConnected is for a connection that ended before the CONNACK. In TLS 1.3 a client's certificate is refused only then.
func (e Endpoint) notConnected(ctx context.Context, err error) error {
	if e.TLS != nil && isAlert(err) {
		return e.noTLS(ctx, err)
	}
	return &Lost{Endpoint: e, Connecting: true, Cause: err}
}
