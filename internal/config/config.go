// Package config reads snapd's TOML configuration. It has one documented struct,
// its defaults, and checks whose errors name the line of the bad value.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/lazyregexp"
)

// ErrInvalid marks every error about the content of a configuration file.
var ErrInvalid = errors.New("invalid configuration")

// ErrUnknownMirror means that no mirror of that name is configured.
var ErrUnknownMirror = errclass.New(errclass.NotFound, "no such mirror")

// Config is the whole configuration. Load replaces zero values with the documented
// defaults.
type Config struct {
	// DataDir contains blobs, metadata, the signing key and the control socket.
	// Its mode is 0700.
	DataDir string `toml:"data_dir"`

	Server   Server    `toml:"server"`
	API      API       `toml:"api"`
	Audit    Audit     `toml:"audit"`
	Signing  Signing   `toml:"signing"`
	Log      Log       `toml:"log"`
	Fetch    Fetch     `toml:"fetch"`
	Store    Store     `toml:"store"`
	Webhooks []Webhook `toml:"webhook"`
	Mirrors  []Mirror  `toml:"mirror"`
}

// Server configures the listeners of snapd.
type Server struct {
	Listen    string `toml:"listen"`     // public, read-only HTTP: host:port
	PublicURL string `toml:"public_url"` // base URL for clients; default http://<listen>
	Socket    string `toml:"socket"`     // control socket; default <data_dir>/snapd.sock
	// SocketGroup is the name or number of a group whose members may use the socket, with
	// the role admin; "": only root and the user that runs snapd.
	SocketGroup string `toml:"socket_group"`
	// Accel lets the web server in front send file bodies: "" (snapd sends them),
	// "X-Accel-Redirect" (nginx) or "X-Sendfile" (Apache, lighttpd).
	Accel string `toml:"accel"`
	// AccelPrefix is the prefix of blobs/… in X-Accel-Redirect
	// ("/blobs-internal/").
	AccelPrefix string `toml:"accel_prefix"`
	// MaxConnections limits concurrent public connections.
	MaxConnections int `toml:"max_connections"`
	// CacheSize limits the memory cache of small blobs, in bytes.
	CacheSize Size `toml:"cache_size"`
	// ActAs lists hosts for which this server answers requests itself, in the proxy form
	// and by the Host field: "snapshot.debian.org", "metasnap.debian.net".
	ActAs []string `toml:"act_as"`
}

// API configures the control API over the network.
type API struct {
	Listen    string `toml:"listen"`     // host:port; "": off
	TLSCert   string `toml:"tls_cert"`   // PEM; both files, or neither on loopback behind a TLS proxy
	TLSKey    string `toml:"tls_key"`    // PEM
	MaxUpload Size   `toml:"max_upload"` // bytes of one request
	// TrustedProxies are addresses and networks whose X-Forwarded-For is trusted.
	TrustedProxies []Network `toml:"trusted_proxies"`
}

// Audit configures the audit list.
type Audit struct {
	Keep Duration `toml:"keep"` // 0: forever
}

// Signing names the key that signs freezes.
type Signing struct {
	KeyFile string   `toml:"key_file"` // armored OpenPGP private key, mode 0600; default <data_dir>/signing-key.asc
	Command []string `toml:"command"`  // external signer: data on stdin, detached signature on stdout; key_file is then the public key
	// Builders is a file that names builders (docs/ATTEST.md). Threshold of them must
	// confirm the images that snapctl iuk udf advertises; "" and 0: no confirmation is
	// needed.
	Builders  string `toml:"builders"`
	Threshold int    `toml:"threshold"`
}

// Log says how the transparency log is signed and witnessed.
type Log struct {
	Origin  string   `toml:"origin"`   // its name; default: host of public_url and "/log", fixed when the log starts
	Policy  string   `toml:"policy"`   // tlog-policy file; its witnesses with a URL are asked for cosignatures
	KeyFile string   `toml:"key_file"` // Ed25519 key, created at the first start; default <data_dir>/log-key
	Command []string `toml:"command"`  // external signer: checkpoint on stdin, signature on stdout; key_file is then the public key
}

