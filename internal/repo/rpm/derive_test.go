package rpm

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

const comps = `<?xml version="1.0" encoding="UTF-8"?>
<comps>
  <group>
    <id>kept</id>
    <name>Kept &amp; cut</name>
    <packagelist>
      <packagereq type="mandatory">app</packagereq>
      <packagereq type="default">unused</packagereq>
    </packagelist>
  </group>
  <group>
    <id>gone</id>
    <packagelist>
      <packagereq>unused</packagereq>
    </packagelist>
  </group>
  <category>
    <id>some</id>
    <grouplist>
      <groupid>kept</groupid>
      <groupid>gone</groupid>
    </grouplist>
  </category>
  <environment>
    <id>none</id>
    <grouplist>
      <groupid>gone</groupid>
    </grouplist>
  </environment>
  <langpacks>
    <match install="app-%s" name="app"/>
    <match install="unused-%s" name="unused"/>
  </langpacks>
</comps>
`

const wantComps = `<?xml version="1.0" encoding="UTF-8"?>
<comps>
  <group>
    <id>kept</id>
    <name>Kept &amp; cut</name>
    <packagelist>
      <packagereq type="mandatory">app</packagereq>
    </packagelist>
  </group>
  <category>
    <id>some</id>
    <grouplist>
      <groupid>kept</groupid>
    </grouplist>
  </category>
  <langpacks>
    <match install="app-%s" name="app"/>
  </langpacks>
</comps>
`

const updates = `<?xml version="1.0" encoding="UTF-8"?>
<updates>
  <update from="x" status="stable" type="security" version="2.0">
    <id>FEDORA-2026-1</id>
    <title>app &lt;fix&gt;</title>
    <pkglist>
      <collection short="F42">
        <name>Fedora 42</name>
        <package name="app" version="1.0" release="1" epoch="0" arch="noarch" src="app-1.0-1.src.rpm">
          <filename>app-1.0-1.noarch.rpm</filename>
        </package>
        <package name="unused" version="1.0" release="1" epoch="null" arch="noarch"><filename>x</filename></package>
      </collection>
      <collection><package name="unused" version="1.0" release="1" arch="noarch"/></collection>
    </pkglist>
  </update>
  <update>
    <id>FEDORA-2026-2</id>
    <pkglist><collection><package name="app" version="2.0" release="1" epoch="0" arch="noarch"/></collection></pkglist>
  </update>
</updates>
`

const wantUpdates = `<?xml version="1.0" encoding="UTF-8"?>
<updates>
  <update from="x" status="stable" type="security" version="2.0">
    <id>FEDORA-2026-1</id>
    <title>app &lt;fix&gt;</title>
    <pkglist>
      <collection short="F42">
        <name>Fedora 42</name>
        <package name="app" version="1.0" release="1" epoch="0" arch="noarch" src="app-1.0-1.src.rpm">
          <filename>app-1.0-1.noarch.rpm</filename>
        </package>
      </collection>
    </pkglist>
  </update>
</updates>
`

func module(name, stream, context, artifact, requires string) string {
	return fmt.Sprintf(`---
document: modulemd
version: 2
data:
  name: %s
  stream: %s
  version: 4220260101
  context: %s
  arch: x86_64
  summary: A module
  description: A module.
  license:
    module: [MIT]
  dependencies:
  - requires:
      platform: [f42]
%s  artifacts:
    rpms:
    - %s
...
`, name, stream, context, requires, artifact)
}

func defaults(name, stream string) string {
	return fmt.Sprintf("---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: %s\n  stream: %s\n  profiles:\n    %s: []\n...\n", name, stream, stream)
}

var update = flag.Bool("update", false, "write the golden digests of this run")

