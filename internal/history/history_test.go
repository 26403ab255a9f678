package history_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

// world is a store with a mirror, and a history over it.
type world struct {
	tb    testing.TB
	store *bolt.Store
	*history.History
	now time.Time
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = tb.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "snapd-history")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{tb: tb, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	if w.store, err = bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.store.Close() })
	cat, err := catalog.New(catalog.Config{Formats: repo.ByType[catalog.Format](deb.Format{}), Meta: w.store})
	if err != nil {
		tb.Fatal(err)
	}
	w.History = history.New(cat, repo.ByType[history.Format](deb.Format{}), w.store)
	return w
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

// record is NAME or NAME=VERSION of a binary package, src:NAME=VERSION of a source
// package.
func record(text string) *repo.Record {
	name, version, ok := strings.Cut(text, "=")
	if !ok {
		version = "1"
	}
	r := &repo.Record{Kind: repo.KindBinary, Name: name, Version: version, Arch: "amd64", Sources: []repo.Ref{{Name: "src-" + name, Version: version}}}
	if rest, source := strings.CutPrefix(name, "src:"); source {
		r.Kind, r.Name, r.Arch, r.Sources = repo.KindSource, rest, "source", nil
	}
	path := "pool/" + r.Name + "_" + version + "." + r.Arch
	r.Files = []repo.File{{Path: path, Size: 1, SHA256: cas.Sum([]byte(path))}}
	r.Bytes = []byte("Package: " + text + "\n")
	return r
}

// step seals a snapshot in which some suites of a mirror change: each has an index
// with the given packages. Suites that are not given stay as they were.
func (w *world) step(mirror meta.MirrorName, suites map[repo.SuiteName][]string) *meta.Snapshot {
	w.tb.Helper()
	ctx := w.tb.Context()
	w.now = w.now.Add(time.Hour)
	snap := meta.Snapshot{Mirror: mirror, Type: "deb"}
	if last, err := w.store.Latest(ctx, mirror); err == nil {
		snap.Suites = last.Suites
	}
	sealing := &meta.Sealing{}
	for _, suite := range []repo.SuiteName{"stable", "updates", "small"} {
		packages, changes := suites[suite]
		if !changes {
			continue
		}
		st, err := w.store.NewStage(ctx, mirror, suite)
		w.must(err)
		const index = "main/binary-amd64/Packages"
		w.must(st.Begin(ctx, index))
		for _, p := range packages {
			w.must(st.Add(ctx, record(p)))
		}
		_, _, err = st.End(ctx)
		w.must(err)
		sum := func(what string) cas.Digest { return cas.Sum(fmt.Append(nil, mirror, suite, st.Gen(), what)) }
		sealing.Generations = append(sealing.Generations, meta.Generation{
			Mirror: mirror, Suite: suite, Gen: st.Gen(), Date: w.now, Trust: repo.TrustNone,
			Docs:   []meta.Doc{{File: repo.File{Path: "dists/" + string(suite) + "/InRelease", Size: 1, SHA256: sum("InRelease")}}},
			Groups: []meta.Group{{Index: index, Component: "main", Arch: "amd64", Packages: true, Variant: repo.Listed{Path: index, SHA256: sum("Packages")}}},
		})
		sealing.Listings = append(sealing.Listings, nil)
		state := meta.SnapshotSuite{Suite: suite, Gen: st.Gen(), Date: w.now}
		if i := slices.IndexFunc(snap.Suites, func(s meta.SnapshotSuite) bool { return s.Suite == suite }); i >= 0 {
			snap.Suites = slices.Clone(snap.Suites)
			snap.Suites[i] = state
		} else {
			snap.Suites = append(snap.Suites, state)
		}
	}
	sealing.Snapshot = snap
	sealed, err := w.store.Seal(ctx, sealing, w.now)
	w.must(err)
	return sealed
}

type suites = map[repo.SuiteName][]string

