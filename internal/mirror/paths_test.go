package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// moved gives package "new" another path in every index of packages, and
// sources another directory and file name.
func moved(path string) func(*mirrortest.World) {
	return func(w *mirrortest.World) {
		for _, s := range suitesOf(w) {
			s.EditIndex = func(_ string, plain []byte) []byte {
				stanzas := strings.SplitAfter(string(plain), "\n\n")
				for i, st := range stanzas {
					if !strings.Contains(st, "Package: new\n") {
						continue
					}
					lines := strings.Split(st, "\n")
					for j, l := range lines {
						if strings.HasPrefix(l, "Filename: ") {
							lines[j] = "Filename: " + path
						}
					}
					stanzas[i] = strings.Join(lines, "\n")
				}
				return []byte(strings.Join(stanzas, ""))
			}
		}
	}
}

func suitesOf(w *mirrortest.World) []*debtest.Suite {
	var out []*debtest.Suite
	for _, n := range w.Config.Mirrors[0].Suites {
		out = append(out, w.Archive.Suite(n))
	}
	return out
}

// Two files of which one could not be served where the index says are refused
// before they are sealed, in the first sync and in a later one, with an error
// that names both; the last snapshot stays. Long because of its table of cases.
func TestPathsThatClash(t *testing.T) {
	const pool = "pool/main/a/a/a_1_all.deb"
	hash := strings.Repeat("0f", 32)
	for _, c := range []struct {
		name   string
		suites []string // "stable" when there are none
		set    func(*mirrortest.World)
		says   []string
	}{
		{"InRelease", nil, moved("dists/stable/InRelease"), []string{"dists/stable/InRelease", "package new 1", "signed document of suite stable"}},
		{"Release, which is not there", nil, moved("dists/stable/Release"), []string{"package new 1", "suite stable"}},
		{"Release.gpg", nil, moved("dists/stable/Release.gpg"), []string{"package new 1", "suite stable"}},
		{"not canonical", nil, moved("./dists//stable/./InRelease"), []string{"package new 1", "signed document of suite stable"}},
		{"an index", nil, moved("dists/stable/main/binary-amd64/Packages.xz"), []string{"package new 1", "that suite stable lists"}},
		{"a plain index", nil, moved("dists/stable/main/binary-amd64/Packages"), []string{"package new 1", "that suite stable lists"}},
		{"a form that a freeze writes", nil, func(w *mirrortest.World) {
			w.Archive.Default().Compressions = []string{".xz"}
			moved("dists/stable/main/binary-amd64/Packages.gz")(w)
		}, []string{"package new 1", "a file of suite stable"}},
		{"a name by hash", nil, moved("dists/stable/main/binary-amd64/by-hash/SHA256/" + hash), []string{"package new 1", "name by hash of suite stable"}},
		{"a name by another hash", nil, moved("dists/stable/main/binary-amd64/by-hash/MD5Sum/" + hash[:32]), []string{"package new 1", "name by hash"}},
		{"the directory of an index", nil, moved("dists/stable/main"), []string{"package new 1", "the directory of dists/stable/main/"}},
		{"the directory of names by hash", nil, moved("dists/stable/main/binary-amd64/by-hash"), []string{"package new 1", "the directory of"}},
		{"below a signed document", nil, moved("dists/stable/InRelease/new.deb"), []string{"package new 1", "below dists/stable/InRelease"}},
		{"below an index", nil, moved("dists/stable/main/binary-amd64/Packages.xz/new.deb"), []string{"package new 1", "below dists/stable/main/binary-amd64/Packages.xz"}},
		{"another package", nil, moved(pool), []string{"package new 1", "package a 1", pool}},
		{"below another package", nil, moved(pool + "/new.deb"), []string{"package new 1", "package a 1", pool}},
		{"the directory of another package", nil, moved("pool/main/a"), []string{"package new 1", "package a 1", pool}},
		{"a file of a source package", nil, moved("pool/main/s/src/src_1.0-1.dsc"), []string{"package new 1", "package src 1.0-1 source"}},
		{"a file of a source package twice", nil, func(w *mirrortest.World) {
			w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
				if !strings.HasSuffix(path, "Sources") || !bytes.Contains(plain, []byte("Package: new-src\n")) {
					return plain
				}
				i := bytes.Index(plain, []byte("Package: new-src\n"))
				return append(bytes.Clone(plain[:i]), bytes.Replace(plain[i:], []byte("Checksums-Sha256:\n"), []byte("Checksums-Sha256:\n "+hash+" 1 new-src_1.0-1.dsc\n"), 1)...)
			}
		}, []string{"package new-src 1.0-1 source", "twice", hash}},
		{"in a flat suite", []string{"./"}, moved("./Packages.gz"), []string{"package new 1", "./"}},
		{"a signed document of a flat suite", []string{"./"}, moved("InRelease"), []string{"package new 1", "signed document of suite ./"}},
		{"a signed document of another suite", []string{"stable", "testing"}, func(w *mirrortest.World) {
			moved("dists/testing/InRelease")(w)
			w.Archive.Suite("testing").EditIndex = nil
		}, []string{"package new 1", "signed document of suite testing"}},
		{"a package of another suite", []string{"stable", "testing"}, func(w *mirrortest.World) {
			w.Archive.Suite("testing").Add(debtest.Package{Name: "other", Version: "2", Filename: "pool/other.deb"})
			moved("pool/other.deb")(w)
		}, []string{"package new 1", "package other 2", "pool/other.deb"}},
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", c.name, later), func(t *testing.T) {
				t.Parallel()
				w := mirrortest.New(t, func(m *config.Mirror) {
					m.Download = config.OnDemand
					if c.suites != nil {
						m.Suites = c.suites
					}
				})
				for _, s := range suitesOf(w) {
					a := debtest.Package{Name: "a", Version: "1", Arch: "all"}
					if c.suites == nil {
						a.Filename = pool
					}
					s.Add(a)
					if c.suites == nil {
						s.AddSource(debtest.Source{Name: "src"})
					}
				}
				w.Archive.Publish(mirrortest.Start)
				id := ""
				if later {
					id = w.MustSync().Snapshot.ID()
				}
				suitesOf(w)[0].Add(debtest.Package{Name: "new", Version: "1", Body: []byte("new")})
				suitesOf(w)[0].AddSource(debtest.Source{Name: "new-src"})
				c.set(w)
				next := mirrortest.Start.Add(time.Hour)
				w.Archive.Publish(next)
				w.SetNow(next)
				_, err := w.TrySync()
				if !errors.Is(err, repo.ErrHostile) {
					t.Fatalf("error %v, expected %v", err, repo.ErrHostile)
				}
				for _, s := range c.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("error %q does not say %q", err, s)
					}
				}
				if later && latest(t, w).ID() != id {
					t.Error("there is a new snapshot")
				}
				// Repaired, the same state is taken whole.
				for _, s := range suitesOf(w) {
					s.EditIndex, s.Compressions = nil, []string{".xz", ".gz"}
				}
				w.Archive.Publish(next.Add(time.Hour))
				w.SetNow(next.Add(time.Hour))
				res := w.MustSync()
				if got := names(t, w, res.Snapshot); got["new"] != "1" || got["a"] != "1" {
					t.Errorf("packages after the repair: %v", got)
				}
			})
		}
	}
}

