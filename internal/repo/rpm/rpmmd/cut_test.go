package rpmmd

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/repo/rpm/nevra"
)

func selection(t testing.TB, names ...string) *Selection {
	t.Helper()
	var s Selection
	for _, n := range names {
		p, err := nevra.Parse(n)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(p)
	}
	return &s
}

const compsDoc = "<comps><group><id>g</id><packagelist><packagereq>a</packagereq><packagereq>b</packagereq></packagelist></group>" +
	"<group><id>empty</id></group><environment><id>e</id><grouplist><groupid>g</groupid></grouplist><optionlist><groupid>h</groupid></optionlist></environment></comps>"

func TestCutComps(t *testing.T) {
	for _, c := range []struct{ keep, want string }{
		{"a-1-1.noarch", "<comps><group><id>g</id><packagelist><packagereq>a</packagereq></packagelist></group><group><id>empty</id></group>" +
			"<environment><id>e</id><grouplist><groupid>g</groupid></grouplist><optionlist></optionlist></environment></comps>"},
		{"c-1-1.noarch", "<comps><group><id>empty</id></group></comps>"},
	} {
		var b bytes.Buffer
		if err := CutComps(&b, selection(t, c.keep), []byte(compsDoc)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, b.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.keep, d)
		}
	}
	const head = "<?xml version=\"1.0\"?>\n<!DOCTYPE comps PUBLIC \"-//Red Hat, Inc.//DTD Comps info//EN\" \"comps.dtd\">\n"
	var b bytes.Buffer
	if err := CutComps(&b, selection(t), []byte(head+"<comps/>")); err != nil || b.String() != head+"<comps/>" {
		t.Errorf("comps with a document type: %q, %v", b.String(), err)
	}
	for doc, want := range map[string]string{
		`<!DOCTYPE comps [<!ENTITY a "b">]><comps/>`:                     "comps: malformed XML at byte 0: a document type with definitions",
		`<!DOCTYPE comps SYSTEM "file:///etc/passwd"><comps>&x;</comps>`: `comps: malformed XML at byte 51: entity "&x;" is not defined`,
		`<comps><!DOCTYPE comps></comps>`:                                `comps: malformed XML at byte 7: a declaration, "<!DOCTYPE"; document types and entities are not accepted`,
	} {
		if err := CutComps(&b, selection(t), []byte(doc)); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", doc, err, want)
		}
	}
}

// CutComps keeps groups that never had packages, and references to groups of another
// repository in the freeze.
func TestCutKeepsEmpty(t *testing.T) {
	doc := "<comps><group><id>g</id><packagelist><packagereq type=\"optional\">a</packagereq></packagelist></group>" +
		"<environment><id>optional</id><optionlist><groupid>g</groupid></optionlist></environment>" +
		"<environment><id>empty</id><grouplist></grouplist></environment><category><id>bare</id></category>" +
		"<environment><id>beside</id><grouplist><groupid>x</groupid></grouplist></environment></comps>"
	sel := selection(t, "a-1-1.noarch", "x-1-1.noarch")
	beside := "<comps><group><id>x</id><packagelist><packagereq>x</packagereq></packagelist></group><group><id>y</id><packagelist><packagereq>y</packagereq></packagelist></group></comps>"
	if err := sel.AddGroups([]byte(beside), false); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := CutComps(&b, sel, []byte(doc)); err != nil || b.String() != doc {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(doc, b.String()))
	}
	for _, c := range []struct {
		whole bool
		want  string
	}{
		{false, "<comps></comps>"},
		{true, "<comps><category><id>c</id><grouplist><groupid>y</groupid></grouplist></category></comps>"},
	} {
		sel := selection(t, "a-1-1.noarch")
		if err := sel.AddGroups([]byte(beside), c.whole); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if err := CutComps(&b, sel, []byte("<comps><category><id>c</id><grouplist><groupid>y</groupid></grouplist></category></comps>")); err != nil || b.String() != c.want {
			t.Errorf("served whole: %v: %s, expected %s, %v", c.whole, b.String(), c.want, err)
		}
	}
}