// Fetch limits the load on upstream servers.
type Fetch struct {
	Parallel  int  `toml:"parallel"`   // connections per host
	RateLimit Rate `toml:"rate_limit"` // bytes per second over all mirrors; 0: unlimited
}

// Store controls how much snapd stores.
type Store struct {
	Reserve        Size     `toml:"reserve"`         // free space below which syncs and recordings stop, in bytes
	ScrubInterval  Duration `toml:"scrub_interval"`  // how often all blobs are read and checked; 0: never
	ScrubRate      Rate     `toml:"scrub_rate"`      // bytes per second
	GCInterval     Duration `toml:"gc_interval"`     // 0: only on request
	QuarantineTime Duration `toml:"quarantine_time"` // how long quarantined blobs are kept
	KeepIndices    int      `toml:"keep_indices"`    // how many generations of a suite keep their compressed indices

	Metadata     string `toml:"metadata"`      // MetadataBolt, or the URL of a PostgreSQL database
	PasswordFile string `toml:"password_file"` // password of the database's user

	Blobs           string `toml:"blobs"`            // "dir", or where a bucket is: s3://bucket/prefix?endpoint=…&region=…
	CredentialsFile string `toml:"credentials_file"` // credentials of the buckets for blobs and exports, in the format of AWS's shared credentials file; default: the usual AWS environment
	Cache           Size   `toml:"cache"`            // bytes of local copies of blobs in a bucket, and of regenerated indices
	Redirect        bool   `toml:"redirect"`         // answer with signed URLs of the bucket for large packages

	Role string `toml:"role"` // RoleAll or RoleServe
}

// Roles of a node.
const (
	RoleAll   = "all"   // syncs, freezes, collects and serves
	RoleServe = "serve" // serves, and fetches requested files
)

// Serves reports whether this node serves only.
func (s *Store) Serves() bool { return s.Role == RoleServe }

// checkRole checks the role of the node.
func (s *Store) checkRole(bad func(key, format string, args ...any) error) error {
	switch {
	case s.Role != RoleAll && s.Role != RoleServe:
		return bad("role", "%q: expected %q or %q", s.Role, RoleAll, RoleServe)
	case s.Serves() && (s.Postgres() == "" || s.Blobs == DirBlobs):
		return bad("role", "%q needs metadata in PostgreSQL and blobs in a bucket, both shared by the nodes", s.Role)
	}
	return nil
}

// MetadataBolt keeps the metadata in a file of the data directory.
const MetadataBolt = "bolt"

// Postgres returns the URL of the database with the metadata, or "" if the metadata is in
// a file.
func (s *Store) Postgres() string {
	if s.Metadata == MetadataBolt {
		return ""
	}
	return s.Metadata
}

// checkMetadata checks the location of the metadata.
func (s *Store) checkMetadata(bad func(key, format string, args ...any) error) error {
	if s.Postgres() == "" {
		if s.PasswordFile != "" {
			return bad("password_file", "is for metadata in PostgreSQL")
		}
		return nil
	}
	u, err := url.Parse(s.Metadata)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || strings.Trim(u.Path, "/") == "" {
		return bad("metadata", `expected "bolt", or a URL like "postgres://snapd@db.example.org/snapd"`)
	}
	if _, ok := u.User.Password(); ok || u.Query().Has("password") {
		return bad("metadata", "a URL must not have a password: put it into a file and set password_file")
	}
	return nil
}

// DirBlobs keeps blobs in the data directory.
const DirBlobs = "dir"

// checkStore checks the location of the blobs.
func (c *Config) checkStore(bad func(key, format string, args ...any) error) error {
	s := &c.Store
	if s.KeepIndices < 1 {
		return bad("keep_indices", "%d: expected at least 1", s.KeepIndices)
	}
	if s.Blobs == DirBlobs {
		if s.Redirect {
			return bad("redirect", "needs blobs in a bucket, but blobs is %q", DirBlobs)
		}
		return nil
	}
	if !strings.HasPrefix(s.Blobs, "s3://") {
		return bad("blobs", `expected "dir" or s3://bucket/prefix?endpoint=URL`)
	}
	if _, err := location.Parse(s.Blobs); err != nil {
		return bad("blobs", "%v", err)
	}
	if s.Cache < minCache {
		return bad("cache", "%d bytes: expected at least %d", s.Cache, minCache)
	}
	if c.Server.Accel != "" {
		return bad("blobs", "server.accel needs blobs on this machine")
	}
	return nil
}

