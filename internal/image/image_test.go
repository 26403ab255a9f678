package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/squashfs"
)

var epoch = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

func TestSpec(t *testing.T) {
	s := Spec{
		Variant: "minbase", Format: "squashfs", Include: []string{"less", "libc6:amd64", "bash=5.2.15-2+b2"}, Architecture: "amd64", Epoch: epoch,
		Upstream: SourceLines([]Repository{
			{URL: "https://user:secret@mirror.example.org/debian", Suites: []string{"bookworm", "bookworm-updates"}, Components: []string{"main", "contrib"}},
			{URL: "http://mirror.example.org/flat", Suites: []string{"./"}},
		}),
	}
	want := "deb https://mirror.example.org/debian bookworm main contrib\n" +
		"deb https://mirror.example.org/debian bookworm-updates main contrib\n" +
		"deb http://mirror.example.org/flat ./\n"
	if s.Upstream != want {
		t.Error(cmp.Diff(want, s.Upstream))
	}
	tools := Tools{"apt": "2.6.1", "dpkg": "1.21.22", "mmdebstrap": "1.3.5"}
	how := s.How(tools)
	got, err := SpecOf(how)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, got); d != "" {
		t.Errorf("the description does not lead back to the spec:\n%s", d)
	}
	if d := tools.CompareTools(how); d != nil {
		t.Errorf("%v", d)
	}
	first := s
	first.Epoch = time.Unix(0, 0).UTC()
	if got, err := SpecOf(first.How(tools)); err != nil || !got.Epoch.Equal(first.Epoch) {
		t.Errorf("an image of 1970-01-01: %v, %v", got.Epoch, err)
	}
	delete(how, "version.dpkg")
	how["version.apt"] = "2.5.0"
	if d := cmp.Diff([][3]string{{"apt", "2.5.0", "2.6.1"}, {"dpkg", "", "1.21.22"}}, tools.CompareTools(how)); d != "" {
		t.Error(d)
	}
	if _, err := SpecOf(map[string]string{"builder": "hand"}); !errors.Is(err, ErrSpec) {
		t.Errorf("%v", err)
	}
}

func TestBadSpec(t *testing.T) {
	good := Spec{Architecture: "amd64", Epoch: epoch, Sources: "Types: deb\n"}
	for want, change := range map[string]func(*Spec){
		`image cannot be built: variant "tiny": expected one of extract, custom, essential, apt, required, minbase, buildd, important, debootstrap, standard`: func(s *Spec) { s.Variant = "tiny" },
		`image cannot be built: format "zip": expected one of squashfs, tar, oci`:                                                                             func(s *Spec) { s.Format = "zip" },
		`image cannot be built: package "../x.deb": expected NAME, NAME:ARCH or NAME=VERSION`:                                                                 func(s *Spec) { s.Include = []string{"../x.deb"} },
		`image cannot be built: package "/etc/passwd": expected NAME, NAME:ARCH or NAME=VERSION`:                                                              func(s *Spec) { s.Include = []string{"less", "/etc/passwd"} },
		`image cannot be built: package "?essential": expected NAME, NAME:ARCH or NAME=VERSION`:                                                               func(s *Spec) { s.Include = []string{"?essential"} },
		`image cannot be built: architecture "am d64"`:                                                                                                        func(s *Spec) { s.Architecture = "am d64" },
		`image cannot be built: date 0001-01-01 00:00:00 +0000 UTC is not from 1970 to 2106`:                                                                  func(s *Spec) { s.Epoch = time.Time{} },
		`image cannot be built: nothing to install from`:                                                                                                      func(s *Spec) { s.Sources = " \n" },
	} {
		s := good
		change(&s)
		if err := Build(t.Context(), &memory{}, s, Options{}); err == nil || err.Error() != want || !errors.Is(err, ErrSpec) {
			t.Errorf("%v, expected %s", err, want)
		}
	}
}

// memory is an image in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(m.b) {
		m.b = append(m.b, make([]byte, n-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, off) }

func (m *memory) Truncate(n int64) error {
	m.b = m.b[:min(int64(len(m.b)), n)]
	return nil
}

// archive returns a repository that mmdebstrap can extract from.
func archive(t *testing.T) *debtest.Archive {
	a := debtest.New(t)
	a.Add(
		debtest.Package{Name: "hello", Files: map[string]string{"usr/share/hello/greeting": "hello, world\n"}, Fields: map[string]string{"Depends": "libhello"}},
		debtest.Package{Name: "libhello", Files: map[string]string{"usr/lib/libhello.so": "\x7fELF"}},
	)
	a.Publish(epoch)
	return a
}

// sources returns deb822 with the key inline, as snapd prints it.
func sources(a *debtest.Archive, base string) string {
	var key strings.Builder
	for l := range strings.Lines(strings.TrimSpace(string(a.Key.Keyring().ExportArmored()))) {
		if l = strings.TrimSpace(l); l == "" {
			l = "."
		}
		key.WriteString(" " + l + "\n")
	}
	return "Types: deb\nURIs: " + base + "\nSuites: stable\nComponents: main\nSigned-By:\n" + key.String()
}

func needRoot(t *testing.T) {
	t.Helper()
	needs.Programs(t, "mmdebstrap", "apt-get", "dpkg")
	if testing.Short() {
		t.Skip("runs mmdebstrap")
	}
	needs.Root(t, "to mount")
}

