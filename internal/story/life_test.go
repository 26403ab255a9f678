package story

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
)

// The whole life of a release. Its build is recorded and frozen, and upstream becomes
// unreachable. Repeating the build gives the same bytes, and so does building an image
// twice. The freeze is exported to another server and verified there, and manipulations
// of the export are found. Long because each step depends on the one before.
func TestLifeOfARelease(t *testing.T) {
	if testing.Short() {
		t.Skip("builds root file systems")
	}
	needs.Programs(t, "mmdebstrap", "apt-get", "gpgv")
	m := thisMachine(t)
	s := start(t, m.Config)
	s.Ctl("sync")

	// Build through the proxy, with upstream's own URLs as sources.
	s.Ctl("record", "start", "4.1")
	var mirrors api.MirrorList
	s.JSON(&mirrors, "mirror", "list")
	sources := filepath.Join(s.Dir, "upstream.sources")
	var text strings.Builder
	for _, mi := range mirrors.Mirrors {
		var d api.MirrorDetail
		s.JSON(&d, "mirror", "show", mi.Name)
		if d.Type != "deb" {
			continue
		}
		var suites []string
		for _, su := range d.Suites {
			suites = append(suites, su.Suite)
		}
		fmt.Fprintf(&text, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n",
			d.URLs[0], strings.Join(suites, " "), strings.Join(d.Components, " "), strings.Join(d.Keyring, " "))
	}
	if err := os.WriteFile(sources, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	image := func(name string) string {
		out := filepath.Join(s.Dir, name)
		cmd := exec.CommandContext(t.Context(), "mmdebstrap", "--quiet", "--variant=essential", "--include=hello", "--mode=root",
			"--format=tar", fmt.Sprintf(`--aptopt=Acquire::http::Proxy "http://4.1@%s/"`, s.Addr),
			"--skip=check/empty", "", out, sources)
		if os.Getuid() != 0 {
			cmd.Args[4] = "--mode=unshare"
		}
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("mmdebstrap: %v\n%s\n%s", err, b, s.Log())
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(b))
	}
	first := image("one.tar")
	var rec api.Recording
	s.JSON(&rec, "record", "show", "4.1")
	if rec.Files == 0 {
		t.Fatal("the recording is empty")
	}
	s.Ctl("record", "stop", "4.1")
	s.Ctl("freeze", "4.1", "--no-sources")
	var frozen api.ShowResult
	s.JSON(&frozen, "show", "4.1")
	if frozen.Frozen.Packages != rec.Files {
		t.Errorf("frozen %d packages, recorded %d files", frozen.Frozen.Packages, rec.Files)
	}

	m.Gone.Store(true)
	s.Ctl("record", "rm", "4.1")
	if second := image("two.tar"); second != first {
		t.Errorf("the same build gave %s, then %s", first, second)
	}
	s.Ctl("verify", "4.1", "--deep")
	s.Ctl("image", "build", "4.1", "--variant", "essential", "--include", "hello", "--output", filepath.Join(s.Dir, "image.squashfs"))
	s.Ctl("rebuild", "4.1")
	// Do not unpack /dev, which only root can do.
	out, err := exec.Command("unsquashfs", "-d", filepath.Join(s.Dir, "tree"), filepath.Join(s.Dir, "image.squashfs"), "etc", "var").CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v %s", err, out)
	}
	for _, forbidden := range []string{s.Addr, s.Dir, "snapd"} {
		if out, err := exec.Command("grep", "-rlF", forbidden, filepath.Join(s.Dir, "tree/etc"), filepath.Join(s.Dir, "tree/var")).Output(); err == nil {
			t.Errorf("the image names %q in %s", forbidden, out)
		}
	}

	// Export the freeze and import it on another server.
	dir := filepath.Join(t.TempDir(), "4.1")
	s.Ctl("export", "4.1", dir)
	s.Ctl("verify", dir)
	other := start(t, "data_dir = \"%DATA%\"\n[server]\nlisten = \"%ADDR%\"\n")
	other.Ctl("import", dir)
	other.Ctl("verify", "4.1", "--deep")
	again := filepath.Join(t.TempDir(), "4.1")
	other.Ctl("export", "4.1", again)
	if out, err := exec.Command("diff", "-r", "--exclude=log.vkey", "--exclude=*.tlog-proof", "--exclude=SHA256SUMS", dir, again).CombinedOutput(); err != nil {
		t.Errorf("export, import, export: %s", out)
	}
	if status, _ := get(t, "http://"+other.Addr+"/frozen/4.1/manifest.json"); status != 200 {
		t.Errorf("the imported manifest: status %d", status)
	}

	// Manipulations of the export are found.
	var debs []string
	filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if strings.HasSuffix(p, ".deb") {
			debs = append(debs, p)
		}
		return nil
	})
	for name, plant := range map[string]func(){
		"a flipped byte": func() {
			b, _ := os.ReadFile(debs[0])
			b[len(b)/2] ^= 4
			os.WriteFile(debs[0], b, 0o644)
		},
		"a dropped package": func() { os.Remove(debs[0]) },
		"an added package":  func() { os.WriteFile(filepath.Join(filepath.Dir(debs[0]), "evil_1_all.deb"), []byte("x"), 0o644) },
		"a swapped index": func() {
			p, _ := filepath.Glob(filepath.Join(dir, "*/dists/*/main/binary-*/Packages"))
			os.WriteFile(p[0], nil, 0o644)
		},
		"another manifest": func() {
			b, _ := os.ReadFile(filepath.Join(dir, "manifest.json"))
			os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(strings.Replace(string(b), `"hello"`, `"hallo"`, 1)), 0o644)
		},
	} {
		keep := filepath.Join(t.TempDir(), "keep")
		if out, err := exec.Command("cp", "-a", dir, keep).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		plant()
		if _, err := s.Try("verify", dir); code(err) != api.ExitVerify {
			t.Errorf("%s: exit %d, expected %d: %v", name, code(err), api.ExitVerify, err)
		}
		os.RemoveAll(dir)
		if err := os.Rename(keep, dir); err != nil {
			t.Fatal(err)
		}
	}
}