// minCache is the smallest cache: large indices must fit.
const minCache = 64 << 20

// Mirror is one upstream repository.
type Mirror struct {
	Name          MirrorName   `toml:"name"`
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
	Archive       string       `toml:"archive"`  // name for /mr and /archive; default: Name
	Interval      Duration     `toml:"interval"` // 0: only on request
	Keep          Duration     `toml:"keep"`     // 0: forever
	MaxAge        Duration     `toml:"max_age"`  // age of upstream's Date above which a suite is reported as stale; 0: never
	Languages     []string     `toml:"languages"`
	Contents      bool         `toml:"contents"`
	Udebs         bool         `toml:"udebs"`
	Installer     bool         `toml:"installer"`
	Indices       []string     `toml:"indices"`  // globs of paths in the Release file
	Packages      []string     `toml:"packages"` // globs of package names; freezes and "all" take only these
	GPGCheck      *bool        `toml:"gpgcheck"` // rpm: package signatures; default true
	RepoGPGCheck  *bool        `toml:"repo_gpgcheck"`
	// Local mirrors contain packages of this organisation. They have no upstream: adding
	// and removing packages makes their snapshots.
	Local  bool   `toml:"local"`
	Origin string `toml:"origin"` // of the Release files of a local mirror; default: the name
	Label  string `toml:"label"`
	// AllowParent also accepts packages from the parent directory of the base URL
	// (rpm): see ParentSuite.
	AllowParent bool `toml:"allow_parent"`

	// Files for access to this mirror's servers: see Files.
	AuthFile   string `toml:"auth_file"`   // logins, in the format of apt's auth.conf
	CAFile     string `toml:"ca_file"`     // PEM; certificate authorities used instead of the system's
	ClientCert string `toml:"client_cert"` // PEM; with client_key
	ClientKey  string `toml:"client_key"`
}

// Files are the files with logins, certificate authorities and client
// certificates.
func (m *Mirror) Files() remote.Files {
	return remote.Files{Auth: m.AuthFile, CA: m.CAFile, ClientCert: m.ClientCert, ClientKey: m.ClientKey}
}

// Values of Mirror.Download.
const (
	OnDemand = "on_demand"
	All      = "all"
)

// RecordMissing is the value of Mirror.Missing that lets a sync of all packages
// continue without those that upstream lists but does not have.
const RecordMissing = "record"

// BaseURLs returns the base URLs of the mirror's files in the order in which they
// are tried, each without a trailing slash: the configured URLs or, with
// AllowParent, their parents.
func (m *Mirror) BaseURLs() []remote.URL {
	out := m.ConfiguredURLs()
	if m.AllowParent {
		for i, u := range out {
			out[i], _ = u.Parent()
		}
	}
	return out
}

// ParentSuite returns the directory of the repository below the base URLs if
// AllowParent is set: the last segment of the configured URLs.
func (m *Mirror) ParentSuite() string {
	for _, u := range m.ConfiguredURLs() {
		_, last := u.Parent()
		return last
	}
	return ""
}

// ConfiguredURLs returns the configured base URLs, each without a trailing slash.
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

// ArchiveName returns the mirror's name in the machine interface of snapshot.debian.org.
func (m *Mirror) ArchiveName() string {
	if m.Archive == "" {
		return string(m.Name)
	}
	return m.Archive
}

// CheckPackages reports whether package signatures are required (rpm).
func (m *Mirror) CheckPackages() bool { return m.GPGCheck == nil || *m.GPGCheck }

// CheckRepo reports whether a signature or metalink is required for repomd.xml.
func (m *Mirror) CheckRepo() bool { return m.RepoGPGCheck == nil || *m.RepoGPGCheck }

