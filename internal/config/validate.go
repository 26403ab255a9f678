package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/lazyregexp"
)

var nameRE = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}$`)

// ValidName reports whether name is allowed for mirrors, freezes and recordings.
func ValidName(name string) bool { return nameRE().MatchString(name) }

// hostRE matches a host name, with or without a port.
var hostRE = lazyregexp.New(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$`)

// originRE matches the name of a transparency log.
var originRE = lazyregexp.New(`^[A-Za-z0-9:\[\]._/~-]{1,255}$`)

// MirrorName is the name of a mirror. It is a part of URLs and of the ids of snapshots
// and, in a freeze, a sibling of the files that every freeze has.
type MirrorName string

// UnknownMirror returns ErrUnknownMirror for name, with the names that are configured.
func UnknownMirror[M any](name MirrorName, configured map[MirrorName]M) error {
	var names []string
	for n := range configured {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return fmt.Errorf("%w: %s (configured: %s)", ErrUnknownMirror, name, strings.Join(names, ", "))
}

// Valid reports whether a mirror can have this name.
func (n MirrorName) Valid() bool {
	switch n {
	case "latest", "manifest.json", "manifest.json.asc", "provenance.json", "provenance.json.asc", "key.asc", "manifest.json.tlog-proof", "log.vkey":
		return false
	}
	return ValidName(string(n))
}

func (c *Config) validate(at position) error {
	bad := func(table string, i int, key, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s: %s", ErrInvalid, at(table, i, key), key, fmt.Sprintf(format, args...))
	}
	if c.DataDir == "" {
		return bad("", 0, "data_dir", "is empty")
	}
	if _, _, ok := strings.Cut(c.Server.Listen, ":"); !ok {
		return bad("server", 0, "listen", "%q: expected host:port", c.Server.Listen)
	}
	if u, err := url.Parse(c.Server.PublicURL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return bad("server", 0, "public_url", "%q: expected an http or https URL", remote.Redact(c.Server.PublicURL))
	} else if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return bad("server", 0, "public_url", "%q: a URL for clients must not have a user name, password, query or fragment", remote.Redact(c.Server.PublicURL))
	}
	if err := c.checkAPI(bad); err != nil {
		return err
	}
	if n := c.Signing.Threshold; n < 0 || (n > 0) != (c.Signing.Builders != "") {
		return bad("signing", 0, "threshold", "%d: expected builders and a threshold of at least 1, or neither", n)
	}
	if o := c.Log.Origin; o != "" && !originRE().MatchString(o) {
		return bad("log", 0, "origin", "%q: expected a host and a path, like mirror.example.org/log", o)
	}
	switch c.Server.Accel {
	case "", "X-Accel-Redirect", "X-Sendfile":
	default:
		return bad("server", 0, "accel", `%q: expected "X-Accel-Redirect" or "X-Sendfile"`, c.Server.Accel)
	}
	if err := c.checkStore(func(key, format string, args ...any) error { return bad("store", 0, key, format, args...) }); err != nil {
		return err
	}
	for _, host := range c.Server.ActAs {
		if !hostRE().MatchString(host) {
			return bad("server", 0, "act_as", "%q: expected the name of a host, like snapshot.debian.org", host)
		}
	}
	if c.Server.MaxConnections < 1 {
		return bad("server", 0, "max_connections", "%d: expected at least 1", c.Server.MaxConnections)
	}
	if c.Fetch.Parallel < 1 || c.Fetch.Parallel > 256 {
		return bad("fetch", 0, "parallel", "%d: expected 1 to 256", c.Fetch.Parallel)
	}
	if err := c.Store.checkMetadata(func(key, format string, args ...any) error { return bad("store", 0, key, format, args...) }); err != nil {
		return err
	}
	if err := c.Store.checkRole(func(key, format string, args ...any) error { return bad("store", 0, key, format, args...) }); err != nil {
		return err
	}
	if err := c.checkWebhooks(bad); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range c.Mirrors {
		m := &c.Mirrors[i]
		b := func(key, format string, args ...any) error {
			return bad("mirror", i, key, "mirror "+strconv.Quote(string(m.Name))+": "+format, args...)
		}
		switch {
		case !ValidName(string(m.Name)):
			return b("name", "%q: expected letters, digits and .+~_- (at most 100)", m.Name)
		case !m.Name.Valid():
			return b("name", "%q is reserved", m.Name)
		case seen[string(m.Name)]:
			return b("name", "%q is configured twice", m.Name)
		}
		seen[string(m.Name)] = true
		check := m.check
		if m.Local {
			check = m.checkLocal
		}
		if err := check(b); err != nil {
			return err
		}
	}
	return c.checkArchives(bad)
}

