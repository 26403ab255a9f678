package freeze_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
)

// What upstream lists and no longer has is missing in a freeze that may lack
// something; what cannot be reached now is not, and the freeze fails.
func TestFreezeLost(t *testing.T) {
	const deb, tarball = "/pool/main/s/src-b/b_1_amd64.deb", "/pool/main/s/src-a/src-a_1.tar.gz"
	requests := map[string]api.FreezeRequest{
		"exact":     {Manifests: list("a=1", "b=1", "c=1"), Format: "list"},
		"whole":     {All: true},
		"all, bare": {All: true, NoSources: true},
	}
	for name, req := range requests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, config.OnDemand)
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
				_, err := w.z.Freeze(t.Context(), &req, nil)
				if is := map[bool]error{true: fetch.ErrUnavailable, false: freeze.ErrMissing}[s == 503]; !errors.Is(err, is) || !strings.Contains(err.Error(), "b_1_amd64.deb") && !strings.Contains(err.Error(), "src-a_1.tar.gz") {
					t.Errorf("%d: error %v, expected %v", s, err, is)
				}
			}
			status, req.AllowMissing = 403, true
			res := w.freeze(t, req)
			want := []freeze.Missing{{Name: "b", Version: "1", Arch: "amd64"}, {Name: "src-a", Version: "1", Source: true}}
			if req.NoSources {
				want = want[:1]
			}
			doc := w.document(t, res)
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
			w.verify(t, "4.1")
			if faults := w.verifyDir(t, w.reseal(t, "4.1").dir, nil); len(faults) > 0 {
				t.Errorf("exported: %+v", faults)
			}
			if again := w.freeze(t, req); again.New {
				t.Error("the same freeze again is another one")
			}
		})
	}
}

// Bytes that are wrong are no absence.
func TestFreezeLostIsNotWrong(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	w.Archive.Corrupt(w.Archive.Default().PathOf("b"))
	_, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.1", Manifests: list("a=1", "b=1"), Format: "list", AllowMissing: true}, nil)
	if !errors.Is(err, freeze.ErrMissing) || !strings.Contains(err.Error(), "SHA256") {
		t.Errorf("error %v", err)
	}
}
