// Package debtest creates Debian archives for tests: real .deb and source
// packages, indices in any compression, signed Release files, and a web server.
// It can inject faults into all of them.
//
//	a := debtest.New(t)
//	a.Add(debtest.Package{Name: "hello", Fields: map[string]string{"Depends": "libc6"}})
//	a.Publish(date)
//	srv := httptest.NewServer(a.Handler())
//
// An archive has one suite, "stable", until others are requested. Publish writes
// the indices and signs them with a date; the archive can then be changed and
// published again, as upstream does. By-hash names of earlier generations stay.
// Nothing depends on the clock: the same calls make the same bytes, except for
// the keys.
package debtest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// Archive is an upstream archive in memory. It is safe for concurrent use with
// its Handler.
type Archive struct {
	tb testing.TB
	// Key signs every suite without Signers.
	Key *sign.PrivateKey
	// Hook, if set, is called first for each request, and returns true if it has
	// answered it: for slow, endless, missing or wrong answers. Set it before the
	// first request.
	Hook func(w http.ResponseWriter, r *http.Request) bool
	// Programs compress the variants with a suffix, instead of Compress: {".xz":
	// {"xz", "-6e", "-T2"}} is Debian's command.
	Programs map[string][]string

	mu       sync.Mutex
	after    map[string]func()
	files    map[string]entry
	suites   map[string]*Suite
	order    []string
	requests []Request
	packed   map[string][]byte // compressed content by suffix and digest
	keyring  string
}

type entry struct {
	data    []byte
	changed time.Time
}

// Request is one request that the archive answered.
type Request struct {
	Method, Path string
	Status       int
	Bytes        int64 // of the body
	Conditional  bool  // with If-Modified-Since or If-None-Match
	Range        string
}

// New returns an empty archive with a new key.
func New(tb testing.TB) *Archive {
	tb.Helper()
	return &Archive{
		tb: tb, Key: signtest.NewKey(tb, "archive"),
		files: make(map[string]entry), suites: make(map[string]*Suite), packed: make(map[string][]byte),
	}
}

// Suite returns the suite with the name. If the archive does not have it yet,
// Suite creates it like one of Debian's. A name that ends in a slash is a flat
// repository in that directory. Change the fields of the Suite before Publish.
func (a *Archive) Suite(name string) *Suite {
	if s := a.suites[name]; s != nil {
		return s
	}
	s := &Suite{
		a: a, name: name,
		Origin: "Example", Label: "Example", Suite: name, Codename: name, Version: "1.0", Description: "Example archive",
		Components: []string{"main"}, Architectures: []string{"amd64"},
		Compressions: []string{".xz", ".gz"}, ListPlain: true, ByHash: true,
		Languages: []string{"en"}, Sources: true, InRelease: true, Digests: []string{"MD5Sum", "SHA256"},
		published: make(map[string]bool),
	}
	if s.flat() {
		s.Suite, s.Codename, s.Components, s.Languages = "", "", nil, nil
	}
	a.suites[name] = s
	a.order = append(a.order, name)
	return s
}

// Default returns the suite "stable", or the archive's only suite.
func (a *Archive) Default() *Suite {
	if len(a.order) == 1 {
		return a.suites[a.order[0]]
	}
	return a.Suite("stable")
}

// Add adds packages to the default suite.
func (a *Archive) Add(pkgs ...Package) { a.tb.Helper(); a.Default().Add(pkgs...) }

// AddSource adds source packages to the default suite.
func (a *Archive) AddSource(srcs ...Source) { a.tb.Helper(); a.Default().AddSource(srcs...) }

// Publish publishes every suite as of date.
func (a *Archive) Publish(date time.Time) {
	a.tb.Helper()
	for _, n := range a.order {
		a.suites[n].Publish(date)
	}
}

// Get returns the file at a path, or fails the test if it does not exist.
func (a *Archive) Get(p string) []byte {
	a.tb.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.files[p]
	if !ok {
		a.tb.Fatalf("archive has no %s", p)
	}
	return e.data
}

// Has reports whether there is a file at a path.
func (a *Archive) Has(p string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.files[p]
	return ok
}

// Set stores a file at a path without listing it in an index.
func (a *Archive) Set(p string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.files[p] = entry{data, epoch}
}

func (a *Archive) put(p string, data []byte, changed time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.files[p]; ok && bytes.Equal(old.data, data) {
		return
	}
	a.files[p] = entry{data, changed}
}

// Delete removes the files at the paths.
func (a *Archive) Delete(paths ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range paths {
		delete(a.files, p)
	}
}

// DeleteMatching removes every file whose path matches the glob (path.Match on
// the whole path, or on its last element when the glob has no slash).
func (a *Archive) DeleteMatching(glob string) {
	for _, p := range a.Paths() {
		name := p
		if !strings.Contains(glob, "/") {
			name = path.Base(p)
		}
		if ok, _ := path.Match(glob, name); ok {
			a.Delete(p)
		}
	}
}

// Paths lists all files, sorted.
func (a *Archive) Paths() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.files))
}

// Corrupt flips one bit in the middle of the file at a path. It does not change the size.
func (a *Archive) Corrupt(p string) {
	a.tb.Helper()
	data := bytes.Clone(a.Get(p))
	data[len(data)/2] ^= 1
	a.Set(p, data)
}

