package mirror_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// fetched lists what upstream has given since the last call, sorted, without
// the roots; names by hash as the files they stand for.
func fetched(t *testing.T, w *mirrortest.World) []string {
	t.Helper()
	byDigest := map[string]string{}
	for _, p := range w.Archive.Paths() {
		if !strings.Contains(p, "/by-hash/") {
			byDigest[fmt.Sprintf("%s %x", path.Dir(p), sha256.Sum256(w.Archive.Get(p)))] = p
		}
	}
	var out []string
	for _, r := range w.Archive.Requests() {
		if r.Status != 200 || strings.HasSuffix(r.Path, "InRelease") {
			continue
		}
		p := r.Path
		if dir, hex, ok := strings.Cut(p, "/by-hash/SHA256/"); ok {
			p = byDigest[dir+" "+hex]
		}
		out = append(out, strings.TrimPrefix(p, "dists/stable/"))
	}
	slices.Sort(out)
	return out
}

func addFoo(w *mirrortest.World) {
	w.Archive.Add(
		debtest.Package{Name: "libfoo1", Version: "1+b1", Source: "foo (1)"}, debtest.Package{Name: "libfoo-dev", Version: "1", Source: "foo"},
		debtest.Package{Name: "bar", Version: "1"}, debtest.Package{Name: "libbar1", Version: "1", Source: "bar"})
	w.Archive.AddSource(debtest.Source{Name: "foo", Version: "1"}, debtest.Source{Name: "foo", Version: "2"}, debtest.Source{Name: "bar", Version: "1"})
}

func pool(paths []string) []string {
	return slices.DeleteFunc(paths, func(p string) bool { return !strings.HasPrefix(p, "pool/") })
}

// `packages` says what `all` fetches: the packages and the sources that they were
// built from, whatever those are called. The indices stay upstream's, and the
// rest is fetched when it is asked for.
func TestPackageGlobs(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Packages = []string{"libfoo*"} })
	addFoo(w)
	w.Archive.Publish(mirrortest.Start)
	one := w.MustSync()
	want := []string{
		"pool/main/f/foo/foo_1.dsc", "pool/main/f/foo/foo_1.tar.gz", "pool/main/f/foo/libfoo-dev_1_amd64.deb", "pool/main/f/foo/libfoo1_1+b1_amd64.deb",
	}
	if d := cmp.Diff(want, pool(fetched(t, w))); d != "" {
		t.Errorf("fetched: -want +got\n%s", d)
	}
	index := read(t, w, one.Snapshot, binaryIndex, false)
	if !strings.Contains(index, "Package: bar\n") || index != unpacked(t, w) {
		t.Errorf("the index is not upstream's:\n%s", index)
	}
	const bar, libbar = "pool/main/b/bar/bar_1_amd64.deb", "pool/main/b/bar/libbar1_1_amd64.deb"
	if got := read(t, w, one.Snapshot, bar, false); got != string(w.Archive.Get(bar)) {
		t.Errorf("%s is not upstream's", bar)
	}
	was := string(w.Archive.Get(bar))

	// A wider configuration is followed at the next sync, although upstream has
	// nothing new.
	use := func(change func(m *config.Mirror)) {
		w.CloseAll()
		change(&w.Config.Mirrors[0])
		w.Open()
	}
	w.Archive.Requests()
	use(func(m *config.Mirror) { m.Packages = append(m.Packages, "libbar1") })
	if res := w.MustSync(); !res.New {
		t.Error("a wider configuration made no snapshot")
	}
	want = []string{"pool/main/b/bar/bar_1.dsc", "pool/main/b/bar/bar_1.tar.gz", libbar}
	if d := cmp.Diff(want, fetched(t, w)); d != "" {
		t.Errorf("fetched for the wider configuration: -want +got\n%s", d)
	}
	use(func(m *config.Mirror) { m.Sources = false })
	w.MustSync()
	if res := w.MustSync(); res.New || len(fetched(t, w)) != 0 {
		t.Errorf("a sync of nothing new: %+v", res)
	}

	// What left upstream and was never asked for is gone; the rest stays.
	w.Archive.Delete(bar, "pool/main/f/foo/foo_2.dsc")
	moveOn(w)
	w.MustSync()
	if got := read(t, w, one.Snapshot, bar, false); got != was {
		t.Errorf("%s was not kept", bar)
	}
	if _, err := tryRead(t, w, one.Snapshot, "pool/main/f/foo/foo_2.dsc", false); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("a file that was never fetched and is gone: %v", err)
	}
}

// unpacked is upstream's plain package index.
func unpacked(t *testing.T, w *mirrortest.World) string {
	t.Helper()
	s := w.Archive.Default()
	variants := s.Compressions
	s.Compressions = append(slices.Clone(variants), "")
	w.Archive.Publish(mirrortest.Start)
	s.Compressions = variants
	plain := string(w.Archive.Get(binaryIndex))
	w.Archive.Publish(mirrortest.Start)
	return plain
}

