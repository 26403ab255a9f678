package rpm_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

// dropData removes data types from repomd.xml.
func dropData(types ...string) func([]byte) []byte {
	return func(doc []byte) []byte {
		for _, typ := range types {
			from := strings.Index(string(doc), `<data type="`+typ+`"`)
			to := from + strings.Index(string(doc[from:]), "</data>") + len("</data>")
			doc = append(doc[:from:from], doc[to:]...)
		}
		return doc
	}
}

// A repository without filelists and other, which dnf accepts, can be mirrored and
// frozen whole or in part, and dnf can install from the freeze.
func TestEngineNoFilelists(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	w.up.EditRepoMD = dropData("filelists", "other")
	w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64"}, rpmtest.Package{Name: "spare", Version: "1.0"})
	w.up.Publish(start)
	w.sync(t)
	for name, req := range map[string]*api.FreezeRequest{"whole": {All: true}, "part": {Packages: []string{"app"}}} {
		req.Name = name
		if _, err := w.z.Freeze(t.Context(), req, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, name)
		if got := w.install(t, name, "app"); got != "app-1.0-1.x86_64" {
			t.Errorf("%s: dnf installed %s", name, got)
		}
	}
	// The next state has both lists; a freeze of packages from both states has neither.
	w.up.EditRepoMD = nil
	w.up.Add(rpmtest.Package{Name: "new", Version: "1.0"})
	w.up.Publish(start.Add(time.Hour))
	w.now = w.now.Add(2 * time.Hour)
	w.sync(t)
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "both", Base: "part", Replace: []string{"spare@fedora@latest"}}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "both")
	if got := w.install(t, "both", "app", "spare"); got != "app-1.0-1.x86_64 spare-1.0-1.noarch" {
		t.Errorf("over two states: dnf installed %s", got)
	}
}

// A file that repomd.xml lists but upstream lacks is an error if dnf reads it, and
// otherwise a warning.
func TestEngineAbsentData(t *testing.T) {
	for typ, optional := range map[string]bool{"primary_db": true, "x-novelty": true, "updateinfo": false, "group": false, "filelists": false} {
		w := newWorld(t, rpmtest.Options{}, nil)
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.SetData("primary_db", "primary.sqlite", []byte("x"))
		w.up.SetData("x-novelty", "novelty", []byte("x"))
		w.up.SetData("updateinfo", "updateinfo.xml", []byte("<updates/>"))
		w.up.SetData("group", "comps.xml", []byte("<comps/>"))
		w.up.Publish(start)
		absent := map[string]string{"primary_db": "primary.sqlite", "x-novelty": "-novelty", "updateinfo": "updateinfo.xml", "group": "comps.xml", "filelists": "filelists.xml.gz"}[typ]
		w.up.SetFile(w.up.Find(absent), nil)
		res, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
		if !optional {
			if !errors.Is(err, repo.ErrMissing) {
				t.Errorf("no %s: %v", typ, err)
			}
			continue
		}
		if err != nil || !slices.Contains(res.Warnings, "suite .: files that repomd.xml lists and dnf does not read are absent upstream: 1 (the first: "+typ+")") {
			t.Errorf("no %s: %+v, %v", typ, res, err)
			continue
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "all")
		if got := w.install(t, "all", "app"); got != "app-1.0-1.noarch" {
			t.Errorf("no %s: dnf installed %s", typ, got)
		}
	}
}

