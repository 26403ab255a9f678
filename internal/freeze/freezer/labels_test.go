package freezer_test

import (
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/meta"
)

// Labels and a description are beside the manifest, in a signed statement for each
// change, and are part of exports. Long because it follows one freeze.
func TestLabels(t *testing.T) {
	w := freezertest.New(t, config.All)
	req := api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list", Labels: map[string]string{"team": "base"}, Description: "first\nline"}
	res := w.Freeze(t, req)
	labels := func(w *freezertest.World) (map[string]string, string) {
		t.Helper()
		f, err := w.Freezer.Describe(t.Context(), "4.1")
		must(t, err)
		if f.LabelsDamage != "" {
			t.Errorf("labels: %s", f.LabelsDamage)
		}
		return f.Labels, f.Description
	}
	expect := func(w *freezertest.World, want map[string]string, text string) {
		t.Helper()
		got, description := labels(w)
		if !maps.Equal(got, want) || description != text {
			t.Errorf("labels %v and description %q, expected %v and %q", got, description, want, text)
		}
	}
	statements := func(w *freezertest.World) (out []string) {
		f, err := w.Freezer.Describe(t.Context(), "4.1")
		must(t, err)
		for _, s := range f.Statements {
			if !strings.HasSuffix(s, ".asc") {
				out = append(out, s)
			}
		}
		return out
	}
	expect(w, req.Labels, req.Description)
	first := statements(w)
	if len(first) != 1 || !strings.HasPrefix(first[0], "_statements/labels-1-") {
		t.Errorf("statements: %q", first)
	}

	// An existing freeze keeps its labels.
	plain := req
	plain.Labels, plain.Description = nil, ""
	other := req
	other.Labels = map[string]string{"team": "web"}
	for _, c := range []struct {
		req   api.FreezeRequest
		warns bool
	}{{req, false}, {plain, false}, {other, true}} {
		again, err := w.Freezer.Freeze(t.Context(), &c.req, nil)
		must(t, err)
		if again.New || again.Frozen.Manifest != res.Frozen.Manifest || (len(again.Warnings) > 0) != c.warns {
			t.Errorf("with labels %v again: %+v", c.req.Labels, again)
		}
	}
	expect(w, req.Labels, req.Description)

	set := func(w *freezertest.World, req api.LabelRequest, changed bool) {
		t.Helper()
		req.Name = "4.1"
		res, err := w.Freezer.SetLabels(t.Context(), &req)
		must(t, err)
		if res.Changed != changed {
			t.Errorf("%+v: changed %v", req, res.Changed)
		}
	}
	none, text := "", "second"
	set(w, api.LabelRequest{Labels: map[string]string{"tested": "yes", "team": "base"}}, true)
	set(w, api.LabelRequest{Labels: map[string]string{"tested": "yes"}, Remove: []string{"absent"}}, false)
	set(w, api.LabelRequest{Remove: []string{"team"}, Description: &text}, true)
	expect(w, map[string]string{"tested": "yes"}, "second")
	if got := statements(w); len(got) != 3 || got[0] != first[0] {
		t.Errorf("statements: %q, expected 3 that begin with %q", got, first)
	}
	w.Verify(t, "4.1")

	// Labels are part of exports. An import leaves out those of a server that is not
	// trusted.
	transfer := func(from, to *freezertest.World, keys ...string) *api.TransferResult {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "4.1")
		_, err := from.Freezer.Export(t.Context(), "4.1", dir, nil)
		must(t, err)
		res, err := to.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir, Keys: keys}, nil)
		must(t, err)
		return res
	}
	two, three, four := freezertest.New(t, config.All), freezertest.New(t, config.All), freezertest.New(t, config.All)
	transfer(w, two)
	expect(two, map[string]string{"tested": "yes"}, "second")
	set(two, api.LabelRequest{Labels: map[string]string{"here": ""}, Description: &none}, true)
	expect(two, map[string]string{"tested": "yes", "here": ""}, "")
	two.Verify(t, "4.1")
	if res := transfer(two, three); !strings.Contains(strings.Join(res.Notes, "\n"), "these labels are not trusted") {
		t.Errorf("notes of an import with labels by another server: %q", res.Notes)
	}
	expect(three, map[string]string{"tested": "yes"}, "second")
	three.Verify(t, "4.1")
	transfer(two, four, w.Signer.PublicKeyArmored(), two.Signer.PublicKeyArmored())
	expect(four, map[string]string{"tested": "yes", "here": ""}, "")

	// The same freeze, made again with other labels, has other files for them.
	must(t, w.Parts.Store().RemoveFreeze(t.Context(), "4.1", w.Now()))
	w.Freeze(t, other)
	if got := statements(w); len(got) != 1 || got[0] == first[0] {
		t.Errorf("statements of a freeze that was removed before: %q, and earlier %q", got, first)
	}
}