// TestDeriveGolden pins the bytes of a derived repository: every later version of this
// program must produce the same freeze.
func TestDeriveGolden(t *testing.T) {
	const golden = "testdata/derived.txt"
	var got strings.Builder
	for _, compress := range []string{".gz", ".zst"} {
		r := rpmtest.New(rpmtest.Options{Compress: compress})
		r.SetTags("<content>binary-x86_64</content>")
		r.Add(
			rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "x86_64", Requires: []string{"lib >= 1.0~rc1"}},
			rpmtest.Package{Name: "lib", Version: "1.0~rc1"},
			rpmtest.Package{Name: "modular", Version: "3", Module: "mod:10:4220260101:c0ffee"},
			rpmtest.Package{Name: "unused", Version: "1.0"},
		)
		r.SetData("group", "comps.xml", []byte(comps))
		r.SetData("updateinfo", "updateinfo.xml.gz", []byte(updates))
		r.SetData("modules", "modules.yaml.gz", []byte(module("mod", "10", "c0ffee", "modular-0:3-1.noarch", "")+defaults("mod", "10")))
		r.SetData("productid", "productid", []byte("certificate"))
		r.Publish(t0)
		u := &upstream{r: r}
		root, err := fetchRoot(t, u, config.Mirror{RepoGPGCheck: boolp(false)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sink, err := derive(t, u, config.Mirror{Name: "fedora"}, root, signtest.Signer(t, signtest.NewKey(t, "snapd")), t1, func(r repo.Record) bool { return r.Name != "unused" })
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(sink.files)) {
			if strings.HasPrefix(name, "repodata/") && name != ascPath { // each run signs with a new key
				fmt.Fprintf(&got, "%s  %s\n", cas.Sum(sink.files[name]), name)
			}
		}
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("the bytes of frozen repositories changed; run with -update if that is intended (-want +got):\n%s", d)
	}
}

