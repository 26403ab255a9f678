// Package config reads snapd's TOML configuration: one documented struct, its
// defaults, and the checks that turn a bad value into an error with its line.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
)

// ErrInvalid marks every error about the content of a configuration file.
var ErrInvalid = errors.New("invalid configuration")

// ErrUnknownMirror means that no mirror of that name is configured.
var ErrUnknownMirror = errclass.New(errclass.NotFound, "no such mirror")

// Config is the whole configuration file. Zero values mean the documented
// defaults; Load fills them in.
type Config struct {
	// DataDir holds blobs, metadata, key and socket (mode 0700).
	DataDir string `toml:"data_dir"`

	Server  Server   `toml:"server"`
	Signing Signing  `toml:"signing"`
	Fetch   Fetch    `toml:"fetch"`
	Store   Store    `toml:"store"`
	Mirrors []Mirror `toml:"mirror"`
}

// Server says where snapd listens.
type Server struct {
	Listen    string `toml:"listen"`     // public, read-only HTTP: host:port
	PublicURL string `toml:"public_url"` // what `sources` prints; default http://<listen>
	Socket    string `toml:"socket"`     // control socket; default <data_dir>/snapd.sock
	// Accel hands file bodies to the web server in front: "" (snapd sends
	// them), "X-Accel-Redirect" (nginx) or "X-Sendfile" (Apache, lighttpd).
	Accel string `toml:"accel"`
	// AccelPrefix is put before blobs/… in X-Accel-Redirect ("/blobs-internal/").
	AccelPrefix string `toml:"accel_prefix"`
	// MaxConnections bounds concurrent public connections.
	MaxConnections int `toml:"max_connections"`
	// CacheSize bounds the memory cache of small blobs, in bytes.
	CacheSize Size `toml:"cache_size"`
}

// Signing names the key that signs frozen snapshots.
type Signing struct {
	KeyFile string   `toml:"key_file"` // armored OpenPGP private key, mode 0600; default <data_dir>/signing-key.asc
	Command []string `toml:"command"`  // external signer: data on stdin, detached signature on stdout; key_file is then the public key
}

// Fetch bounds what snapd asks of upstream.
type Fetch struct {
	Parallel  int  `toml:"parallel"`   // connections per mirror host
	RateLimit Rate `toml:"rate_limit"` // bytes per second over all mirrors; 0: none
}

// Store bounds what snapd keeps.
type Store struct {
	Reserve        Size     `toml:"reserve"`         // free space below which syncs and recordings stop, in bytes
	ScrubInterval  Duration `toml:"scrub_interval"`  // everything is read once in this time; 0: never
	ScrubRate      Rate     `toml:"scrub_rate"`      // bytes per second
	GCInterval     Duration `toml:"gc_interval"`     // 0: only when asked
	QuarantineTime Duration `toml:"quarantine_time"` // how long removed blobs stay before they are deleted
}

// Mirror is one upstream repository.
type Mirror struct {
	Name          string       `toml:"name"`
	Type          string       `toml:"type"` // "deb" or "rpm"
	URL           remote.URL   `toml:"url"`
	URLs          []remote.URL `toml:"urls"`     // tried in order
	Metalink      remote.URL   `toml:"metalink"` // rpm
	Mirrorlist    remote.URL   `toml:"mirrorlist"`
	Suites        []string     `toml:"suites"` // deb
	Components    []string     `toml:"components"`
	Architectures []string     `toml:"architectures"`
	Keyring       Strings      `toml:"keyring"` // files, .gpg or .asc
	Sources       bool         `toml:"sources"`
	Download      string       `toml:"download"` // "on_demand" or "all"
	Missing       string       `toml:"missing"`  // "" or "record"
	Interval      Duration     `toml:"interval"` // 0: only when asked
	Keep          Duration     `toml:"keep"`     // 0: for ever
	Languages     []string     `toml:"languages"`
	Contents      bool         `toml:"contents"`
	Udebs         bool         `toml:"udebs"`
	Installer     bool         `toml:"installer"`
	Indices       []string     `toml:"indices"`  // globs over what the Release file lists
	Packages      []string     `toml:"packages"` // globs of package names; freeze and `all` take only these
	GPGCheck      *bool        `toml:"gpgcheck"` // rpm: package signatures; default true
	RepoGPGCheck  *bool        `toml:"repo_gpgcheck"`
	// AllowParent takes packages from the parent directory of the base URL, too
	// (rpm): see ParentSuite.
	AllowParent bool `toml:"allow_parent"`

	// Files with what this mirror's servers ask for; see Files.
	AuthFile   string `toml:"auth_file"`   // logins, in the format of apt's auth.conf
	CAFile     string `toml:"ca_file"`     // PEM; authorities, in place of the system's
	ClientCert string `toml:"client_cert"` // PEM; with client_key
	ClientKey  string `toml:"client_key"`
}

