package rpm_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

// A sync refuses metadata that make dnf refuse a repository, and warns about metadata that
// dnf ignores.
func TestMetadataAsDNF(t *testing.T) {
	const module = "---\ndocument: modulemd\nversion: 2\ndata:\n  name: m\n  stream: \"1\"\n  version: 1\n  context: c\n  arch: x86_64\n  summary: s\n  description: d\n  license:\n    module: [MIT]\n  dependencies: []\n  artifacts:\n    rpms: []\n...\n"
	edit := func(old, new string) string { return strings.Replace(module, old, new, 1) }
	const passedOver = "modules: documents that dnf ignores: 1 (the first: modules: document "
	const unread = ": cannot be read, so dnf ignores it: malformed: "
	for _, c := range []struct {
		name, typ, doc string
		refused        bool
		says           string
	}{
		{name: "modules", typ: "modules", doc: module},
		{name: "no modules", typ: "modules", doc: "# none\n"},
		{name: "modules of other text", typ: "modules", doc: "<html>", refused: true},
		{name: "bad YAML", typ: "modules", doc: module + "---\na: [\n", refused: true},
		{name: "list as a document", typ: "modules", doc: module + "---\n- a\n...\n", refused: true},
		{name: "empty document", typ: "modules", doc: module + "---\n", refused: true},
		{name: "unknown kind", typ: "modules", doc: module + "---\ndocument: foo\nversion: 1\ndata:\n  a: b\n...\n", refused: true},
		{name: "version of letters", typ: "modules", doc: edit("version: 2", "version: x"), refused: true},
		{name: "no kind", typ: "modules", doc: module + "---\nfoo: bar\n...\n", says: passedOver + "2: "},
		{name: "no name", typ: "modules", doc: edit("  name: m\n", ""), says: passedOver + "1: "},
		{name: "artifact that is no package", typ: "modules", doc: edit("rpms: []", "rpms: [foo]"), says: passedOver + "1: "},
		{name: "data of text", typ: "modules", doc: module + "---\ndocument: modulemd\nversion: 2\ndata: x\n...\n", says: passedOver + "2: "},
		{name: "undefined alias", typ: "modules", doc: edit("summary: s", "summary: *a"), says: passedOver + "1: "},
		{name: "NUL at the end", typ: "modules", doc: module + "\x00"},
		{name: "comps of other text", typ: "group", doc: "<html>", says: "group" + unread},
		{name: "cut comps", typ: "group", doc: "<comps><group><id>g</id>", says: "group" + unread},
		{name: "cut updateinfo", typ: "updateinfo", doc: "<updates><update><id>A</id>", says: "updateinfo" + unread},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rpmtest.Options{}, nil)
			w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
			w.up.SetData(c.typ, c.typ+".xml", []byte(c.doc))
			w.up.Publish(start)
			if !testing.Short() {
				_, err := rpmtest.TryInstall(t, w.srv.URL, []string{string(w.theirs.Keyring().ExportArmored())}, true, "app")
				if (err != nil) != c.refused {
					t.Fatalf("dnf refuses: %t, expected %t: %v", err != nil, c.refused, err)
				}
			}
			res, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
			if c.refused {
				if !errors.Is(err, repo.ErrMalformed) {
					t.Errorf("error %v, expected %v", err, repo.ErrMalformed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			says := slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, c.typ+": ") })
			if says != (c.says != "") || says && !strings.Contains(strings.Join(res.Warnings, "\n"), c.says) {
				t.Errorf("warnings %q, expected %q", res.Warnings, c.says)
			}
		})
	}
}

// An exact freeze omits metadata that dnf cannot read.
func TestFreezeBesideUnreadMetadata(t *testing.T) {
	for typ, name := range map[string]string{"group": "comps.xml", "updateinfo": "updateinfo.xml"} {
		t.Run(typ, func(t *testing.T) {
			w := newWorld(t, rpmtest.Options{}, nil)
			w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"}, rpmtest.Package{Name: "other", Version: "1.0"})
			w.up.SetData(typ, name, []byte("<comps><updates"))
			w.up.Publish(start)
			w.sync(t)
			if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "part", Packages: []string{"app"}}, nil); err != nil {
				t.Fatal(err)
			}
			w.verify(t, "part")
			dir := filepath.Join(t.TempDir(), "export")
			if _, err := w.z.Export(t.Context(), "part", dir, nil); err != nil {
				t.Fatal(err)
			}
			if found, err := filepath.Glob(filepath.Join(dir, "fedora/repodata/*"+name+"*")); err != nil || len(found) > 0 {
				t.Errorf("frozen: %v, %v", found, err)
			}
		})
	}
}