// Long because it checks every aspect of one derived repository.
func TestDeriveExact(t *testing.T) {
	key, ours := signtest.NewKey(t, "fedora"), signtest.NewKey(t, "snapd")
	for _, opts := range []rpmtest.Options{{Compress: ".gz"}, {Compress: ".zst"}, {Compress: ".xz"}, {XMLBase: "https://mirror.example.org/fedora"}} {
		t.Run(fmt.Sprintf("%s%s", opts.Compress, opts.XMLBase), func(t *testing.T) {
			opts.Signer = signtest.Signer(t, key)
			r := rpmtest.New(opts)
			r.SetTags("<content>binary-x86_64</content>")
			r.Add(
				rpmtest.Package{Name: "app", Version: "1.0", Requires: []string{"lib"}},
				rpmtest.Package{Name: "lib", Version: "1.0~rc1"},
				rpmtest.Package{Name: "modular", Version: "3", Module: "mod:10:4220260101:c0ffee"},
				rpmtest.Package{Name: "unused", Version: "1.0"},
			)
			r.SetData("group", "comps.xml", []byte(comps))
			r.SetData("group_gz", "comps.xml.gz", []byte(comps))
			r.SetData("updateinfo", "updateinfo.xml.gz", []byte(updates))
			keptModules := module("mod", "10", "c0ffee", "modular-0:3-1.noarch", "      base: [\"1.10\"]\n")
			baseModule := module("base", "1.10", "beef", "base-libs-0:1-1.noarch", "")
			allModules := keptModules + module("mod", "11", "c0ffef", "modular-0:4-1.noarch", "") + baseModule + module("base", "1.1", "beee", "base-libs-0:0-1.noarch", "") +
				module("other", "1", "aaaa", "unused-0:1.0-1.noarch", "") + defaults("mod", "10") + defaults("base", "1.1") + defaults("other", "1")
			r.SetData("modules", "modules.yaml.gz", []byte(allModules))
			r.SetData("productid", "productid", []byte("certificate"))
			r.SetData("appstream", "appdata.xml.gz", []byte("<components/>"))
			r.Publish(t0)
			u := &upstream{r: r}
			root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
			if err != nil {
				t.Fatal(err)
			}
			keep := func(r repo.Record) bool { return r.Name != "unused" }
			sink, err := derive(t, u, config.Mirror{Name: "fedora"}, root, signtest.Signer(t, ours), t1, keep)
			if err != nil {
				t.Fatal(err)
			}
			md, err := rpmmd.ParseRepoMD(sink.files[repomdPath])
			if err != nil {
				t.Fatal(err)
			}
			var types []string
			for _, d := range md.Data {
				types = append(types, d.Type)
				if sink.files[d.Path] == nil || int64(len(sink.files[d.Path])) != d.Size {
					t.Errorf("repomd.xml lists %s, which was not written", d.Path)
				}
			}
			if d := cmp.Diff([]string{"primary", "filelists", "other", "group", "updateinfo", "modules", "productid"}, types); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if md.Revision != fmt.Sprint(t1.Unix()) || len(md.Tags) != 1 {
				t.Errorf("revision %s, tags %v", md.Revision, md.Tags)
			}
			for typ, want := range map[string]string{"group": wantComps, "updateinfo": wantUpdates, "modules": keptModules + baseModule + defaults("mod", "10")} {
				if d := cmp.Diff(want, sink.plain(t, typ)); d != "" {
					t.Errorf("%s (-want +got):\n%s", typ, d)
				}
			}
			// The lists contain upstream's elements, byte for byte.
			plain := rpmtest.New(rpmtest.Options{Compress: "none", SimpleNames: true})
			plain.AddBuilt(r.Packages()[:3]...)
			plain.Publish(t0)
			for _, typ := range []string{"primary", "filelists", "other"} {
				if d := cmp.Diff(string(plain.File("repodata/"+typ+".xml")), sink.plain(t, typ)); d != "" {
					t.Errorf("%s (-want +got):\n%s", typ, d)
				}
			}
			again, err := derive(t, u, config.Mirror{Name: "fedora"}, root, signtest.Signer(t, ours), t1, keep)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(sink.files, again.files); d != "" {
				t.Error("a second run with the same input wrote different bytes")
			}
			got := rpmtest.Install(t, sink.serve(t), []string{string(ours.Keyring().ExportArmored()), string(key.Keyring().ExportArmored())}, true, "app")
			if want := "app-1.0-1.noarch lib-1.0~rc1-1.noarch"; strings.Join(got, " ") != want {
				t.Errorf("dnf installed %q, want %s", got, want)
			}
			if opts.Compress == ".gz" {
				// dnf refuses packages if it has only the key of the repository.
				if _, err := rpmtest.TryInstall(t, sink.serve(t), []string{string(ours.Keyring().ExportArmored())}, true, "app"); err == nil {
					t.Error("dnf accepted packages without their key")
				}
				// dnf refuses the repository if it has only the distribution's key.
				if _, err := rpmtest.TryInstall(t, sink.serve(t), []string{string(key.Keyring().ExportArmored())}, true, "app"); err == nil {
					t.Error("dnf accepted a repository without its key")
				}
			}
		})
	}
}

// A freeze that uses no package of a mirror still has a valid, empty repository for it.
func TestDeriveEmpty(t *testing.T) {
	key, ours := signtest.NewKey(t, "fedora"), signtest.NewKey(t, "snapd")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	r.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	r.SetData("group", "comps.xml", []byte(comps))
	r.SetData("updateinfo", "updateinfo.xml.gz", []byte(updates))
	r.SetData("modules", "modules.yaml.gz", []byte(module("m", "1", "c", "x-0:1-1.noarch", "")))
	r.Publish(t0)
	u := &upstream{r: r}
	root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
	if err != nil {
		t.Fatal(err)
	}
	sink, err := derive(t, u, config.Mirror{Name: "fedora"}, root, signtest.Signer(t, ours), t1, func(repo.Record) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]string{
		"primary":    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"0\">\n</metadata>\n",
		"updateinfo": "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<updates>\n</updates>\n", "modules": ""} {
		if d := cmp.Diff(want, sink.plain(t, typ)); d != "" {
			t.Errorf("%s (-want +got):\n%s", typ, d)
		}
	}
	_, err = rpmtest.TryInstall(t, sink.serve(t), []string{string(ours.Keyring().ExportArmored())}, true, "app")
	if err == nil || !strings.Contains(err.Error(), "No match for argument: app") {
		t.Errorf("dnf: %v", err)
	}
}