// furnish gives an archive everything that can be selected.
func furnish(w *mirrortest.World) {
	s := w.Archive.Default()
	s.Components, s.ComponentPrefix = []string{"main", "contrib"}, "updates/"
	s.Architectures, s.Languages, s.Contents = []string{"amd64", "arm64"}, []string{"en", "de"}, true
	s.Compressions, s.ListPlain = []string{".xz"}, false
	w.Archive.Add(
		debtest.Package{Name: "a", Files: map[string]string{"/usr/bin/a": "#!/bin/sh\n"}}, debtest.Package{Name: "a", Arch: "arm64"}, debtest.Package{Name: "docs", Arch: "all"},
		debtest.Package{Name: "c", Component: "contrib"}, debtest.Package{Name: "a-udeb", Udeb: true})
	w.Archive.AddSource(debtest.Source{Name: "a"})
	image := []byte("an image")
	images := "main/installer-amd64/current/images/"
	s.Extra = map[string][]byte{
		"main/dep11/Components-amd64.yml.gz": debtest.Compress(w.TB(), ".gz", []byte("---\n")),
		"main/dep11/icons-64x64.tar.gz":      debtest.Compress(w.TB(), ".gz", []byte("icons")),
		"main/cnf/Commands-amd64.xz":         debtest.Compress(w.TB(), ".xz", []byte("name: a\n")),
		images + "SHA256SUMS":                fmt.Appendf(nil, "%x  ./netboot/mini.iso\n", sha256.Sum256(image)),
	}
	w.Archive.Set("dists/stable/"+images+"netboot/mini.iso", image)
}

// Each option of what a sync takes, on and off: what is fetched at once, what
// when it is first asked for, and what is there at the timestamp when upstream
// has moved on. Long because of its table of cases.
func TestSelection(t *testing.T) {
	const (
		amd64, arm64, contrib = "main/binary-amd64/Packages.xz", "main/binary-arm64/Packages.xz", "contrib/binary-amd64/Packages.xz"
		all                   = "main/binary-all/Packages.xz"
		source                = "main/source/Sources.xz"
		en, de                = "main/i18n/Translation-en.xz", "main/i18n/Translation-de.xz"
		contents              = "main/Contents-amd64.xz"
		udebs                 = "main/debian-installer/binary-amd64/Packages.xz"
		dep11, icons          = "main/dep11/Components-amd64.yml.gz", "main/dep11/icons-64x64.tar.gz"
		commands              = "main/cnf/Commands-amd64.xz"
		sums                  = "main/installer-amd64/current/images/SHA256SUMS"
		iso                   = "main/installer-amd64/current/images/netboot/mini.iso"
	)
	every := []string{amd64, arm64, contrib, source, en, de, contents, udebs, dep11, icons, commands, sums, iso}
	a, docs, udeb := "pool/main/a/a/a_1.0-1_amd64.deb", "pool/main/d/docs/docs_1.0-1_all.deb", "pool/main/a/a-udeb/a-udeb_1.0-1_amd64.udeb"
	for _, tt := range []struct {
		name    string
		change  func(*config.Mirror)
		suite   func(*debtest.Suite)
		indices []string
		pool    []string
	}{
		{"least", func(m *config.Mirror) { m.Sources, m.Languages = false, nil }, nil, []string{amd64}, []string{a, docs}},
		{"defaults", func(*config.Mirror) {}, nil, []string{amd64, en, source}, []string{"pool/main/a/a/a_1.0-1.dsc", "pool/main/a/a/a_1.0-1.tar.gz", a, docs}},
		{"component with its slash", func(m *config.Mirror) { m.Components, m.Sources, m.Languages = []string{"updates/main"}, false, nil }, nil, []string{amd64}, []string{a, docs}},
		{"two components", func(m *config.Mirror) {
			m.Components, m.Sources, m.Languages = []string{"main", "contrib"}, false, nil
		}, nil, []string{contrib, amd64}, []string{"pool/contrib/c/c/c_1.0-1_amd64.deb", a, docs}},
		{"two architectures", func(m *config.Mirror) {
			m.Architectures, m.Sources, m.Languages = []string{"amd64", "arm64"}, false, nil
		}, nil, []string{amd64, arm64}, []string{a, "pool/main/a/a/a_1.0-1_arm64.deb", docs}},
		{"languages", func(m *config.Mirror) { m.Sources, m.Languages = false, []string{"*"} }, nil, []string{amd64, de, en}, []string{a, docs}},
		{"contents", func(m *config.Mirror) { m.Sources, m.Languages, m.Contents = false, nil, true }, nil, []string{contents, amd64}, []string{a, docs}},
		{"udebs", func(m *config.Mirror) { m.Sources, m.Languages, m.Udebs = false, nil, true }, nil, []string{amd64, udebs}, []string{udeb, a, docs}},
		{"installer", func(m *config.Mirror) { m.Sources, m.Languages, m.Installer = false, nil, true }, nil, []string{amd64, sums, iso}, []string{a, docs}},
		{"indices", func(m *config.Mirror) {
			m.Sources, m.Languages, m.Indices = false, nil, []string{"main/dep11/*", "Commands-*"}
		}, nil, []string{amd64, commands, dep11, icons}, []string{a, docs}},
		{"an index of all", func(m *config.Mirror) { m.Sources, m.Languages = false, nil },
			func(s *debtest.Suite) { s.BinaryAll = true }, []string{all, amd64}, []string{a, docs}},
		{"an index of all beside the others", func(m *config.Mirror) { m.Sources, m.Languages = false, nil },
			func(s *debtest.Suite) { s.BinaryAll, s.NoSupportForAll = true, true }, []string{amd64}, []string{a, docs}},
		{"an index of all that is asked for", func(m *config.Mirror) {
			m.Sources, m.Languages, m.Architectures = false, nil, []string{"amd64", "all"}
		}, func(s *debtest.Suite) { s.BinaryAll, s.NoSupportForAll = true, true }, []string{all, amd64}, []string{a, docs}},
	} {
		for _, download := range []string{config.All, config.OnDemand} {
			t.Run(tt.name+" "+download, func(t *testing.T) {
				t.Parallel()
				w := mirrortest.New(t, func(m *config.Mirror) { m.Download = download; tt.change(m) })
				furnish(w)
				if tt.suite != nil {
					tt.suite(w.Archive.Default())
				}
				w.Archive.Publish(mirrortest.Start)
				one := w.MustSync()
				want := slices.Clone(tt.indices)
				if download == config.All {
					want = append(want, tt.pool...)
				}
				slices.Sort(want)
				if d := cmp.Diff(want, fetched(t, w)); d != "" {
					t.Errorf("fetched at the sync: -want +got\n%s", d)
				}
				// The first half of the rest is asked for while upstream has it.
				rest := slices.DeleteFunc(slices.Clone(every), func(p string) bool { return slices.Contains(tt.indices, p) })
				was := map[string]string{}
				for _, p := range every {
					was[p] = string(w.Archive.Get("dists/stable/" + p))
				}
				asked := rest[:len(rest)/2]
				for _, p := range asked {
					if got := read(t, w, one.Snapshot, "dists/stable/"+p, false); got != was[p] {
						t.Errorf("%s is not upstream's", p)
					}
				}
				for _, p := range w.Archive.Paths() {
					w.Archive.Delete(p)
				}
				moveOn(w)
				w.Archive.DeleteMatching("dists/stable/*/dep11/*")
				for _, p := range every {
					got, err := tryRead(t, w, one.Snapshot, "dists/stable/"+p, false)
					here := slices.Contains(tt.indices, p) || slices.Contains(asked, p)
					switch {
					case here && (err != nil || got != was[p]):
						t.Errorf("%s was fetched, and is not served any more: %v", p, err)
					case !here && err == nil && got != was[p]:
						t.Errorf("%s is served with other bytes", p)
					case !here && err != nil && !errors.Is(err, fetch.ErrNotFound) && !errors.Is(err, fetch.ErrMismatch):
						t.Errorf("%s: %v", p, err)
					}
				}
				if download == config.All {
					for _, p := range tt.pool {
						if _, err := tryRead(t, w, one.Snapshot, p, false); err != nil {
							t.Errorf("%s: %v", p, err)
						}
					}
				}
			})
		}
	}
}

