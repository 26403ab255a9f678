package httpd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// largeMirror is how many packages a suite of Debian has.
const largeMirror = 63_000

// large is a site with two snapshots of largeMirror packages that differ in every
// package, and a freeze of each kind.
type large struct {
	*site
	one, two *meta.Snapshot
}

// Pages and queries of a large mirror stay fast: about 0.2 seconds for every page, 0.3 for
// a verb, 1 for everything as JSON. The test measures processor time, which other work on
// the machine hardly changes, and its bounds allow for slow machines. -v logs the times.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("stages 126,000 packages")
	}
	if raceEnabled {
		t.Skip("measures time")
	}
	l := newLarge(t)
	times := map[string]time.Duration{}
	l.measure(func(what string, took, used, limit time.Duration) {
		times[what] = used
		t.Logf("%-50s %6.3fs, %6.3fs of processors, expected %.1fs", what, took.Seconds(), used.Seconds(), limit.Seconds())
		if used > 8*limit {
			t.Errorf("%s took %v of processors, expected about %v", what, used, limit)
		}
	})
	// Pages do less than the verbs that list everything.
	for page, all := range map[string]string{
		"/diff?a=ONE&b=TWO": "diff", "/diff?a=ONE&b=TWO&kind=Removed": "diff", "/search?q=arch%3Anone": "find of nothing", "/search?q=section%3Anone": "find of nothing",
		"/freeze/whole?q=section%3Anone": "packages of a snapshot", "/freeze/whole?from=debian%2Fpkg-9": "packages of a snapshot", "/freeze/exact": "packages of an exact freeze",
	} {
		if times[page] == 0 || times[all] == 0 || times[page] > times[all]/2 {
			t.Errorf("%s took %v of processors, expected at most half of the %v of %q", page, times[page], times[all], all)
		}
	}
	// Where nothing is found, the pages lead to the end.
	_, pages := l.follow("/search?q=section%3Anone", func(body []byte) (names []string, next string) {
		var res api.FindResult
		if err := json.Unmarshal(body, &res); err != nil || len(res.Matches) > 0 {
			t.Fatalf("%d results, %v", len(res.Matches), err)
		}
		return nil, res.Next
	})
	if pages < 10 || pages > 40 {
		t.Errorf("the search of %d stanzas took %d pages", 2*largeMirror, pages)
	}
	l.wants("/diff?a="+url.QueryEscape(l.one.ID())+"&b="+url.QueryEscape(l.two.ID()), "Too many packages may differ", "only: Removed", ">more</a>", `<a href="/package/huge-bin-0">`)
}

// BenchmarkLarge reports the times of TestLarge, the best of three.
func BenchmarkLarge(b *testing.B) {
	l := newLarge(b)
	best := map[string]time.Duration{}
	for range 3 {
		l.measure(func(what string, took, _, _ time.Duration) {
			if have, ok := best[what]; !ok || took < have {
				best[what] = took
			}
		})
	}
	for what, took := range best {
		b.ReportMetric(float64(took.Milliseconds()), "ms:"+strings.ReplaceAll(what, " ", "_"))
	}
}

