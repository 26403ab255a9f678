package rpmtest

import (
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/sign/signtest"
)

// TestCreaterepoAgrees compares our primary with that of createrepo_c for the same
// packages.
func TestCreaterepoAgrees(t *testing.T) {
	needs.Program(t, "createrepo_c")
	r := New(Options{Signer: signtest.Signer(t, signtest.NewKey(t, "ed")), Compress: "none", SimpleNames: true})
	r.Add(Package{Name: "a", Version: "1.0", Epoch: 2, Arch: "x86_64", Requires: []string{"b >= 1.0"}, Conflicts: []string{"c"},
		Files: []File{{Path: "/usr/bin/a", Body: "x", Mode: 0o755}, {Path: "/usr/share/a", Body: "y"}}},
		Package{Name: "b", Version: "1.0", Arch: "src"})
	r.Publish(Epoch)
	dir := t.TempDir()
	if err := r.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{}
	for _, k := range []string{"primary", "filelists", "other"} {
		ours[k] = string(r.File("repodata/" + k + ".xml"))
	}
	out := t.TempDir()
	if b, err := exec.CommandContext(t.Context(), "createrepo_c", "-q", "--no-database", "--compress-type=gz", "--simple-md-filenames", "-o", out, dir).CombinedOutput(); err != nil {
		t.Fatalf("createrepo_c: %v\n%s", err, b)
	}
	for k, doc := range ours {
		b, err := exec.CommandContext(t.Context(), "gzip", "-dc", filepath.Join(out, "repodata", k+".xml.gz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		theirs := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			theirs[strings.TrimSpace(line)] = true
		}
		for line := range strings.Lines(doc) {
			line = strings.TrimSpace(line)
			if !theirs[line] && !strings.HasPrefix(line, "<time ") && !strings.HasPrefix(line, "<packager") && !strings.HasPrefix(line, "<rpm:group") {
				t.Errorf("%s: createrepo_c does not have %s", k, line)
			}
		}
		if t.Failed() {
			t.Logf("%s of createrepo_c:\n%s", k, b)
		}
	}
}

// dnf installs from a published repository with gpgcheck and repo_gpgcheck.
func TestDNF(t *testing.T) {
	for _, compress := range []string{".gz", ".zst", ".xz", "none"} {
		t.Run("compress"+compress, func(t *testing.T) {
			key := signtest.NewKey(t, "ed")
			r := New(Options{Signer: signtest.Signer(t, key), Compress: compress})
			r.Add(Package{Name: "app", Version: "1.0", Requires: []string{"lib >= 1.0"}}, Package{Name: "lib", Version: "1.2~rc1"})
			r.Publish(Epoch)
			srv := httptest.NewServer(r)
			defer srv.Close()
			got := Install(t, srv.URL, []string{string(key.Keyring().ExportArmored())}, true, "app")
			if want := "app-1.0-1.noarch lib-1.2~rc1-1.noarch"; strings.Join(got, " ") != want {
				t.Errorf("installed %q, want %s", got, want)
			}
		})
	}
}
