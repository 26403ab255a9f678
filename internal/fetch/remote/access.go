package remote

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"

	"example.org/snapd/internal/fetch/internal/reveal"
	"example.org/snapd/internal/regfile"
)

// Files are the files for access to a mirror's servers. Empty names are not used.
type Files struct {
	Auth       string // credentials, in the format of apt's auth.conf
	CA         string // PEM; certificate authorities used instead of the system's
	ClientCert string // PEM; with ClientKey
	ClientKey  string
}

// Access is the content of Files: how to access a mirror's servers. It never
// prints its content. A nil Access is empty.
type Access struct {
	auth  func() authFile // a function prints as an address
	trust *x509.CertPool
	cert  func() *tls.Certificate
}

// A FileError says which key of the configuration names an unusable file.
type FileError struct {
	Key string // "auth_file", "ca_file", "client_cert" or "client_key"
	Err error
}

func (e *FileError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *FileError) Unwrap() error { return e.Err }

// Load reads and checks the files. It returns nil if none is named. Every error
// is a *FileError.
func Load(f Files) (*Access, error) {
	if f == (Files{}) {
		return nil, nil
	}
	a := &Access{}
	if f.Auth != "" {
		data, err := readSecret(f.Auth)
		if err != nil {
			return nil, &FileError{"auth_file", err}
		}
		auth, err := parseAuth(data)
		if err != nil {
			return nil, &FileError{"auth_file", fmt.Errorf("%s: %w", f.Auth, err)}
		}
		a.auth = func() authFile { return auth }
	}
	if f.CA != "" {
		data, err := read(f.CA)
		if err != nil {
			return nil, &FileError{"ca_file", err}
		}
		if a.trust, err = parseCerts(data); err != nil {
			return nil, &FileError{"ca_file", fmt.Errorf("%s: %w", f.CA, err)}
		}
	}
	switch {
	case f.ClientCert != "" && f.ClientKey == "":
		return nil, &FileError{"client_cert", errors.New("client_key is missing: a client certificate needs its key")}
	case f.ClientCert == "" && f.ClientKey != "":
		return nil, &FileError{"client_key", errors.New("client_cert is missing: a key needs its certificate")}
	case f.ClientCert != "":
		cert, err := loadPair(f.ClientCert, f.ClientKey)
		if err != nil {
			return nil, err
		}
		a.cert = func() *tls.Certificate { return cert }
	}
	return a, nil
}

func loadPair(certFile, keyFile string) (*tls.Certificate, error) {
	certPEM, err := read(certFile)
	if err != nil {
		return nil, &FileError{"client_cert", err}
	}
	if _, err := parseCerts(certPEM); err != nil {
		return nil, &FileError{"client_cert", fmt.Errorf("%s: %w", certFile, err)}
	}
	keyPEM, err := readSecret(keyFile)
	if err != nil {
		return nil, &FileError{"client_key", err}
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		// The certificate was read above, so the fault is the key, or the two do
		// not match.
		return nil, &FileError{"client_key", fmt.Errorf("%s: expected the unencrypted PEM key of the certificate in %s: %w", keyFile, certFile, err)}
	}
	return &cert, nil
}

// parseCerts parses PEM certificates. Other blocks are skipped.
func parseCerts(data []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, errors.New("expected a PEM certificate, found none")
	}
	return pool, nil
}

// readSecret reads a file that only its owner and group can read.
func readSecret(name string) ([]byte, error) { return readFile(name, true) }

func read(name string) ([]byte, error) { return readFile(name, false) }

func readFile(name string, secret bool) ([]byte, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if secret && st.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s: every user can read it (mode %04o), expected 0600 or 0640 (chmod o= %s)", name, st.Mode().Perm(), name)
	}
	return regfile.ReadAll(f, name, maxSecretFile)
}

// Login returns the credentials in the auth_file for a URL. Only packages below
// internal/fetch have the token.
func (a *Access) Login(_ reveal.Token, u *url.URL) (user, password string, ok bool) {
	if a == nil || a.auth == nil {
		return "", "", false
	}
	return a.auth().login(u)
}

// TLS returns the configuration for connections, or nil for the default. withCert says
// that the server may see the client certificate. Only packages below internal/fetch have
// the token.
func (a *Access) TLS(_ reveal.Token, withCert bool) *tls.Config {
	if a == nil || a.trust == nil && (a.cert == nil || !withCert) {
		return nil
	}
	c := &tls.Config{RootCAs: a.trust, MinVersion: tls.VersionTLS12}
	if a.cert != nil && withCert {
		c.Certificates = []tls.Certificate{*a.cert()}
	}
	return c
}

// HasCert reports whether there is a client certificate.
func (a *Access) HasCert() bool { return a != nil && a.cert != nil }
