package daemon

import (
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// apt makes an apt that reads a freeze as snapd itself says.
func (r *run) apt(name string) *debtest.Apt {
	r.t.Helper()
	code, text := get(r.t, r.public+"/frozen/"+name+"/sources")
	if code != 200 {
		r.t.Fatalf("sources of %s: status %d: %s", name, code, text)
	}
	apt := debtest.NewApt(r.t, "")
	if err := os.WriteFile(filepath.Join(apt.Root, "etc/apt/sources.list.d/frozen.sources"), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return apt
}

// gpgv checks the clear-signed Release of a freeze by a keyring.
func (r *run) gpgv(name string, k *sign.Keyring) error {
	r.t.Helper()
	dir := r.t.TempDir()
	_, text := get(r.t, r.public+"/frozen/"+name+"/debian/dists/stable/InRelease")
	for file, data := range map[string][]byte{"InRelease": []byte(text), "keyring.gpg": k.Export()} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	out, err := exec.Command("gpgv", "--keyring", dir+"/keyring.gpg", dir+"/InRelease").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// A key that expires is warned of; once it has, apt refuses what it signed, and
// takes it again when the key is renewed. A new key signs what comes, and a
// statement beside what is there: apt and gpgv take old and new. Long because it
// is one story from beginning to end.
func TestKeys(t *testing.T) {
	needs.Programs(t, "apt-get", "gpgv")
	a := debtest.New(t)
	a.Add(debtest.Package{Name: "a"})
	now := time.Now().UTC().Truncate(time.Second)
	a.Publish(now.AddDate(0, 0, -30))
	up := httptest.NewServer(a.Handler())
	t.Cleanup(up.Close)
	cfg := testConfig(t, mirrorText(a, "debian", up.URL, "download = \"all\""))
	// `sources` prints what is configured.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Server.Listen, cfg.Server.PublicURL = l.Addr().String(), "http://"+l.Addr().String()
	l.Close()
	k, err := sign.Generate("snapd", "", now.AddDate(-1, 0, 0), sign.GenerateOptions{Expires: now.AddDate(0, 0, -10)})
	if err != nil {
		t.Fatal(err)
	}
	put := func(k *sign.PrivateKey) {
		t.Helper()
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cfg.Signing.KeyFile, k.Armored(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(k)
	r := start(t, cfg)
	call[api.SyncResult](r, "sync", api.SyncRequest{})
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"a"}})
	want := "the signing key expired on " + now.AddDate(0, 0, -10).Format(time.DateOnly) + ": apt refuses what it signed (snapctl key renew)"
	if w := r.status().Warnings; len(w) != 1 || w[0] != want {
		t.Errorf("status warns %q, expected %q", w, want)
	}
	if out, err := r.apt("4.0").Try("apt-get", "update", "-o", "APT::Update::Error-Mode=any"); err == nil {
		t.Errorf("apt takes a signature whose key has expired: this test tests nothing\n%s", out)
	}
	r.end()

	renewed, err := k.Renew(now.Add(-time.Hour), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	put(renewed)
	r = start(t, cfg)
	if w := r.status().Warnings; len(w) != 0 {
		t.Errorf("status warns of a renewed key: %q", w)
	}
	takes := func(name string, k *sign.PrivateKey) {
		t.Helper()
		apt := r.apt(name)
		apt.Run("apt-get", "update", "-o", "APT::Update::Error-Mode=any")
		apt.Run("apt-get", "install", "a")
		if err := r.gpgv(name, k.Keyring()); err != nil {
			t.Errorf("gpgv of %s: %v", name, err)
		}
	}
	takes("4.0", renewed)
	r.end()

	// Another key altogether.
	later, err := sign.Generate("later", "", now.Add(-time.Hour), sign.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(later)
	r = start(t, cfg)
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}})
	takes("4.1", later)
	if err := r.gpgv("4.0", renewed.Keyring()); err != nil {
		t.Errorf("gpgv of 4.0 by its own key: %v", err)
	}
	for _, key := range []*sign.PrivateKey{renewed, later} {
		v := call[api.VerifyResult](r, "verify", api.VerifyRequest{Ref: "4.0", Deep: true, Keys: []string{string(key.Keyring().ExportArmored())}})
		if v.Exit != 0 {
			t.Errorf("verify by %s: %+v", key.Fingerprint(), v.Faults)
		}
	}
}

// A signing command that fails stops what needs it and nothing else: snapd
// starts and serves, and signs when the command answers again.
func TestSigningCommand(t *testing.T) {
	needs.Programs(t, "gpg")
	a, url := upstream(t)
	cfg := testConfig(t, mirrorText(a, "debian", url, "download = \"all\""))
	r := start(t, cfg)
	call[api.SyncResult](r, "sync", api.SyncRequest{})
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"a"}})
	r.end()

	k, err := sign.Generate("remote", "", time.Now().AddDate(-1, 0, 0), sign.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	home, down := shortDir(t), filepath.Join(t.TempDir(), "down")
	gpg := exec.Command("gpg", "--homedir", home, "--batch", "--import")
	gpg.Stdin = strings.NewReader(string(k.Armored()))
	if out, err := gpg.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	cfg.Signing.KeyFile = filepath.Join(t.TempDir(), "public.asc")
	if err := os.WriteFile(cfg.Signing.KeyFile, k.Keyring().ExportArmored(), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Signing.Command = []string{"sh", "-c", `if test -e ` + down + `; then echo "no token" >&2; exit 3; fi
exec gpg --homedir ` + home + ` --batch --textmode --faked-system-time "$SNAPD_SIGN_TIME!" -u "$SNAPD_SIGN_FINGERPRINT" --detach-sign`}
	if err := os.WriteFile(down, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	if w := strings.Join(r.status().Warnings, "\n"); !strings.Contains(w, "earlier freezes are not signed with the current key") || !strings.Contains(w, "no token") {
		t.Errorf("status warns %q", w)
	}
	if code, _ := get(t, r.public+"/frozen/4.0/debian/dists/stable/InRelease"); code != 200 {
		t.Errorf("what is frozen: status %d", code)
	}
	if err := r.ctl.Call(t.Context(), "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}}, nil, nil); err == nil || !strings.Contains(err.Error(), "exit status 3: no token") {
		t.Errorf("freeze without a signature: %v", err)
	}
	if code, _ := get(t, r.public+"/frozen/4.1/manifest.json"); code != 404 {
		t.Errorf("a freeze that could not be signed: status %d", code)
	}
	if f := call[api.FsckResult](r, "fsck", api.FsckRequest{}); f.Exit != 0 {
		t.Errorf("fsck: %+v", f)
	}
	if err := os.Remove(down); err != nil {
		t.Fatal(err)
	}
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}})
	if err := r.gpgv("4.1", k.Keyring()); err != nil {
		t.Errorf("gpgv: %v", err)
	}
	r.end()
	r = start(t, cfg)
	if w := r.status().Warnings; len(w) != 0 {
		t.Errorf("status still warns %q", w)
	}
	if v := call[api.VerifyResult](r, "verify", api.VerifyRequest{Ref: "4.0", Keys: []string{string(k.Keyring().ExportArmored())}}); v.Exit != 0 {
		t.Errorf("the earlier freeze by the present key: %+v", v.Faults)
	}
}
