package freezer_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

// Lists of links of rebuilders are kept beside the freeze, are exported and imported with
// it, and count for users who name the rebuilders. Long because it follows one freeze.
func TestRebuilds(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	w.Freeze(t, api.FreezeRequest{Name: "all", All: true})
	files := map[cas.Digest]bool{}
	materials, err := w.Freezer.Materials(t.Context(), "4.1")
	must(t, err)
	for _, m := range materials {
		files[m.SHA256] = true
	}
	if len(files) != 2 {
		t.Fatalf("packages: %v", materials)
	}
	key := func(n byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)) }
	public := func(n byte) string {
		der, err := x509.MarshalPKIXPublicKey(key(n).Public())
		must(t, err)
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	link := func(n byte, d cas.Digest) []byte {
		signed := fmt.Sprintf(`{"_type":"link","products":{"x.deb":{"sha256":"%s"}}}`, d)
		return fmt.Appendf(nil, `{"signed":%s,"signatures":[{"keyid":"","sig":"%x"}]}`, signed, ed25519.Sign(key(n), []byte(signed)))
	}
	list := "rebuilder one\n" + public(1) + "rebuilder two\n" + public(2)
	check := func(what string, v *api.VerifyResult, err error, exit, reproduced, fewer int) {
		t.Helper()
		must(t, err)
		if r := v.Rebuilders; v.Exit != exit || r == nil || r.Reproduced != reproduced || len(r.Fewer) != fewer {
			t.Errorf("%s: exit %d, %+v, %+v", what, v.Exit, r, v.Faults)
		}
	}
	verify := func(name, list string, threshold int) (*api.VerifyResult, error) {
		return w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: name, Rebuilders: list, Threshold: threshold}, nil)
	}
	add := func(name string, links ...[]byte) (bool, error) {
		_, _, added, err := w.Freezer.AddRebuilds(t.Context(), name, files, fmt.Appendf(nil, "[%s]", bytes.Join(links, []byte(","))))
		return added, err
	}

	if _, err := add("4.1", link(1, cas.Sum(nil))); !errors.Is(err, attest.ErrOther) {
		t.Errorf("of another package: %v", err)
	}
	if _, err := add("4.1"); !errors.Is(err, attest.ErrMalformed) {
		t.Errorf("an empty list: %v", err)
	}
	v, err := verify("4.1", list, 1)
	check("nobody", v, err, api.ExitVerify, 0, 2)
	a, b := materials[0].SHA256, materials[1].SHA256
	for i, want := range []bool{true, false} { // twice is once
		if added, err := add("4.1", link(1, a), link(2, a), link(1, b), link(3, b)); err != nil || added != want {
			t.Errorf("time %d: %t, %v", i, added, err)
		}
	}
	v, err = verify("4.1", list, 1)
	check("one", v, err, 0, 2, 0)
	v, err = verify("4.1", list, 2)
	check("two", v, err, api.ExitVerify, 1, 1)
	if got := fmt.Sprint(v.Rebuilders.By, " ", v.Rebuilders.Fewer[0].Name, v.Rebuilders.Fewer[0].Rebuilders); got != "[0 1 1] b[one]" {
		t.Errorf("two: %s", got)
	}
	v, err = verify("4.1", list+"except b\n", 2)
	check("except b", v, err, 0, 1, 0)
	if _, err := verify("4.1", list, 3); !errors.Is(err, freeze.ErrUsage) {
		t.Errorf("three of two: %v", err)
	}
	_, err = add("all", link(1, a), link(1, b))
	must(t, err)
	v, err = verify("all", list, 1)
	check("a whole mirror", v, err, api.ExitVerify, 2, v.Rebuilders.Packages-2)

	e := w.Export(t, "4.1")
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()}
	must(t, o.SetBuilders(&api.VerifyRequest{Rebuilders: list, Threshold: 1}))
	v, err = proof.VerifyDir(t.Context(), e.Dir, o)
	check("exported", v, err, 0, 2, 0)
	other := freezertest.New(t, config.All)
	if _, err := other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: e.Dir}, nil); err != nil {
		t.Fatal(err)
	}
	v, err = other.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1", Rebuilders: list, Threshold: 1}, nil)
	check("imported", v, err, 0, 2, 0)
	kept, err := filepath.Glob(filepath.Join(e.Dir, "_statements/rebuilds-*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("exported: %v, %v", kept, err)
	}
	data, err := os.ReadFile(kept[0])
	must(t, err)
	must(t, os.WriteFile(kept[0], append(data, '\n'), 0o644))
	if v, err := proof.VerifyDir(t.Context(), e.Dir, o); err != nil || v.Exit != api.ExitVerify {
		t.Errorf("changed: %v, %+v", err, v)
	}
}