// With installer = true, the images of an installable tree are mirrored, verified by the
// digests in treeinfo, and frozen with the whole mirror. Other variants in treeinfo are
// separate repositories and are ignored.
func TestEngineTree(t *testing.T) {
	kernel, initrd := []byte("the kernel"), []byte("the initrd")
	treeinfo := "[general]\nfamily = Fedora\nversion = 42\narch = x86_64\n\n[checksums]\n" +
		"images/pxeboot/vmlinuz = sha256:" + cas.Sum(kernel).String() + "\nrepodata/repomd.xml = sha256:" + strings.Repeat("0", 64) + "\n\n" +
		"[images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n\n" +
		"[variant-Server]\nid = Server\npackages = ../../Server/Packages\nrepository = ../../Server\n"
	for _, installer := range []bool{true, false} {
		w := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.Installer = installer })
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.Publish(start)
		for name, data := range map[string][]byte{".treeinfo": []byte(treeinfo), "images/pxeboot/vmlinuz": kernel, "images/pxeboot/initrd.img": initrd} {
			w.up.SetFile(name, data)
		}
		res := w.sync(t)
		for name, want := range map[string]bool{".treeinfo": installer, "images/pxeboot/vmlinuz": installer, "images/pxeboot/initrd.img": false, "../../Server/repodata/repomd.xml": false} {
			if _, err := w.Lookup(t.Context(), res.Snapshot, name, false); (err == nil) != want || err != nil && !errors.Is(err, meta.ErrNotFound) {
				t.Errorf("installer %v: %s: %v", installer, name, err)
			}
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "all")
		dir := filepath.Join(t.TempDir(), "export")
		if _, err := w.z.Export(t.Context(), "all", dir, nil); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{".treeinfo": treeinfo, "images/pxeboot/vmlinuz": string(kernel)} {
			got, err := os.ReadFile(filepath.Join(dir, "fedora", name))
			if installer && string(got) != want || !installer && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("installer %v: %s of the freeze: %q, %v", installer, name, got, err)
			}
		}
	}
	// An image that is absent upstream causes a warning on each sync until it appears.
	absent := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.Installer = true })
	absent.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	absent.up.Publish(start)
	absent.up.SetFile(".treeinfo", []byte(strings.Replace(treeinfo, "[checksums]\n", "[checksums]\nimages/boot.iso = sha256:"+strings.Repeat("1", 64)+"\n", 1)))
	absent.up.SetFile("images/pxeboot/vmlinuz", kernel)
	const warning = "suite .: images that treeinfo lists are absent upstream: 1 (the first: images/boot.iso)"
	for range 2 {
		if res := absent.sync(t); !slices.Contains(res.Warnings, warning) {
			t.Errorf("an absent image: %q", res.Warnings)
		}
	}
	if _, err := absent.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	absent.verify(t, "all")
	if got := absent.install(t, "all", "app"); got != "app-1.0-1.noarch" {
		t.Errorf("dnf installed %s", got)
	}
	// An image that does not match its digest in treeinfo is refused.
	w := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.Installer = true })
	w.up.Publish(start)
	w.up.SetFile("treeinfo", []byte(treeinfo))
	w.up.SetFile("images/pxeboot/vmlinuz", []byte("another"))
	if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, fetch.ErrMismatch) || !strings.Contains(err.Error(), "images/pxeboot/vmlinuz") {
		t.Errorf("another kernel: %v", err)
	}
}

// Snapshots serve drpms that match their listed digest. Freezes do not include drpms.
func TestEngineDeltas(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	w.up.Add(rpmtest.Package{Name: "app", Version: "2.0"})
	good, bad := []byte("a delta"), []byte("b delta")
	delta := func(name, sum string) string {
		return fmt.Sprintf(`<newpackage name="app" epoch="0" version="2.0" release="1" arch="noarch"><delta oldepoch="0" oldversion="1.0" oldrelease="1"><filename>drpms/%s</filename><size>7</size>%s</delta></newpackage>`, name, sum)
	}
	sum := `<checksum type="sha256">` + cas.Sum(good).String() + `</checksum>`
	w.up.SetData("prestodelta", "prestodelta.xml.gz", []byte("<prestodelta>"+delta("good.drpm", sum)+delta("bad.drpm", sum)+
		delta("weak.drpm", `<checksum type="md5">`+strings.Repeat("0", 32)+`</checksum>`)+"</prestodelta>"))
	w.up.Publish(start)
	for name, data := range map[string][]byte{"good": good, "bad": bad, "weak": good, "unlisted": good} {
		w.up.SetFile("drpms/"+name+".drpm", data)
	}
	res := w.sync(t)
	open := func(name string) error {
		found, err := w.Lookup(t.Context(), res.Snapshot, "drpms/"+name+".drpm", false)
		if err != nil {
			return err
		}
		if !found.Delta {
			t.Errorf("%s is taken for a package", name)
		}
		r, _, err := w.OpenFound(t.Context(), found)
		if err != nil {
			return err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err == nil && string(got) != string(good) {
			t.Errorf("%s: %q", name, got)
		}
		return err
	}
	for _, c := range []struct {
		name string
		want error
	}{{"weak", meta.ErrNotFound}, {"unlisted", meta.ErrNotFound}, {"bad", fetch.ErrMismatch}, {"good", nil}} {
		if err := open(c.name); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "all")
	dir := filepath.Join(t.TempDir(), "export")
	if _, err := w.z.Export(t.Context(), "all", dir, nil); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "fedora/repodata/repomd.xml"))
	if err != nil || strings.Contains(string(md), "prestodelta") {
		t.Errorf("repomd.xml of a freeze lists deltas: %v %s", err, md)
	}
}