// Files are the files with credentials, authorities and client certificate.
func (m *Mirror) Files() remote.Files {
	return remote.Files{Auth: m.AuthFile, CA: m.CAFile, ClientCert: m.ClientCert, ClientKey: m.ClientKey}
}

// The values of Mirror.Download.
const (
	OnDemand = "on_demand"
	All      = "all"
)

// RecordMissing is the value of Mirror.Missing with which a sync of all packages
// goes on without those that upstream lists and does not have.
const RecordMissing = "record"

// BaseURLs lists the base URLs below which the mirror's files are, in the order in
// which they are tried, each without a trailing slash: the configured ones or,
// with AllowParent, their parents.
func (m *Mirror) BaseURLs() []remote.URL {
	out := m.ConfiguredURLs()
	if m.AllowParent {
		for i, u := range out {
			out[i], _ = u.Parent()
		}
	}
	return out
}

// ParentSuite is the directory of the repository below the base URLs where
// AllowParent is set: the last segment of the configured ones.
func (m *Mirror) ParentSuite() string {
	for _, u := range m.ConfiguredURLs() {
		_, last := u.Parent()
		return last
	}
	return ""
}

// ConfiguredURLs lists the base URLs as they are configured, each without a
// trailing slash.
func (m *Mirror) ConfiguredURLs() []remote.URL {
	var out []remote.URL
	if !m.URL.IsZero() {
		out = append(out, m.URL.Trim())
	}
	for _, u := range m.URLs {
		out = append(out, u.Trim())
	}
	return out
}

// CheckPackages reports whether package signatures are required (rpm).
func (m *Mirror) CheckPackages() bool { return m.GPGCheck == nil || *m.GPGCheck }

// CheckRepo reports whether a signed or metalink-verified root is required.
func (m *Mirror) CheckRepo() bool { return m.RepoGPGCheck == nil || *m.RepoGPGCheck }

// Strings is a string or a list of strings in TOML.
type Strings []string

// UnmarshalTOML is not offered by the decoder for unions; UnmarshalText covers
// the string and the decoder's own rule covers the list.
func (s *Strings) UnmarshalText(b []byte) error { *s = Strings{string(b)}; return nil }

// Duration is a length of time: time.ParseDuration's units and "d" for 24 h;
// empty is zero.
type Duration time.Duration

// D converts to the standard type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// UnmarshalText reads "6h", "10d", "1d12h" or "".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// String writes what UnmarshalText reads.
func (d Duration) String() string {
	v := time.Duration(d)
	switch {
	case v == 0:
		return ""
	case v%(24*time.Hour) == 0:
		return strconv.Itoa(int(v/(24*time.Hour))) + "d"
	case v%time.Hour == 0:
		return strconv.Itoa(int(v/time.Hour)) + "h"
	}
	return v.String()
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// ParseDuration reads a non-negative duration with "d" for 24 hours.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	rest := s
	var sum time.Duration
	if i := strings.IndexByte(s, 'd'); i >= 0 {
		n, err := strconv.ParseUint(s[:i], 10, 20)
		if err != nil {
			return 0, fmt.Errorf("duration %q: expected a number of days before d, as in 10d", s)
		}
		sum = time.Duration(n) * 24 * time.Hour
		rest = s[i+1:]
	}
	if rest != "" {
		v, err := time.ParseDuration(rest)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("duration %q: expected a form like 6h, 90m or 10d", s)
		}
		sum += v
	}
	return sum, nil
}

// Size is a number of bytes: "64MiB", "2GB", "4096".
type Size int64

// UnmarshalText reads a number with an optional unit (k, M, G, T; i for 1024).
func (z *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	*z = Size(v)
	return err
}

