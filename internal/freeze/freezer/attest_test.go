package freezer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/sign/signtest"
)

// Attestations are kept beside the freeze that they are about, are exported and imported
// with it, and count for users who name their builders. Invalid ones are refused, and
// leave nothing behind. Long because it follows one freeze.
func TestAttestations(t *testing.T) {
	w := freezertest.New(t, config.All)
	res := w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	other := w.Freeze(t, api.FreezeRequest{Name: "4.2", Manifests: freezertest.List("b=1"), Format: "list"})
	image, err := w.Freezer.AddImage(t.Context(), &api.ImageAdd{Name: "4.1"}, strings.NewReader("hsqs"))
	must(t, err)
	digest := func(s string) cas.Digest {
		d, err := cas.ParseDigest(s)
		must(t, err)
		return d
	}
	one, two := signtest.NewKey(t, "one"), signtest.NewKey(t, "two")
	list := "builder one\n" + string(one.Keyring().ExportArmored()) + "builder two\n" + string(two.Keyring().ExportArmored())
	packages, err := w.Freezer.Materials(t.Context(), "4.1")
	if err != nil || len(packages) != 1 || !strings.HasPrefix(packages[0].PURL, "pkg:deb/") {
		t.Fatalf("materials: %v, %v", packages, err)
	}
	good := attest.Statement{Freeze: "4.1", Variant: "default", Manifest: digest(res.Frozen.Manifest), Image: digest(image.SHA256), Expected: digest(image.SHA256), Packages: packages}
	signed := func(s attest.Statement, k *attest.Key) []byte {
		data, err := s.Encode()
		must(t, err)
		e, err := k.Sign(data, time.Time{})
		must(t, err)
		out, err := e.Encode()
		must(t, err)
		return out
	}
	ones, twos := attest.KeyOf(signtest.Signer(t, one)), attest.KeyOf(signtest.Signer(t, two))
	verify := func(threshold int) *api.VerifyResult {
		t.Helper()
		v, err := w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1", Builders: list, Threshold: threshold}, nil)
		must(t, err)
		return v
	}

	otherFreeze, otherManifest := good, good
	otherFreeze.Freeze = "4.2"
	otherManifest.Manifest = digest(other.Frozen.Manifest)
	for _, c := range []struct {
		name, freeze string
		data         []byte
		is           error
	}{
		{"malformed", "4.1", []byte("{}"), attest.ErrMalformed},
		{"of another freeze", "4.1", signed(otherFreeze, ones), attest.ErrOther},
		{"kept for another freeze", "4.2", signed(good, ones), attest.ErrOther},
		{"of another manifest", "4.1", signed(otherManifest, ones), attest.ErrOther},
		{"of no freeze", "4.3", signed(good, ones), meta.ErrNotFound},
	} {
		if _, _, _, err := w.Freezer.AddAttestation(t.Context(), c.freeze, c.data); !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if f, err := w.Freezer.Describe(t.Context(), "4.1"); err != nil || len(f.Statements) != 2 {
		t.Errorf("refused, and left behind: %v, %v", f.Statements, err)
	}

	if v := verify(1); v.Exit != api.ExitVerify || len(v.Faults) != 1 || v.Faults[0].Object != "image default" {
		t.Errorf("without attestations: %+v", v.Faults)
	}
	for i, want := range []bool{true, false} { // twice is once
		file, _, added, err := w.Freezer.AddAttestation(t.Context(), "4.1", signed(good, ones))
		if err != nil || added != want || !freeze.IsAttestation(file.Path) {
			t.Errorf("time %d: %v, %t, %v", i, file, added, err)
		}
	}
	if v := verify(1); v.Exit != 0 || len(v.Builders.Images) != 1 || strings.Join(v.Builders.Images[0].Confirm, " ") != "one" || strings.Join(v.Builders.Images[0].Silent, " ") != "two" {
		t.Errorf("one of two: %+v %+v", v.Faults, v.Builders)
	}
	differs := good
	differs.Image = cas.Sum([]byte("another"))
	_, _, _, err = w.Freezer.AddAttestation(t.Context(), "4.1", signed(differs, twos))
	must(t, err)
	if v := verify(2); v.Exit != api.ExitVerify || len(v.Builders.Images[0].Dissent) != 1 || !strings.Contains(v.Faults[0].Found, "1: one; two built another image, "+differs.Image.String()) {
		t.Errorf("two of two, one of whom disagrees: %+v %+v", v.Faults, v.Builders)
	}
	_, _, _, err = w.Freezer.AddAttestation(t.Context(), "4.1", signed(good, twos))
	must(t, err)
	if v := verify(2); v.Exit != 0 {
		t.Errorf("two of two: %+v", v.Faults)
	}
	if _, err := w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1", Builders: list, Threshold: 3}, nil); !errors.Is(err, freeze.ErrUsage) {
		t.Errorf("three of two: %v", err)
	}

	// The differences of a rebuilt image are kept beside the attestations.
	compared := &api.CompareResult{
		A: api.CompareSide{Name: "/home/me/a", SHA256: good.Image.String()}, B: api.CompareSide{Name: "/home/me/b", SHA256: differs.Image.String()}, Verdict: "contents",
		Differences: []api.CompareDifference{{Path: "/etc/hostname", Causes: []api.CompareCause{{Code: "host-name", A: "one", B: "two"}}}},
		Codes:       []api.CompareCount{{Code: "host-name", Paths: 1}}, Packages: []api.ComparePackage{}, Hint: "diffoscope /home/me/a /home/me/b", Exit: api.ExitVerify,
	}
	comparison, err := freeze.EncodeComparison(compared)
	if err != nil || strings.Contains(string(comparison), "/home/me") {
		t.Errorf("encoded: %s, %v", comparison, err)
	}
	for i, want := range []bool{true, false} { // twice is once
		file, added, err := w.Freezer.AddComparison(t.Context(), "4.1", comparison)
		if err != nil || added != want || file.Path != freeze.ComparisonPath(cas.Sum(comparison)) {
			t.Errorf("comparison, time %d: %v, %t, %v", i, file, added, err)
		}
	}
	for _, bad := range []string{"", "{}", strings.Replace(string(comparison), `"contents"`, `"equal"`, 1), strings.Replace(string(comparison), "the published image", "/home/me", 1), string(comparison) + "\n"} {
		if _, _, err := w.Freezer.AddComparison(t.Context(), "4.1", []byte(bad)); !errors.Is(err, freeze.ErrUsage) {
			t.Errorf("comparison %.200q: %v", bad, err)
		}
	}
	long := *compared
	for i := range 30_000 {
		long.Differences = append(long.Differences, api.CompareDifference{Path: fmt.Sprintf("/usr/lib/file-%d", i), Causes: []api.CompareCause{{Code: "contents"}}})
	}
	if data, err := freeze.EncodeComparison(&long); err != nil || len(data) > freeze.MaxComparison {
		t.Errorf("a long comparison: %d bytes, %v", len(data), err)
	} else if r, err := freeze.ParseComparison(data); err != nil || len(r.Differences) == 0 || len(r.Differences)+r.More != len(long.Differences) {
		t.Errorf("a long comparison: %+v, %v", r, err)
	}
	if f, err := w.Freezer.Describe(t.Context(), "4.1"); err != nil || len(f.Statements) != 6 {
		t.Errorf("with a comparison: %v, %v", f.Statements, err)
	}

	// The export proves the attestations offline, and a changed attestation is found.
	e := w.Export(t, "4.1")
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()}
	must(t, o.SetBuilders(&api.VerifyRequest{Builders: list, Threshold: 2}))
	if v, err := proof.VerifyDir(t.Context(), e.Dir, o); err != nil || v.Exit != 0 {
		t.Errorf("exported: %v, %+v", err, v.Faults)
	}
	other2 := freezertest.New(t, config.All)
	if _, err := other2.Freezer.Import(t.Context(), &api.ImportRequest{Dir: e.Dir}, nil); err != nil {
		t.Fatal(err)
	}
	if v, err := other2.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1", Builders: list, Threshold: 2}, nil); err != nil || v.Exit != 0 {
		t.Errorf("imported: %v, %+v", err, v)
	}
	// An imported statement names the image: refuse another image of that variant.
	if _, err := other2.Freezer.AddImage(t.Context(), &api.ImageAdd{Name: "4.1"}, strings.NewReader("other")); !errors.Is(err, freeze.ErrExists) {
		t.Errorf("another image beside an imported statement: %v", err)
	}
	if _, err := other2.Freezer.AddImage(t.Context(), &api.ImageAdd{Name: "4.1"}, strings.NewReader("hsqs")); err != nil {
		t.Errorf("the image of an imported statement: %v", err)
	}
	freezertest.Verify(t, other2.Freezer, "4.1")

	files, err := filepath.Glob(filepath.Join(e.Dir, "_statements/attestation-*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("exported attestations: %v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.WriteFile(files[0], append(data, '\n'), 0o644))
	if v, err := proof.VerifyDir(t.Context(), e.Dir, o); err != nil || v.Exit != api.ExitVerify {
		t.Errorf("changed: %v, %+v", err, v)
	}
	must(t, os.WriteFile(files[0], data, 0o644))
	foreign := signed(otherManifest, ones)
	must(t, os.WriteFile(filepath.Join(e.Dir, freeze.AttestationPath(cas.Sum(foreign))), foreign, 0o644))
	if v, err := proof.VerifyDir(t.Context(), e.Dir, o); err != nil || v.Exit != api.ExitVerify || !strings.Contains(v.Faults[0].Message, attest.ErrOther.Error()) {
		t.Errorf("an attestation of another manifest: %v, %+v", err, v)
	}

	// An existing freeze gets the new attestations of an export, and keeps none that were
	// removed.
	must(t, os.Remove(filepath.Join(e.Dir, freeze.AttestationPath(cas.Sum(foreign)))))
	sum, err := cas.ParseDigest(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(files[0]), "attestation-"), ".json"))
	must(t, err)
	file, err := other2.Freezer.RemoveAttestation(t.Context(), "4.1", sum)
	if err != nil || file.Path != freeze.AttestationPath(sum) {
		t.Errorf("remove: %v, %v", file, err)
	}
	for what, d := range map[string]cas.Digest{"what was removed": sum, "what is no attestation": digest(res.Frozen.Manifest)} {
		if _, err := other2.Freezer.RemoveAttestation(t.Context(), "4.1", d); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("remove %s: %v", what, err)
		}
	}
	freezertest.Verify(t, other2.Freezer, "4.1")
	for i, want := range []int{1, 0} {
		again, err := other2.Freezer.Import(t.Context(), &api.ImportRequest{Dir: e.Dir}, nil)
		if err != nil || again.New || again.Attestations != want || again.Files != 0 {
			t.Errorf("import %d: %+v, %v", i, again, err)
		}
		if f, err := other2.Freezer.Describe(t.Context(), "4.1"); err != nil || len(f.Statements) != 6 {
			t.Errorf("import %d: statements %v, %v", i, f.Statements, err)
		}
	}
	freezertest.Verify(t, other2.Freezer, "4.1")

	// Many large attestations cannot make the freeze unreadable.
	for i := 0; ; i++ {
		large := good
		large.Tools = map[string]string{fmt.Sprint("tool", i): strings.Repeat("x", 600<<10)}
		_, _, _, err := w.Freezer.AddAttestation(t.Context(), "4.1", signed(large, ones))
		if errors.Is(err, freeze.ErrFull) && i > 10 {
			break
		}
		if err != nil || i > 100 {
			t.Fatalf("large attestation %d: %v", i, err)
		}
	}
	if v := verify(2); v.Exit != 0 {
		t.Errorf("with many large ones: %+v", v.Faults)
	}
}
