package plan_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Several snapshots of one mirror are frozen together. The error for a missing entry
// names the snapshot that has it and was not chosen.
func TestFreezeOfSeveralSnapshots(t *testing.T) {
	b := freezertest.NewBoth(t, "stable")
	old := "debian@" + b.Now.UTC().Format("20060102T150405Z")
	b.Debian.Suite("stable").Remove("hello", "2.10-3")
	b.Debian.Suite("stable").Add(debtest.Package{Name: "hello", Version: "2.12-1"})
	b.Now = b.Now.Add(time.Hour)
	b.Debian.Publish(b.Now)
	b.Sync(t)
	m := freezertest.List("hello=2.10-3", "tzdata=2024a-0+deb12u1", "nothing=1")
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, NoSources: true}, nil)
	var refused *freeze.ReportError
	if !errors.As(err, &refused) || !errors.Is(err, freeze.ErrMissing) {
		t.Fatalf("got %v, want missing entries", err)
	}
	if want := "hello=2.10-3 (" + old + " has it)\n  nothing=1"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want it to end with %s", err, want)
	}
	if want := "also freeze from the snapshots that have the missing packages: --mirror debian --mirror fedora --mirror " + old; refused.Hint != want {
		t.Errorf("hint %q, want %q", refused.Hint, want)
	}
	if refused.Report.Entries[0].Snapshot != old {
		t.Errorf("report: %+v", refused.Report.Entries[0])
	}
	m = freezertest.List("hello=2.10-3", "tzdata=2024a-0+deb12u1")
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, NoSources: true, Mirrors: []string{"debian", old}}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"debian hello 2.10-3 amd64", "debian tzdata 2024a-0+deb12u1 all"}, b.Names(t, "x")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	b.Verified(t, "x")

	// Both versions are frozen, and then both snapshots as a whole.
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "two", Manifests: freezertest.List("hello=2.10-3", "hello=2.12-1"), NoSources: true, Mirrors: []string{old, "debian"}}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"debian hello 2.10-3 amd64", "debian hello 2.12-1 amd64"}, b.Names(t, "two")); d != "" {
		t.Errorf("two (-want +got):\n%s", d)
	}
	b.Verified(t, "two")
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true, Mirrors: []string{"debian", old}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := b.Names(t, "all"); len(got) != 5 || !slices.Contains(got, "debian hello 2.10-3 amd64") || !slices.Contains(got, "debian hello 2.12-1 amd64") {
		t.Errorf("all: %v", got)
	}
	b.Verified(t, "all")
	// An entry without a version selects the newest version of both.
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "newest", Manifests: freezertest.List("hello"), NoSources: true, Mirrors: []string{old, "debian"}}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"debian hello 2.12-1 amd64"}, b.Names(t, "newest")); d != "" {
		t.Errorf("newest (-want +got):\n%s", d)
	}
	_, err = b.Freeze(t.Context(), &api.FreezeRequest{Name: "same", Manifests: m, Mirrors: []string{"debian", "debian@latest"}}, nil)
	if !errors.Is(err, freeze.ErrUsage) || !strings.Contains(err.Error(), "is given twice") {
		t.Errorf("one snapshot twice: %v", err)
	}
}

// The hint for an ambiguous entry says how to distinguish its candidates: two builds of
// one version in one mirror differ by their digests, not by their snapshots.
func TestAmbiguousHint(t *testing.T) {
	b := freezertest.NewBoth(t, "stable", "other")
	b.Debian.Suite("stable").Add(debtest.Package{Name: "twin", Version: "1.0", Files: map[string]string{"/a": "1"}})
	b.Debian.Suite("other").Add(debtest.Package{Name: "twin", Version: "1.0", Files: map[string]string{"/a": "2"}, Component: "contrib"})
	b.Debian.Publish(b.Now.Add(time.Minute))
	b.Sync(t)
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: freezertest.List("twin=1.0"), NoSources: true}, nil)
	refused, ok := errors.AsType[*freeze.ReportError](err)
	if !ok || !errors.Is(err, freeze.ErrAmbiguous) || refused.Hint != "choose one by its SHA-256, in a build manifest: --format sha256sums" {
		t.Fatalf("%v, %+v", err, refused)
	}
	for i, c := range refused.Report.Entries[0].Candidates {
		name := fmt.Sprintf("x%d", i)
		m := []api.ManifestFile{{Name: "SHA256SUMS", Data: []byte(c.SHA256 + "  " + c.Path + "\n")}}
		if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: name, Manifests: m, NoSources: true}, nil); err != nil {
			t.Errorf("what the hint says: %v", err)
		}
	}
}

