package daemon

import (
	"crypto/tls"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"sync/atomic"

	"golang.org/x/net/netutil"
)

// listenAPI listens for the control API over the network. It returns nil if that is
// disabled.
func (d *daemon) listenAPI() (net.Listener, error) {
	a := d.cfg.API
	if a.Listen == "" {
		return nil, nil
	}
	if a.TLSCert != "" {
		d.cert = &certificate{cert: a.TLSCert, key: a.TLSKey}
		use, err := d.cert.read()
		if err != nil {
			return nil, err
		}
		use()
	}
	l, err := listenPublic(a.Listen)
	if err != nil {
		return nil, fmt.Errorf("control API: %w", err)
	}
	l = netutil.LimitListener(l, d.cfg.Server.MaxConnections)
	if d.cert != nil {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: d.cert.get, NextProtos: []string{"http/1.1"}})
	}
	return l, nil
}

// certificate is the certificate of the control API, which can be reloaded.
type certificate struct {
	cert, key string // files
	now       atomic.Pointer[tls.Certificate]
}

// read reads the files, and returns a function that puts the certificate into effect.
// Until then, the earlier certificate is used.
func (c *certificate) read() (use func(), err error) {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("control API: certificate %s with key %s: %w", c.cert, c.key, err)
	}
	return func() { c.now.Store(&pair) }, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }

// groupID returns the ID of a group; nil for "".
func groupID(name string) (*uint32, error) {
	if name == "" {
		return nil, nil
	}
	id := name
	if _, err := strconv.ParseUint(name, 10, 32); err != nil {
		g, err := user.LookupGroup(name)
		if err != nil {
			return nil, fmt.Errorf("socket_group: %w", err)
		}
		id = g.Gid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("socket_group %q: %w", name, err)
	}
	gid := uint32(n)
	return &gid, nil
}
