package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// wantsTLS says whether a flag asks for TLS.
func (o *clientFlags) wantsTLS() bool {
	for _, name := range []string{"cafile", "capath", "tls-use-os-certs", "cert", "key", "servername", "tls-alpn", "tls-version", "insecure", "mqtts"} {
		if o.given[name] {
			return true
		}
	}
	return o.given["port"] && o.port == defaultTLSPort
}

func (o *clientFlags) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if o.servername != "" {
		config.ServerName = o.servername
	}
	if o.tlsALPN != "" {
		config.NextProtos = []string{o.tlsALPN}
	}
	switch strings.ToLower(o.tlsVersion) {
	case "":
	case "tlsv1.2":
		config.MaxVersion = tls.VersionTLS12
	case "tlsv1.3":
		config.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("--tls-version %q: want tlsv1.2 or tlsv1.3", o.tlsVersion)
	}
	if err := o.setCertificate(config); err != nil {
		return nil, err
	}
	if err := o.setAuthorities(config); err != nil {
		return nil, err
	}
	if o.insecure {
		o.trustAnyName(config)
	}
	return config, nil
}

func (o *clientFlags) setCertificate(config *tls.Config) error {
	switch {
	case o.cert == "" && o.key == "":
		return nil
	case o.key == "":
		return errors.New("--cert needs its private key: add --key")
	case o.cert == "":
		return errors.New("--key needs its certificate: add --cert")
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	var path *os.PathError
	switch {
	case errors.As(err, &path) && path.Path == o.key:
		return fmt.Errorf("--key: %w", err)
	case errors.As(err, &path):
		return fmt.Errorf("--cert: %w", err)
	case err != nil:
		return fmt.Errorf("--cert %s and --key %s: %s", o.cert, o.key, strings.TrimPrefix(err.Error(), "tls: "))
	}
	config.Certificates = []tls.Certificate{pair}
	return nil
}

// setAuthorities leaves RootCAs nil, which are this machine's, when no flag names others.
func (o *clientFlags) setAuthorities(config *tls.Config) error {
	if o.cafile == "" && o.capath == "" {
		return nil
	}
	pool := x509.NewCertPool()
	if o.osCertificates {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			return fmt.Errorf("--tls-use-os-certs: %w", err)
		}
	}
	if o.cafile != "" {
		if err := addAuthorities(pool, o.cafile); err != nil {
			return fmt.Errorf("--cafile: %w", err)
		}
	}
	if o.capath != "" {
		if err := addFolder(pool, o.capath); err != nil {
			return fmt.Errorf("--capath: %w", err)
		}
	}
	config.RootCAs = pool
	return nil
}

var errNoCertificate = errors.New("there is no certificate in PEM form")

func addAuthorities(pool *x509.CertPool, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s: %w", path, errNoCertificate)
	}
	return nil
}

// addFolder takes every certificate in a folder; other files may lie there too.
func addFolder(pool *x509.CertPool, folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	found := false
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		switch err := addAuthorities(pool, filepath.Join(folder, entry.Name())); {
		case err == nil:
			found = true
		case !errors.Is(err, errNoCertificate):
			return err
		}
	}
	if !found {
		return fmt.Errorf("%s: %w", folder, errNoCertificate)
	}
	return nil
}

// trustAnyName checks the chain of certificates where authorities are named, and otherwise nothing. In package tls the
// name goes unchecked only with the rest, which VerifyConnection then makes up for.
func (o *clientFlags) trustAnyName(config *tls.Config) {
	config.InsecureSkipVerify = true
	if config.RootCAs == nil && !o.osCertificates {
		return
	}
	roots := config.RootCAs
	config.VerifyConnection = func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}
