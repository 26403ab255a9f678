package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/repo/rpm/nevra"
)

func TestParsePrimary(t *testing.T) {
	raw := []byte(samplePrimary(7, 3))
	p, err := ParsePrimary(raw)
	if err != nil || p.Name != "pkg7" || p.Href != "Packages/p/pkg7-1.7-3.fc42.x86_64.rpm" {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "<other/>", string(raw) + string(raw), string(raw[:50])} {
		if _, err := ParsePrimary([]byte(bad)); err == nil {
			t.Errorf("%.20q was accepted", bad)
		}
	}
	rels, err := ParseRelations(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := &Relations{
		Provides: []Relation{{Name: "pkg7", Flags: "EQ", EVR: nevra.EVR{Epoch: 1, Version: "1.7", Release: "3.fc42"}}},
		Files:    []string{"/usr/bin/pkg"},
	}
	for i := range 3 {
		want.Requires = append(want.Requires, Relation{Name: fmt.Sprintf("libdep%d.so.1(GLIBC_2.34)(64bit)", i), Flags: "GE", EVR: nevra.EVR{Version: fmt.Sprint(i), Release: "1"}})
	}
	if d := cmp.Diff(want, rels); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := rels.Provides[0].String(); got != "pkg7 = 1:1.7-3.fc42" {
		t.Error(got)
	}
}

func TestRelocate(t *testing.T) {
	plain := samplePrimary(0, 1)
	const href = "Packages/p/pkg0-1.0-3.fc42.x86_64.rpm"
	for _, based := range []string{
		plain,
		strings.Replace(plain, "<location ", `<location xml:base="http://x.example.org/a>b" `, 1),
		strings.Replace(plain, ".rpm\"/>", ".rpm\" xml:base = 'http://x.example.org/'/>", 1),
	} {
		if got, err := Relocate([]byte(based), href); err != nil || string(got) != plain {
			t.Errorf("got, %v:\n%s", err, got)
		}
	}
	got, err := Relocate([]byte(plain), "sub/a b%&#1.rpm")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePrimary(got)
	if err != nil {
		t.Fatal(err)
	}
	if path, err := CleanHref(p.Href); err != nil || path != "sub/a b%&#1.rpm" {
		t.Errorf("href %q names %q, %v", p.Href, path, err)
	}
}

func TestCutList(t *testing.T) {
	doc := filelistsDoc(10, 3)
	var out bytes.Buffer
	n := 0
	head, err := CutList(strings.NewReader(doc), Filelists, func(id string) bool { return id == fmt.Sprintf("%064x", 3) || id == fmt.Sprintf("%064x", 5) }, func(p *Package) error {
		n++
		out.Write(p.Raw)
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := string(head.Open(n)) + out.String() + string(head.Close())
	want := `<?xml version="1.0" encoding="UTF-8"?>
<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="2">
` + sampleFilelists(2, 3) + "\n" + sampleFilelists(4, 3) + "\n</filelists>\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if pkgs, err := scanAll(strings.NewReader(got), Filelists); err != nil || len(pkgs) != 2 {
		t.Errorf("%d packages, %v", len(pkgs), err)
	}
}

func TestHead(t *testing.T) {
	for in, want := range map[string]string{
		`<?xml version="1.0" encoding="ISO-8859-1"?><metadata packages='7' xmlns="a"/>`: "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<metadata packages='3' xmlns=\"a\">\n</metadata>\n",
		`<metadata packages="many"/>`:       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata packages=\"3\">\n</metadata>\n",
		`<metadata xmlns:x="y"></metadata>`: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns:x=\"y\">\n</metadata>\n",
	} {
		s := NewScanner(strings.NewReader(in), Primary)
		if _, err := s.Next(); err != io.EOF {
			t.Fatal(err)
		}
		h := s.Head()
		if got := string(h.Open(3)) + string(h.Close()); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
