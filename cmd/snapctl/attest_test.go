package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/sign"
)

// attestSample is the sample run of attest.
var attestSample = sampleRun{
	args:    []string{"4.1", "--image", "DIR/recorded.squashfs", "--key", "DIR/key.asc"},
	options: map[string]string{"image": "DIR/recorded.squashfs", "key": "DIR/key.asc", "variant": "apt", "tool": "dpkg=1", "output": "DIR/out.json"},
	base:    map[string][]string{"image": {"4.1", "--key", "DIR/key.asc"}, "key": {"4.1", "--image", "DIR/recorded.squashfs"}},
}

// attestedWorld adds answers with attestations of 4.1 by testKey: of the recorded
// image, which rebuild makes, and of another image, which udf offers.
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
	rebuilder := httptest.NewServer(rebuilderd{})
	t.Cleanup(rebuilder.Close)
	write(t, filepath.Join(dir, "rebuilders"), "rebuilder one "+rebuilder.URL+"/amd64/\n"+rebuilderPEM(t))
	x.fake.answers["attest/rebuilds"] = api.AttestedRebuilds{Name: "4.1", File: "_statements/rebuilds-1.json", Links: 1, New: true}
	one := api.Attestation{Name: "4.1", Variant: "apt", File: "_statements/attestation-1.json", Image: advertised, Expected: advertised, Equal: true, Keys: []string{key.ID()}, Envelope: envelope}
	added := api.Attested{Attestation: one, New: true}
	added.Envelope = nil
	x.fake.answers["attest/statement"] = api.AttestStatement{Payload: payload(recorded)}
	x.fake.answers["attest/add"] = added
	x.fake.answers["attest/comparison"] = api.AttestedComparison{Name: "4.1", File: "_statements/comparison-1.json", New: true}
	x.fake.answers["attest/rm"] = api.AttestRemoved{Name: "4.1", File: "_statements/attestation-" + digest + ".json"}
	x.fake.answers["attest/list"] = api.AttestationList{Name: "4.1", Manifest: digest, Attestations: []api.Attestation{one}}
}

// A statement that snapd proposes is not signed unless it describes the image that was
// built here.
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