// Truncate cuts the file at a path to n bytes.
func (a *Archive) Truncate(p string, n int) {
	a.tb.Helper()
	a.Set(p, a.Get(p)[:n])
}

// State is all of an archive's files at one time.
type State map[string]entry

// State returns all files as served now, for Restore.
func (a *Archive) State() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.files)
}

// Restore serves an earlier state again, like a rollback or a mirror that lags.
// With globs, it restores only the files that match one of them, which mixes
// generations.
func (a *Archive) Restore(s State, globs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(globs) == 0 {
		a.files = maps.Clone(s)
		return
	}
	for p, e := range s {
		for _, g := range globs {
			if ok, _ := path.Match(g, p); ok {
				a.files[p] = e
			}
		}
	}
}

// WriteTo writes all files below dir.
func (a *Archive) WriteTo(dir string) {
	a.tb.Helper()
	for p, e := range a.State() {
		name := filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			a.tb.Fatal(err)
		}
		if err := os.WriteFile(name, e.data, 0o644); err != nil {
			a.tb.Fatal(err)
		}
	}
}

// KeyringFile returns the path of a file with the archive's public key, as Key
// was at the first call.
func (a *Archive) KeyringFile() string {
	a.tb.Helper()
	if a.keyring == "" {
		a.keyring = signtest.KeyringFile(a.tb, a.Key)
	}
	return a.keyring
}

// Handler serves the archive as a plain web server does: ranges, conditional
// requests, HEAD.
func (a *Archive) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			a.mu.Lock()
			p := strings.TrimPrefix(r.URL.Path, "/")
			if f := a.after[p]; f != nil {
				delete(a.after, p)
				a.mu.Unlock()
				f()
				a.mu.Lock()
			}
			defer a.mu.Unlock()
			a.requests = append(a.requests, Request{
				Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/"), Status: rec.status, Bytes: rec.n,
				Conditional: r.Header.Get("If-Modified-Since") != "" || r.Header.Get("If-None-Match") != "",
				Range:       r.Header.Get("Range"),
			})
		}()
		if a.Hook != nil && a.Hook(rec, r) {
			return
		}
		a.mu.Lock()
		e, ok := a.files[strings.TrimPrefix(path.Clean(r.URL.Path), "/")]
		a.mu.Unlock()
		if !ok {
			http.NotFound(rec, r)
			return
		}
		rec.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(e.data)))
		rec.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(rec, r, "", e.changed, bytes.NewReader(e.data))
	})
}

// AfterRequest calls f once, after the next request for path (relative to the
// archive) was answered and before the client sees the end of its answer. It
// simulates an upstream that changes during a sync.
func (a *Archive) AfterRequest(path string, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.after == nil {
		a.after = make(map[string]func())
	}
	a.after[path] = f
}

type recorder struct {
	http.ResponseWriter
	status int
	n      int64
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.n += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Requests returns the requests answered since the last call.
func (a *Archive) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.requests
	a.requests = nil
	return r
}

// compress is Compress with a cache, because large indices rarely change.
func (a *Archive) compress(suffix string, data []byte) []byte {
	a.tb.Helper()
	if suffix == "" {
		return data
	}
	key := fmt.Sprintf("%s %x", suffix, sha256.Sum256(data))
	if b, ok := a.packed[key]; ok {
		return b
	}
	var b []byte
	if argv := a.Programs[suffix]; argv != nil {
		b = filter(a.tb, append(slices.Clip(argv), "-c"), data)
	} else {
		b = Compress(a.tb, suffix, data)
	}
	a.packed[key] = b
	return b
}

// compressByTool runs bzip2, lz4, xz or zstd, and skips the test if the program is not installed.
func compressByTool(tb testing.TB, suffix string, data []byte) []byte {
	tb.Helper()
	argv := map[string][]string{
		".bz2": {"bzip2", "-c"}, ".lz4": {"lz4", "-c", "-z"}, ".lzma": {"xz", "--format=lzma", "-c"},
	}[suffix]
	if argv == nil {
		tb.Fatalf("no compression %q", suffix)
	}
	return filter(tb, argv, data)
}

// filter runs a program, and skips the test if it is not installed.
func filter(tb testing.TB, argv []string, data []byte) []byte {
	tb.Helper()
	needs.Program(tb, argv[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%v: %v", argv, err)
	}
	return out
}

func newHash(field string) hash.Hash {
	switch field {
	case "MD5Sum":
		return md5.New()
	case "SHA1":
		return sha1.New()
	case "SHA256":
		return sha256.New()
	case "SHA512":
		return sha512.New()
	}
	panic("no digest " + field)
}

func sum(field string, data []byte) string {
	h := newHash(field)
	h.Write(data)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// FromPackages reads a Packages file, such as one of apt's own lists, and returns
// up to max of its packages (0: all). Each has the fields of its stanza, and a
// tiny body instead of the real package, so that the archive has a realistic
// structure but a small size.
func FromPackages(tb testing.TB, r io.Reader, max int) []Package {
	tb.Helper()
	return fromPackages(tb, r, max)
}
