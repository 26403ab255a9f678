package proof_test

import (
	"os"
	"path/filepath"
	"slices"
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
	"example.org/snapd/internal/sign/signtest"
)

// A snapshot of a mirror is verified with the certificates that are stored with it, or
// with given ones.
func TestVerifySnapshot(t *testing.T) {
	for _, download := range []string{config.All, config.OnDemand} {
		w := freezertest.New(t, download)
		w.Verify(t, "debian@latest")
		upstream := string(w.Archive.Key.Keyring().ExportArmored())
		v, err := w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "debian@latest", UpstreamKeys: []string{upstream}}, nil)
		if err != nil || len(v.Faults) > 0 || v.Packages != 3 || v.Sources != 3 || len(v.Relied) != 1 || !v.Relied[0].Pinned {
			t.Errorf("by given keys: %v, %+v", err, v)
		}
		other := string(signtest.NewKey(t, "other").Keyring().ExportArmored())
		if v, err = w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "debian@latest", UpstreamKeys: []string{other}}, nil); err != nil || v.Exit != api.ExitVerify {
			t.Errorf("by other keys: %v, %+v", err, v)
		}
	}
}

// Every manipulation of an export is found and named.
func TestVerifyDir(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	base := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "4.1", base, nil); err != nil {
		t.Fatal(err)
	}
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()}
	v, err := proof.VerifyDir(t.Context(), base, o)
	if err != nil || len(v.Faults) > 0 {
		t.Fatalf("untouched export: %v %+v", err, v)
	}
	checkSums(t, base, o)
	// The other files prove the export without the list, which anyone can make again.
	if err := os.Remove(filepath.Join(base, freeze.SumsFile)); err != nil {
		t.Fatal(err)
	}
	var files []string
	filepath.WalkDir(base, func(p string, d os.DirEntry, err error) error {
		if !d.IsDir() && filepath.Base(p) != "key.asc" {
			rel, _ := filepath.Rel(base, p)
			files = append(files, rel)
		}
		return nil
	})
	check := func(t *testing.T, what, file string) {
		t.Helper()
		v, err := proof.VerifyDir(t.Context(), base, o)
		if err == nil && v.Exit != api.ExitVerify {
			t.Errorf("%s of %s was not found", what, file)
		}
	}
	for _, f := range files {
		p := filepath.Join(base, f)
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 {
			bad := slices.Clone(data)
			bad[len(bad)/2] ^= 1
			os.WriteFile(p, bad, 0o644)
			check(t, "a flipped bit", f)
		}
		os.Remove(p)
		if !strings.HasSuffix(f, "keys.asc") {
			check(t, "the removal", f)
		}
		os.WriteFile(p, data, 0o644)
	}
	extra := filepath.Join(base, "debian/pool/evil_1_amd64.deb")
	if err := os.WriteFile(extra, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, "an added package", extra)
	os.Remove(extra)
	if v, err := proof.VerifyDir(t.Context(), base, o); err != nil || len(v.Faults) > 0 {
		t.Fatalf("restored export: %v %+v", err, v.Faults)
	}
}

// A freeze without packages is proven like any other, on the server and as an export.
func TestVerifyEmpty(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("gone=1"), Format: "list", AllowMissing: true})
	w.Verify(t, "4.1")
	v, err := proof.VerifyDir(t.Context(), w.Export(t, "4.1").Dir, proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()})
	if err != nil || len(v.Faults) > 0 {
		t.Errorf("export: %v %+v", err, v)
	}
}

// The provenance has a separate signature, and names its manifest.
func TestProvenanceSigned(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	w.Freeze(t, api.FreezeRequest{Name: "4.2", Manifests: freezertest.List("b=1"), Format: "list"})
	e, later := w.Export(t, "4.1"), w.Export(t, "4.2")
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()}
	prov, sig := e.Read(t, "provenance.json"), e.Read(t, "provenance.json.asc")
	again, err := w.Signer.SignDetached(prov, mirrortest.Start)
	if err != nil || string(again) != string(sig) {
		t.Errorf("signed again: %v, other bytes: %s", err, again)
	}
	changed := []byte(strings.Replace(string(prov), `"program":"test"`, `"program":"evil"`, 1))
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(e.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, object, want string
		change             func()
	}{
		{"changed facts", "provenance.json.asc", "signature of the provenance", func() { e.Put(t, "provenance.json", changed) }},
		{"no signature", "provenance.json.asc", "the signature of the provenance is missing", func() { remove("provenance.json.asc") }},
		{"no provenance", "provenance.json", "no such file", func() { remove("provenance.json") }},
		{"that of another freeze", "provenance.json", "the provenance belongs to another manifest", func() {
			e.Put(t, "provenance.json", later.Read(t, "provenance.json"))
			e.Put(t, "provenance.json.asc", later.Read(t, "provenance.json.asc"))
		}},
		{"a stranger's signature", "provenance.json.asc", "signature of the provenance", func() {
			(&freezertest.Export{Dir: e.Dir, Signer: signtest.Signer(t, signtest.NewKey(t, "stranger"))}).PutSigned(t, "provenance.json", prov)
		}},
	} {
		c.change()
		v, err := proof.VerifyDir(t.Context(), e.Dir, o)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range v.Faults {
			found = found || f.Object == c.object && strings.Contains(f.Message, c.want)
		}
		if !found || v.Exit != api.ExitVerify {
			t.Errorf("%s: exit %d, %+v, expected %s: …%s…", c.name, v.Exit, v.Faults, c.object, c.want)
		}
		e.Put(t, "provenance.json", prov)
		e.Put(t, "provenance.json.asc", sig)
	}
	if v, err := proof.VerifyDir(t.Context(), e.Dir, o); err != nil || len(v.Faults)+len(v.Notes) > 0 {
		t.Errorf("restored: %v %+v", err, v)
	}
}

// checkSums checks that the list of an export's files must contain exactly the existing
// files, with their digests.
func checkSums(t *testing.T, base string, o proof.Options) {
	t.Helper()
	name := filepath.Join(base, freeze.SumsFile)
	list, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(name, list, 0o644)
	lines := strings.SplitAfter(strings.TrimSuffix(string(list), "\n"), "\n")
	for what, text := range map[string]string{
		"a line less":     strings.Join(lines[1:], ""),
		"a line more":     string(list) + strings.Repeat("0", 64) + "  zz\n",
		"another digest":  strings.Repeat("0", 64) + string(list)[64:],
		"no list":         "nothing\n",
		"a line twice":    lines[0] + string(list),
		"a file outside":  strings.Repeat("0", 64) + "  ../x\n" + string(list),
		"an absolute one": strings.Repeat("0", 64) + "  /x\n" + string(list),
		"no last newline": strings.TrimSuffix(string(list), "\n"),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if v, err := proof.VerifyDir(t.Context(), base, o); err != nil || len(v.Faults) == 0 || v.Faults[0].Object != freeze.SumsFile {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
	}
}