// udf writes nothing if too few builders confirm an image.
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
	// The configuration has the same requirement.
	write(t, filepath.Join(dir, "udf.toml"), "data_dir = \"data\"\n[signing]\nkey_file = \"key.asc\"\nbuilders = \"builders\"\nthreshold = 1\n")
	configured := append([]string{"--config", filepath.Join(dir, "udf.toml"), "iuk", "udf"}, args...)
	if o := x.run(dir, configured...); o.Exit != 4 || !strings.Contains(o.Err, "expected 1, found 0 (none)") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	write(t, filepath.Join(dir, "udf.toml"), "data_dir = \"data\"\n[signing]\nkey_file = \"key.asc\"\nbuilders = \"builders\"\nthreshold = 2\n")
	if o := x.run(dir, configured...); o.Exit == 0 || !strings.Contains(o.Err, "threshold 2") {
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

// rebuilderKey is the key of a rebuilder.
var rebuilderKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func rebuilderPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(rebuilderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// rebuilderd is a rebuilder that has reproduced the bash of the tests, and another bash.
type rebuilderd struct{}

func (rebuilderd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch p := r.URL.Path; {
	case p == "/amd64/api/v1/packages/binary" && r.URL.Query().Get("name") == "bash":
		io.WriteString(w, `{"total":4,"records":[{"build_id":1,"artifact_id":2},{"build_id":3,"artifact_id":4},{"build_id":null},{"build_id":5,"artifact_id":6}]}`)
	case p == "/amd64/api/v1/packages/binary":
		io.WriteString(w, `{"total":0,"records":[]}`)
	case p == "/amd64/api/v1/builds/1/artifacts/2/attestation":
		w.Write(linkOf(digest))
	case p == "/amd64/api/v1/builds/3/artifacts/4/attestation":
		w.Write(linkOf(strings.Repeat("1", 64)))
	default:
		http.NotFound(w, r)
	}
}

// linkOf returns a link of the rebuilder about a package.
func linkOf(file string) []byte {
	signed := `{"_type":"link","name":"rebuild bash.deb","products":{"bash.deb":{"sha256":"` + file + `"}}}`
	return fmt.Appendf(nil, `{"signed":%s,"signatures":[{"keyid":"1","sig":"%x"}]}`, signed, ed25519.Sign(rebuilderKey, []byte(signed)))
}

// Attestations of files of the freeze are kept, each once; those of other files are
// only counted.
func TestAttestFetch(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	x.fake.set(func() {
		x.fake.answers["packages"] = api.PackageList{Ref: "4.1", Packages: []api.Package{
			{Name: "bash", Version: "5.2", Arch: "amd64", SHA256: digest}, {Name: "bash", Version: "5.2", Arch: "amd64", SHA256: digest, Mirror: "other"},
			{Name: "dash", Version: "1", Arch: "amd64", SHA256: strings.Repeat("2", 64)}, {Name: "bash", Version: "5.2", Arch: "source", SHA256: strings.Repeat("3", 64)},
		}}
	})
	args := []string{"attest", "fetch", "4.1", "--rebuilders", filepath.Join(dir, "rebuilders")}
	o := x.run("", append(args, "--json")...)
	var r api.FetchResult
	lines := strings.Split(strings.TrimSpace(o.Out), "\n") // progress, and the result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || o.Exit != 0 {
		t.Fatalf("exit %d, %v: %s%s", o.Exit, err, o.Out, o.Err)
	}
	if d := cmp.Diff([]api.FetchedRebuilder{{Name: "one", Packages: 2, Found: 1, Other: 1}}, r.Rebuilders); d != "" || len(r.Files) != 1 {
		t.Errorf("(-want +got):\n%s%+v", d, r.Files)
	}
	// Attestations that snapd has already are not sent again.
	link, err := attest.ParseLink(linkOf(digest))
	if err != nil {
		t.Fatal(err)
	}
	x.fake.set(func() {
		list := x.fake.answers["attest/list"].(api.AttestationList)
		list.Rebuilds = []api.Rebuilds{{File: "_statements/rebuilds-1.json", Links: attest.EncodeLinks([]*attest.Link{link})[0]}}
		x.fake.answers["attest/list"] = list
	})
	o = x.run("", args...)
	if o.Exit != 0 || !strings.HasSuffix(o.Out, "nothing new\n") || slices.ContainsFunc(o.Requests, func(r string) bool { return strings.Contains(r, "attest/rebuilds") }) {
		t.Errorf("exit %d: %s%s%v", o.Exit, o.Out, o.Err, o.Requests)
	}
	// A server that is not a rebuilder.
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }))
	t.Cleanup(broken.Close)
	write(t, filepath.Join(dir, "broken"), "rebuilder one "+broken.URL+"\n"+rebuilderPEM(t))
	if o := x.run("", "attest", "fetch", "4.1", "--rebuilders", filepath.Join(dir, "broken")); o.Exit != 1 || !strings.Contains(o.Err, "rebuilder one: ") || !strings.Contains(o.Err, errRebuilder.Error()) {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	write(t, filepath.Join(dir, "silent"), "rebuilder one\n"+rebuilderPEM(t))
	if o := x.run("", "attest", "fetch", "4.1", "--rebuilders", filepath.Join(dir, "silent")); o.Exit != 2 || !strings.Contains(o.Err, "expected a rebuilder with a URL") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	for _, threshold := range []string{"", "0", "2"} {
		if o := x.run("", "verify", "4.1", "--rebuilders", filepath.Join(dir, "silent"), "--threshold", threshold); o.Exit != 2 {
			t.Errorf("threshold %q: exit %d: %s", threshold, o.Exit, o.Err)
		}
	}
}
