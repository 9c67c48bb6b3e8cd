package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for a test.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, template := newKey(t), &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, certificate}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for names, valid until then, and its key, both in PEM.
func (a *authority) issue(t *testing.T, until time.Time, names ...string) (certificate, key []byte) {
	t.Helper()
	private, template := newKey(t), &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// files writes what the flags name.
func (a *authority) files(t *testing.T) map[string]string {
	t.Helper()
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
	certificate, key := a.issue(t, time.Now().Add(time.Hour), "client")
	p := map[string]string{"CA": inFile(t, string(own)), "CERT": inFile(t, string(certificate)), "KEY": inFile(t, string(key)), "CAS": t.TempDir()}
	for name, text := range map[string][]byte{"a.crt": own, "README": []byte("no certificate")} {
		if err := os.WriteFile(filepath.Join(p["CAS"], name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// listen opens a port with a certificate for names; wantClient says whether clients must show one.
func (a *authority) listen(t *testing.T, wantClient bool, until time.Time, names ...string) net.Listener {
	t.Helper()
	certificate, key := a.issue(t, until, names...)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"mqtt"}}
	if wantClient {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AddCert(a.certificate)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listenPort(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestTLSRefusals: one line that says what is wrong with the broker's certificate, or with ours.
func TestTLSRefusals(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	files, strange := ours.files(t), other.files(t)
	broker := startBroker(t, "--allow-anonymous")
	hour := time.Now().Add(time.Hour)
	ports := map[string]net.Listener{
		"TLS":     ours.listen(t, false, hour, "localhost", "broker.test"),
		"EXPIRED": ours.listen(t, false, time.Now().Add(-time.Hour), "localhost"),
		"MUTUAL":  ours.listen(t, true, hour, "localhost"),
	}
	for name, l := range ports {
		forward(t, l, broker)
		files[name] = listenPort(l)
	}
	files["STRANGE"], files["STRANGECERT"], files["STRANGEKEY"], files["PLAIN"], files["EMPTY"] = strange["CA"], strange["CERT"], strange["KEY"], broker, t.TempDir()
	for _, c := range []struct {
		flags string
		code  int
		words []string
	}{
		{"-p $TLS --cafile $STRANGE", exitUnreachable, []string{"unknown authority", "--cafile"}},
		{"-p $TLS --tls-use-os-certs", exitUnreachable, []string{"unknown authority"}},
		{"-p $TLS --insecure --cafile $STRANGE", exitUnreachable, []string{"unknown authority"}},
		{"-h 127.0.0.1 -p $TLS --cafile $CA", exitUnreachable, []string{"127.0.0.1", "--servername"}},
		{"-p $TLS --cafile $CA --servername elsewhere.test", exitUnreachable, []string{"elsewhere.test", "--servername"}},
		{"-p $EXPIRED --cafile $CA", exitUnreachable, []string{"expired"}},
		{"-p $PLAIN --cafile $CA --connect-timeout 1", exitUnreachable, []string{"TLS"}},
		{"-p $TLS --connect-timeout 1", exitLost, []string{"TLS"}},
		{"-p $TLS --cafile $CA --tls-alpn smtp", exitUnreachable, []string{"protocol"}},
		{"-p $TLS --cafile $CERTLESS", exitLocal, []string{"--cafile"}},
		{"-p $TLS --cafile $KEY", exitLocal, []string{"--cafile", "no certificate"}},
		{"-p $TLS --capath $EMPTY", exitLocal, []string{"--capath", "no certificate"}},
		{"-p $TLS --cafile $CA --cert $CERT", exitLocal, []string{"--key"}},
		{"-p $TLS --cafile $CA --key $KEY", exitLocal, []string{"--cert"}},
		{"-p $TLS --cafile $CA --cert $CERT --key $STRANGEKEY", exitLocal, []string{"--cert", "--key", "match"}},
		{"-p $TLS --cafile $CA --cert $CERT --key $CERTLESS", exitLocal, []string{"--key"}},
		{"-p $TLS --cafile $CA --tls-version tlsv1.1", exitLocal, []string{"tlsv1.1", "tlsv1.2"}},
		{"-p $MUTUAL --cafile $CA --tls-version tlsv1.2", exitUnreachable, []string{"--cert"}},
		{"-p $MUTUAL --cafile $CA", exitUnreachable, []string{"--cert"}},
		{"-p $MUTUAL --cafile $CA -V 311", exitUnreachable, []string{"--cert"}},
		{"-p $MUTUAL --cafile $CA --cert $STRANGECERT --key $STRANGEKEY", exitUnreachable, []string{"--cert"}},
	} {
		files["CERTLESS"] = filepath.Join(files["EMPTY"], "missing.pem")
		stdout, stderr, code := plainly(t, append([]string{"pub", "-t", "a", "-m", "x"}, words(c.flags, files)...)...)
		checkRefusal(t, c.words, stdout, stderr, code)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.flags, code, c.code, stderr)
		}
	}
}
