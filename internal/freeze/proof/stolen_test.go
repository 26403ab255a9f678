package proof_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

// An attacker with the signing key can sign any manifest and any frozen Release. Verify
// still finds contents that the distribution did not sign. Long because of its table of
// cases.
func TestStolenKey(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "exact", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	w.Freeze(t, api.FreezeRequest{Name: "whole", Mirrors: []string{"debian"}})
	const evil = "not a package of the distribution"
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(evil)))
	write := func(p, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(p string) string {
		t.Helper()
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// manifest changes the manifest and signs it.
	manifest := func(dir, old, new string) {
		t.Helper()
		text := read(dir + "/manifest.json")
		if !strings.Contains(text, old) {
			t.Fatalf("the manifest has no %s:\n%s", old, text)
		}
		text = strings.Replace(text, old, new, 1)
		if _, err := freeze.ParseDocument([]byte(text)); err != nil {
			t.Fatal(err)
		}
		sig, err := w.Signer.SignDetached([]byte(text), mirrortest.Start)
		if err != nil {
			t.Fatal(err)
		}
		write(dir+"/manifest.json", text)
		write(dir+"/manifest.json.asc", string(sig))
	}
	entry := fmt.Sprintf(`{"architecture":"amd64","component":"main","index":"main/binary-amd64/Packages","name":"evil","paragraph":"00","path":"pool/main/e/evil.deb","sha256":%q,"size":%d,"source":"evil","source_version":"1","suite":"stable","version":"1"}`, digest, len(evil))
	for _, c := range []struct {
		name, freeze string
		do           func(dir string)
		want         string // of a fault
	}{
		{"package in the manifest alone", "exact", func(dir string) {
			manifest(dir, `"packages":[`, `"packages":[`+entry+",")
			write(dir+"/debian/pool/main/e/evil.deb", evil)
		}, "no index signed by the distribution lists this package"},
		{"kind that asks for no proof", "exact", func(dir string) {
			manifest(dir, `"kind":"exact"`, `"kind":"other"`)
			manifest(dir, `"packages":[`, `"packages":[`+entry+",")
			write(dir+"/debian/pool/main/e/evil.deb", evil)
		}, "kind of the mirror"},
		{"packages beside a whole mirror", "whole", func(dir string) {
			manifest(dir, `"packages":[]`, `"packages":[`+entry+"]")
			write(dir+"/debian/pool/main/e/evil.deb", evil)
		}, "packages of a whole mirror in addition to those in its indices"},
		{"index beside those of a whole mirror", "whole", func(dir string) {
			index := "Package: evil\nVersion: 1\nArchitecture: amd64\nFilename: pool/main/e/evil.deb\nSize: " + fmt.Sprint(len(evil)) + "\nSHA256: " + digest + "\n"
			write(dir+"/debian/dists/stable/main/binary-evil/Packages", index)
			line := fmt.Sprintf(" %x %d main/binary-evil/Packages\n", sha256.Sum256([]byte(index)), len(index))
			p := dir + "/debian/dists/stable/"
			text := strings.Replace(read(p+"Release"), "SHA256:\n", "SHA256:\n"+line, 1)
			clear, err := w.Signer.ClearSign([]byte(text), mirrortest.Start)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := w.Signer.SignDetached([]byte(text), mirrortest.Start)
			if err != nil {
				t.Fatal(err)
			}
			write(p+"Release", text)
			write(p+"Release.gpg", string(sig))
			write(p+"InRelease", string(clear))
		}, "the frozen index is not upstream's"},
		{"other source", "exact", func(dir string) { manifest(dir, `"source":"src-a"`, `"source":"other"`) }, "component and source differ from the signed index"},
		{"other component", "exact", func(dir string) { manifest(dir, `"component":"main"`, `"component":"contrib"`) }, "component and source differ from the signed index"},
		{"two packages at one path", "exact", func(dir string) {
			text := read(dir + "/manifest.json")
			paths := regexp.MustCompile(`"path":"(pool/[^"]*\.deb)"`).FindAllStringSubmatch(text, -1)
			manifest(dir, paths[1][1], paths[0][1])
		}, "two files have the same path"},
		{"a package at a signed document", "exact", func(dir string) {
			manifest(dir, regexp.MustCompile(`"path":"pool/[^"]*\.deb"`).FindString(read(dir+"/manifest.json")), `"path":"dists/stable/InRelease"`)
		}, "two files have the same path"},
		{"a mirror at the manifest", "exact", func(dir string) { manifest(dir, `"name":"debian"`, `"name":"manifest.json"`) }, "the name is invalid, or that of another mirror or of a file"},
		{"a mirror twice", "exact", func(dir string) {
			text := read(dir + "/manifest.json")
			i := strings.Index(text, `"mirrors":[`) + len(`"mirrors":[`)
			j := strings.Index(text, `],"missing"`)
			manifest(dir, text[i:j], text[i:j]+","+text[i:j])
		}, "the name is invalid, or that of another mirror or of a file"},
		{"other key", "exact", func(dir string) { manifest(dir, `"keys":["`, `"keys":["0`) }, "the manifest names a key that did not sign the root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "x")
			if _, err := w.Freezer.Export(t.Context(), c.freeze, dir, nil); err != nil {
				t.Fatal(err)
			}
			c.do(dir)
			v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range v.Faults {
				found = found || strings.Contains(f.Message, c.want)
			}
			if !found || v.Exit != api.ExitVerify {
				t.Errorf("exit %d, faults %+v, expected …%s…", v.Exit, v.Faults, c.want)
			}
		})
	}
}
