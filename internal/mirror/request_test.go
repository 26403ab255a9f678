package mirror_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// requestURIs notes the requests below pool/ as they are on the wire. Like S3, the
// server reads a plain plus sign as a blank, and so has no such file.
func requestURIs(w *mirrortest.World) (take func() []string) {
	var mu sync.Mutex
	var all []string
	w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.RequestURI, "/pool/") {
			all = append(all, r.RequestURI)
		}
		if strings.Contains(r.RequestURI, "+") {
			http.NotFound(rw, r)
			return true
		}
		return false
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		out := all
		all = nil
		slices.Sort(out)
		return slices.Compact(out)
	}
}

// Packages are asked for exactly as apt asks for them.
func TestRequestURIAsApt(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false })
	w.Archive.Default().Languages = nil
	taken := requestURIs(w)
	var names []string
	for i, c := range []string{"+", "~", "%", "%2b", "@", ":", "=", ",", "(", ")", "!", "*", "'", "$", "&", ";", "[", "]", " ", "é", "+~%é"} {
		name := fmt.Sprintf("p%d", i)
		names = append(names, name)
		w.Archive.Add(debtest.Package{Name: name, Version: "1", Filename: "pool/main/a" + c + "b/" + name + "_1" + c + ".deb"})
	}
	w.Archive.Publish(mirrortest.Start)
	apt := debtest.NewApt(t, fmt.Sprintf("deb [signed-by=%s] %s stable main\n", w.Archive.KeyringFile(), w.Server.URL))
	apt.Run("apt-get", "update")
	apt.Run(append([]string{"apt-get", "install", "--download-only"}, names...)...)
	want := taken()
	if len(want) != len(names) {
		t.Fatalf("apt asked for %d files, expected %d: %q", len(want), len(names), want)
	}
	w.MustSync()
	if d := cmp.Diff(want, taken()); d != "" {
		t.Errorf("requests: -apt +sync\n%s", d)
	}
}