// TestBuild builds from two servers with different names, ports and keys, and
// with different TMPDIR, time zone, locale and umask. The bytes are equal and
// contain none of these. Long because it checks everything about one result.
func TestBuild(t *testing.T) {
	needRoot(t)
	spec := Spec{
		Variant: "extract", Include: []string{"hello"}, Architecture: "amd64", Epoch: epoch,
		Upstream: SourceLines([]Repository{{URL: "http://deb.example.org/debian", Suites: []string{"stable"}, Components: []string{"main"}}}),
	}
	var images [2]memory
	var secrets []string
	for i, host := range []string{"127.0.0.1", "localhost"} {
		a := archive(t)
		srv := httptest.NewServer(http.StripPrefix("/frozen/secret-name", a.Handler()))
		defer srv.Close()
		u, err := url.Parse(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "secret-tmp")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755)
		secrets = append(secrets, u.Port(), dir, "secret-name", string(a.Key.Fingerprint()))
		if i == 1 {
			t.Setenv("TZ", "Asia/Tokyo")
			t.Setenv("LC_ALL", "C")
			t.Setenv("http_proxy", "http://127.0.0.1:1")
			defer syscall.Umask(syscall.Umask(0o077))
		}
		spec.Sources = sources(a, "http://"+host+":"+u.Port()+"/frozen/secret-name")
		if err := Build(t.Context(), &images[i], spec, Options{TempDir: dir}); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	if a, b := sha256.Sum256(images[0].b), sha256.Sum256(images[1].b); a != b {
		t.Errorf("the images differ: %x, %x", a, b)
	}

	r, err := squashfs.Open(bytes.NewReader(images[1].b), int64(len(images[1].b)), squashfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = r.Walk(t.Context(), func(name string, n *squashfs.Inode) error {
		if time.Unix(int64(n.MTime), 0).After(epoch) {
			t.Errorf("%s is younger than the freeze", name)
		}
		if n.Type != squashfs.TypeFile {
			return nil
		}
		f, err := r.File(n)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(f)
		got[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/hostname": "localhost\n", "/etc/resolv.conf": "", "/etc/apt/sources.list": spec.Upstream,
		"/usr/share/hello/greeting": "hello, world\n", "/usr/lib/libhello.so": "\x7fELF",
	} {
		if text, ok := got[name]; !ok || text != want {
			t.Errorf("%s: %q, %t", name, text, ok)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if len(host) > 4 && host != HostName {
		secrets = append(secrets, host)
	}
	for name, text := range got {
		for _, s := range secrets {
			if strings.Contains(text, s) || strings.Contains(name, s) {
				t.Errorf("%s contains %q", name, s)
			}
		}
		if strings.HasPrefix(name, "/etc/apt/sources.list.d/") || strings.HasPrefix(name, "/var/lib/apt/lists/") && text != "" {
			t.Errorf("%s is left", name)
		}
	}
}

// TestBuildFails checks that errors name the cause and no files are left behind.
func TestBuildFails(t *testing.T) {
	needRoot(t)
	a := archive(t)
	srv := httptest.NewServer(a.Handler())
	defer srv.Close()
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	spec := Spec{Variant: "extract", Include: []string{"absent"}, Architecture: "amd64", Epoch: epoch, Sources: sources(a, srv.URL)}
	err := Build(t.Context(), &memory{}, spec, Options{TempDir: dir})
	if !errors.Is(err, ErrBuild) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("%v", err)
	}
	// Repositories signed by another key.
	spec.Include = []string{"hello"}
	spec.Sources = sources(archive(t), srv.URL)
	if err = Build(t.Context(), &memory{}, spec, Options{TempDir: dir}); !errors.Is(err, ErrBuild) || !strings.Contains(err.Error(), "NO_PUBKEY") {
		t.Errorf("%v", err)
	}
	// A repository without essential packages.
	spec.Sources, spec.Include, spec.Variant = sources(a, srv.URL), nil, "essential"
	want := "build image: mmdebstrap failed: nothing was installed: the repositories have no essential package"
	if err = Build(t.Context(), &memory{}, spec, Options{TempDir: dir}); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	// Cancel while a server does not answer.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a2 := archive(t)
	stall := make(chan struct{})
	defer close(stall)
	a2.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		cancel()
		select {
		case <-stall:
		case <-r.Context().Done():
		}
		return true
	}
	srv2 := httptest.NewServer(a2.Handler())
	defer srv2.Close()
	spec.Sources, spec.Include, spec.Variant = sources(a2, srv2.URL), []string{"hello"}, "extract"
	start := time.Now()
	if err = Build(ctx, &memory{}, spec, Options{TempDir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v to stop", d)
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if p != dir {
			t.Errorf("%s stays behind", p)
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTools(t *testing.T) {
	needs.Programs(t, "mmdebstrap", "apt-get", "dpkg")
	tools, err := FindTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mmdebstrap", "apt", "dpkg"} {
		if !strings.Contains(tools[name], ".") {
			t.Errorf("%s: version %q", name, tools[name])
		}
	}
	if a, err := Architecture(t.Context()); err != nil || !archRE().MatchString(a) {
		t.Errorf("%q, %v", a, err)
	}
}
