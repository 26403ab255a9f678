package httpd_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
)

// Labels are in lists, on pages, and below the freeze; releasers change them.
func TestLabels(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1", Labels: map[string]string{"team": "base"}, Description: "what <we> shipped"}, nil)
	var res api.LabelResult
	s.call("label", api.LabelRequest{Name: "4.1", Labels: map[string]string{"tested": "yes"}}, &res)
	want := map[string]string{"team": "base", "tested": "yes"}
	if d := cmp.Diff(api.LabelResult{Name: "4.1", Labels: want, Description: "what <we> shipped", Changed: true}, res); d != "" {
		t.Errorf("label: -want +got\n%s", d)
	}
	var list api.SnapshotList
	s.call("list", api.ListRequest{Frozen: true}, &list)
	for _, c := range []struct {
		labels map[string]string
		found  int
	}{
		{want, 1}, {map[string]string{"tested": "yes"}, 1}, {map[string]string{"tested": "no"}, 0},
		{map[string]string{"tested": "yes", "other": ""}, 0}, {map[string]string{"other": ""}, 0},
	} {
		var some api.SnapshotList
		if s.call("list", api.ListRequest{Labels: c.labels}, &some); len(some.Frozen) != c.found || len(some.Snapshots) > 0 {
			t.Errorf("list of %v: %d freezes and %d snapshots, expected %d and 0", c.labels, len(some.Frozen), len(some.Snapshots), c.found)
		}
	}
	var shown api.ShowResult
	s.call("show", api.ShowRequest{Ref: "4.1"}, &shown)
	var page api.FreezesPage
	if err := json.Unmarshal([]byte(s.get("/freezes", "Accept: application/json").body), &page); err != nil {
		t.Fatal(err)
	}
	for where, got := range map[string]map[string]string{"list": list.Frozen[0].Labels, "show": shown.Frozen.Labels, "the page of freezes": page.Freezes[0].Labels} {
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", where, d)
		}
	}
	for path, text := range map[string]string{"/freeze/4.1": "what &lt;we&gt; shipped", "/freezes": "tested=yes", "/": "team=base"} {
		if got := s.get(path).body; !strings.Contains(got, text) {
			t.Errorf("%s: no %q in %s", path, text, got)
		}
	}
	for _, st := range shown.Frozen.Statements {
		if got := s.get("/frozen/4.1/" + st); got.StatusCode != 200 || !strings.Contains(got.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s, %s", st, got.Status, got.Header.Get("Cache-Control"))
		}
	}
	for name, c := range map[string]struct {
		req  api.LabelRequest
		code string
	}{
		"no freeze":  {api.LabelRequest{Name: "4.2", Labels: want}, api.CodeNotFound},
		"a mirror":   {api.LabelRequest{Name: "debian", Labels: want}, api.CodeUsage},
		"no name":    {api.LabelRequest{Labels: want}, api.CodeUsage},
		"a bad key":  {api.LabelRequest{Name: "4.1", Labels: map[string]string{"a b": ""}}, api.CodeUsage},
		"a snapshot": {api.LabelRequest{Name: "debian@latest", Labels: want}, api.CodeUsage},
	} {
		if e := s.fails("label", c.req); e.Code != c.code {
			t.Errorf("%s: %+v, expected %s", name, e, c.code)
		}
	}
}