// Bad labels are refused and leave nothing behind.
func TestBadLabels(t *testing.T) {
	w := freezertest.New(t, config.All)
	many := map[string]string{}
	for i := range 65 {
		many["k"+strings.Repeat("x", i%63)+string(rune('a'+i/63))] = ""
	}
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	long, control := strings.Repeat("x", 4097), "a\x1b[31m"
	for name, c := range map[string]struct {
		req  api.LabelRequest
		want string
	}{
		"an empty key":         {api.LabelRequest{Labels: map[string]string{"": "x"}}, `label key "": expected letters, digits`},
		"a key with a blank":   {api.LabelRequest{Labels: map[string]string{"a b": "x"}}, `label key "a b": expected`},
		"a key with =":         {api.LabelRequest{Labels: map[string]string{"a=b": "x"}}, `label key "a=b"`},
		"a key that is a path": {api.LabelRequest{Labels: map[string]string{"../x": "x"}}, `label key "../x"`},
		"a key that ends in /": {api.LabelRequest{Labels: map[string]string{"a/": "x"}}, `label key "a/"`},
		"a long key":           {api.LabelRequest{Labels: map[string]string{strings.Repeat("k", 64): "x"}}, "at most 63"},
		"a long value":         {api.LabelRequest{Labels: map[string]string{"a": strings.Repeat("x", 256)}}, "label a: its value has 256 bytes, expected at most 255"},
		"two lines":            {api.LabelRequest{Labels: map[string]string{"a": "x\ny"}}, "label a: its value has the character U+000A"},
		"no UTF-8":             {api.LabelRequest{Labels: map[string]string{"a": "\xff"}}, "label a: its value has the character U+FFFD"},
		"reversed text":        {api.LabelRequest{Labels: map[string]string{"a": "x\u202ey"}}, "the character U+202E"},
		"a long description":   {api.LabelRequest{Description: &long}, "the description has 4097 bytes, expected at most 4096"},
		"control characters":   {api.LabelRequest{Description: &control}, "the description has the character U+001B"},
		"many labels":          {api.LabelRequest{Labels: many}, "65 labels, expected at most 64"},
		"set and removed":      {api.LabelRequest{Labels: map[string]string{"a": "x"}, Remove: []string{"a"}}, "label a is to be set and removed"},
		"no key to remove":     {api.LabelRequest{Remove: []string{""}}, `label key ""`},
	} {
		c.req.Name = "4.1"
		if _, err := w.Freezer.SetLabels(t.Context(), &c.req); !errors.Is(err, freeze.ErrUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		if len(c.req.Remove) > 0 {
			continue
		}
		req := api.FreezeRequest{Name: "4.2", Manifests: freezertest.List("a=1"), Format: "list", Labels: c.req.Labels}
		if c.req.Description != nil {
			req.Description = *c.req.Description
		}
		if _, err := w.Freezer.Freeze(t.Context(), &req, nil); !errors.Is(err, freeze.ErrUsage) {
			t.Errorf("freeze with %s: %v, expected ErrUsage", name, err)
		}
	}
	if _, err := w.Freezer.SetLabels(t.Context(), &api.LabelRequest{Name: "4.2", Labels: map[string]string{"a": "b"}}); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("labels of no freeze: %v", err)
	}
	f, err := w.Freezer.Describe(t.Context(), "4.1")
	must(t, err)
	if d := cmp.Diff([]any{map[string]string(nil), 0}, []any{f.Labels, len(f.Statements)}); d != "" {
		t.Errorf("left behind: -want +got\n%s", d)
	}
}
