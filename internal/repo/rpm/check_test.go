package rpm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// CheckPackage refuses packages that differ from their element in primary.
func TestCheckPackage(t *testing.T) {
	key, stranger := signtest.NewKey(t, "fedora"), signtest.NewKey(t, "stranger")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	b := r.Add(rpmtest.Package{Name: "app", Version: "1.0"})[0]
	r.Publish(t0)
	u := &upstream{r: r}
	root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
	if err != nil {
		t.Fatal(err)
	}
	recs, _, err := readAll(t, u, config.Mirror{}, root)
	if err != nil {
		t.Fatal(err)
	}
	other := rpmtest.Package{Name: "evil", Version: "1.0", Arch: "noarch"}
	older := rpmtest.Package{Name: "app", Version: "0.9"}
	same := rpmtest.Package{Name: "app", Version: "1.0"}
	signer := signtest.Signer(t, key)
	for name, c := range map[string]struct {
		m    config.Mirror
		data []byte
		is   error
		want string
	}{
		"good":      {data: b.Bytes},
		"another":   {data: other.Build(signer).Bytes, is: repo.ErrMismatch, want: ""},
		"older":     {data: older.Build(signer).Bytes, is: repo.ErrMismatch, want: "the header disagrees with the metadata: it is app-0.9-1.noarch, expected app-1.0-1.noarch"},
		"unsigned":  {data: same.Build().Bytes, is: repo.ErrMismatch}, // another size
		"truncated": {data: b.Bytes[:len(b.Bytes)-5], is: repo.ErrMismatch},
		"endless":   {data: append(bytes.Clone(b.Bytes), 'x'), is: repo.ErrMismatch},
		"flipped":   {data: flip(b.Bytes, len(b.Bytes)-8), is: repo.ErrMismatch, want: "the payload has SHA-256"},
		"HTML":      {data: []byte(strings.Repeat("<html>", 100)), is: repo.ErrMalformed},
		"unchecked": {m: config.Mirror{GPGCheck: boolp(false)}, data: b.Bytes},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := Format{}.CheckPackage(c.m, &recs[0], signtest.Keyring(key))
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(c.data)
			if cerr := w.Close(); err == nil {
				err = cerr
			}
			if !errors.Is(err, c.is) || c.is == nil && err != nil || c.want != "" && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %v: %s", err, c.is, c.want)
			}
		})
	}
	w, err := Format{}.CheckPackage(config.Mirror{}, &recs[0], signtest.Keyring(stranger))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b.Bytes); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, repo.ErrUntrusted) {
		t.Errorf("a package signed by an unknown key: %v", err)
	}
	if _, err := (Format{}).CheckPackage(config.Mirror{}, &recs[0], nil); !errors.Is(err, repo.ErrUntrusted) {
		t.Errorf("without a keyring: %v", err)
	}
}

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1
	return c
}

func TestSmall(t *testing.T) {
	f := Format{}
	if suite, rel, ok := f.SuiteOf("repodata/x.xml", []repo.SuiteName{Suite}); !ok || suite != Suite || rel != "repodata/x.xml" {
		t.Error("SuiteOf does not assign repodata to the suite")
	}
	if _, _, ok := f.SuiteOf("Packages/a/a-1-1.noarch.rpm", nil); ok {
		t.Error("SuiteOf assigns a package to a suite")
	}
	hex := strings.Repeat("ab", 32)
	if algo, got, ok := f.ByHash("repodata/" + hex + "-primary.xml.gz"); !ok || algo != "SHA256" || got != hex {
		t.Error("a hash name")
	}
	if _, _, ok := f.ByHash("repodata/primary-1.xml.gz"); ok {
		t.Error("not a hash name")
	}
	versions := []string{"not a version", "1.0~rc1-1", "1.0-1", "1.0^git-1", "1.0.1-1", "1:0.1-1"}
	if !slices.IsSortedFunc(versions, f.Compare) {
		t.Error("versions are not in order")
	}
	m := config.Mirror{Architectures: []string{"x86_64"}, Packages: []string{"lib*"}}
	for rec, want := range map[*repo.Record]bool{
		{Kind: repo.KindBinary, Name: "liba", Arch: "x86_64"}: true,
		{Kind: repo.KindBinary, Name: "liba", Arch: "noarch"}: true,
		{Kind: repo.KindBinary, Name: "liba", Arch: "i686"}:   false,
		{Kind: repo.KindSource, Name: "liba", Arch: "src"}:    false,
		{Kind: repo.KindBinary, Name: "app", Arch: "x86_64"}:  false,
	} {
		if f.Match(m, rec) != want {
			t.Errorf("%+v: not %v", rec, want)
		}
	}
	if !f.Match(config.Mirror{}, &repo.Record{Kind: repo.KindSource, Arch: "src"}) {
		t.Error("everything matches where nothing is configured")
	}
}
