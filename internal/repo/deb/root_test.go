package deb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

var published = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// getter is a repo.Getter that calls an archive's handler directly.
type getter struct{ h http.Handler }

func (g getter) BaseURL() remote.URL { return remote.NewURL("http://mirror.example.org/debian") }
func (g getter) GetURL(context.Context, remote.URL, int64) (repo.Doc, error) {
	return repo.Doc{}, errors.New("not used")
}
func (g getter) Get(ctx context.Context, p string, max int64, prev *repo.Doc) (repo.Doc, error) {
	r := httptest.NewRequestWithContext(ctx, "GET", "/"+p, nil)
	if prev != nil {
		r.Header.Set("If-None-Match", prev.ETag)
	}
	w := httptest.NewRecorder()
	g.h.ServeHTTP(w, r)
	switch w.Code {
	case 200:
		return repo.Doc{Path: p, Data: w.Body.Bytes(), ETag: w.Header().Get("ETag")}, nil
	case 304:
		return repo.Doc{}, repo.ErrNotModified
	case 404:
		return repo.Doc{}, fetch.ErrNotFound
	}
	return repo.Doc{}, fmt.Errorf("status %d", w.Code)
}

func mirror() config.Mirror {
	return config.Mirror{Name: "debian", Type: "deb", Suites: []string{"stable"}, Components: []string{"main"},
		Architectures: []string{"amd64"}, Languages: []string{"en"}, Sources: true}
}

func newArchive(t testing.TB) *debtest.Archive {
	a := debtest.New(t)
	a.Add(debtest.Package{Name: "hello"}, debtest.Package{Name: "world", Arch: "all"})
	a.AddSource(debtest.Source{Name: "hello"})
	return a
}

func fetchRoot(t testing.TB, a *debtest.Archive, suite repo.SuiteName, prev []repo.Doc, now time.Time) (*repo.Root, error) {
	t.Helper()
	return Format{}.FetchRoot(t.Context(), getter{a.Handler()}, mirror(), suite, prev,
		repo.VerifyParams{Keyring: a.Key.Keyring(), Now: now})
}

func paths(reqs []debtest.Request) []string {
	var out []string
	for _, r := range reqs {
		out = append(out, fmt.Sprintf("%d %s", r.Status, r.Path))
	}
	return out
}

func TestFetchRoot(t *testing.T) {
	now := published.Add(time.Hour)
	for _, tt := range []struct {
		name                 string
		edit                 func(*debtest.Suite)
		first, same, changed []string
	}{
		{"InRelease", func(s *debtest.Suite) {},
			[]string{"200 dists/stable/InRelease"}, []string{"304 dists/stable/InRelease"}, []string{"200 dists/stable/InRelease"}},
		{"Release.gpg", func(s *debtest.Suite) { s.InRelease = false },
			[]string{"404 dists/stable/InRelease", "200 dists/stable/Release", "200 dists/stable/Release.gpg"},
			[]string{"404 dists/stable/InRelease", "304 dists/stable/Release"},
			[]string{"404 dists/stable/InRelease", "200 dists/stable/Release", "200 dists/stable/Release.gpg"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t)
			tt.edit(a.Default())
			a.Publish(published)
			root, err := fetchRoot(t, a, "stable", nil, now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.first, paths(a.Requests())); d != "" {
				t.Errorf("first: -want +got\n%s", d)
			}
			if !root.Date.Equal(published) || root.Trust != repo.TrustSignature || !root.ByHash || len(root.Files) == 0 ||
				len(root.Signers) != 1 || root.Signers[0].Fingerprint != a.Key.Fingerprint() {
				t.Errorf("root %+v", root)
			}
			again, err := Format{}.ParseRoot(mirror(), "stable", root.Docs, repo.VerifyParams{Keyring: a.Key.Keyring()})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(root, again); d != "" {
				t.Errorf("parsed again: -want +got\n%s", d)
			}
			rel, err := releaseOf(root)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(root.Files, rel.Files); d != "" {
				t.Errorf("read again: -want +got\n%s", d)
			}
			if _, err := fetchRoot(t, a, "stable", root.Docs, now); !errors.Is(err, repo.ErrNotModified) {
				t.Errorf("unchanged: %v", err)
			}
			if d := cmp.Diff(tt.same, paths(a.Requests())); d != "" {
				t.Errorf("unchanged: -want +got\n%s", d)
			}
			a.Publish(published.Add(time.Minute))
			next, err := fetchRoot(t, a, "stable", root.Docs, now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.changed, paths(a.Requests())); d != "" {
				t.Errorf("changed: -want +got\n%s", d)
			}
			if !next.Date.Equal(published.Add(time.Minute)) {
				t.Errorf("date %s", next.Date)
			}
		})
	}
}