// String writes the largest binary unit that divides the size.
func (z Size) String() string {
	v := int64(z)
	for i, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if unit := int64(1) << (40 - 10*i); v != 0 && v%unit == 0 {
			return strconv.FormatInt(v/unit, 10) + u
		}
	}
	return strconv.FormatInt(v, 10)
}

// MarshalText writes what UnmarshalText reads.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

var sizeRE = regexp.MustCompile(`^([0-9]{1,15})(?:\.([0-9]{1,3}))?\s*(?:([kKMGT])(i?)B?|B)?$`)

// ParseSize reads a number of bytes with an optional unit.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	m := sizeRE.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q: expected a form like 64MiB, 2GB or 4096", s)
	}
	f, _ := strconv.ParseFloat(m[1]+"."+m[2]+"0", 64)
	if m[3] != "" {
		base := 1000.0
		if m[4] == "i" {
			base = 1024
		}
		for range strings.Index("KMGT", strings.ToUpper(m[3])) + 1 {
			f *= base
		}
	}
	if f > 1<<60 {
		return 0, fmt.Errorf("size %q: larger than 1 EiB", s)
	}
	return int64(f), nil
}

// Rate is a number of bytes per second: "20MiB/s".
type Rate int64

// UnmarshalText reads a size followed by "/s".
func (r *Rate) UnmarshalText(b []byte) error {
	v, err := ParseRate(string(b))
	*r = Rate(v)
	return err
}

// MarshalText writes what UnmarshalText reads.
func (r Rate) MarshalText() ([]byte, error) {
	if r == 0 {
		return nil, nil
	}
	return []byte(Size(r).String() + "/s"), nil
}

// ParseRate reads a size with "/s" after it.
func ParseRate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	t, ok := strings.CutSuffix(s, "/s")
	if !ok {
		return 0, fmt.Errorf("rate %q: expected a form like 20MiB/s", s)
	}
	v, err := ParseSize(strings.TrimSpace(t))
	if err != nil {
		return 0, fmt.Errorf("rate %q: expected a form like 20MiB/s", s)
	}
	return v, nil
}

// Default is the configuration before a file is read.
func Default() Config {
	return Config{
		DataDir: "/var/lib/snapd",
		Server:  Server{Listen: "127.0.0.1:8080", MaxConnections: 4096, CacheSize: 64 << 20},
		Fetch:   Fetch{Parallel: 8},
		Store: Store{
			Reserve:        1 << 30,
			ScrubInterval:  Duration(30 * 24 * time.Hour),
			ScrubRate:      20 << 20,
			GCInterval:     Duration(24 * time.Hour),
			QuarantineTime: Duration(7 * 24 * time.Hour),
		},
	}
}

// Load reads and checks the file at name, but not the files that it names,
// which clients of the daemon may not be allowed to read.
func Load(name string) (*Config, error) {
	c, _, err := load(name)
	return c, err
}

// LoadAll is Load for the daemon: it also checks the files with credentials and
// certificates that mirrors name.
func LoadAll(name string) (*Config, error) {
	c, at, err := load(name)
	if err != nil {
		return nil, err
	}
	for i := range c.Mirrors {
		m := &c.Mirrors[i]
		if _, err := remote.Load(m.Files()); err != nil {
			var f *remote.FileError
			if !errors.As(err, &f) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %s: %s: mirror %q: %w", ErrInvalid, at("mirror", i, f.Key), f.Key, m.Name, f.Err)
		}
	}
	return c, nil
}

func load(name string) (*Config, position, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("configuration %s: %w", name, fs.ErrNotExist)
		}
		return nil, nil, err
	}
	return parse(name, data)
}

// Parse reads and checks a configuration; name is for messages, and relative
// paths in it are taken from its directory.
func Parse(name string, data []byte) (*Config, error) {
	c, _, err := parse(name, data)
	return c, err
}

// position names the file and line of a key: of the ith table of a name.
type position func(table string, i int, key string) string

func parse(name string, data []byte) (*Config, position, error) {
	c := Default()
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, nil, decodeError(name, err)
	}
	c.fill(filepath.Dir(name))
	lines := keyLines(data)
	at := func(table string, i int, key string) string {
		return fmt.Sprintf("%s:%d", name, lines.of(table, i, key))
	}
	if err := c.validate(at); err != nil {
		return nil, nil, err
	}
	return &c, at, nil
}