// used returns the time of processors that this process took.
func used(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure asks for every kind of page and query.
func (l *large) measure(report func(what string, took, used, limit time.Duration)) {
	l.t.Helper()
	const page, query, all = 200 * time.Millisecond, 300 * time.Millisecond, time.Second
	one, two := l.one.ID(), l.two.ID()
	wholes := "/diff?a=whole&b=exact"
	diff := "/diff?" + url.Values{"a": {one}, "b": {two}}.Encode()
	for _, c := range []struct {
		path  string
		limit time.Duration
	}{
		{"/", page}, {"/mirror/debian", page}, {"/freezes", page},
		{"/snapshot/" + two, page}, {"/snapshot/" + two + "?from=pkg-2", page}, {"/package/pkg-9000-bin-1", page}, {"/package/huge-bin-1", page},
		{"/source/src-9000", page}, {"/source/huge", page}, {diff, page}, {diff + "&kind=Upgraded&from=debian%2Fpkg-9", page}, {diff + "&kind=Removed", page}, {wholes, page}, {wholes + "&from=debian%2Fpkg-9", page},
		{"/freeze/whole", page}, {"/freeze/exact", page}, {"/freeze/exact?from=debian%2F%2360000", page}, {"/freeze/whole?from=debian%2Fpkg-9", page},
		{"/snapshot/" + two + "?q=%2A-bin-1", page}, {"/snapshot/" + two + "?q=%24Depends+%28%25+%2Axyz%2A%29", page}, {"/snapshot/" + two + "?q=section%3Anone", page},
		{"/freeze/exact?q=%2A-bin-1", page}, {"/freeze/exact?q=section%3Anone", page}, {"/freeze/whole?q=section%3Anone", page}, {"/freeze/whole?q=arch%3Anone", page},
		{"/search?q=pkg-1%2A", page}, {"/search?q=arch%3Anone", page}, {"/search?q=source%3Ahuge", page}, {"/search?q=section%3Anone", page}, {"/search?q=section%3Alibs", page},
	} {
		start, before := time.Now(), used(l.t)
		resp, err := http.Get(l.conf.Server.PublicURL + c.path)
		if err != nil {
			l.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			l.t.Fatalf("%s: status %d, %v\n%.1000s", c.path, resp.StatusCode, err, body)
		}
		report(strings.NewReplacer(one, "ONE", two, "TWO", url.QueryEscape(one), "ONE", url.QueryEscape(two), "TWO").Replace(c.path), time.Since(start), used(l.t)-before, c.limit)
	}
	for _, c := range []struct {
		what, verb string
		req        any
		limit      time.Duration
	}{
		{"show of an exact freeze", "show", api.ShowRequest{Ref: "exact"}, page},
		{"show of a package in an exact freeze", "show", api.ShowRequest{Ref: "exact", Package: "pkg-9000-bin-1"}, page},
		{"list", "list", api.ListRequest{}, query},
		{"find of a name", "find", api.FindRequest{Query: "pkg-9000-bin-1"}, query},
		{"find of a glob with 10,000 results", "find", api.FindRequest{Query: "pkg-*"}, all},
		{"find of a source", "find", api.FindRequest{Query: "source:huge"}, query},
		{"find of nothing", "find", api.FindRequest{Query: "arch:none"}, query},
		{"packages of a snapshot", "packages", api.PackagesRequest{Ref: two}, all},
		{"packages of a snapshot by name", "packages", api.PackagesRequest{Ref: two, Query: "*-bin-1"}, all},
		{"packages of an exact freeze", "packages", api.PackagesRequest{Ref: "exact"}, all},
		{"diff", "diff", api.DiffRequest{A: one, B: two}, all},
		{"diff of freezes", "diff", api.DiffRequest{A: "whole", B: "exact"}, all},
	} {
		var out any
		start, before := time.Now(), used(l.t)
		l.call(c.verb, c.req, &out)
		report(c.what, time.Since(start), used(l.t)-before, c.limit)
	}
}

// newLarge fills a site as syncs and freezes do, but without a network.
func newLarge(t testing.TB) *large {
	t.Helper()
	l := &large{site: newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })}
	records := make([]repo.Record, largeMirror)
	for i := range records {
		records[i] = largeRecord(i, 1)
	}
	l.one = l.seal(records)
	l.freeze("whole", freeze.DocMirror{Kind: freeze.Whole})
	exact := freeze.DocMirror{Kind: freeze.Exact}
	for i := range records {
		r := &records[i]
		digest := cas.Sum(r.Bytes)
		exact.Packages = append(exact.Packages, freeze.DocPackage{
			Suite: "stable", Component: "main", Index: largeIndex, Name: r.Name, Version: r.Version, Arch: r.Arch, Path: r.Files[0].Path, Size: r.Files[0].Size,
			SHA256: r.Files[0].SHA256, Source: r.Sources[0].Name, SourceVersion: r.Sources[0].Version, Paragraph: fmt.Sprintf("%x", digest[:16]),
		})
		records[i] = largeRecord(i, 2)
	}
	slices.SortFunc(exact.Packages, freeze.DocPackage.Compare)
	l.freeze("exact", exact)
	l.two = l.seal(records)
	return l
}

const largeIndex = "main/binary-amd64/Packages"