// Metadata and packages that do not match their listed digest are refused.
func TestEngineBadBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(up *rpmtest.Repo, pkg string)
		sync   error
		freeze error
	}{
		{"metadata digest", func(up *rpmtest.Repo, _ string) {
			p := up.Find("filelists.xml.gz")
			b := []byte(string(up.File(p)))
			b[len(b)-1] ^= 1
			up.SetFile(p, b)
		}, fetch.ErrMismatch, nil},
		{"metadata size", func(up *rpmtest.Repo, _ string) {
			p := up.Find("primary.xml.gz")
			up.SetFile(p, append([]byte(string(up.File(p))), 'x'))
		}, fetch.ErrMismatch, nil},
		{"metadata truncated", func(up *rpmtest.Repo, _ string) {
			p := up.Find("primary.xml.gz")
			up.SetFile(p, up.File(p)[:20])
		}, fetch.ErrMismatch, nil},
		{"metadata gone", func(up *rpmtest.Repo, _ string) { up.SetFile(up.Find("primary.xml.gz"), nil) }, repo.ErrMissing, nil},
		{"package digest", func(up *rpmtest.Repo, pkg string) {
			b := []byte(string(up.File(pkg)))
			b[len(b)-1] ^= 1
			up.SetFile(pkg, b)
		}, nil, freeze.ErrMissing},
		{"package without signature", func(up *rpmtest.Repo, pkg string) {
			bare := rpmtest.Package{Name: "app", Version: "1.0"}
			up.Remove("app")
			up.AddBuilt(bare.Build())
			up.Publish(start)
		}, nil, repo.ErrUntrusted},
		{"package's header disagrees", func(up *rpmtest.Repo, _ string) {
			up.Edit = func(typ string, doc []byte) []byte {
				if typ == "group" {
					return doc
				}
				return []byte(strings.Replace(string(doc), `ver="1.0"`, `ver="1.1"`, 1))
			}
			up.Publish(start)
		}, nil, repo.ErrMismatch},
		{"package size", func(up *rpmtest.Repo, pkg string) { up.SetFile(pkg, append([]byte(string(up.File(pkg))), 'x')) }, nil, freeze.ErrMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, rpmtest.Options{}, nil)
			b := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})[0]
			w.up.Publish(start)
			c.break_(w.up, b.Href())
			_, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
			if !errors.Is(err, c.sync) {
				t.Fatalf("sync: got %v, want %v", err, c.sync)
			}
			if c.sync != nil {
				if _, err := w.ResolveRef(t.Context(), "fedora@latest"); err == nil {
					t.Error("the failed sync sealed a snapshot")
				}
				return
			}
			_, err = w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "x", All: true}, nil)
			if !errors.Is(err, c.freeze) || !strings.Contains(err.Error(), b.Href()) {
				t.Errorf("freeze: got %v, want %v naming %s", err, c.freeze, b.Href())
			}
		})
	}
}

// dnf installs a modular package from a frozen repository if its stream is the default,
// and refuses it if the stream is not enabled.
func TestEngineModules(t *testing.T) {
	const stream = `---
document: modulemd
version: 2
data:
  name: mod
  stream: 1.10
  version: 1
  context: c0ffee
  arch: x86_64
  summary: A module
  description: A module.
  license:
    module: [MIT]
  dependencies:
  - requires:
      platform: [f42]
  artifacts:
    rpms:
    - app-0:1.0-1.x86_64
...
`
	const defaults = "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: mod\n  stream: \"1.10\"\n  profiles:\n    \"1.10\": []\n...\n"
	for _, enabled := range []bool{true, false} {
		w := newWorld(t, rpmtest.Options{XMLBase: "http://elsewhere.example.org/x"}, nil)
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64", Module: "mod:1.10:1:c0ffee"}, rpmtest.Package{Name: "other", Version: "1.0"})
		w.up.SetData("modules", "modules.yaml.gz", []byte(stream+map[bool]string{true: defaults}[enabled]))
		w.up.Publish(start)
		w.sync(t)
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "m", Manifests: rpmList("app-1.0-1.x86_64", "other-1.0-1.noarch")}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "m")
		dir := filepath.Join(t.TempDir(), "export")
		if _, err := w.z.Export(t.Context(), "m", dir, nil); err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
		defer srv.Close()
		keys := []string{string(w.ours.Keyring().ExportArmored()), string(w.theirs.Keyring().ExportArmored())}
		got, err := rpmtest.TryInstall(t, srv.URL+"/fedora", keys, true, "app")
		switch {
		case enabled && (err != nil || strings.Join(got, " ") != "app-1.0-1.x86_64"):
			t.Errorf("dnf installed %q: %v", got, err)
		case !enabled && (err == nil || !strings.Contains(err.Error(), "filtered out by modular filtering")):
			t.Errorf("dnf installed %q: %v", got, err)
		}
	}
}

