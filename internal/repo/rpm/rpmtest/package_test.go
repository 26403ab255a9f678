package rpmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// rpm accepts the packages that Build writes.
func TestRPMAccepts(t *testing.T) {
	needs.Program(t, "rpmkeys")
	dir := t.TempDir()
	ed, rsa := signtest.NewKey(t, "ed"), signtest.NewRSAKey(t, "rsa")
	db := filepath.Join(dir, "db")
	for name, k := range map[string]*sign.PrivateKey{"ed": ed, "rsa": rsa} {
		key := filepath.Join(dir, name+".asc")
		if err := os.WriteFile(key, k.Keyring().ExportArmored(), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "rpmkeys", "--dbpath", db, "--import", key).CombinedOutput(); err != nil {
			t.Fatalf("import: %v\n%s", err, out)
		}
	}
	for name, c := range map[string]struct {
		p    Package
		want string
		keys []*sign.PrivateKey
	}{
		"eddsa":    {Package{}, "digests signatures OK", []*sign.PrivateKey{ed}},
		"rsa":      {Package{Arch: "x86_64", Epoch: 3}, "digests signatures OK", []*sign.PrivateKey{rsa}},
		"legacy":   {Package{Legacy: true}, "digests signatures OK", []*sign.PrivateKey{rsa}},
		"source":   {Package{Arch: "src"}, "digests signatures OK", []*sign.PrivateKey{rsa}},
		"both":     {Package{}, "digests signatures OK", []*sign.PrivateKey{rsa, ed}},
		"unsigned": {Package{}, "digests OK", nil},
		"links": {Package{Files: []File{{Path: "/usr/bin/x", Body: "#!/bin/sh\n", Mode: 0o755}, {Path: "/usr/bin/y", Link: "x"}}},
			"digests signatures OK", []*sign.PrivateKey{ed}},
		"bad signature": {Package{BadSignature: true}, "digests SIGNATURES NOT OK", []*sign.PrivateKey{rsa}},
		"bad payload":   {Package{BadPayload: true}, "DIGESTS SIGNATURES NOT OK", []*sign.PrivateKey{rsa}},
		"bad digest":    {Package{BadHeaderDigest: true}, "DIGESTS signatures NOT OK", []*sign.PrivateKey{rsa}},
	} {
		t.Run(name, func(t *testing.T) {
			c.p.Name, c.p.Version = "sample", "1.2"
			c.p.Requires = []string{"other >= 1.0"}
			var signers []*sign.Signer
			for _, k := range c.keys {
				signers = append(signers, signtest.Signer(t, k))
			}
			b := c.p.Build(signers...)
			file := filepath.Join(t.TempDir(), b.FileName())
			if err := os.WriteFile(file, b.Bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "rpmkeys", "--dbpath", db, "-K", file).CombinedOutput()
			if !strings.HasSuffix(strings.TrimSpace(string(out)), c.want) {
				v, _ := exec.Command("rpmkeys", "--dbpath", db, "-Kv", file).CombinedOutput()
				t.Fatalf("rpmkeys -K: %v\n%s\n%s", err, out, v)
			}
			if strings.Contains(c.want, "NOT") {
				return
			}
			out, err = exec.CommandContext(t.Context(), "rpm", "--dbpath", db, "-qp", "--nosignature", "--qf", "%{NEVRA} %{SUMMARY} [%{FILENAMES} ]", file).CombinedOutput()
			if err != nil {
				t.Fatalf("rpm -qp: %v\n%s", err, out)
			}
			if want := c.p.NEVRA().String(); !strings.HasPrefix(string(out), want+" ") && c.p.Arch != "src" {
				t.Errorf("rpm -qp: %s, want %s", out, want)
			}
		})
	}
}