// Long because of its table of cases.
func TestFetchRootRefuses(t *testing.T) {
	now := published.Add(time.Hour)
	other := signtest.NewKey(t, "other")
	for _, tt := range []struct {
		name string
		edit func(a *debtest.Archive, s *debtest.Suite)
		is   error
		want string // part of the message
	}{
		{"expired", func(a *debtest.Archive, s *debtest.Suite) { s.ValidFor = time.Minute },
			repo.ErrExpired, "suite stable: Release of Sun, 01 Mar 2026 12:00:00 UTC was valid until Sun, 01 Mar 2026 12:01:00 UTC, judged at Sun, 01 Mar 2026 13:00:00 UTC: expired"},
		{"future", func(a *debtest.Archive, s *debtest.Suite) {
			s.EditRelease = func(t string) string { return strings.Replace(t, "2026 12:", "2027 12:", 1) }
		}, repo.ErrFuture, "suite stable: Release of Mon, 01 Mar 2027 12:00:00 UTC, judged at Sun, 01 Mar 2026 13:00:00 UTC: dated in the future"},
		{"wrong key", func(a *debtest.Archive, s *debtest.Suite) { s.Signers = append(s.Signers, other) },
			sign.ErrUnknownKey, "suite stable: verify dists/stable/InRelease: untrusted: signature by an unknown key: expected a good signature by a key of the keyring"},
		{"unsigned", func(a *debtest.Archive, s *debtest.Suite) { s.Unsigned = true },
			repo.ErrUntrusted, "suite stable: dists/stable/Release has no signature: neither InRelease nor Release.gpg at http://mirror.example.org/debian: untrusted"},
		{"weak", func(a *debtest.Archive, s *debtest.Suite) { s.Digests = []string{"MD5Sum", "SHA1"} },
			repo.ErrWeak, "suite stable: parse Release: lists files by MD5 or SHA-1 alone, expected SHA256 or SHA512: weak digest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t)
			tt.edit(a, a.Default())
			a.Publish(published)
			_, err := fetchRoot(t, a, "stable", nil, now)
			if !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v\nexpected %s", err, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name string
		do   func(a *debtest.Archive)
		is   error
		want string
	}{
		{"bad signature", func(a *debtest.Archive) {
			in := a.Get("dists/stable/InRelease")
			a.Set("dists/stable/InRelease", bytes.Replace(in, []byte("Suite: stable"), []byte("Suite: staple"), 1))
		}, sign.ErrBadSignature, "suite stable: verify dists/stable/InRelease: untrusted: bad signature"},
		{"HTML", func(a *debtest.Archive) { a.Set("dists/stable/InRelease", []byte("<html>Please log in</html>")) },
			repo.ErrUntrusted, `suite stable: verify dists/stable/InRelease: untrusted: no signature: expected "-----BEGIN PGP SIGNED MESSAGE-----" in the first line, found "<html>Please log in</html>"`},
		{"missing", func(a *debtest.Archive) { a.Delete("dists/stable/InRelease") },
			repo.ErrMissing, "suite stable: neither dists/stable/InRelease nor dists/stable/Release at http://mirror.example.org/debian: missing upstream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t)
			a.Publish(published)
			tt.do(a)
			_, err := fetchRoot(t, a, "stable", nil, now)
			if !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v\nexpected %s", err, tt.want)
			}
		})
	}
	t.Run("expired since", func(t *testing.T) {
		a := newArchive(t)
		a.Default().ValidFor = 2 * time.Hour
		a.Publish(published)
		root, err := fetchRoot(t, a, "stable", nil, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fetchRoot(t, a, "stable", root.Docs, published.Add(3*time.Hour)); !errors.Is(err, repo.ErrExpired) {
			t.Errorf("error %v", err)
		}
		if _, err := (Format{}).ParseRoot(mirror(), "stable", root.Docs, repo.VerifyParams{Keyring: a.Key.Keyring()}); err != nil {
			t.Errorf("with no time to judge by: %v", err)
		}
	})
	t.Run("key expired since", func(t *testing.T) {
		a := newArchive(t)
		a.Key = signtest.NewExpiringKey(t, "short", published.Add(time.Hour))
		a.Publish(published)
		if _, err := fetchRoot(t, a, "stable", nil, published.Add(100*time.Hour)); err != nil {
			t.Errorf("judged at the Release's date: %v", err)
		}
		a.Default().EditRelease = func(s string) string { // signed in time, dated later
			return strings.Replace(s, "Sun, 01 Mar 2026 12:00:00", "Tue, 03 Mar 2026 12:00:00", 1)
		}
		a.Publish(published)
		if _, err := fetchRoot(t, a, "stable", nil, published.Add(100*time.Hour)); !errors.Is(err, sign.ErrExpired) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("torn", func(t *testing.T) {
		a := newArchive(t)
		a.Default().InRelease = false
		a.Publish(published)
		a.Hook = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/Release.gpg") {
				a.Hook = nil
				a.Publish(published.Add(time.Second))
			}
			return false
		}
		if _, err := fetchRoot(t, a, "stable", nil, now); !errors.Is(err, repo.ErrTorn) {
			t.Errorf("error %v", err)
		}
	})
}

