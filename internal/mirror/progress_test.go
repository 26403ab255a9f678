package mirror_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// The totals of a sync are those of all suites: of indices before the first is
// downloaded, and with download = "all" of packages before the first package is.
func TestSyncTotals(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Suites = []string{"stable", "updates"}; m.Sources = false })
	w.Archive.Suite("stable").Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	w.Archive.Suite("updates").Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "2"})
	w.Archive.Publish(mirrortest.Start)
	var mu sync.Mutex
	p := &acquire.Progress{}
	totals := map[string][]int64{}
	w.Archive.Hook = func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		phase, _, _ := strings.Cut(p.Phase(), " of ")
		totals[phase+" files"] = append(totals[phase+" files"], p.FilesTotal.Load())
		totals[phase+" bytes"] = append(totals[phase+" bytes"], p.BytesTotal.Load())
		return false
	}
	if _, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{Progress: p}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		n     int
		total int64
	}{
		{"fetching packages files", 3, p.Files.Load()},
		{"fetching packages bytes", 3, p.Bytes.Load()},
		{"fetching indices files", 2, p.Files.Load() - 3},
	} {
		if got := totals[c.what]; len(got) < c.n || slices.ContainsFunc(got, func(n int64) bool { return n != c.total }) {
			t.Errorf("%s: totals %v, expected at least %d times %d", c.what, got, c.n, c.total)
		}
	}
}