// Flat repositories: packages beside the index, in a directory and at the top.
func TestFlat(t *testing.T) {
	for _, suite := range []string{"./", "stable/amd64/"} {
		for _, download := range []string{config.All, config.OnDemand} {
			t.Run(suite+" "+download, func(t *testing.T) {
				w := mirrortest.New(t, func(m *config.Mirror) { m.Suites, m.Components, m.Download = []string{suite}, nil, download })
				s := w.Archive.Suite(suite)
				s.Add(debtest.Package{Name: "a", Version: "1"})
				s.AddSource(debtest.Source{Name: "a", Version: "1"})
				w.Archive.Publish(mirrortest.Start)
				one := w.MustSync()
				deb, dsc := s.PathOf("a"), s.Dir()+"src/a_1.dsc"
				if got, want := slices.Contains(fetched(t, w), deb), download == config.All; got != want {
					t.Errorf("%s fetched at the sync: %v", deb, got)
				}
				was := map[string]string{}
				for _, p := range []string{deb, dsc, s.Dir() + "Packages.xz", s.Dir() + "Sources.xz", s.Dir() + "InRelease"} {
					was[p] = string(w.Archive.Get(p))
					if got := read(t, w, one.Snapshot, p, false); got != was[p] {
						t.Errorf("%s is not upstream's", p)
					}
				}
				s.Remove("a", "")
				w.Archive.Delete(deb)
				s.Add(debtest.Package{Name: "a", Version: "2"})
				w.Archive.DeleteMatching("by-hash/*/*")
				w.Archive.Publish(w.Now())
				two := w.MustSync()
				for p, want := range was {
					if got := read(t, w, one.Snapshot, p, false); got != want {
						t.Errorf("%s at the first timestamp is not what it was", p)
					}
				}
				if got := names(t, w, two.Snapshot); got["a"] != "2" {
					t.Errorf("packages: %v", got)
				}
			})
		}
	}
}