func TestSuiteOf(t *testing.T) {
	suites := []repo.SuiteName{"bookworm", "bookworm/updates", "./", "stable/"}
	for in, want := range map[string]string{
		"dists/bookworm/InRelease":                   "bookworm InRelease",
		"dists/bookworm/updates/main/source/Sources": "bookworm/updates main/source/Sources",
		"pool/main/h/hello.deb":                      "./ pool/main/h/hello.deb",
		"stable/Packages.gz":                         "stable/ Packages.gz",
	} {
		s, rel, ok := Format{}.SuiteOf(in, suites)
		if got := string(s) + " " + rel; !ok || got != want {
			t.Errorf("%s: %s %v, expected %s", in, got, ok, want)
		}
	}
	if _, _, ok := (Format{}).SuiteOf("pool/main/h/hello.deb", suites[:2]); ok {
		t.Error("a pool path belongs to a suite")
	}
}

func TestByHash(t *testing.T) {
	for in, want := range map[string]string{
		"dists/x/main/by-hash/SHA256/" + strings.ToUpper(sumA): "SHA256 " + sumA,
		"by-hash/MD5Sum/" + sumA[:32]:                          "MD5Sum " + sumA[:32],
		"dists/x/by-hash/SHA256/" + sumA[:32]:                  "",
		"dists/x/by-hash/SHA3/" + sumA:                         "",
		"dists/x/SHA256/" + sumA:                               "",
		"dists/x/by-hash/SHA256/" + sumA[:63] + "g":            "",
	} {
		algo, hex, ok := Format{}.ByHash(in)
		if got := strings.TrimSpace(algo + " " + hex); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v, expected %q", in, got, ok, want)
		}
	}
}

// open returns a function that opens an archive's listed files.
func open(a *debtest.Archive, suite repo.SuiteName) func(context.Context, repo.Listed) (io.ReadCloser, error) {
	return func(_ context.Context, l repo.Listed) (io.ReadCloser, error) {
		p := suiteDir(suite) + l.Path
		if !a.Has(p) {
			return nil, fmt.Errorf("%s: %w", p, repo.ErrMissing)
		}
		return io.NopCloser(bytes.NewReader(a.Get(p))), nil
	}
}

func names(groups []repo.Group) []string {
	var out []string
	for _, g := range groups {
		n := g.Index
		for _, f := range g.Variants {
			n += " " + strings.TrimPrefix(f.Path, g.Index)
		}
		if g.Packages {
			n += " packages"
		}
		if g.Optional {
			n += " optional"
		}
		out = append(out, n)
	}
	return out
}

