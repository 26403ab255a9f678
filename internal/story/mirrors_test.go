package story

import (
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
)

// The configurations of docs/MIRRORS.md mirror repositories of those shapes: with the URL
// and the keys of one on this machine, a sync makes a snapshot, and all of it is frozen.
func TestMirrorDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/MIRRORS.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml mirror\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) < 8 {
		t.Fatalf("%d configurations in docs/MIRRORS.md", len(blocks))
	}
	for _, b := range blocks {
		cfg, err := config.Parse("/etc/frozen-snapd/config.toml", []byte(b[1]))
		if err != nil {
			t.Errorf("%v\n%s", err, b[1])
			continue
		}
		t.Run(string(cfg.Mirrors[0].Name), func(t *testing.T) {
			t.Parallel()
			text := b[1]
			for i, part := range strings.Split(b[1], "[[mirror]]\n")[1:] {
				var local string
				if m := cfg.Mirrors[i]; m.Type == "deb" {
					local = debLike(t, m, part)
				} else {
					local = rpmLike(t, part)
				}
				text = strings.Replace(text, part, local, 1)
			}
			s := start(t, "data_dir = \"%DATA%\"\n[server]\nlisten = \"%ADDR%\"\n"+text)
			s.Ctl("sync")
			s.Ctl("freeze", "4.1", "--all", "--no-sources")
			s.Ctl("verify", "4.1", "--deep")
		})
	}
}

// setKey replaces the value of a key in lines of a configuration.
func setKey(text, key, value string) string {
	return regexp.MustCompile(`(?m)^`+key+` = .*$`).ReplaceAllLiteralString(text, fmt.Sprintf("%s = %q", key, value))
}

// debLike serves an archive with the suites and components of a mirror.
func debLike(t *testing.T, m config.Mirror, text string) string {
	a := debtest.New(t)
	for i, suite := range m.Suites {
		s := a.Suite(suite)
		s.Architectures = m.Architectures
		if len(m.Components) > 0 {
			s.Components = m.Components
		}
		s.Add(debtest.Package{Name: "hello", Version: fmt.Sprint(i + 1), Arch: m.Architectures[0]})
	}
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	srv := httptest.NewServer(a.Handler())
	t.Cleanup(srv.Close)
	return setKey(setKey(text, "url", srv.URL), "keyring", a.KeyringFile())
}

// rpmLike serves a repository that is signed as a mirror expects it.
func rpmLike(t *testing.T, text string) string {
	key, err := sign.Generate("packager", "packager@example.org", rpmtest.Epoch, sign.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	r := rpmtest.New(rpmtest.Options{PackageSigner: signer})
	r.Add(rpmtest.Package{Name: "hello", Version: "1"})
	r.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	srv := httptest.NewTLSServer(r) // a metalink vouches only over https
	t.Cleanup(srv.Close)
	r.Metalink(srv.URL)
	dir := t.TempDir()
	keys, ca := filepath.Join(dir, "key.asc"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(keys, []byte(signer.PublicKeyArmored()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	text = setKey(setKey(setKey(text, "url", srv.URL), "metalink", srv.URL+"/metalink"), "keyring", keys)
	return fmt.Sprintf("%sca_file = %q\n", text, ca)
}
