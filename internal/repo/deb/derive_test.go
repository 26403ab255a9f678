package deb

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// memSink keeps a derived repository in memory.
type memSink struct {
	files map[string][]byte
	links map[string]repo.File // names of content that is held already
}

func newMemSink() *memSink {
	return &memSink{files: make(map[string][]byte), links: make(map[string]repo.File)}
}

func (s *memSink) Put(_ context.Context, p string, data []byte) (repo.File, error) {
	s.files[p] = bytes.Clone(data)
	return repo.File{Path: p, Size: int64(len(data)), SHA256: cas.Sum(data)}, nil
}

func (s *memSink) Create(_ context.Context, p string) (repo.SinkWriter, error) {
	return &memFile{s: s, path: p}, nil
}

func (s *memSink) Link(_ context.Context, p string, f repo.File) error {
	if _, ok := s.links[p]; ok {
		return fmt.Errorf("%s linked twice", p)
	}
	s.links[p] = f
	return nil
}

type memFile struct {
	bytes.Buffer
	s    *memSink
	path string
}

func (f *memFile) Commit() (repo.File, error) {
	return f.s.Put(context.Background(), f.path, f.Bytes())
}
func (f *memFile) Abort() {}

// all resolves links within the sink, and against an archive.
func (s *memSink) all(t testing.TB, a *debtest.Archive) map[string][]byte {
	t.Helper()
	by := make(map[cas.Digest][]byte)
	for _, b := range s.files {
		by[cas.Sum(b)] = b
	}
	for _, p := range a.Paths() {
		by[cas.Sum(a.Get(p))] = a.Get(p)
	}
	out := maps.Clone(s.files)
	for p, f := range s.links {
		b, ok := by[f.SHA256]
		if !ok || int64(len(b)) != f.Size {
			t.Fatalf("link %s: no content %s of %d bytes", p, f.SHA256, f.Size)
		}
		out[p] = b
	}
	return out
}