// The candidates of an ambiguous source package are distinguished by their files, even if
// only one file differs.
func TestAmbiguousSources(t *testing.T) {
	b := freezertest.NewBoth(t, "stable", "other")
	b.Debian.Suite("stable").AddSource(debtest.Source{Name: "hello", Version: "2.10-3", Files: map[string]string{"a": "1"}})
	b.Debian.Suite("other").AddSource(debtest.Source{Name: "hello", Version: "2.10-3", Files: map[string]string{"a": "2"}, Component: "contrib"})
	b.Debian.Publish(b.Now.Add(time.Minute))
	b.Sync(t)
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: freezertest.List("hello:source=2.10-3")}, nil)
	if !errors.Is(err, freeze.ErrAmbiguous) {
		t.Fatalf("got %v, want it to be ambiguous", err)
	}
	if refused, ok := errors.AsType[*freeze.ReportError](err); !ok || !strings.Contains(refused.Hint, "--no-sources") {
		t.Errorf("%+v", refused)
	}
	for _, want := range []string{"debian hello 2.10-3 source: pool/main/h/hello/hello_2.10-3.dsc (", "pool/contrib/h/hello/hello_2.10-3.dsc (", "pool/contrib/h/hello/hello_2.10-3.tar.gz ("} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

// A package that upstream lists but no longer has is missing in a freeze that allows
// missing entries. If upstream cannot be reached, the freeze fails.
func TestFreezeLost(t *testing.T) {
	const deb, tarball = "/pool/main/s/src-b/b_1_amd64.deb", "/pool/main/s/src-a/src-a_1.tar.gz"
	requests := map[string]api.FreezeRequest{
		"exact":     {Manifests: freezertest.List("a=1", "b=1", "c=1"), Format: "list"},
		"whole":     {All: true},
		"all, bare": {All: true, NoSources: true},
	}
	for name, req := range requests {
		t.Run(name, func(t *testing.T) {
			w := freezertest.New(t, config.OnDemand)
			status := 0
			w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != deb && r.URL.Path != tarball {
					return false
				}
				rw.WriteHeader(status)
				return true
			}
			req.Name = "4.1"
			for _, s := range []int{403, 404, 410, 503} {
				status = s
				req.AllowMissing = s == 503
				_, err := w.Freezer.Freeze(t.Context(), &req, nil)
				if is := map[bool]error{true: fetch.ErrUnavailable, false: freeze.ErrMissing}[s == 503]; !errors.Is(err, is) || !strings.Contains(err.Error(), "b_1_amd64.deb") && !strings.Contains(err.Error(), "src-a_1.tar.gz") {
					t.Errorf("%d: error %v, expected %v", s, err, is)
				}
			}
			status, req.AllowMissing = 403, true
			res := w.Freeze(t, req)
			want := []freeze.Missing{{Name: "b", Version: "1", Arch: "amd64"}, {Name: "src-a", Version: "1", Source: true}}
			if req.NoSources {
				want = want[:1]
			}
			doc := w.Document(t, res)
			if !slices.Equal(doc.Missing, want) {
				t.Errorf("missing %+v, expected %+v", doc.Missing, want)
			}
			if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "that upstream no longer has") {
				t.Errorf("warnings %q", res.Warnings)
			}
			if name == "exact" {
				if r := res.Report; r.Resolved != 2 || r.Missing != 1 || r.Entries[1].State != "missing" {
					t.Errorf("report %+v", r)
				}
			}
			w.Verify(t, "4.1")
			if faults := w.VerifyDir(t, w.Export(t, "4.1").Dir, nil); len(faults) > 0 {
				t.Errorf("exported: %+v", faults)
			}
			if again := w.Freeze(t, req); again.New {
				t.Error("the same freeze again is another one")
			}
		})
	}
}

// A file with wrong bytes does not count as missing.
func TestFreezeLostIsNotWrong(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	w.Archive.Corrupt(w.Archive.Default().PathOf("b"))
	_, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list", AllowMissing: true}, nil)
	if !errors.Is(err, freeze.ErrMissing) || !strings.Contains(err.Error(), "SHA256") {
		t.Errorf("error %v", err)
	}
}