func TestReadEveryForm(t *testing.T) {
	for _, variant := range []string{"", ".xz", ".zst", ".gz", ".bz2", ".lzma", ".lz4"} {
		for _, listPlain := range []bool{true, false} {
			t.Run(fmt.Sprintf("%q %v", variant, listPlain), func(t *testing.T) {
				a := newArchive(t)
				a.Default().Compressions, a.Default().ListPlain = []string{variant}, listPlain
				a.Publish(published)
				root, err := fetchRoot(t, a, "stable", nil, published)
				if err != nil {
					t.Fatal(err)
				}
				groups, err := Format{}.Plan(mirror(), root)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, g := range groups {
					if !g.Packages {
						continue
					}
					if g.Variants[0].Path != g.Index+variant {
						t.Errorf("first variant of %s is %s", g.Index, g.Variants[0].Path)
					}
					err := Format{}.Read(t.Context(), root, g, g.Variants[0], open(a, "stable"), func(r *repo.Record) error {
						got = append(got, g.Index+" "+recordName(r))
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				want := []string{"main/binary-amd64/Packages hello:amd64=1.0-1", "main/binary-amd64/Packages world:all=1.0-1", "main/source/Sources hello:source=1.0-1"}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("-want +got\n%s", d)
				}
			})
		}
	}
}

func TestReadRefuses(t *testing.T) {
	const idx = "dists/stable/main/binary-amd64/Packages"
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, a *debtest.Archive)
		want string
	}{
		{"other content", func(t *testing.T, a *debtest.Archive) {
			s := bytes.Replace(debtest.Decompress(t, ".gz", a.Get(idx+".gz")), []byte("1.0-1"), []byte("6.6-6"), 1)
			a.Set(idx+".gz", debtest.Compress(t, ".gz", s))
		}, "main/binary-amd64/Packages.gz decompressed: digest "},
		{"longer", func(t *testing.T, a *debtest.Archive) {
			s := append(debtest.Decompress(t, ".gz", a.Get(idx+".gz")), '\n')
			a.Set(idx+".gz", debtest.Compress(t, ".gz", s))
		}, "main/binary-amd64/Packages.gz decompressed: more than the 756 bytes listed: mismatch"},
		{"shorter", func(t *testing.T, a *debtest.Archive) {
			s := debtest.Decompress(t, ".gz", a.Get(idx+".gz"))
			a.Set(idx+".gz", debtest.Compress(t, ".gz", s[:len(s)-1]))
		}, "main/binary-amd64/Packages.gz decompressed: 755 bytes, 756 listed: mismatch"},
		{"truncated", func(t *testing.T, a *debtest.Archive) { a.Truncate(idx+".gz", 60) },
			"decompress main/binary-amd64/Packages.gz: malformed: unexpected EOF"},
		{"HTML", func(t *testing.T, a *debtest.Archive) { a.Set(idx+".gz", []byte("<html>login</html>")) },
			"decompress main/binary-amd64/Packages.gz: malformed: gzip: invalid header"},
		{"bomb", func(t *testing.T, a *debtest.Archive) {
			a.Set(idx+".gz", debtest.Compress(t, ".gz", make([]byte, 50<<20)))
		}, ""},
		{"missing", func(t *testing.T, a *debtest.Archive) { a.Delete(idx + ".gz") },
			idx + ".gz: missing upstream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t)
			a.Default().Compressions = []string{".gz"}
			a.Publish(published)
			root, err := fetchRoot(t, a, "stable", nil, published)
			if err != nil {
				t.Fatal(err)
			}
			groups, err := Format{}.Plan(mirror(), root)
			if err != nil {
				t.Fatal(err)
			}
			tt.do(t, a)
			g := groups[0]
			err = Format{}.Read(t.Context(), root, g, g.Variants[0], open(a, "stable"), func(r *repo.Record) error { return nil })
			if err == nil || !strings.HasPrefix(err.Error(), "read main/binary-amd64/Packages.gz of suite stable: "+tt.want) {
				t.Errorf("error %v\nexpected %s", err, tt.want)
			}
		})
	}
}

