package rpmmd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const deltasDoc = `<?xml version="1.0" encoding="UTF-8"?>
<prestodelta>
  <newpackage name="app" epoch="0" version="2.0" release="1" arch="noarch">
    <delta oldepoch="0" oldversion="1.0" oldrelease="1">
      <filename>drpms/app-1.0-1_2.0-1.noarch.drpm</filename>
      <sequence>app-1.0-1-0123</sequence>
      <size>42</size>
      <checksum type="sha256">aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</checksum>
    </delta>
  </newpackage>
</prestodelta>
`

func TestParseDeltas(t *testing.T) {
	got, err := ParseDeltas(strings.NewReader(deltasDoc))
	if err != nil {
		t.Fatal(err)
	}
	want := []Delta{{"drpms/app-1.0-1_2.0-1.noarch.drpm", 42, Checksum{"sha256", strings.Repeat("a", 64)}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, c := range [][3]string{
		{"drpms/", "../drpms/", `prestodelta: hostile location: href "../drpms/app-1.0-1_2.0-1.noarch.drpm": has the segment ".."`},
		{"<size>42", "<size>-1", `size "-1"`},
		{"prestodelta>\n  <new", "x>\n  <new", "prestodelta: malformed XML"},
		{"aaaa<", "<", "60 characters, expected 64"},
		{"<filename>drpms/app-1.0-1_2.0-1.noarch.drpm</filename>", "", "a delta without a file name"},
	} {
		if _, err := ParseDeltas(strings.NewReader(strings.Replace(deltasDoc, c[0], c[1], 1))); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: got %v, want %s", c[1], err, c[2])
		}
	}
}

func FuzzDeltas(f *testing.F) {
	f.Add(deltasDoc)
	f.Add("<deltainfo/>")
	f.Fuzz(func(t *testing.T, doc string) {
		deltas, err := ParseDeltas(strings.NewReader(doc))
		if err != nil {
			return
		}
		for _, d := range deltas {
			if p, err := CleanHref(FormatHref(d.Path)); err != nil || p != d.Path {
				t.Errorf("path %q: %q, %v", d.Path, p, err)
			}
		}
	})
}