// A file that a suite comes to list at the place of a package that was there
// before is refused, too.
func TestListedAtPackage(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	w.Archive.Add(debtest.Package{Name: "a", Version: "1", Filename: "dists/stable/main/extra/a.deb"})
	w.Archive.Publish(mirrortest.Start)
	w.MustSync()
	w.Archive.Default().Extra = map[string][]byte{"main/extra/a.deb": []byte("other")}
	w.Archive.Publish(mirrortest.Start.Add(time.Hour))
	w.SetNow(mirrortest.Start.Add(time.Hour))
	if _, err := w.TrySync(); !errors.Is(err, repo.ErrHostile) || !strings.Contains(err.Error(), "package a 1") || !strings.Contains(err.Error(), "suite stable lists") {
		t.Errorf("error %v", err)
	}
}

// What is no clash: one file in many indices and suites, a Release that lists
// packages by their own digests, packages below dists/, and a path that has other
// bytes later.
func TestPathsThatDoNot(t *testing.T) {
	next := mirrortest.Start.Add(time.Hour)
	for _, c := range []struct {
		name   string
		change func(*config.Mirror)
		set    func(*mirrortest.World)
		later  func(*mirrortest.World)
	}{
		{"architectures and suites", func(m *config.Mirror) {
			m.Suites, m.Architectures = []string{"stable", "testing"}, []string{"amd64", "arm64"}
		}, func(w *mirrortest.World) {
			for _, s := range suitesOf(w) {
				s.Architectures = []string{"amd64", "arm64"}
				s.Add(debtest.Package{Name: "a", Version: "1", Arch: "all"})
				s.AddSource(debtest.Source{Name: "a"})
			}
			w.Archive.Suite("testing").Override("a", "Section", "other") // another stanza of the same file
		}, nil},
		{"a Release that lists packages", func(m *config.Mirror) { m.Suites = []string{"./"} }, func(w *mirrortest.World) {
			s := w.Archive.Suite("./")
			s.Add(debtest.Package{Name: "a", Version: "1"})
			p := s.PathOf("a")
			s.Extra = map[string][]byte{p: w.Archive.Get(p)}
		}, nil},
		{"packages below dists", nil, func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "a", Version: "1", Filename: "dists/stable/main/binary-amd64/a_1_amd64.deb"})
		}, nil},
		{"other bytes later", nil, func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "a", Version: "1", Filename: "pool/a.deb"})
		}, func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "a", Version: "1", Filename: "pool/a.deb", Body: []byte("rebuilt")})
		}},
		{"other bytes later in both suites", func(m *config.Mirror) { m.Suites = []string{"stable", "testing"} }, func(w *mirrortest.World) {
			for _, s := range suitesOf(w) {
				s.Add(debtest.Package{Name: "a", Version: "1", Filename: "pool/a.deb"})
			}
		}, func(w *mirrortest.World) {
			for _, s := range suitesOf(w) {
				s.Add(debtest.Package{Name: "a", Version: "1", Filename: "pool/a.deb", Body: []byte("rebuilt")})
			}
		}},
		{"a file where a directory was", nil, func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "a", Version: "1", Filename: "pool/a/a.deb"})
		}, func(w *mirrortest.World) {
			w.Archive.Default().Remove("a", "")
			w.Archive.Add(debtest.Package{Name: "a", Version: "2", Filename: "pool/a"})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := mirrortest.New(t, c.change)
			c.set(w)
			w.Archive.Publish(mirrortest.Start)
			w.MustSync()
			if c.later != nil {
				c.later(w)
			}
			w.Archive.Publish(next)
			w.SetNow(next)
			if res := w.MustSync(); !res.New {
				t.Error("the next state was not taken")
			}
		})
	}
}