// serve serves a derived repository with the pool of its archive.
func (s *memSink) serve(t testing.TB, a *debtest.Archive) *httptest.Server {
	t.Helper()
	files := s.all(t, a)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		b, ok := files[p]
		if !ok && !strings.HasPrefix(p, "dists/") && a.Has(p) {
			b, ok = a.Get(p), true
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(srv.Close)
	return srv
}

// choice makes a choice of the records of a suite for which keep returns true.
func choice(t testing.TB, a *debtest.Archive, m config.Mirror, suite repo.SuiteName, keep func(*repo.Record) bool) repo.Choice {
	t.Helper()
	root, err := Format{}.FetchRoot(t.Context(), getter{a.Handler()}, m, suite, nil, repo.VerifyParams{Keyring: a.Key.Keyring()})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := Format{}.Plan(m, root)
	if err != nil {
		t.Fatal(err)
	}
	c := repo.Choice{Suite: suite, Root: root, Groups: groups, Open: open(a, suite), Whole: keep == nil}
	c.Held = func(l repo.Listed) (repo.File, bool) {
		p := suiteDir(suite) + l.Path
		if !a.Has(p) {
			return repo.File{}, false
		}
		b := a.Get(p)
		return repo.File{Path: l.Path, Size: int64(len(b)), SHA256: cas.Sum(b)}, true
	}
	c.Records = func(ctx context.Context, idx string, emit func(repo.Record) error) error {
		for _, g := range groups {
			if g.Index != idx {
				continue
			}
			variant := g.Variants[0]
			return Format{}.Read(ctx, root, g, variant, open(a, suite), func(r *repo.Record) error {
				if !keep(r) {
					return nil
				}
				return emit(*r)
			})
		}
		return fmt.Errorf("no index %s", idx)
	}
	return c
}

func derive(t testing.TB, key *sign.PrivateKey, m config.Mirror, date time.Time, choices ...repo.Choice) *memSink {
	t.Helper()
	sink := newMemSink()
	err := Format{}.Derive(t.Context(), repo.DeriveParams{Mirror: m, Date: date, Choices: choices, Signer: signtest.Signer(t, key)}, sink)
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

// bigArchive has every property that a frozen repository must support: several suites,
// one with low priority, components with a slash, "all", expiry.
func bigArchive(t testing.TB) (*debtest.Archive, config.Mirror) {
	a := debtest.New(t)
	s := a.Suite("stable")
	s.Origin, s.Label, s.Suite, s.Codename, s.Version = "Example", "Example", "oldstable", "stable", "12.5"
	s.Components = []string{"main", "contrib"}
	s.Architectures = []string{"amd64", "arm64"}
	s.BinaryAll, s.NoSupportForAll = true, true
	s.ValidFor = 24 * time.Hour
	s.Fields = map[string]string{
		"Changelogs": "https://mirror.example.org/@CHANGEPATH@_changelog", "Snapshots": "https://mirror.example.org/@SNAPSHOTID@/",
		"Signed-By": string(a.Key.Fingerprint()),
	}
	s.Add(
		debtest.Package{Name: "hello", Fields: map[string]string{"Depends": "libhello1, hello-data"}},
		debtest.Package{Name: "libhello1", Source: "libhello"},
		debtest.Package{Name: "hello-data", Arch: "all"},
		debtest.Package{Name: "unused"},
		debtest.Package{Name: "unused-arm", Arch: "arm64"},
		debtest.Package{Name: "extra", Component: "contrib"},
		debtest.Package{Name: "hello-udeb", Udeb: true},
	)
	s.AddSource(debtest.Source{Name: "hello", Binaries: []string{"hello", "hello-data"}}, debtest.Source{Name: "libhello"}, debtest.Source{Name: "unused"})
	s.Contents = true
	s.Extra = map[string][]byte{
		"main/dep11/Components-amd64.yml.gz":    debtest.Compress(t, ".gz", []byte("---\n")),
		"main/binary-amd64/Packages.diff/Index": []byte("SHA256-Current: x\n"),
	}
	b := a.Suite("backports")
	b.Fields = map[string]string{"NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"}
	b.Add(debtest.Package{Name: "hello", Version: "2.0-1~bpo1", Fields: map[string]string{"Depends": "libhello1"}})
	sec := a.Suite("stable-security")
	sec.ComponentPrefix, sec.Label = "updates/", "Example-Security"
	sec.Add(debtest.Package{Name: "libhello1", Version: "1.0-1+deb12u1", Source: "libhello"})
	a.Publish(published)
	m := mirror()
	m.Suites = []string{"stable", "backports", "stable-security"}
	m.Components = []string{"main", "contrib"}
	m.Udebs = true
	return a, m
}

func chosen(names ...string) func(*repo.Record) bool {
	return func(r *repo.Record) bool { return slices.Contains(names, r.Name) }
}

var frozen = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// Long because it checks everything about one result.
func TestDeriveExact(t *testing.T) {
	a, m := bigArchive(t)
	key := signtest.NewKey(t, "server")
	sink := derive(t, key, m, frozen, choice(t, a, m, "stable", chosen("hello", "libhello1", "hello-data", "libhello")))

	release := string(sink.files["dists/stable/Release"])
	head, list, _ := strings.Cut(release, "SHA256:\n")
	const want = `Origin: Example
Label: Example
Suite: oldstable
Version: 12.5
Codename: stable
Changelogs: https://mirror.example.org/@CHANGEPATH@_changelog
Date: Mon, 02 Mar 2026 00:00:00 UTC
No-Support-for-Architecture-all: Packages
Architectures: amd64
Components: main contrib
`
	if d := cmp.Diff(want, head); d != "" {
		t.Errorf("Release: -want +got\n%s", d)
	}
	list, tail, _ := strings.Cut(list, "Acquire-By-Hash")
	if tail != ": yes\nDescription: Example archive\n" {
		t.Errorf("Release ends %q", tail)
	}
	files := sink.all(t, a)
	listed := make(map[string]bool)
	for line := range strings.Lines(list) {
		w := strings.Fields(line)
		b, ok := files["dists/stable/"+w[2]]
		if !ok || cas.Sum(b).String() != w[0] || fmt.Sprint(len(b)) != w[1] {
			t.Errorf("listed %s is not there, or other", line)
		}
		byHash := "dists/stable/" + filepath.Dir(w[2]) + "/by-hash/SHA256/" + w[0]
		if !bytes.Equal(files[byHash], b) {
			t.Errorf("%s: no or another %s", w[2], byHash)
		}
		listed["dists/stable/"+w[2]], listed[byHash] = true, true
	}
	for p := range files {
		if !listed[p] && !strings.HasSuffix(p, "Release") && !strings.HasSuffix(p, "Release.gpg") {
			t.Errorf("%s is there and not listed", p)
		}
	}
	var indices []string
	for p := range sink.files {
		if q, ok := strings.CutSuffix(p, ".xz"); ok {
			indices = append(indices, q)
			plain := string(sink.files[q])
			for _, c := range []string{".xz", ".gz"} {
				if got := string(debtest.Decompress(t, c, sink.files[q+c])); got != plain {
					t.Errorf("%s%s has other content than the plain variant", q, c)
				}
			}
			var names []string
			for line := range strings.Lines(plain) {
				if n, ok := strings.CutPrefix(line, "Package: "); ok {
					names = append(names, strings.TrimSpace(n))
				}
			}
			indices[len(indices)-1] += " " + strings.Join(names, " ")
		}
	}
	slices.Sort(indices)
	wantIndices := []string{
		"dists/stable/contrib/binary-amd64/Packages ",
		"dists/stable/contrib/i18n/Translation-en ",
		"dists/stable/contrib/source/Sources ",
		"dists/stable/main/binary-amd64/Packages hello hello-data libhello1",
		"dists/stable/main/debian-installer/binary-amd64/Packages ",
		"dists/stable/main/i18n/Translation-en hello hello-data libhello1",
		"dists/stable/main/source/Sources hello libhello",
	}
	if d := cmp.Diff(wantIndices, indices); d != "" {
		t.Errorf("indices: -want +got\n%s", d)
	}
	// Stanzas are upstream's bytes.
	upstream := string(debtest.Decompress(t, ".gz", a.Get("dists/stable/main/binary-amd64/Packages.gz")))
	for par := range strings.SplitSeq(strings.TrimSpace(string(sink.files["dists/stable/main/binary-amd64/Packages"])), "\n\n") {
		if !strings.Contains(upstream, par+"\n\n") {
			t.Errorf("stanza is not upstream's:\n%s", par)
		}
	}
	// Format can read the derived repository.
	docs := []repo.Doc{{Path: "dists/stable/InRelease", Data: sink.files["dists/stable/InRelease"]}}
	root, err := Format{}.ParseRoot(m, "stable", docs, repo.VerifyParams{Keyring: key.Keyring(), Now: frozen.AddDate(15, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if !root.Date.Equal(frozen) || !root.ValidUntil.IsZero() {
		t.Errorf("date %s, valid until %s", root.Date, root.ValidUntil)
	}
}

func TestDeriveDeterminism(t *testing.T) {
	a, m := bigArchive(t)
	key := signtest.NewKey(t, "server")
	var first map[string][]byte
	for _, procs := range []int{1, 4} {
		old := runtime.GOMAXPROCS(procs)
		t.Setenv("TZ", []string{"", "Asia/Tokyo"}[procs/4])
		var choices []repo.Choice
		for _, s := range m.Suites {
			choices = append(choices, choice(t, a, m, repo.SuiteName(s), chosen("hello", "libhello1")))
		}
		sink := derive(t, key, m, frozen.In(time.FixedZone("x", 3600)), choices...)
		runtime.GOMAXPROCS(old)
		if first == nil {
			first = sink.files
		} else if d := cmp.Diff(first, sink.files); d != "" {
			t.Errorf("runs differ:\n%s", d)
		}
	}
}

// policy runs apt-cache policy and removes host and root from its output.
func policy(t *testing.T, apt *debtest.Apt, url string) string {
	t.Helper()
	out := apt.Run("apt-cache", "policy") + apt.Run("apt-cache", "policy", "hello", "libhello1", "hello-data")
	return strings.NewReplacer(url, "http://HOST", strings.TrimPrefix(url, "http://"), "HOST", apt.Root, "ROOT").Replace(out)
}

// clientConf renders a mirror for apt.
func clientConf(t *testing.T, kind, url string, m config.Mirror, key *sign.PrivateKey) string {
	t.Helper()
	p := repo.SourceParams{Mirror: m, URL: url, Components: map[repo.SuiteName][]string{}, Archs: []string{"amd64", "all"}, HasSources: true,
		KeyArmored: signtest.Signer(t, key).PublicKeyArmored(), Name: "test", Comment: "Frozen\nfor a test"}
	for _, s := range m.Suites {
		n := repo.SuiteName(s)
		p.Suites = append(p.Suites, n)
		switch s {
		case "stable":
			p.Components[n] = []string{"main", "contrib"}
		default:
			p.Components[n] = []string{"main"}
		}
	}
	text, err := Format{}.ClientConfig(kind, p)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDeriveForRealApt(t *testing.T) {
	a, m := bigArchive(t)
	key := signtest.NewKey(t, "server")
	upstream := httptest.NewServer(a.Handler())
	defer upstream.Close()

	live := m
	archive := debtest.NewApt(t, strings.Replace(clientConf(t, "deb822", upstream.URL, live, a.Key), "deb deb-src", "deb", -1))
	archive.Options = []string{"Acquire::Check-Valid-Until=false"} // the example has expired
	archive.Run("apt-get", "update")

	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprintf("whole %v", whole), func(t *testing.T) {
			var choices []repo.Choice
			for _, s := range m.Suites {
				keep := func(*repo.Record) bool { return true }
				if whole {
					keep = nil
				}
				choices = append(choices, choice(t, a, m, repo.SuiteName(s), keep))
			}
			sink := derive(t, key, m, frozen, choices...)
			srv := sink.serve(t, a)
			conf := clientConf(t, "deb822", srv.URL, m, key)
			if strings.Contains(strings.ToLower(conf), "trusted") || strings.Contains(strings.ToLower(conf), "check-") {
				t.Errorf("weakening option in\n%s", conf)
			}
			apt := debtest.NewApt(t, strings.Replace(conf, "deb deb-src", "deb", -1))
			apt.Run("apt-get", "update")
			if d := cmp.Diff(policy(t, archive, upstream.URL), policy(t, apt, srv.URL)); d != "" {
				t.Errorf("policy: -archive +frozen\n%s", d)
			}
			apt.Run("apt-get", "install", "hello")
			want := []string{"hello 1.0-1", "hello-data 1.0-1", "libhello1 1.0-1+deb12u1"}
			if d := cmp.Diff(want, apt.Installed()); d != "" {
				t.Errorf("installed: -want +got\n%s", d)
			}
			if out := apt.Run("apt-cache", "show", "hello"); !strings.Contains(out, "It has no use.") {
				t.Errorf("no translated description:\n%s", out)
			}

			// The suites with sources, as one-line entries.
			one := m
			one.Suites = []string{"stable"}
			apt.SetSources(clientConf(t, "deb822", srv.URL, one, key))
			apt.Run("apt-get", "update")
			apt.Run("apt-get", "source", "--download-only", "libhello")
			list, err := Format{}.ClientConfig("list", repo.SourceParams{URL: srv.URL, Suites: []repo.SuiteName{"stable"},
				Components: map[repo.SuiteName][]string{"stable": {"main"}}, Archs: []string{"amd64"}, KeyFiles: []string{signtest.KeyringFile(t, key)}})
			if err != nil {
				t.Fatal(err)
			}
			apt.SetSources(list)
			apt.Run("apt-get", "update")

			dir := t.TempDir()
			for _, n := range []string{"InRelease", "Release", "Release.gpg"} {
				if err := os.WriteFile(filepath.Join(dir, n), sink.files["dists/stable/"+n], 0o644); err != nil {
					t.Fatal(err)
				}
			}
			gpgv := needs.Program(t, "gpgv")
			for _, args := range [][]string{{filepath.Join(dir, "InRelease")}, {filepath.Join(dir, "Release.gpg"), filepath.Join(dir, "Release")}} {
				if out, err := exec.Command(gpgv, append([]string{"--keyring", signtest.KeyringFile(t, key)}, args...)...).CombinedOutput(); err != nil {
					t.Errorf("gpgv: %v\n%s", err, out)
				}
			}
		})
	}
}

// TestDeriveSHA512 freezes the whole of a suite that lists no SHA-256.
func TestDeriveSHA512(t *testing.T) {
	a := debtest.New(t)
	a.Add(debtest.Package{Name: "hello"})
	a.Default().Digests = []string{"SHA512"}
	a.Publish(published)
	m := mirror()
	key := signtest.NewKey(t, "server")
	m.Suites = []string{"stable"}
	srv := derive(t, key, m, frozen, choice(t, a, m, "stable", nil)).serve(t, a)
	conf, err := Format{}.ClientConfig("deb822", repo.SourceParams{URL: srv.URL, Suites: []repo.SuiteName{"stable"},
		Components: map[repo.SuiteName][]string{"stable": {"main"}}, Archs: []string{"amd64"}, KeyArmored: signtest.Signer(t, key).PublicKeyArmored()})
	if err != nil {
		t.Fatal(err)
	}
	apt := debtest.NewApt(t, conf)
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "hello")
}

// TestDeriveNothing checks that a mirror without chosen packages is still a valid
// repository.
func TestDeriveNothing(t *testing.T) {
	a, m := bigArchive(t)
	key := signtest.NewKey(t, "server")
	var choices []repo.Choice
	for _, s := range m.Suites {
		choices = append(choices, choice(t, a, m, repo.SuiteName(s), chosen()))
	}
	srv := derive(t, key, m, frozen, choices...).serve(t, a)
	apt := debtest.NewApt(t, strings.Replace(clientConf(t, "deb822", srv.URL, m, key), "deb deb-src", "deb", -1))
	apt.Run("apt-get", "update")
	if out, err := apt.Try("apt-get", "install", "hello"); err == nil {
		t.Errorf("installed from nothing:\n%s", out)
	}
}

func TestDeriveFlat(t *testing.T) {
	a := debtest.New(t)
	a.Suite("./").Add(debtest.Package{Name: "hello", Filename: "./hello_1.0-1_amd64.deb"}, debtest.Package{Name: "unused"})
	a.Publish(published)
	m := mirror()
	m.Suites, m.Components = []string{"./"}, nil
	key := signtest.NewKey(t, "server")
	for _, keep := range []func(*repo.Record) bool{nil, chosen("hello")} {
		sink := derive(t, key, m, frozen, choice(t, a, m, "./", keep))
		srv := sink.serve(t, a)
		conf, err := Format{}.ClientConfig("deb822", repo.SourceParams{URL: srv.URL, Suites: []repo.SuiteName{"./"}, Archs: []string{"amd64"},
			KeyArmored: signtest.Signer(t, key).PublicKeyArmored()})
		if err != nil {
			t.Fatal(err)
		}
		apt := debtest.NewApt(t, conf)
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "hello")
	}
}

func TestDeriveForDebootstrap(t *testing.T) {
	if testing.Short() {
		t.Skip("runs debootstrap")
	}
	debootstrap := needs.Program(t, "debootstrap")
	a := debtest.New(t)
	s := a.Suite("bookworm")
	s.Add(debtest.Package{Name: "base-files", Fields: map[string]string{"Priority": "required", "Essential": "yes"}},
		debtest.Package{Name: "zlast", Fields: map[string]string{"Priority": "required"}})
	s.Components = []string{"main"}
	s.Description = ""
	a.Publish(published)
	m := mirror()
	m.Suites, m.Sources = []string{"bookworm"}, false
	key := signtest.NewKey(t, "server")
	srv := derive(t, key, m, frozen, choice(t, a, m, "bookworm", func(*repo.Record) bool { return true })).serve(t, a)
	cmd := exec.CommandContext(t.Context(), debootstrap, "--print-debs", "--variant=minbase", "--arch=amd64", "--include=zlast",
		"--keyring="+signtest.KeyringFile(t, key), "bookworm", filepath.Join(t.TempDir(), "root"), srv.URL)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nbase-files\n") || !strings.Contains(string(out), "zlast") {
		t.Errorf("debootstrap: %v\n%s", err, out)
	}
}

// TestDeriveGolden fails if an upgrade of a compressor, or a change here, changes the
// bytes of repositories that were frozen before.
func TestDeriveGolden(t *testing.T) {
	pars := make([]string, 3000)
	for i := range pars {
		pars[i] = strings.NewReplacer("hello", fmt.Sprintf("hello%d", i), sumA, cas.Sum([]byte{byte(i), byte(i >> 8)}).String()).Replace(helloPar)
	}
	root := &repo.Root{Suite: "x", Docs: []repo.Doc{{Path: "Release", Data: []byte("Date: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n")}}}
	c := repo.Choice{Suite: "x", Root: root, Groups: []repo.Group{{Index: "main/binary-amd64/Packages", Packages: true}},
		Records: func(_ context.Context, _ string, emit func(repo.Record) error) error {
			for _, par := range pars {
				if err := emit(repo.Record{Kind: repo.KindBinary, Bytes: []byte(par)}); err != nil {
					return err
				}
			}
			return nil
		}}
	sink := derive(t, signtest.NewKey(t, "x"), config.Mirror{}, frozen, c)
	got := make(map[string]string)
	for _, n := range []string{"Release", "main/binary-amd64/Packages", "main/binary-amd64/Packages.xz", "main/binary-amd64/Packages.gz"} {
		got[n] = cas.Sum(sink.files["dists/x/"+n]).Short()
	}
	want := map[string]string{
		"Release":                       "905d6c1eea03",
		"main/binary-amd64/Packages":    "2e6e87b83e28",
		"main/binary-amd64/Packages.gz": "75adcb116092",
		"main/binary-amd64/Packages.xz": "e7ecc965278d",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("derived files have other bytes than before: -want +got\n%s", d)
	}
}