// decodeError turns the decoder's errors into "file:line: message".
func decodeError(name string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		row, _ := e.Position()
		return fmt.Errorf("%w: %s:%d: unknown key %q", ErrInvalid, name, row, strings.Join(e.Key(), "."))
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		row, _ := de.Position()
		msg := strings.TrimPrefix(de.Error(), "toml: ")
		if k := de.Key(); len(k) > 0 {
			msg = strings.Join(k, ".") + ": " + msg
		}
		return fmt.Errorf("%w: %s:%d: %s", ErrInvalid, name, row, msg)
	}
	return fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
}

func (c *Config) fill(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
		if *p != "" {
			if a, err := filepath.Abs(*p); err == nil {
				*p = a
			}
		}
	}
	abs(&c.DataDir)
	if c.Server.Socket == "" {
		c.Server.Socket = filepath.Join(c.DataDir, "snapd.sock")
	}
	abs(&c.Server.Socket)
	if c.Signing.KeyFile == "" {
		c.Signing.KeyFile = filepath.Join(c.DataDir, "signing-key.asc")
	}
	abs(&c.Signing.KeyFile)
	if c.Server.PublicURL == "" {
		c.Server.PublicURL = "http://" + c.Server.Listen
	}
	c.Server.PublicURL = strings.TrimRight(c.Server.PublicURL, "/")
	if c.Fetch.Parallel == 0 {
		c.Fetch.Parallel = 8
	}
	for i := range c.Mirrors {
		m := &c.Mirrors[i]
		if m.Download == "" {
			m.Download = OnDemand
		}
		if m.Languages == nil && m.Type == "deb" {
			m.Languages = []string{"en"}
		}
		for j := range m.Keyring {
			abs(&m.Keyring[j])
		}
		for _, p := range []*string{&m.AuthFile, &m.CAFile, &m.ClientCert, &m.ClientKey} {
			abs(p)
		}
	}
}

