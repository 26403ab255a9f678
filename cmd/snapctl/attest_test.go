package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/sign"
)

// attestSample is how the walk runs attest.
var attestSample = sampleRun{
	args:    []string{"4.1", "--image", "DIR/recorded.squashfs", "--key", "DIR/key.asc"},
	options: map[string]string{"image": "DIR/recorded.squashfs", "key": "DIR/key.asc", "variant": "apt", "tool": "dpkg=1", "output": "DIR/out.json"},
	base:    map[string][]string{"image": {"4.1", "--key", "DIR/key.asc"}, "key": {"4.1", "--image", "DIR/recorded.squashfs"}},
}

// attestedWorld adds answers about attestations of 4.1 by testKey: of the image that is
// recorded, which rebuild makes, and of another one that udf advertises.
func attestedWorld(t *testing.T, x *tester, dir, recorded string) {
	t.Helper()
	s, err := sign.NewSigner(testKey)
	if err != nil {
		t.Fatal(err)
	}
	key := attest.KeyOf(s)
	parse := func(s string) cas.Digest {
		d, err := cas.ParseDigest(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	payload := func(image string) []byte {
		data, err := (&attest.Statement{Freeze: "4.1", Variant: "apt", Manifest: parse(digest), Image: parse(image), Expected: parse(image), Builder: key.URI()}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	advertised, err := fileDigest(filepath.Join(dir, "new.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := key.Sign(payload(advertised), day)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ci.json"), string(envelope))
	write(t, filepath.Join(dir, "builders"), "builder ci\n"+string(testKey.Keyring().ExportArmored()))
	one := api.Attestation{Name: "4.1", Variant: "apt", File: "_statements/attestation-1.json", Image: advertised, Expected: advertised, Equal: true, Keys: []string{key.ID()}, Envelope: envelope}
	added := api.Attested{Attestation: one, New: true}
	added.Envelope = nil
	x.fake.answers["attest/statement"] = api.AttestStatement{Payload: payload(recorded)}
	x.fake.answers["attest/add"] = added
	x.fake.answers["attest/list"] = api.AttestationList{Name: "4.1", Manifest: digest, Attestations: []api.Attestation{one}}
}

// What snapd proposes is not signed unless it is about what was built here.
func TestAttestRefusesProposal(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	o := x.run(dir, "attest", "4.1", "--image", filepath.Join(dir, "old.squashfs"), "--key", filepath.Join(dir, "key.asc"), "--output", filepath.Join(dir, "out.json"))
	if o.Exit != 4 || !strings.Contains(o.Err, "expected the image") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	if _, err := os.Stat(filepath.Join(dir, "out.json")); err == nil {
		t.Error("it was signed all the same")
	}
	for _, r := range o.Requests {
		if strings.Contains(r, "attest/add") {
			t.Errorf("it was sent all the same: %s", r)
		}
	}
}

// A statement with anything that snapctl does not know, or with other tools, is not signed.
func TestAttestRefusesAdditions(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	proposed := string(x.fake.answers["attest/statement"].(api.AttestStatement).Payload)
	recorded := filepath.Join(dir, "recorded.squashfs")
	for _, c := range []struct{ old, new string }{
		{`"predicateType"`, `"byproducts":[],"predicateType"`},
		{`"subject":[{`, `"subject":[{"annotations":{"a":"b"},`},
		{`"builder":{`, `"builder":{"version":{"mksquashfs":"0.1"},`},
	} {
		changed := strings.Replace(proposed, c.old, c.new, 1)
		if changed == proposed {
			t.Fatalf("no %s in %s", c.old, proposed)
		}
		x.fake.set(func() { x.fake.answers["attest/statement"] = map[string][]byte{"payload": []byte(changed)} })
		o := x.run("", "attest", "4.1", "--image", recorded, "--key", filepath.Join(dir, "key.asc"))
		if o.Exit == 0 || !strings.Contains(o.Err, "statement that snapd proposes") {
			t.Errorf("%s: exit %d: %s", c.new, o.Exit, o.Err)
		}
	}
}

// Nothing is advertised that too few builders confirm, and nothing is written.
func TestUDFUnconfirmed(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	var args []string
	for _, a := range udfArgs {
		args = append(args, strings.ReplaceAll(strings.ReplaceAll(a, "DIR/new.squashfs", "DIR/old.squashfs"), "DIR", dir))
	}
	o := x.run(dir, append([]string{"iuk", "udf", "--builders", filepath.Join(dir, "builders"), "--threshold", "1"}, args...)...)
	if o.Exit != 4 || !strings.Contains(o.Err, "too few builders confirm the image: expected 1, found 0 (none)") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	if _, err := os.Stat(filepath.Join(dir, "udf", "v2")); err == nil {
		t.Error("files were written all the same")
	}
	for _, c := range [][]string{{"--threshold", "1"}, {"--builders", filepath.Join(dir, "builders")}, {"--builders", filepath.Join(dir, "builders"), "--threshold", "2"}, {"--builders", filepath.Join(dir, "builders"), "--threshold", "x"}} {
		if o := x.run(dir, append([]string{"verify", "4.1"}, c...)...); o.Exit != 2 {
			t.Errorf("%v: exit %d: %s", c, o.Exit, o.Err)
		}
	}
}