func TestDeriveWhole(t *testing.T) {
	key, ours := signtest.NewKey(t, "fedora"), signtest.NewKey(t, "snapd")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key), Compress: ".zst", SimpleNames: true})
	r.Add(rpmtest.Package{Name: "app", Version: "1.0", Requires: []string{"lib"}}, rpmtest.Package{Name: "lib", Version: "2.0"})
	r.SetData("x-novelty", "novelty.bin", []byte("anything"))
	r.SetData("x-gone", "gone.bin", []byte("not taken"))
	r.Publish(t0)
	u := &upstream{r: r}
	root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
	if err != nil {
		t.Fatal(err)
	}
	r.SetFile("repodata/gone.bin", nil)
	sink, err := derive(t, u, config.Mirror{Name: "fedora"}, root, signtest.Signer(t, ours), t1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"repodata/primary.xml.zst", "repodata/novelty.bin"} {
		if !bytes.Equal(sink.files[name], r.File(name)) {
			t.Errorf("%s is not upstream's", name)
		}
	}
	if bytes.Contains(sink.files[repomdPath], []byte("x-gone")) {
		t.Error("repomd.xml lists a file that is not stored")
	}
	got := rpmtest.Install(t, sink.serve(t), []string{string(ours.Keyring().ExportArmored()), string(key.Keyring().ExportArmored())}, true, "app")
	if want := "app-1.0-1.noarch lib-2.0-1.noarch"; strings.Join(got, " ") != want {
		t.Errorf("dnf installed %q, want %s", got, want)
	}
}

// Derive refuses a chosen package that filelists lacks.
func TestDeriveMissing(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	r.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	r.Publish(t0)
	u := &upstream{r: r}
	root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
	if err != nil {
		t.Fatal(err)
	}
	recs, groups, err := readAll(t, u, config.Mirror{}, root)
	if err != nil {
		t.Fatal(err)
	}
	stranger := rpmtest.New(rpmtest.Options{Compress: "none", SimpleNames: true})
	stranger.Add(rpmtest.Package{Name: "stranger", Version: "1.0"})
	stranger.Publish(t0)
	su := &upstream{r: stranger}
	sroot, err := fetchRoot(t, su, config.Mirror{RepoGPGCheck: boolp(false)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	more, _, err := readAll(t, su, config.Mirror{}, sroot)
	if err != nil {
		t.Fatal(err)
	}
	c := repo.Choice{Suite: Suite, Root: root, Groups: groups, Open: u.open, Records: recordsOf(append(recs, more...))}
	err = Format{}.Derive(t.Context(), repo.DeriveParams{Mirror: config.Mirror{Name: "fedora"}, Date: t1, Choices: []repo.Choice{c}, Signer: signtest.Signer(t, key)},
		&memSink{files: map[string][]byte{}, u: u})
	if want := "derive fedora: filelists of the snapshot lacks stranger-1.0-1.noarch: missing upstream"; err == nil || err.Error() != want || !errors.Is(err, repo.ErrMissing) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestPackerGolden fails if an upgrade of a compressor changes the bytes of frozen
// repositories.
func TestPackerGolden(t *testing.T) {
	text := []byte(strings.Repeat(comps+updates, 50))
	for ext, want := range map[string]string{
		".gz":  "30aab445e617510c87d18a8714037e794f85e3238d9f8fa22438a37573d1abe8",
		".zst": "54f0e19d15dd36b483c5a403321865121baccd9aac497c1a9251792150e240d2",
	} {
		// The output must not depend on the size of the writes.
		for _, piece := range []int{4099, 1 << 20, len(text)} {
			var b bytes.Buffer
			z, err := packer(ext, &b)
			if err != nil {
				t.Fatal(err)
			}
			for rest := text; len(rest) > 0; {
				n := min(len(rest), piece)
				if _, err := z.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if got := cas.Sum(b.Bytes()).String(); got != want {
				t.Errorf("%s in pieces of %d: %s, want %s: the compressor's output changed, and with it every frozen repository", ext, piece, got, want)
			}
		}
	}
}
