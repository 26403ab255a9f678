package rpm_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

const besideComps = `<?xml version="1.0" encoding="UTF-8"?>
<comps>
  <group><id>both</id><name>Both</name><description/><default>true</default><uservisible>true</uservisible>
    <packagelist><packagereq type="mandatory">ga</packagereq><packagereq type="mandatory">gb</packagereq></packagelist></group>
  <group><id>optional</id><name>Optional</name><description/><default>false</default><uservisible>true</uservisible>
    <packagelist><packagereq type="optional">gb</packagereq><packagereq type="optional">nowhere</packagereq></packagelist></group>
  <group><id>nowhere</id><name>Nowhere</name><description/><default>false</default><uservisible>true</uservisible>
    <packagelist><packagereq type="mandatory">nowhere</packagereq></packagelist></group>
  <environment><id>chosen</id><name>Chosen</name><description/><display_order>1</display_order>
    <grouplist/><optionlist><groupid>optional</groupid></optionlist></environment>
  <environment><id>across</id><name>Across</name><description/><display_order>2</display_order>
    <grouplist><groupid>of-one</groupid></grouplist></environment>
</comps>
`

const besideComps1 = `<?xml version="1.0" encoding="UTF-8"?>
<comps>
  <group><id>of-one</id><name>One</name><description/><default>true</default><uservisible>true</uservisible>
    <packagelist><packagereq type="mandatory">gb</packagereq></packagelist></group>
</comps>
`

const besideUpdates = `<?xml version="1.0" encoding="UTF-8"?>
<updates>
  <update type="bugfix"><id>A-1</id><pkglist><collection><package name="ga" version="1" release="1" epoch="0" arch="noarch"/></collection></pkglist></update>
  <update type="security"><id>A-1</id><pkglist><collection><package name="gb" version="1" release="1" epoch="0" arch="noarch"/></collection></pkglist></update>
  <update type="bugfix"><id>A-2</id><pkglist><collection><package name="nowhere" version="1" release="1" epoch="0" arch="noarch"/></collection></pkglist></update>
  <update type="newpackage"><id>A-3</id></update>
</updates>
`

const besideModules = `---
document: modulemd
version: 2
data:
  name: bare
  stream: "1"
  version: 1
  context: c0ffee01
  arch: x86_64
  summary: No packages
  description: No packages
  license: {module: [MIT]}
---
document: modulemd
version: 2
data:
  name: elsewhere
  stream: "1"
  version: 1
  context: c0ffee02
  arch: x86_64
  summary: Of the other mirror
  description: Of the other mirror
  license: {module: [MIT], content: [MIT]}
  artifacts:
    rpms:
    - mod-0:1-1.noarch
`

// data returns the decompressed content of a data type in a frozen repository.
func data(t *testing.T, base, typ string) string {
	t.Helper()
	get := func(p string) []byte {
		resp, err := http.Get(base + "/" + p)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", p, resp.Status, err)
		}
		return b
	}
	md, err := rpmmd.ParseRepoMD(get("repodata/repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	d := md.Find(typ)
	if d == nil {
		return ""
	}
	r, err := rpmmd.Decode(d.Path, bytes.NewReader(get(d.Path)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ids lists the ids in a comps or updateinfo document.
func ids(t *testing.T, doc string) (out []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(doc))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "id" {
			var id string
			if err := d.DecodeElement(&id, &s); err != nil {
				t.Fatal(err)
			}
			out = append(out, id)
		}
	}
}

// Metadata are reduced to the packages of the whole freeze, so a mirror keeps a group
// whose packages are frozen from another mirror. If every package of a mirror is frozen,
// its metadata are upstream's, unchanged.
func TestMetadataOfWholeFreeze(t *testing.T) {
	theirs := signtest.NewKey(t, "second")
	two := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, theirs)})
	srv := httptest.NewServer(two)
	defer srv.Close()
	w := newWorld(t, rpmtest.Options{}, nil, config.Mirror{Name: "second", Type: "rpm", URL: remote.NewURL(srv.URL), Architectures: []string{"x86_64"},
		Keyring: config.Strings{signtest.KeyringFile(t, theirs)}, Download: config.OnDemand})
	w.up.Add(rpmtest.Package{Name: "ga", Version: "1"}, rpmtest.Package{Name: "mod", Version: "1"}, rpmtest.Package{Name: "spare", Version: "1"})
	w.up.SetData("group", "comps.xml", []byte(besideComps1))
	w.up.Publish(start)
	two.Add(rpmtest.Package{Name: "gb", Version: "1"}, rpmtest.Package{Name: "gb", Version: "1", Arch: "src"}, rpmtest.Package{Name: "arm", Version: "1", Arch: "aarch64"})
	two.SetData("group", "comps.xml", []byte(besideComps))
	two.SetData("updateinfo", "updateinfo.xml.gz", []byte(besideUpdates))
	two.SetData("modules", "modules.yaml.gz", []byte(besideModules))
	two.Publish(start)
	w.sync(t)
	sync := func() {
		t.Helper()
		if _, err := w.Sync(t.Context(), "second", mirror.SyncOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	serve := func(name string, packages ...string) string {
		t.Helper()
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: name, Packages: packages}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, name)
		dir := filepath.Join(t.TempDir(), "export")
		if _, err := w.z.Export(t.Context(), name, dir, nil); err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(http.FileServer(http.Dir(dir)))
		t.Cleanup(s.Close)
		return s.URL
	}

	// Freeze all packages that the second mirror is configured for.
	all := serve("all", "ga", "gb", "mod")
	for typ, want := range map[string]string{"group": besideComps, "updateinfo": besideUpdates, "modules": besideModules} {
		if d := cmp.Diff(want, data(t, all+"/second", typ)); d != "" {
			t.Errorf("%s with every package frozen (-upstream +frozen):\n%s", typ, d)
		}
	}
	if got := ids(t, data(t, all+"/fedora", "group")); !cmp.Equal(got, []string{"of-one"}) {
		t.Errorf("groups of the first mirror: %v", got)
	}
	keys := []string{string(w.ours.Keyring().ExportArmored()), string(w.theirs.Keyring().ExportArmored()), string(theirs.Keyring().ExportArmored())}
	urls := []string{all + "/fedora", all + "/second"}
	for _, group := range []string{"@both", "@across"} {
		got, err := rpmtest.InstallFrom(t, urls, keys, true, group)
		want := map[string]string{"@both": "ga-1-1.noarch gb-1-1.noarch", "@across": "gb-1-1.noarch"}[group]
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("dnf install %s: %v, %v", group, got, err)
		}
	}

	// Freeze all but one: entries that refer only to missing packages are removed.
	two.Add(rpmtest.Package{Name: "other", Version: "1"})
	two.Publish(start.Add(3600e9))
	w.now = w.now.Add(2 * 3600e9)
	sync()
	part := serve("part", "ga", "gb", "mod")
	if d := cmp.Diff([]string{"both", "optional", "chosen", "across"}, ids(t, data(t, part+"/second", "group"))); d != "" {
		t.Errorf("comps of a part (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"A-1", "A-1", "A-3"}, ids(t, data(t, part+"/second", "updateinfo"))); d != "" {
		t.Errorf("advisories of a part (-want +got):\n%s", d)
	}
	if d := cmp.Diff(besideModules, data(t, part+"/second", "modules")); d != "" {
		t.Errorf("modules of a part (-want +got):\n%s", d)
	}
}