// TestReadBlindBomb checks that an index whose plain size is not listed cannot grow
// without limit.
func TestReadBlindBomb(t *testing.T) {
	packed := debtest.Compress(t, ".zst", bytes.Repeat([]byte("Package: a\nX: y\n\n"), 1<<20))
	l := repo.Listed{Path: "Packages.zst", Size: int64(len(packed))}
	l.SHA256 = digest(t, debtest.Digest("SHA256", packed))
	r, err := openPlain(t.Context(), l, nil, bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err == nil || err.Error() != "decompress Packages.zst: more than 100 times as large as compressed: malformed" && err.Error() != "Packages.zst: more than 100 times as large as compressed: malformed" || n > 2<<20 {
		t.Errorf("%d bytes, error %v", n, err)
	}
}

// TestReadStops shows that the decompressor stops if the context is cancelled or emit
// fails.
func TestReadStops(t *testing.T) {
	data := []byte(strings.Repeat(helloPar+"\n\n", 20_000))
	packed := debtest.Compress(t, ".gz", data)
	l := repo.Listed{Path: "Packages.gz", Size: int64(len(packed)), SHA256: digest(t, debtest.Digest("SHA256", packed))}
	root := &repo.Root{Suite: "./"}
	g := repo.Group{Index: "Packages", Variants: []repo.Listed{l}, Packages: true}
	openPacked := func(context.Context, repo.Listed) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed)), nil
	}
	stop := errors.New("stop")
	if err := (Format{}).Read(t.Context(), root, g, l, openPacked, func(*repo.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := Format{}.Read(ctx, root, g, l, openPacked, func(*repo.Record) error {
		if n++; n == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n == 20_000 {
		t.Errorf("error %v after %d records", err, n)
	}
}

func TestPlan(t *testing.T) {
	const d = "Date: Sat, 11 Jul 2026 10:16:37 UTC\n"
	release := func(head string, files ...string) *repo.Root {
		text := d + head + "SHA256:\n"
		for i, f := range files {
			text += fmt.Sprintf(" %064x 10 %s\n", i+1, f)
		}
		return &repo.Root{Suite: "stable", Docs: []repo.Doc{{Path: "dists/stable/Release", Data: []byte(text)}}}
	}
	everything := []string{
		"main/Contents-amd64.gz", "main/Contents-all", "main/Contents-all.gz", "main/Contents-source.gz", "main/Contents-udeb-amd64.gz", "Contents-amd64.gz",
		"main/binary-all/Packages", "main/binary-all/Packages.xz", "main/binary-amd64/Release",
		"main/binary-amd64/Packages", "main/binary-amd64/Packages.gz", "main/binary-amd64/Packages.xz", "main/binary-amd64/Packages.lzma",
		"main/binary-amd64/Packages.diff/Index", "main/binary-arm64/Packages.xz", "contrib/binary-amd64/Packages.xz",
		"main/debian-installer/binary-amd64/Packages.xz", "main/i18n/Translation-en.bz2", "main/i18n/Translation-de.bz2",
		"main/installer-amd64/current/images/SHA256SUMS", "main/installer-arm64/current/images/SHA256SUMS",
		"main/source/Sources.xz", "main/dep11/Components-amd64.yml.gz", "main/dep11/icons-64x64.tar.gz", "main/cnf/Commands-amd64.xz",
	}
	const head = "Architectures: all amd64 arm64\nComponents: updates/main updates/contrib\nNo-Support-for-Architecture-all: Packages\n"
	for _, tt := range []struct {
		name string
		root *repo.Root
		edit func(*config.Mirror)
		want []string
	}{
		{"default", release(head, everything...), func(*config.Mirror) {}, []string{
			"main/binary-amd64/Packages .xz .gz .lzma  packages", "main/source/Sources .xz packages", "main/i18n/Translation-en .bz2"}},
		{"slash in the configuration", release(head, everything...), func(m *config.Mirror) {
			m.Components, m.Sources, m.Languages = []string{"updates/main"}, false, nil
		}, []string{"main/binary-amd64/Packages .xz .gz .lzma  packages"}},
		{"udebs alone", release(head, everything...), func(m *config.Mirror) {
			m.Components, m.Sources, m.Languages = []string{"main/debian-installer"}, false, nil
		}, []string{"main/debian-installer/binary-amd64/Packages .xz packages"}},
		{"slash in the paths", release(head, "updates/main/binary-amd64/Packages.xz"), func(*config.Mirror) {},
			[]string{"updates/main/binary-amd64/Packages .xz packages"}},
		{"everything", release(head, everything...), func(m *config.Mirror) {
			m.Contents, m.Udebs, m.Installer = true, true, true
			m.Languages = []string{"*"}
			m.Indices = []string{"main/dep11/*", "Commands-*"}
		}, []string{
			"main/binary-amd64/Packages .xz .gz .lzma  packages", "main/debian-installer/binary-amd64/Packages .xz packages", "main/source/Sources .xz packages",
			"main/Contents-amd64 .gz optional", "main/Contents-all .gz  optional", "main/Contents-source .gz optional", "main/Contents-udeb-amd64 .gz optional",
			"Contents-amd64 .gz optional", "main/i18n/Translation-en .bz2", "main/i18n/Translation-de .bz2",
			"main/installer-amd64/current/images/SHA256SUMS  optional", "main/dep11/Components-amd64.yml .gz optional",
			"main/dep11/icons-64x64.tar .gz optional", "main/cnf/Commands-amd64 .xz optional"}},
		{"all has its own index", release("Architectures: all amd64\n", everything...), func(m *config.Mirror) { m.Sources, m.Languages = false, nil },
			[]string{"main/binary-all/Packages .xz  packages", "main/binary-amd64/Packages .xz .gz .lzma  packages"}},
		{"pdiff", release(head, everything...), func(m *config.Mirror) {
			m.Sources, m.Languages, m.Indices = false, nil, []string{"main/binary-amd64/*.diff/Index"}
		}, []string{"main/binary-amd64/Packages .xz .gz .lzma  packages", "main/binary-amd64/Packages.diff/Index  optional"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mirror()
			tt.edit(&m)
			got, err := Format{}.Plan(m, tt.root)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, names(got)); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
	flat := release("", "Packages", "Packages.gz", "Sources.gz", "Contents-amd64.gz")
	flat.Suite = "./"
	if got, err := (Format{}).Plan(mirror(), flat); err != nil || !slices.Equal(names(got), []string{"Packages .gz  packages", "Sources .gz packages"}) {
		t.Errorf("flat: %v %v", names(got), err)
	}
	m := mirror()
	m.Components = []string{"mian"}
	_, err := Format{}.Plan(m, release(head, everything...))
	const want = "suite stable: Release lists no Packages of components mian and architectures amd64; it has components updates/main updates/contrib and architectures all amd64 arm64: missing upstream"
	if err == nil || err.Error() != want {
		t.Errorf("error %v\nexpected %s", err, want)
	}
}

// A header of 13 bytes cannot make the decompressor allocate gigabytes.
func TestLzmaDictionary(t *testing.T) {
	for _, size := range []uint32{64<<20 + 1, 1<<32 - 1} {
		want := fmt.Sprintf("decompress Packages.lzma: malformed: lzma: header dictionary size %d exceeds configured dictionary capacity %d", size, 64<<20)
		head := binary.LittleEndian.AppendUint32([]byte{0x5d}, size)
		head = append(head, bytes.Repeat([]byte{0xff}, 8)...)
		if _, err := (Format{}).Decode("Packages.lzma", bytes.NewReader(append(head, make([]byte, 64)...))); err == nil || err.Error() != want || !errors.Is(err, repo.ErrMalformed) {
			t.Errorf("dictionary of %d bytes: error %v\nexpected %s", size, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range compressions {
		if c != ".bz2" && c != ".lz4" && c != ".lzma" {
			f.Add(debtest.Compress(f, c, []byte(helloPar)), c)
		}
	}
	f.Add([]byte("BZh91AY&SY"), ".bz2")
	f.Add([]byte("\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00"), ".lzma")
	f.Add([]byte("\x04\x22\x4d\x18"), ".lz4")
	f.Fuzz(func(t *testing.T, data []byte, suffix string) {
		if !slices.Contains(compressions[:], suffix) || len(data) > 1<<16 {
			return
		}
		l := repo.Listed{Path: "Packages" + suffix, Size: int64(len(data)), SHA256: digest(t, debtest.Digest("SHA256", data))}
		r, err := openPlain(t.Context(), l, nil, bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, r)
		if err == nil && suffix == "" && n != int64(len(data)) {
			t.Fatalf("%d bytes of %d", n, len(data))
		}
		if n > int64(len(data))*blindRatio+blindFloor {
			t.Fatalf("%d bytes from %d", n, len(data))
		}
	})
}

func BenchmarkReadXZ(b *testing.B) {
	data := realPackages(b)
	cmd := exec.Command(needs.Program(b, "xz"), "-c", "-6", "-T1") // as archives make it
	cmd.Stdin = bytes.NewReader(data)
	packed, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	plain := repo.Listed{Path: "Packages", Size: int64(len(data)), SHA256: digest(b, debtest.Digest("SHA256", data))}
	l := repo.Listed{Path: "Packages.xz", Size: int64(len(packed)), SHA256: digest(b, debtest.Digest("SHA256", packed))}
	root := &repo.Root{Suite: "./"}
	g := repo.Group{Index: "Packages", Variants: []repo.Listed{l, plain}, Packages: true}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		err := Format{}.Read(b.Context(), root, g, l,
			func(context.Context, repo.Listed) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(packed)), nil
			},
			func(*repo.Record) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}