// checkArchives checks the names of mirrors in the machine interface: each name must
// refer to one mirror only.
func (c *Config) checkArchives(bad func(table string, i int, key, format string, args ...any) error) error {
	owner := map[string]string{}
	for _, m := range c.Mirrors {
		owner[string(m.Name)] = string(m.Name)
	}
	for i, m := range c.Mirrors {
		switch other := owner[m.Archive]; {
		case m.Archive == "":
		case !MirrorName(m.Archive).Valid():
			return bad("mirror", i, "archive", "mirror %q: %q: expected letters, digits and .+~_- (at most 100)", m.Name, m.Archive)
		case other != "" && MirrorName(other) != m.Name:
			return bad("mirror", i, "archive", "mirror %q: %q is already the name of mirror %q", m.Name, m.Archive, other)
		default:
			owner[m.Archive] = string(m.Name)
		}
	}
	return nil
}

func (m *Mirror) check(bad func(key, format string, args ...any) error) error {
	if m.Type != "deb" && m.Type != "rpm" {
		return bad("type", `%q: expected "deb" or "rpm"`, m.Type)
	}
	if m.Download != All && m.Download != OnDemand {
		return bad("download", `%q: expected "on_demand" or "all"`, m.Download)
	}
	if m.Origin != "" || m.Label != "" {
		return bad("origin", "only mirrors with local = true have origin and label: the Release files of other mirrors are upstream's")
	}
	switch {
	case m.Missing != "" && m.Missing != RecordMissing:
		return bad("missing", `%q: expected "" or "record"`, m.Missing)
	case m.Missing == RecordMissing && m.Download != All:
		return bad("missing", `"record" needs download = "all": a mirror on demand downloads no packages during a sync`)
	}
	if err := m.checkURLs(bad); err != nil {
		return err
	}
	urls := m.BaseURLs()
	switch {
	case m.ClientCert != "" && m.ClientKey == "":
		return bad("client_cert", "client_key is missing: a client certificate needs its key")
	case m.ClientCert == "" && m.ClientKey != "":
		return bad("client_key", "client_cert is missing: a key needs its certificate")
	}
	if m.Type == "deb" {
		switch {
		case len(urls) == 0:
			return bad("url", "is missing")
		case !m.Metalink.IsZero() || !m.Mirrorlist.IsZero():
			return bad("metalink", "only mirrors of type rpm have metalink and mirrorlist")
		case len(m.Suites) == 0:
			return bad("suites", "is missing")
		case len(m.Keyring) == 0:
			return bad("keyring", "is missing: a Debian mirror is verified with the keys of its archive")
		case m.GPGCheck != nil || m.RepoGPGCheck != nil:
			return bad("gpgcheck", "only mirrors of type rpm have gpgcheck and repo_gpgcheck")
		case m.AllowParent:
			return bad("allow_parent", "only mirrors of type rpm have it")
		}
		for i, s := range m.Suites {
			if s == "/" { // some sources.list lines are written like this
				s = "./"
				m.Suites[i] = s
			}
			if flat := strings.TrimLeft(s, "/"); flat != s && strings.HasSuffix(s, "/") {
				return bad("suites", "%q is not the name of a suite: give the directory of a flat repository relative to the URL, as %q", s, flat)
			}
			if s == "" || strings.HasPrefix(s, "/") || strings.Contains("/"+s+"/", "/../") || strings.ContainsAny(s, "\x00\r\n \t%?#") {
				return bad("suites", "%q is not the name of a suite", s)
			}
			if !strings.HasSuffix(s, "/") && len(m.Components) == 0 {
				return bad("components", "is missing (only flat suites, whose names end in /, have none)")
			}
		}
	} else {
		switch {
		case len(urls) == 0 && m.Metalink.IsZero() && m.Mirrorlist.IsZero():
			return bad("url", "expected one of url, urls, metalink and mirrorlist")
		case len(m.Suites) > 0 || len(m.Components) > 0:
			return bad("suites", "a mirror of type rpm has no suites or components")
		case len(m.Keyring) == 0 && m.CheckPackages():
			return bad("keyring", "is missing: package signatures are checked unless gpgcheck = false")
		}
		if err := m.checkParent(bad); err != nil {
			return err
		}
	}
	for _, globs := range [][]string{m.Indices, m.Packages} {
		for _, g := range globs {
			if _, err := path.Match(g, ""); err != nil {
				return bad("packages", "%q: %v", g, err)
			}
		}
	}
	return nil
}