// Default returns the default configuration.
func Default() Config {
	return Config{
		DataDir: "/var/lib/frozen-snapd",
		Server:  Server{Listen: "127.0.0.1:8080", MaxConnections: 4096, CacheSize: 64 << 20},
		API:     API{MaxUpload: 4 << 30},
		Fetch:   Fetch{Parallel: 8},
		Store: Store{
			Reserve:        1 << 30,
			ScrubInterval:  Duration(30 * 24 * time.Hour),
			ScrubRate:      20 << 20,
			GCInterval:     Duration(24 * time.Hour),
			QuarantineTime: Duration(7 * 24 * time.Hour),
			Blobs:          DirBlobs,
			Cache:          10 << 30,
			KeepIndices:    10,
			Metadata:       MetadataBolt,
			Role:           RoleAll,
		},
	}
}

// Load reads and checks a configuration file. It does not read the files that the
// configuration names, because clients of the daemon may not be allowed to read them.
func Load(name string) (*Config, error) {
	c, _, err := load(name)
	return c, err
}

// LoadAll is like Load, for the daemon: it also checks the credential and certificate
// files of mirrors, and the secrets of webhooks.
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
	if err := c.loadSecrets(at); err != nil {
		return nil, err
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

// Parse parses and checks a configuration. name is the file name in messages; relative
// paths start at its directory.
func Parse(name string, data []byte) (*Config, error) {
	c, _, err := parse(name, data)
	return c, err
}

// position returns the file and line of a key, in the i-th table of a name.
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

// decodeError converts an error of the decoder to "file:line: message".
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
	abs(&c.API.TLSCert)
	abs(&c.API.TLSKey)
	if c.Signing.KeyFile == "" {
		c.Signing.KeyFile = filepath.Join(c.DataDir, "signing-key.asc")
	}
	abs(&c.Signing.KeyFile)
	abs(&c.Signing.Builders)
	if c.Store.CredentialsFile != "" {
		abs(&c.Store.CredentialsFile)
	}
	if c.Log.KeyFile == "" {
		c.Log.KeyFile = filepath.Join(c.DataDir, "log-key")
	}
	abs(&c.Log.KeyFile)
	abs(&c.Log.Policy)
	abs(&c.Store.PasswordFile)
	if c.Server.PublicURL == "" {
		c.Server.PublicURL = "http://" + c.Server.Listen
	}
	c.Server.PublicURL = strings.TrimRight(c.Server.PublicURL, "/")
	if c.Fetch.Parallel == 0 {
		c.Fetch.Parallel = 8
	}
	for i := range c.Webhooks {
		c.Webhooks[i].fill()
		abs(&c.Webhooks[i].SecretFile)
	}
	for i := range c.Mirrors {
		m := &c.Mirrors[i]
		m.fillLocal()
		if m.Download == "" {
			m.Download = OnDemand
		}
		if m.Languages == nil && m.Type == "deb" && !m.Local {
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

// lineIndex finds the lines of keys, for messages about their values.
type lineIndex map[string]int

var (
	tableRE = lazyregexp.New(`^\s*(\[\[?)\s*([A-Za-z0-9_-]+)\s*\]`)
	keyRE   = lazyregexp.New(`^\s*([A-Za-z0-9_-]+)\s*=`)
)

func keyLines(data []byte) lineIndex {
	idx := lineIndex{}
	table, n := "", map[string]int{}
	for i, line := range strings.Split(string(data), "\n") {
		if m := tableRE().FindStringSubmatch(line); m != nil {
			table = m[2]
			if m[1] == "[[" {
				n[table]++
			}
			idx[idx.key(table, max(0, n[table]-1), "")] = i + 1
		} else if m := keyRE().FindStringSubmatch(line); m != nil {
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

// of returns the line of a key, or of its table if the key is absent, or 1.
func (l lineIndex) of(table string, i int, key string) int {
	for _, k := range []string{key, ""} {
		if n := l[l.key(table, i, k)]; n > 0 {
			return n
		}
	}
	return 1
}
