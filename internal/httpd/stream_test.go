package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/mirror/mirrortest"
)

// TestPackageStream checks that a stream of packages has the form of other results, and
// that an error arrives: in place of the answer, or in a trailer after its start.
func TestPackageStream(t *testing.T) {
	list := []api.Package{
		{Mirror: "debian", Name: "a", Version: "1", Arch: "amd64", Path: "pool/a&b.deb", Size: 5, Suites: []string{"stable"}},
		{Mirror: "debian", Name: "b", Version: "2", Arch: "source", Files: []api.File{{Path: "pool/b.dsc", Size: 3}}},
	}
	var long []api.Package
	for range 2000 {
		long = append(long, list...)
	}
	bad := errors.New("metadata is damaged")
	s := &Server{control: control.New(control.Config{Engine: mirrortest.New(t, nil).Engine})}
	for _, tt := range []struct {
		name   string
		list   []api.Package
		err    error
		status int
	}{
		{"all", list, nil, 200},
		{"none", []api.Package{}, nil, 200},
		{"many", long, nil, 200},
		{"error at once", list, bad, 500},
		{"error after the start", long, bad, 200},
	} {
		w := httptest.NewRecorder()
		x := &exchange{a: &controlAPI{s: s}, w: w, rc: http.NewResponseController(w), r: httptest.NewRequest("POST", "/api/v1/packages", nil), name: "packages"}
		x.packages(&control.PackageStream{Ref: "4.1", Each: func(_ context.Context, f func(api.Package) error) error {
			for _, p := range tt.list {
				if err := f(p); err != nil {
					return err
				}
			}
			return tt.err
		}})
		resp := w.Result()
		if resp.StatusCode != tt.status {
			t.Errorf("%s: status %d, expected %d", tt.name, resp.StatusCode, tt.status)
		}
		if tt.err == nil {
			var got api.PackageList
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%s: %v in %s", tt.name, err, w.Body)
			}
			if d := cmp.Diff(api.PackageList{Ref: "4.1", Packages: tt.list}, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, d)
			}
			continue
		}
		text := w.Body.String()
		if tt.status == 200 {
			if json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: the answer looks complete", tt.name)
			}
			text = resp.Trailer.Get(api.ProblemTrailer)
		}
		if !strings.Contains(text, bad.Error()) {
			t.Errorf("%s: %q", tt.name, text)
		}
	}
}