// NameRE is the form of names of mirrors, freezes and recordings.
var NameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}$`)

// ValidMirrorName reports whether a mirror can have the name: it stands in URLs
// and, in a frozen snapshot, beside the files that all of them have.
func ValidMirrorName(name string) bool {
	switch name {
	case "latest", "manifest.json", "manifest.json.asc", "provenance.json", "provenance.json.asc", "key.asc":
		return false
	}
	return NameRE.MatchString(name)
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
		return bad("server", 0, "public_url", "%q: a URL that clients are told must not have a user name, password, query or fragment", remote.Redact(c.Server.PublicURL))
	}
	switch c.Server.Accel {
	case "", "X-Accel-Redirect", "X-Sendfile":
	default:
		return bad("server", 0, "accel", `%q: expected "X-Accel-Redirect" or "X-Sendfile"`, c.Server.Accel)
	}
	if c.Server.MaxConnections < 1 {
		return bad("server", 0, "max_connections", "%d: expected at least 1", c.Server.MaxConnections)
	}
	if c.Fetch.Parallel < 1 || c.Fetch.Parallel > 256 {
		return bad("fetch", 0, "parallel", "%d: expected 1 to 256", c.Fetch.Parallel)
	}
	seen := map[string]bool{}
	for i := range c.Mirrors {
		m := &c.Mirrors[i]
		b := func(key, format string, args ...any) error {
			return bad("mirror", i, key, "mirror "+strconv.Quote(m.Name)+": "+format, args...)
		}
		switch {
		case !NameRE.MatchString(m.Name):
			return b("name", "%q: expected letters, digits and .+~_- (at most 100)", m.Name)
		case !ValidMirrorName(m.Name):
			return b("name", "%q is reserved", m.Name)
		case seen[m.Name]:
			return b("name", "%q is configured twice", m.Name)
		}
		seen[m.Name] = true
		if err := m.check(b); err != nil {
			return err
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
	switch {
	case m.Missing != "" && m.Missing != RecordMissing:
		return bad("missing", `%q: expected "" or "record"`, m.Missing)
	case m.Missing == RecordMissing && m.Download != All:
		return bad("missing", `"record" needs download = "all": a mirror on demand fetches no package at the sync`)
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
			return bad("keyring", "is missing: a Debian mirror is verified by its archive's keys")
		case m.GPGCheck != nil || m.RepoGPGCheck != nil:
			return bad("gpgcheck", "only mirrors of type rpm have gpgcheck and repo_gpgcheck")
		case m.AllowParent:
			return bad("allow_parent", "only mirrors of type rpm have it")
		}
		for i, s := range m.Suites {
			if s == "/" { // as some sources write it
				s = "./"
				m.Suites[i] = s
			}
			if flat := strings.TrimLeft(s, "/"); flat != s && strings.HasSuffix(s, "/") {
				return bad("suites", "%q is not a suite's name: the directory of a flat repository is named below the URL, as %q", s, flat)
			}
			if s == "" || strings.HasPrefix(s, "/") || strings.Contains("/"+s+"/", "/../") || strings.ContainsAny(s, "\x00\r\n \t%?#") {
				return bad("suites", "%q is not a suite's name", s)
			}
			if !strings.HasSuffix(s, "/") && len(m.Components) == 0 {
				return bad("components", "is missing (only flat suites, which end in /, have none)")
			}
		}
	} else {
		switch {
		case len(urls) == 0 && m.Metalink.IsZero() && m.Mirrorlist.IsZero():
			return bad("url", "one of url, urls, metalink and mirrorlist is needed")
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

// checkParent checks that all base URLs end in the one name of the repository's
// directory where its parent may be used.
func (m *Mirror) checkParent(bad func(key, format string, args ...any) error) error {
	if !m.AllowParent {
		return nil
	}
	if !m.Metalink.IsZero() || !m.Mirrorlist.IsZero() {
		return bad("allow_parent", "needs url or urls, and goes with neither metalink nor mirrorlist")
	}
	for _, u := range m.ConfiguredURLs() {
		switch _, last := u.Parent(); {
		case !NameRE.MatchString(last):
			return bad("allow_parent", "%q has no parent: expected a URL that ends in a directory's name", u)
		case last != m.ParentSuite():
			return bad("allow_parent", "%q: expected a URL that ends in %s, as the first", u, m.ParentSuite())
		}
	}
	return nil
}

func (m *Mirror) checkURLs(bad func(key, format string, args ...any) error) error {
	if !m.URL.IsZero() && len(m.URLs) > 0 {
		return bad("urls", "url and urls exclude each other")
	}
	for _, k := range []struct {
		key  string
		urls []remote.URL
	}{{"url", []remote.URL{m.URL}}, {"urls", m.URLs}, {"metalink", []remote.URL{m.Metalink}}, {"mirrorlist", []remote.URL{m.Mirrorlist}}} {
		for _, u := range k.urls {
			if u.IsZero() && k.key != "urls" {
				continue
			}
			if u.HasUser() {
				return bad(k.key, "%q: a URL must not have a user name or password: write them into a file and name it with auth_file", u)
			}
			if err := u.Trim().Check(); err != nil {
				return bad(k.key, "%v", err)
			}
		}
	}
	return nil
}

// lineIndex finds the line of a key for messages about its value.
type lineIndex map[string]int

var (
	tableRE = regexp.MustCompile(`^\s*(\[\[?)\s*([A-Za-z0-9_-]+)\s*\]`)
	keyRE   = regexp.MustCompile(`^\s*([A-Za-z0-9_-]+)\s*=`)
)

func keyLines(data []byte) lineIndex {
	idx := lineIndex{}
	table, n := "", map[string]int{}
	for i, line := range strings.Split(string(data), "\n") {
		if m := tableRE.FindStringSubmatch(line); m != nil {
			table = m[2]
			if m[1] == "[[" {
				n[table]++
			}
			idx[idx.key(table, max(0, n[table]-1), "")] = i + 1
		} else if m := keyRE.FindStringSubmatch(line); m != nil {
			k := idx.key(table, max(0, n[table]-1), m[1])
			if idx[k] == 0 {
				idx[k] = i + 1
			}
		}
	}
	return idx
}

func (lineIndex) key(table string, i int, key string) string {
	return fmt.Sprintf("%s\x00%d\x00%s", table, i, key)
}

// of returns the line of a key, of its table where the key is not written, or 1.
func (l lineIndex) of(table string, i int, key string) int {
	for _, k := range []string{key, ""} {
		if n := l[l.key(table, i, k)]; n > 0 {
			return n
		}
	}
	return 1
}