// largeRecord makes a package. A source makes three of them, and one source a thousand.
func largeRecord(i, revision int) repo.Record {
	source := fmt.Sprintf("src-%d", i/3)
	name := fmt.Sprintf("pkg-%d-bin-%d", i/3, i%3)
	if i < 1000 {
		source, name = "huge", fmt.Sprintf("huge-bin-%d", i)
	}
	version := fmt.Sprintf("%d.%d-%d", i%9, i%100, revision)
	path := "pool/main/" + source[:1] + "/" + source + "/" + name + "_" + version + "_amd64.deb"
	sum := cas.Sum([]byte(path))
	stanza := fmt.Sprintf(`Package: %s
Source: %s
Version: %s
Installed-Size: %d
Maintainer: Team of %s <team@example.org>
Architecture: amd64
Depends: libc6 (>= 2.36), libone%d (>= 1.%d), libtwo%d (= %s)
Description: package number %d of a large mirror
Homepage: https://%s.example.org/
Section: libs
Priority: optional
Filename: %s
Size: %d
SHA256: %s
`, name, source, version, i, source, i%50, i%20, i%60, version, i, source, path, 1000+i, sum)
	return repo.Record{
		Kind: repo.KindBinary, Name: name, Version: version, Arch: "amd64", Sources: []repo.Ref{{Name: source, Version: version}},
		Files: []repo.File{{Path: path, Size: int64(1000 + i), SHA256: sum}}, Bytes: []byte(stanza),
	}
}

// seal makes a snapshot of packages.
func (l *large) seal(records []repo.Record) *meta.Snapshot {
	l.t.Helper()
	ctx := l.t.Context()
	fail := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	stage, err := l.Store().NewStage(ctx, "debian", "stable")
	fail(err)
	fail(stage.Begin(ctx, largeIndex))
	for i := range records {
		fail(stage.Add(ctx, &records[i]))
	}
	_, _, err = stage.End(ctx)
	fail(err)
	l.SetNow(l.Now().Add(time.Hour))
	digest := func(what string) cas.Digest { return cas.Sum(fmt.Append(nil, what, stage.Gen())) }
	listed := func(variant string) repo.Listed {
		return repo.Listed{Path: largeIndex + variant, Size: 1e7, SHA256: digest(largeIndex + variant)}
	}
	snap, err := l.Store().Seal(ctx, &meta.Sealing{
		Snapshot: meta.Snapshot{Mirror: "debian", Type: "deb", Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: stage.Gen(), Date: l.Now()}}},
		Generations: []meta.Generation{{
			Mirror: "debian", Suite: "stable", Gen: stage.Gen(), Date: l.Now(), Trust: repo.TrustSignature, ByHash: true, Packages: len(records),
			Docs: []meta.Doc{{File: repo.File{Path: "dists/stable/InRelease", Size: 2000, SHA256: digest("release")}, LastModified: l.Now()}},
			Groups: []meta.Group{{
				Index: largeIndex, Component: "main", Arch: "amd64", Packages: true, Count: len(records), Variant: listed(".xz"), Plain: listed(""),
			}},
		}},
		Listings: [][]repo.File{{{Path: "dists/stable/" + largeIndex, Size: 1e7, SHA256: digest(largeIndex)}}},
	}, l.Now())
	fail(err)
	l.Changed()
	return snap
}

// freeze publishes a manifest of the newest snapshot, without a tree.
func (l *large) freeze(name string, part freeze.DocMirror) {
	l.t.Helper()
	ctx := l.t.Context()
	snap, err := l.Store().Latest(ctx, "debian")
	if err != nil {
		l.t.Fatal(err)
	}
	part.Name, part.Type, part.Trust = "debian", "deb", repo.TrustSignature
	part.Suites = []freeze.DocSuite{{Suite: "stable", Date: l.Now(), Trust: repo.TrustSignature, Keys: []string{}, Documents: []repo.File{}, Indices: []freeze.DocIndex{}}}
	doc := &freeze.Document{Format: freeze.FormatVersion, Name: meta.FreezeName(name), Date: l.Now(), Mirrors: []freeze.DocMirror{part}}
	data, err := doc.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	info, err := cas.Put(ctx, l.Blobs(), data, l.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	manifest := repo.File{Path: "manifest.json", Size: info.Size, SHA256: info.Digest}
	if err := l.Store().Publish(ctx, &meta.Frozen{
		Name: meta.FreezeName(name), Date: l.Now(), Created: l.Now(), Manifest: manifest, Signature: manifest, Prov: manifest, KeyBlob: info.Digest, Packages: largeMirror,
		Mirrors: []meta.FrozenMirror{{
			Mirror: "debian", Type: "deb", Whole: part.Kind == freeze.Whole, Timestamp: snap.Timestamp,
			Suites: []meta.FrozenSuite{{Suite: "stable", Gen: snap.Suites[0].Gen, Components: []string{"main"}, Archs: []string{"amd64"}}},
		}},
	}); err != nil {
		l.t.Fatal(err)
	}
	l.Changed()
}