// checkParent checks that with allow_parent all base URLs end in the same
// directory name.
func (m *Mirror) checkParent(bad func(key, format string, args ...any) error) error {
	if !m.AllowParent {
		return nil
	}
	if !m.Metalink.IsZero() || !m.Mirrorlist.IsZero() {
		return bad("allow_parent", "needs url or urls, and cannot be combined with metalink or mirrorlist")
	}
	for _, u := range m.ConfiguredURLs() {
		switch _, last := u.Parent(); {
		case !ValidName(last):
			return bad("allow_parent", "%q has no parent: expected a URL that ends in a directory name", u)
		case last != m.ParentSuite():
			return bad("allow_parent", "%q: expected a URL that ends in %s, like the first", u, m.ParentSuite())
		}
	}
	return nil
}

func (m *Mirror) checkURLs(bad func(key, format string, args ...any) error) error {
	if !m.URL.IsZero() && len(m.URLs) > 0 {
		return bad("urls", "url and urls cannot be combined")
	}
	for _, k := range []struct {
		key  string
		urls []remote.URL
	}{{"url", []remote.URL{m.URL}}, {"urls", m.URLs}, {"metalink", []remote.URL{m.Metalink}}, {"mirrorlist", []remote.URL{m.Mirrorlist}}} {
		for _, u := range k.urls {
			if u.IsZero() && k.key != "urls" {
				continue
			}
			if err := u.CheckSource(); err != nil {
				return bad(k.key, "%v", err)
			}
		}
	}
	return nil
}

// minUpload is the smallest bound of a request: build manifests must fit.
const minUpload = 1 << 20

// checkAPI checks the control API and who may use the socket.
func (c *Config) checkAPI(bad func(table string, i int, key, format string, args ...any) error) error {
	if c.Server.SocketGroup != "" {
		if rel, err := filepath.Rel(c.DataDir, c.Server.Socket); err == nil && filepath.IsLocal(rel) {
			return bad("server", 0, "socket_group", "the socket %s is inside the data directory, which no group can enter: set socket to a path outside of it", c.Server.Socket)
		}
	}
	a := &c.API
	switch {
	case a.MaxUpload < minUpload:
		return bad("api", 0, "max_upload", "%s: expected at least %s", a.MaxUpload, Size(minUpload))
	case (a.TLSCert == "") != (a.TLSKey == ""):
		return bad("api", 0, "tls_cert", "tls_cert and tls_key must be set together")
	case a.Listen == "" && a.TLSCert != "":
		return bad("api", 0, "tls_cert", "has no effect without listen")
	case a.Listen == "" && len(a.TrustedProxies) > 0:
		return bad("api", 0, "trusted_proxies", "has no effect without listen")
	case a.Listen == "":
		return nil
	}
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil || port == "" {
		return bad("api", 0, "listen", "%q: expected host:port", a.Listen)
	}
	if a.TLSCert == "" && !isLoopback(host) {
		return bad("api", 0, "listen", "%q: tokens would be sent in the clear: set tls_cert and tls_key, or listen on loopback (127.0.0.1 or ::1) behind a proxy that speaks TLS", a.Listen)
	}
	return nil
}

// isLoopback reports whether a host is an address of this machine only. A name is not,
// because it may later resolve to another address.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
