package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A client that was passed bytes of a URL whose file turned out to be wrong gets
// an error, not the rest from the next URL; one that was passed right bytes gets
// all of them, also where the next URL begins from the start.
func TestFollowersOfTwoURLs(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	for _, tt := range []struct {
		name   string
		first  []byte // what the first URL has
		ranges bool   // of the second
		ok     bool
	}{
		{"wrong", bytes.Repeat([]byte("?"), len(body)), true, false},
		{"wrong at the start", append([]byte("?"), body[1:]...), true, false},
		{"wrong and cut", bytes.Repeat([]byte("?"), 300_000), true, false},
		{"wrong and cut, no ranges", bytes.Repeat([]byte("?"), 300_000), false, false},
		{"cut", body[:300_000], true, true},
		{"cut, no ranges", body[:300_000], false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mirrortest.New(t, func(m *config.Mirror) { m.Download = config.OnDemand })
			w.Archive.Add(debtest.Package{Name: "a", Body: body})
			w.Archive.Publish(w.Now())
			file := w.Archive.Default().PathOf("a")
			passed := make(chan struct{})
			first := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/"+file || r.Header.Get("Range") != "" {
					http.NotFound(rw, r)
					return
				}
				rw.Header().Set("Content-Length", fmt.Sprint(len(body)))
				rw.Write(tt.first[:200_000])
				http.NewResponseController(rw).Flush()
				<-passed
				rw.Write(tt.first[200_000:])
			}))
			w.Archive.Hook = func(_ http.ResponseWriter, r *http.Request) bool {
				if !tt.ranges {
					r.Header.Del("Range")
				}
				return false
			}
			w.CloseAll()
			w.Config.Mirrors[0].URL, w.Config.Mirrors[0].URLs = remote.URL{}, remote.NewURLs(first, w.Server.URL)
			w.Open()
			f, err := w.Lookup(t.Context(), w.MustSync().Snapshot, file, false)
			if err != nil {
				t.Fatal(err)
			}
			r, _, err := w.OpenFound(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			head := make([]byte, 1000)
			if _, err := io.ReadFull(r, head); err != nil {
				t.Fatal(err)
			}
			close(passed)
			rest, err := io.ReadAll(r)
			switch got := append(head, rest...); {
			case tt.ok && (err != nil || !bytes.Equal(got, body)):
				t.Errorf("%d bytes, %v", len(got), err)
			case !tt.ok && !errors.Is(err, fetch.ErrMismatch):
				t.Errorf("%d bytes that begin with %.20q, %v", len(got), got, err)
			}
		})
	}
}
