package mirror_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Headers beside a good InRelease, which nobody signs, do not keep the next state
// from being seen.
func TestPoisonedValidators(t *testing.T) {
	future := time.Now().Add(10_000 * time.Hour).UTC().Format(http.TimeFormat)
	for _, tt := range []struct{ name, etag, modified string }{
		{"any tag", "*", ""},
		{"a list of tags", `"a", *`, ""},
		{"a tag that no server takes", `"` + strings.Repeat("x", 60_000) + `"`, ""},
		{"a time in the future", "", future},
		{"a time later than the next state's", "", time.Now().UTC().Format(http.TimeFormat)},
		{"both", "*", future},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mirrortest.New(t, nil)
			w.Archive.Add(debtest.Package{Name: "a"})
			w.Archive.Publish(w.Now())
			w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/InRelease") {
					return false
				}
				for name, v := range map[string]string{"Etag": tt.etag, "Last-Modified": tt.modified} {
					if v != "" {
						rw.Header().Set(name, v)
					}
				}
				rw.Write(w.Archive.Get(strings.TrimPrefix(r.URL.Path, "/")))
				return true
			}
			w.MustSync()
			w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
				if len(r.Header.Get("If-None-Match")) < 8000 {
					return false
				}
				rw.WriteHeader(http.StatusRequestHeaderFieldsTooLarge) // as web servers do
				return true
			}
			w.Archive.Add(debtest.Package{Name: "b"})
			w.SetNow(w.Now().Add(time.Hour))
			w.Archive.Publish(w.Now())
			if res := w.MustSync(); !res.New {
				t.Error("the new state was not seen")
			}
		})
	}
}