// Cover returns the fewest snapshots and suites that contain the packages of a list.
func TestCover(t *testing.T) {
	w := newWorld(t)
	one := w.step("debian", suites{"stable": {"a=1", "b=1", "src:a=1"}, "updates": {"u=1"}})
	two := w.step("debian", suites{"stable": {"a=2", "b=1"}, "updates": {"u=1", "b=1"}})
	three := w.step("debian", suites{"stable": {"a=3", "c=1"}, "updates": {}})
	sec := w.step("security", suites{"stable": {"s=1", "a=2"}})
	for _, c := range []struct {
		list    string
		mirror  meta.MirrorName
		want    []string
		missing string
	}{
		{"a=1\n", "", []string{one.ID() + " stable 1"}, ""},
		{"a=2\nb=1\n", "debian", []string{two.ID() + " stable 2"}, ""},
		{"a=2\ns=1\n", "", []string{sec.ID() + " stable 2"}, ""},
		{"b=1\nu=1\n", "", []string{two.ID() + " updates 2"}, ""},
		{"a=1\nu=1\nb=1\n", "", []string{one.ID() + " stable updates 3"}, ""},
		{"a=1\na=3\nb=1\n", "debian", []string{three.ID() + " stable 1", one.ID() + " stable 2"}, ""},
		{"a\n", "debian", []string{three.ID() + " stable 1"}, ""},
		{"a=9\nc=1\nnothing=1\n", "", []string{three.ID() + " stable 1"}, "a=9 nothing=1"},
		{"a=9\n", "", nil, "a=9"},
		{"a:arm64=1\n", "", nil, "a:arm64=1"},
	} {
		m, err := buildlist.Parse("list", strings.NewReader(c.list), buildlist.List)
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.Cover(t.Context(), m, c.mirror)
		if err != nil {
			t.Fatal(err)
		}
		var points, missing []string
		for _, p := range got.Points {
			words := p.Snapshot.ID()
			for _, s := range p.Suites {
				words += " " + string(s)
			}
			points = append(points, fmt.Sprint(words, " ", p.Packages))
		}
		for _, e := range got.Missing {
			missing = append(missing, e.String())
		}
		if !slices.Equal(points, c.want) || strings.Join(missing, " ") != c.missing || len(points) > 0 && !got.Minimal {
			t.Errorf("%q in %q: %q, missing %q, minimal %v; expected %q, missing %q", c.list, c.mirror, points, missing, got.Minimal, c.want, c.missing)
		}
	}
	m := &buildlist.Manifest{Entries: []buildlist.Entry{
		{Name: "other", SHA256: cas.Sum([]byte("pool/a_1.amd64")).String()}, {Name: "a", Version: "1", Source: true}, {Name: "a", Version: "2", Ecosystem: buildlist.RPM},
	}}
	got, err := w.Cover(t.Context(), m, "debian")
	if err != nil || len(got.Points) != 1 || got.Points[0].Snapshot.ID() != one.ID() || len(got.Missing) != 1 {
		t.Errorf("by digest, source and ecosystem: %+v, %v", got, err)
	}
	if _, err := w.Cover(t.Context(), m, "nothing"); err == nil {
		t.Error("an unknown mirror has a cover")
	}
}

// The cost of an answer does not grow with the number of snapshots.
func TestCost(t *testing.T) {
	w := newWorld(t)
	packages := []string{"a=1", "b=1", "c=1"}
	for i := range 500 {
		packages = append(packages, fmt.Sprintf("p%03d=1", i))
	}
	w.step("debian", suites{"stable": packages})
	cost := func() int64 {
		t.Helper()
		var before int64
		for range 2 { // the first also reads which snapshots there are
			before = w.store.Lookups()
			if v, err := w.Versions(t.Context(), "src-a"); err != nil || len(v.Result) != 1 {
				t.Fatalf("%+v, %v", v, err)
			}
		}
		return w.store.Lookups() - before
	}
	first := cost()
	for i := range 100 {
		w.step("debian", suites{"small": {fmt.Sprintf("d=%d", i)}})
	}
	if later := cost(); later > first+2 {
		t.Errorf("%d look-ups after 100 more snapshots, %d before", later, first)
	}
}

// BenchmarkVersions measures /mr/package/NAME/ for 63,000 packages and 1,500
// generations: the mean and the slowest of a hundred.
func BenchmarkVersions(b *testing.B) {
	w := newWorld(b)
	packages := make([]string, 63_000)
	for i := range packages {
		packages[i] = fmt.Sprintf("p%05d=1", i)
	}
	w.step("debian", suites{"stable": packages})
	small := make([]string, 60)
	for gen := range 1500 {
		for i := range small {
			small[i] = fmt.Sprintf("q%02d=%d", i, (gen+i)/2)
		}
		w.step("debian", suites{"small": small})
	}
	if _, err := w.Versions(b.Context(), "src-p00000"); err != nil {
		b.Fatal(err)
	}
	var times []time.Duration
	n := 0
	for b.Loop() {
		n++
		name := fmt.Sprintf("src-p%05d", n*7919%len(packages))
		if n%2 == 0 {
			name = fmt.Sprintf("src-q%02d", n%60) // with hundreds of versions
		}
		start := time.Now()
		if _, err := w.Versions(b.Context(), name); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}