// Advisories of one document may share an id. Advisories of an older state are kept if no
// newer one replaces them.
func TestCutSameID(t *testing.T) {
	update := func(typ, name, version string) string {
		return `<update type="` + typ + `"><id>A-1</id><pkglist><collection><package name="` + name + `" version="` + version + `" release="1" arch="noarch"/></collection></pkglist></update>`
	}
	newest := []string{update("bugfix", "pa", "2"), update("security", "pb", "1"), update("bugfix", "gone", "1")}
	older := []string{update("bugfix", "pa", "2"), update("security", "pc", "1")}
	want := []string{newest[0], newest[1], older[1]}
	var b bytes.Buffer
	n, err := CutUpdateinfo(&b, selection(t, "pa-2-1.noarch", "pb-1-1.noarch", "pc-1-1.noarch"),
		strings.NewReader("<updates>"+strings.Join(newest, "")+"</updates>"), strings.NewReader("<updates>"+strings.Join(older, "")+"</updates>"))
	if err != nil || n != len(want) {
		t.Errorf("%d advisories, %v", n, err)
	}
	if d := cmp.Diff("<updates>\n  "+strings.Join(want, "\n  ")+"\n</updates>\n", strings.TrimPrefix(b.String(), "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Metadata about selected packages that only an older state has are taken from that state.
func TestCutStates(t *testing.T) {
	sel := selection(t, "a-1-1.noarch", "b-2-1.noarch")
	newest := "<comps><group><id>g</id><packagelist><packagereq>b</packagereq></packagelist></group><group><id>h</id><packagelist><packagereq>c</packagereq></packagelist></group></comps>"
	older := "<comps>" +
		"<group><id>g</id><packagelist><packagereq>a</packagereq></packagelist></group>" + // the newest has it
		"<group><id>h</id><packagelist><packagereq>a</packagereq><packagereq>c</packagereq></packagelist></group>" + // there it is left without packages
		"<group><id>none</id><packagelist><packagereq>c</packagereq></packagelist></group><group><id>empty</id></group>" +
		"<environment><id>e</id><grouplist><groupid>h</groupid><groupid>none</groupid></grouplist></environment>" +
		"<category><id>c</id><grouplist><groupid>none</groupid></grouplist></category></comps>"
	want := "<comps><group><id>g</id><packagelist><packagereq>b</packagereq></packagelist></group>" +
		"  <group><id>h</id><packagelist><packagereq>a</packagereq></packagelist></group>\n" +
		"  <environment><id>e</id><grouplist><groupid>h</groupid></grouplist></environment>\n</comps>"
	var b bytes.Buffer
	if err := CutComps(&b, sel, []byte(newest), []byte(older), []byte(older)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("comps (-want +got):\n%s", d)
	}
	b.Reset()
	if err := CutComps(&b, sel, []byte("<comps/>"), []byte(newest)); err != nil || !strings.Contains(b.String(), "<id>g</id>") {
		t.Errorf("%q, %v", b.String(), err)
	}
	if err := CutComps(&b, sel, []byte(newest), []byte(`<?xml version="1.0" encoding="ISO-8859-1"?><comps/>`)); err == nil ||
		err.Error() != `comps: malformed XML: encodings "" and "ISO-8859-1" in two states` {
		t.Errorf("two encodings: %v", err)
	}

	update := func(id, name, version string) string {
		return "<update><id>" + id + `</id><pkglist><collection><package name="` + name + `" epoch="0" version="` + version + `" release="1" arch="noarch"/></collection></pkglist></update>`
	}
	b.Reset()
	n, err := CutUpdateinfo(&b, sel, strings.NewReader("<updates>"+update("1", "b", "2")+update("2", "a", "2")+"</updates>"),
		strings.NewReader("<updates>"+update("1", "a", "1")+update("2", "a", "1")+update("3", "a", "3")+"</updates>"))
	if err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	want = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<updates>\n  " + update("1", "b", "2") + "\n  " + update("1", "a", "1") + "\n  " + update("2", "a", "1") + "\n</updates>\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("updateinfo (-want +got):\n%s", d)
	}

	stream := func(s, rpm string) string {
		return "---\ndocument: modulemd\nversion: 2\ndata: {name: m, stream: " + s + ", version: 1, context: c, arch: noarch, artifacts: {rpms: [" + rpm + "]}}\n"
	}
	def := func(s string) string {
		return "---\ndocument: modulemd-defaults\nversion: 1\ndata: {module: m, stream: " + s + "}\n"
	}
	var docs [][]ModuleDoc
	for _, state := range []string{stream("2", "c-0:1-1.noarch") + def("2"), stream("1", "a-0:1-1.noarch") + def("1"), stream("1", "a-0:1-1.noarch")} {
		parsed, _, err := ParseModules([]byte(state))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, parsed)
	}
	if d := cmp.Diff(stream("1", "a-0:1-1.noarch")+def("1"), string(FormatModules(CutModules(docs, nil, sel)))); d != "" {
		t.Errorf("modules (-want +got):\n%s", d)
	}
}

func TestCutUpdateinfo(t *testing.T) {
	const doc = `<?xml version="1.0" encoding="ISO-8859-1"?><updates><update><id>1</id><description>Caf` + "\xe9" + `</description><pkglist><collection>` +
		`<module name="m" stream="1"/><package name="a" epoch="None" version="1" release="1" arch="noarch"/></collection></pkglist></update><update><id>none</id></update>` +
		`<update><id>2</id><pkglist><collection><package name="a" version="2" release="1" arch="noarch"/></collection></pkglist></update></updates>`
	var b bytes.Buffer
	n, err := CutUpdateinfo(&b, selection(t, "a-1-1.noarch"), strings.NewReader(doc))
	if err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	want := "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<updates>\n  <update><id>1</id><description>Caf\xe9</description><pkglist><collection>" +
		`<module name="m" stream="1"/><package name="a" epoch="None" version="1" release="1" arch="noarch"/></collection></pkglist></update>` + "\n  <update><id>none</id></update>\n</updates>\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
	if _, err := CutUpdateinfo(&b, selection(t), strings.NewReader(`<updates><update><pkglist><collection><package name="a" epoch="x"/></collection></pkglist></update></updates>`)); err == nil ||
		err.Error() != `updateinfo: update number 1: malformed XML at byte 67: package a: epoch "x"` {
		t.Error(err)
	}
}

func TestModules(t *testing.T) {
	doc := `---
document: modulemd
version: 2
data:
  name: nodejs
  stream: 1.10
  version: 3020190524180550
  context: c0ffee
  arch: x86_64
  dependencies:
  - requires:
      platform: [el8]
      perl: [-5.24]
  artifacts:
    rpms:
    - nodejs-1:10.1-1.module.x86_64
...
---
document: modulemd
version: 1
data:
  name: perl
  stream: "5.26"
  dependencies:
    requires:
      platform: el8
---
document: modulemd
version: 2
data: {name: perl, stream: 5.24, context: x}
---
document: modulemd
version: 2
data: {name: ruby, stream: 2, artifacts: {rpms: [ruby-0:2-1.noarch]}}
---
document: modulemd-obsoletes
version: 1
data: {module: perl, stream: "5.26", message: gone}
---
document: modulemd-translations
version: 1
data: {module: nodejs, stream: "9"}
`
	docs, _, err := ParseModules([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 6 || docs[0].Stream != "1.10" || docs[0].Context != "c0ffee" || len(docs[0].RPMs) != 1 {
		t.Fatalf("%d documents: %+v", len(docs), docs)
	}
	var all []byte
	for _, d := range docs {
		all = append(all, d.Raw...)
	}
	if string(all) != doc {
		t.Errorf("the documents are not upstream's bytes:\n%s", all)
	}
	var got []string
	for _, d := range CutModules([][]ModuleDoc{docs}, nil, selection(t, "nodejs-1:10.1-1.module.x86_64")) {
		got = append(got, d.Kind+" "+d.Module+":"+d.Stream)
	}
	if d := cmp.Diff([]string{"modulemd nodejs:1.10", "modulemd perl:5.26", "modulemd perl:5.24", "modulemd-obsoletes perl:5.26"}, got); d != "" {
		t.Error(d)
	}
	if left := CutModules([][]ModuleDoc{docs[:1]}, nil, selection(t, "other-1-1.noarch")); len(left) != 0 {
		t.Errorf("%+v", left)
	}
}

// ParseModules skips documents that libmodulemd ignores, and returns an error if dnf would
// refuse the file. TestMetadataAsDNF compares that with dnf.
func TestBadModules(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		refused  bool
	}{
		{in: "a: [", want: "yaml: line 1: did not find expected node content", refused: true},
		{in: "document: a\ndata: {name: x}", want: `malformed XML: line 1: document "a": expected one known kind`, refused: true},
		{in: "document: modulemd\nversion: x\ndata: {name: x}", want: `malformed XML: line 2: version "x": expected a number`, refused: true},
		{in: "document: modulemd\ndocument: modulemd\ndata: {name: x}", want: `malformed XML: line 2: document "modulemd": expected one known kind`, refused: true},
		{in: "- a", want: "malformed XML: line 1: expected a mapping", refused: true},
		{in: "---\n", want: "malformed XML: line 2: expected a mapping", refused: true},
		{in: "x: 1", want: "malformed XML: no document kind"},
		{in: "document: modulemd\ndata: {}", want: "malformed XML: modulemd without a module's name"},
		{in: "document: modulemd\ndata: {name: [1]}", want: "line 2: expected a scalar"},
		{in: "document: modulemd\ndata: {name: *a}", want: "yaml: unknown anchor 'a' referenced"},
		{in: "document: modulemd\ndata: {name: x, artifacts: {rpms: [x]}}", want: `x:: package "x": not an rpm package name: no release`},
		{in: "# nothing\n\x00- a"},
	} {
		docs, passed, err := ParseModules([]byte(tt.in))
		got := ""
		if len(passed) > 0 {
			got = passed[0].Error()
		}
		if err != nil {
			got = err.Error()
		}
		if tt.want != "" {
			tt.want = "modules: document 1: " + tt.want
		}
		if got != tt.want || (err != nil) != tt.refused || len(docs) > 0 {
			t.Errorf("%q: %v, %v, %v", tt.in, docs, passed, err)
		}
	}
}

// ParseModules refuses aliases that expand exponentially.
func TestModulesBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("document: modulemd\ndata:\n  name: x\n  a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll("  aN: &aN [*aP,*aP,*aP,*aP,*aP,*aP,*aP,*aP,*aP,*aP]\n", "N", string(rune('a'+i))), "P", map[bool]string{true: "0", false: string(rune('a' + i - 1))}[i == 1]))
	}
	b.WriteString("  artifacts:\n    rpms: *al\n")
	if docs, passed, err := ParseModules([]byte(b.String())); err == nil && (len(docs) > 0 || len(passed) != 1) {
		t.Error("ParseModules accepted a YAML bomb")
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte(compsDoc), byte(0))
	f.Add([]byte(`<updates><update><pkglist><collection><package name="a" epoch="0" version="1" release="1" arch="noarch"/></collection></pkglist></update></updates>`), byte(1))
	f.Add([]byte("---\ndocument: modulemd\ndata: {name: a, stream: 1, artifacts: {rpms: [a-0:1-1.noarch]}}\n"), byte(2))
	f.Fuzz(func(t *testing.T, doc []byte, which byte) {
		sel := selection(t, "a-1-1.noarch")
		var out, again bytes.Buffer
		switch which % 3 {
		case 0:
			if CutComps(&out, sel, doc, []byte(compsDoc), doc) != nil {
				return
			}
			if err := CutComps(&again, sel, out.Bytes()); err != nil {
				t.Fatalf("what was cut cannot be read: %v\n%s", err, out.Bytes())
			}
		case 1:
			if _, err := CutUpdateinfo(&out, sel, bytes.NewReader(doc), bytes.NewReader(doc)); err != nil {
				return
			}
			if _, err := CutUpdateinfo(&again, sel, bytes.NewReader(out.Bytes())); err != nil {
				t.Fatalf("what was cut cannot be read: %v\n%s", err, out.Bytes())
			}
		case 2:
			docs, _, err := ParseModules(doc)
			if err != nil {
				return
			}
			kept := CutModules([][]ModuleDoc{docs}, nil, sel)
			if back, _, err := ParseModules(FormatModules(kept)); err != nil || len(back) != len(kept) {
				t.Fatalf("%d documents became %d: %v", len(kept), len(back), err)
			}
		}
	})
}