// Packages listed by a strong digest other than SHA-256 are verified with that digest
// and stored by their SHA-256.
func TestEngineStrongDigests(t *testing.T) {
	for _, c := range []struct{ checksum, download string }{{"sha512", config.OnDemand}, {"sha384", config.All}, {"sha384", config.OnDemand}} {
		t.Run(c.checksum+" "+c.download, func(t *testing.T) {
			w := newWorld(t, rpmtest.Options{Checksum: c.checksum}, func(m *config.Mirror) { m.Download = c.download })
			built := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Requires: []string{"lib"}}, rpmtest.Package{Name: "lib", Version: "1.0"}, rpmtest.Package{Name: "spare", Version: "1.0"})
			w.up.Publish(start)
			res := w.sync(t)
			found, err := w.Lookup(t.Context(), res.Snapshot, built[0].Href(), false)
			if err != nil || found.Digest != cas.Sum(built[0].Bytes) {
				t.Errorf("lookup: %+v, %v", found, err)
			}
			for name, req := range map[string]*api.FreezeRequest{"whole": {All: true}, "part": {Packages: []string{"app", "lib"}}} {
				req.Name = name
				if _, err := w.z.Freeze(t.Context(), req, nil); err != nil {
					t.Fatal(err)
				}
				w.verify(t, name)
				if got := w.install(t, name, "app"); got != "app-1.0-1.noarch lib-1.0-1.noarch" {
					t.Errorf("%s: dnf installed %s", name, got)
				}
			}
			// The next sync does not download unchanged packages again.
			w.up.Requests()
			w.up.Add(rpmtest.Package{Name: "new", Version: "1.0"})
			w.up.Publish(start.Add(time.Hour))
			w.now = w.now.Add(2 * time.Hour)
			w.sync(t)
			var fetched []string
			for _, r := range w.up.Requests() {
				if strings.HasSuffix(r, ".rpm") {
					fetched = append(fetched, r)
				}
			}
			if len(fetched) != 1 || !strings.Contains(fetched[0], "/new-1.0-1") {
				t.Errorf("fetched at the next sync: %v", fetched)
			}
			// A sync refuses a package whose bytes were replaced.
			w.up.Add(rpmtest.Package{Name: "evil", Version: "1.0"})
			w.up.Publish(start.Add(2 * time.Hour))
			w.up.SetFile("Packages/e/evil-1.0-1.noarch.rpm", built[0].Bytes)
			w.now = w.now.Add(2 * time.Hour)
			if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, fetch.ErrMismatch) {
				t.Errorf("other bytes: %v", err)
			}
		})
	}
}

// Metadata listed and named by SHA-512 are mirrored, served and frozen whole.
func TestEngineSHA512(t *testing.T) {
	for _, simple := range []bool{true, false} {
		w := newWorld(t, rpmtest.Options{Checksum: "sha512", PackageChecksum: "sha256", SimpleNames: simple}, nil)
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.Publish(start)
		res := w.sync(t)
		for _, name := range []string{"repodata/repomd.xml", w.up.Find("primary.xml.gz"), w.up.Find("other.xml.gz")} {
			found, err := w.Lookup(t.Context(), res.Snapshot, name, false)
			if err != nil {
				t.Errorf("simple names %v: %v", simple, err)
				continue
			}
			r, _, err := w.OpenFound(t.Context(), found)
			if err != nil {
				t.Errorf("simple names %v: %s: %v", simple, name, err)
				continue
			}
			r.Close()
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "all")
		if got, want := w.install(t, "all", "app"), "app-1.0-1.noarch"; got != want {
			t.Errorf("dnf installed %q, want %q", got, want)
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "exact", Manifests: rpmList("app-1.0-1.noarch")}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "exact")
	}
}