// Segments "." in a location are removed, as dnf does, and cannot be used to give two
// packages the same path.
func TestDotSegments(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	href := "./Packages/./a/././app"
	w.up.Edit = func(typ string, doc []byte) []byte {
		if typ == "primary" {
			return bytes.Replace(doc, []byte("Packages/a/app"), []byte(href), 1)
		}
		return doc
	}
	w.up.EditRepoMD = func(doc []byte) []byte {
		return bytes.ReplaceAll(doc, []byte(`href="repodata/`), []byte(`href="./repodata/`))
	}
	w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	w.up.Publish(start)
	w.sync(t)
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "all")
	if !testing.Short() {
		keys := []string{string(w.theirs.Keyring().ExportArmored())}
		if got, err := rpmtest.TryInstall(t, w.srv.URL, keys, true, "app"); err != nil {
			t.Errorf("dnf from upstream: %v, %v", got, err)
		}
		if got := w.install(t, "all", "app"); got != "app-1.0-1.noarch" {
			t.Errorf("dnf installs %q", got)
		}
	}

	href = "./Packages/b/bad-2.0-1.noarch.rpm\" x=\"/a/app"
	w.up.Add(rpmtest.Package{Name: "bad", Version: "2.0"})
	w.up.Publish(start.Add(3600e9))
	w.now = w.now.Add(2 * 3600e9)
	if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, repo.ErrHostile) {
		t.Errorf("two packages with one path: %v", err)
	}
}

// A sync accepts the same variants of repomd.xml as dnf.
func TestRepoMDAsDNF(t *testing.T) {
	checksum := regexp.MustCompile(`(<checksum type="sha256">)([0-9a-f]{64})`)
	for _, c := range []struct {
		name    string
		edit    func(string) string
		refused bool
	}{
		{name: "as it is", edit: func(s string) string { return s }},
		{name: "checksum in capitals", refused: true, edit: func(s string) string {
			return checksum.ReplaceAllStringFunc(s, func(s string) string { return s[:len(s)-64] + strings.ToUpper(s[len(s)-64:]) })
		}},
		{name: "blank before a checksum", refused: true, edit: func(s string) string { return checksum.ReplaceAllString(s, "$1 $2") }},
		{name: "newline behind a checksum", refused: true, edit: func(s string) string { return checksum.ReplaceAllString(s, "$1$2\n") }},
		{name: "data without a type", edit: func(s string) string {
			return strings.Replace(s, "</repomd>", `<data><checksum type="sha256">`+strings.Repeat("0", 64)+`</checksum><location href="x"/></data></repomd>`, 1)
		}},
		{name: "unknown data with a checksum in capitals", edit: func(s string) string {
			return strings.Replace(s, "</repomd>", `<data type="foo"><checksum type="sha256">`+strings.Repeat("A", 64)+`</checksum><location href="repodata/foo"/></data></repomd>`, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rpmtest.Options{}, nil)
			w.up.EditRepoMD = func(doc []byte) []byte { return []byte(c.edit(string(doc))) }
			w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
			w.up.Publish(start)
			if !testing.Short() {
				_, err := rpmtest.TryInstall(t, w.srv.URL, []string{string(w.theirs.Keyring().ExportArmored())}, true, "app")
				if (err != nil) != c.refused {
					t.Fatalf("dnf refuses: %t, expected %t: %v", err != nil, c.refused, err)
				}
			}
			_, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
			if (err != nil) != c.refused || err != nil && !errors.Is(err, repo.ErrMalformed) {
				t.Errorf("refused: %v, expected %t", err, c.refused)
			}
		})
	}
}
