// Package fetchtest provides what tests of mirrors need: a private certificate authority,
// servers and client certificates signed by it, and a network with a public address.
package fetchtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a private certificate authority.
type CA struct {
	File string // its certificate, PEM
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	tb   testing.TB
	dir  string
}

// NewCA creates an authority.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	c := &CA{tb: tb, dir: tb.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	c.key = c.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
	if err != nil {
		tb.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	c.File = c.write("ca.pem", "CERTIFICATE", der)
	return c
}

func (c *CA) newKey() *ecdsa.PrivateKey {
	c.tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.tb.Fatal(err)
	}
	return k
}

func (c *CA) write(name, kind string, der []byte) string {
	c.tb.Helper()
	f := filepath.Join(c.dir, name)
	if err := os.WriteFile(f, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		c.tb.Fatal(err)
	}
	return f
}

// Issue creates a certificate with its key, for clients and for servers on loopback.
func (c *CA) Issue(name string) (certFile, keyFile string) {
	c.tb.Helper()
	key := c.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		c.tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.tb.Fatal(err)
	}
	return c.write(name+".pem", "CERTIFICATE", der), c.write(name+".key", "PRIVATE KEY", keyDER)
}

// Server starts an https server on 127.0.0.1 with a certificate of the authority. It asks
// clients for a certificate of the authority; if require is set, it answers no client
// without one.
func (c *CA) Server(h http.Handler, require bool) *httptest.Server {
	c.tb.Helper()
	cert, err := tls.LoadX509KeyPair(c.Issue("server"))
	if err != nil {
		c.tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	if require {
		srv.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	}
	srv.StartTLS()
	c.tb.Cleanup(srv.Close)
	return srv
}