// A stanza that no client can install is missing in a freeze of the whole mirror. The
// request must allow that, and the manifest must list it.
func TestFreezeUnusable(t *testing.T) {
	w := freezertest.NewEmpty(t, nil)
	w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
		stanzas := strings.SplitAfter(string(plain), "\n\n")
		for i, s := range stanzas {
			if strings.HasPrefix(s, "Package: b\n") && strings.Contains(path, "Packages") {
				stanzas[i] = strings.Replace(s, "\nSHA256:", "\nX:", 1)
			} else if strings.HasPrefix(s, "Package: s\n") {
				stanzas[i] = strings.TrimPrefix(s, "Package: s\n")
			}
		}
		return []byte(strings.Join(stanzas, ""))
	}
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "a", Version: "1"}, debtest.Source{Name: "s", Version: "1"})
	w.Publish()
	_, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "w", All: true}, nil)
	const want = "missing: 2 entries are unusable in the chosen snapshots:\n  b:amd64=1 (no client can install it)\n  source (unnamed)=1 (no client can install it)"
	if !errors.Is(err, freeze.ErrMissing) || err.Error() != want {
		t.Fatalf("error %v, expected %s", err, want)
	}
	doc := w.Document(t, w.Freeze(t, api.FreezeRequest{Name: "w", All: true, AllowMissing: true}))
	if m := []freeze.Missing{{Name: "(unnamed)", Version: "1", Source: true}, {Name: "b", Version: "1", Arch: "amd64"}}; doc.Mirrors[0].Kind != freeze.Whole || !slices.Equal(doc.Missing, m) {
		t.Errorf("kind %s, missing %+v, expected %+v", doc.Mirrors[0].Kind, doc.Missing, m)
	}
	w.Verify(t, "w")
	w.Verify(t, "debian@latest") // a snapshot has no manifest that could list it
	e := w.Export(t, "w")
	if faults := w.VerifyDir(t, e.Dir, nil); len(faults) > 0 {
		t.Errorf("%+v", faults)
	}
	doc.Missing = nil
	data, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e.Manifest(t, data)
	if faults := w.VerifyDir(t, e.Dir, nil); len(faults) != 2 || faults[0].Expected != "source (unnamed)=1" || faults[1].Object != "debian: b 1 amd64" || faults[1].Expected != "b:amd64=1" {
		t.Errorf("without the entry: %+v", faults)
	}
	// A freeze without such stanzas needs no permission.
	w.Freeze(t, api.FreezeRequest{Name: "x", Manifests: freezertest.List("a=1"), Format: "list", NoSources: true})
	w.Verify(t, "x")
}

func TestFreezeWhole(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	_, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "w"}, nil)
	if !errors.Is(err, freeze.ErrNeedsAll) {
		t.Fatalf("whole on-demand mirror: %v", err)
	}
	if want := regexp.MustCompile(`^packages are not downloaded yet: freezing the whole of debian would fetch 9 files of [0-9.]+ KiB$`); !want.MatchString(err.Error()) {
		t.Errorf("whole on-demand mirror: %v, expected %s", err, want)
	}
	// The totals are known before the first package is downloaded.
	p, seen := &acquire.Progress{}, &freezertest.Totals{}
	w.Archive.Hook = func(http.ResponseWriter, *http.Request) bool { seen.Note(p); return false }
	res, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "w", All: true}, p)
	if err != nil {
		t.Fatal(err)
	}
	w.Archive.Hook = nil
	if res.Fetched != 9 {
		t.Errorf("fetched %d files", res.Fetched)
	}
	seen.Are(t, "freeze", p)
	if b := res.Frozen.Bytes; b <= res.FetchedBytes {
		t.Errorf("the freeze has %d bytes, expected more than the %d of its packages", b, res.FetchedBytes)
	}
	w.Verify(t, "w")
}

// The missing entries of a base do not allow other entries to be missing.
func TestBaseLacksOnlyItsOwn(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b=1", "gone=9"), Format: "list", AllowMissing: true})
	w.Archive.Default().Remove("b", "1")
	w.Archive.Add(debtest.Package{Name: "b", Version: "2", Source: "nowhere"})
	w.SetNow(w.Now().Add(time.Hour))
	w.Archive.Publish(w.Now())
	w.MustSync()
	res := w.Freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1", Remove: []string{"b"}})
	if !slices.Equal(res.Frozen.Missing, []string{"gone=9"}) {
		t.Errorf("missing: %v", res.Frozen.Missing)
	}
	req := api.FreezeRequest{Name: "4.3", Base: "4.1", Replace: []string{"b@debian@latest"}}
	if _, err := w.Freezer.Freeze(t.Context(), &req, nil); !errors.Is(err, freeze.ErrMissing) || !strings.Contains(err.Error(), "nowhere") || strings.Contains(err.Error(), "gone") {
		t.Errorf("a replacement without its source: %v", err)
	}
	req.AllowMissing = true
	if res := w.Freeze(t, req); len(res.Frozen.Missing) != 2 {
		t.Errorf("missing: %v", res.Frozen.Missing)
	}
}
