package attest_test

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

var day = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

// edKey writes an Ed25519 key derived from a seed, and returns its file and its public
// key as PEM.
func edKey(t testing.TB, seed byte) (file, public string) {
	t.Helper()
	k := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), ed25519.SeedSize)))
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
		t.Fatal(err)
	}
	return file, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// pgpKey writes an OpenPGP key, and returns its file and its certificate.
func pgpKey(t testing.TB, name string) (file, public string) {
	t.Helper()
	k := signtest.NewKey(t, name)
	file = filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(file, k.Armored(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, string(k.Keyring().ExportArmored())
}

func load(t testing.TB, file string) *attest.Key {
	t.Helper()
	k, err := attest.LoadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sample() *attest.Statement {
	return &attest.Statement{
		Freeze: "4.1", Variant: "default", Manifest: cas.Sum([]byte("manifest")), Image: cas.Sum([]byte("image")), Expected: cas.Sum([]byte("image")),
		Builder: "openpgp4fpr:00", Tools: map[string]string{"mmdebstrap": "1.3.5"},
		Packages: []attest.Package{{"pkg:deb/debian/b@1?arch=amd64", cas.Sum([]byte("b"))}, {"pkg:deb/debian/a@1?arch=amd64", cas.Sum([]byte("a"))}},
	}
}

func encode(t testing.TB, s *attest.Statement) []byte {
	t.Helper()
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// signed returns an attestation by a key.
func signed(t testing.TB, k *attest.Key, s *attest.Statement) *attest.Attestation {
	t.Helper()
	e, err := k.Sign(encode(t, s), day)
	if err != nil {
		t.Fatal(err)
	}
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	a, err := attest.Parse(data)
	if err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return a
}

func builders(t testing.TB, text string) *attest.Builders {
	t.Helper()
	b, err := attest.ParseBuilders([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A statement can be read back from its envelope, has the same bytes each time, and
// follows the in-toto and SLSA formats.
func TestStatement(t *testing.T) {
	s := sample()
	data := encode(t, s)
	slices.Reverse(s.Packages)
	if again := encode(t, s); string(again) != string(data) {
		t.Errorf("the order of packages changes the statement:\n%s\n%s", data, again)
	}
	back, err := attest.ParseStatement(data)
	if err != nil {
		t.Fatal(err)
	}
	if again := encode(t, back); string(again) != string(data) {
		t.Errorf("read and written again:\n%s\n%s", data, again)
	}
	var w struct {
		Type      string `json:"_type"`
		Subject   []struct{ Name, Digest any }
		Predicate struct {
			BuildDefinition struct {
				ResolvedDependencies []struct {
					Name, URI   string
					Annotations map[string]int
				}
			}
		}
	}
	if err := json.Unmarshal(data, &w); err != nil {
		t.Fatal(err)
	}
	deps := w.Predicate.BuildDefinition.ResolvedDependencies
	if w.Type != "https://in-toto.io/Statement/v1" || len(w.Subject) != 1 || w.Subject[0].Name != "4.1/default" || len(deps) != 4 || deps[1].Annotations["count"] != 2 {
		t.Errorf("%s", data)
	}
	// Too many packages are not listed but only counted.
	for i := range 10000 {
		s.Packages = append(s.Packages, attest.Package{PURL: fmt.Sprintf("pkg:deb/debian/p%d@1?arch=amd64", i), SHA256: cas.Sum([]byte{byte(i)})})
	}
	if data = encode(t, s); len(data) > 2000 || !strings.Contains(string(data), `{"count":10002}`) {
		t.Errorf("a statement of 10,002 packages has %d bytes", len(data))
	}
}

// Signatures by both kinds of keys are deterministic. A builder counts once; an unknown
// signer or a signature of other bytes does not count; a builder of another image is
// named.
func TestConfirm(t *testing.T) {
	edFile, edPublic := edKey(t, 0)
	otherFile, otherPublic := edKey(t, 1)
	strangerFile, _ := edKey(t, 2)
	pgpFile, pgpPublic := pgpKey(t, "release")
	ed, other, stranger, pgp := load(t, edFile), load(t, otherFile), load(t, strangerFile), load(t, pgpFile)
	b := builders(t, "# who builds\nbuilder ci\n"+edPublic+"\nbuilder release\n"+pgpPublic+"builder third\n"+otherPublic)

	s, same := sample(), sample()
	same.Tools = nil
	different := sample()
	different.Image = cas.Sum([]byte("another"))
	unequal := sample()
	unequal.Expected = cas.Sum([]byte("another"))
	forged := signed(t, other, different)
	forged.Envelope.Payload = encode(t, s)
	forged.Statement = s

	for _, k := range []*attest.Key{ed, pgp} {
		x, y := signed(t, k, s), signed(t, k, s)
		if string(x.Envelope.Signatures[0].Sig) != string(y.Envelope.Signatures[0].Sig) {
			t.Errorf("%s signs twice differently", k.ID())
		}
	}
	for _, c := range []struct {
		name    string
		all     []*attest.Attestation
		confirm string
		dissent string
		silent  string
	}{
		{name: "nobody", silent: "ci release third"},
		{name: "one twice", all: []*attest.Attestation{signed(t, ed, s), signed(t, ed, same)}, confirm: "ci", silent: "release third"},
		{name: "two", all: []*attest.Attestation{signed(t, pgp, s), signed(t, ed, s)}, confirm: "ci release", silent: "third"},
		{name: "a stranger", all: []*attest.Attestation{signed(t, stranger, s)}, silent: "ci release third"},
		{name: "signature over other bytes", all: []*attest.Attestation{forged}, silent: "ci release third"},
		{name: "another image", all: []*attest.Attestation{signed(t, ed, s), signed(t, other, different)}, confirm: "ci", dissent: "third", silent: "release"},
		{name: "compared with another", all: []*attest.Attestation{signed(t, other, unequal)}, dissent: "third", silent: "ci release"},
		{name: "both", all: []*attest.Attestation{signed(t, other, different), signed(t, other, s)}, confirm: "third", dissent: "third", silent: "ci release"},
	} {
		got := b.Confirm("default", s.Image, c.all)
		var dissent []string
		for _, d := range got.Dissent {
			dissent = append(dissent, d.Builder)
		}
		if strings.Join(got.Confirm, " ") != c.confirm || strings.Join(dissent, " ") != c.dissent || strings.Join(got.Silent, " ") != c.silent {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	// One envelope with signatures of two builders.
	two := signed(t, ed, s)
	two.Envelope.Signatures = append(two.Envelope.Signatures, signed(t, pgp, s).Envelope.Signatures...)
	if got := b.Confirm("default", s.Image, []*attest.Attestation{two}); strings.Join(got.Confirm, " ") != "ci release" {
		t.Errorf("two signatures: %+v", got)
	}
	a := signed(t, ed, s)
	if err := a.Check("4.1", s.Manifest); err != nil {
		t.Error(err)
	}
	if err := a.Check("4.2", s.Manifest); !errors.Is(err, attest.ErrOther) {
		t.Errorf("another freeze: %v", err)
	}
	if err := a.Check("4.1", cas.Sum(nil)); !errors.Is(err, attest.ErrOther) {
		t.Errorf("another manifest: %v", err)
	}
}

// envelopeOf returns an envelope with arbitrary parts.
func envelopeOf(payloadType, payload, signatures string) string {
	return `{"payloadType":"` + payloadType + `","payload":"` + payload + `","signatures":` + signatures + `}`
}

const oneSignature = `[{"keyid":"x","sig":"YQ=="}]`

// hostile returns attestations that are refused, with a word of the reason.
func hostile(t testing.TB) []struct{ name, data, word string } {
	statement := string(encode(t, sample()))
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	in := func(s string) string { return envelopeOf(attest.PayloadType, b64(s), oneSignature) }
	change := func(old, new string) string {
		if !strings.Contains(statement, old) {
			t.Fatalf("the statement lacks %s", old)
		}
		return in(strings.Replace(statement, old, new, 1))
	}
	return []struct{ name, data, word string }{
		{"empty", "", "JSON"},
		{"a list", "[]", "expected a JSON object"},
		{"not UTF-8", "{\"\xff\":1}", "UTF-8"},
		{"no fields", "{}", "payloadType"},
		{"other payload type", envelopeOf("text/plain", b64(statement), oneSignature), "payloadType"},
		{"payload type in another case", strings.Replace(in(statement), "payloadType", "PayloadType", 1), "payloadType"},
		{"payload twice", strings.Replace(in(statement), `{"payloadType"`, `{"payload":"e30=","payloadType"`, 1), "twice"},
		{"deep", strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40), "levels"},
		{"very deep", strings.Repeat("[", 500000), "levels"},
		{"huge", `{"x":"` + strings.Repeat("a", attest.MaxEnvelope) + `"}`, "at most"},
		{"more after it", in(statement) + "{}", "after"},
		{"not base64", envelopeOf(attest.PayloadType, "a!", oneSignature), "base64"},
		{"base64 without its end", envelopeOf(attest.PayloadType, "YQ", oneSignature), "base64"},
		{"base64 with spare bits", envelopeOf(attest.PayloadType, "YR==", oneSignature), "base64"},
		{"base64 with line breaks", envelopeOf(attest.PayloadType, `YQ=\n=`, oneSignature), "line breaks"},
		{"no signature", envelopeOf(attest.PayloadType, b64(statement), "[]"), "signatures"},
		{"an empty signature", envelopeOf(attest.PayloadType, b64(statement), `[{"sig":""}]`), "found nothing"},
		{"signatures are text", envelopeOf(attest.PayloadType, b64(statement), `["a"]`), "objects"},
		{"too many signatures", envelopeOf(attest.PayloadType, b64(statement), "["+strings.Repeat(`{"sig":"YQ=="},`, 16)+`{"sig":"YQ=="}]`), "found 17"},
		{"payload is no JSON", in("hello"), "JSON"},
		{"a key of the statement twice", change(`{"_type"`, `{"_type":"x","_type"`), "twice"},
		{"a deep key twice", change(`"equal":true`, `"equal":false,"equal":true`), "twice"},
		{"other statement", change(attest.StatementType, "https://in-toto.io/Statement/v0.1"), "_type"},
		{"other predicate", change(attest.PredicateType, "https://slsa.dev/verification_summary/v1"), "predicateType"},
		{"other build type", change(attest.BuildType, "https://example.org/other"), "buildType"},
		{"no subject", change(`"subject":[`, `"subject":[],"other":[`), "subject"},
		{"two subjects", change(`"subject":[`, `"subject":[{"digest":{"sha256":"00"}},`), "subject"},
		{"a digest that is none", change(cas.Sum([]byte("image")).String(), "00"), "digest"},
		{"no manifest", change(`"name":"manifest.json"`, `"name":"manifest"`), "manifest.json"},
		{"two manifests", change(`"resolvedDependencies":[`, `"resolvedDependencies":[{"name":"manifest.json","digest":{"sha256":"`+cas.Sum(nil).String()+`"}},`), "found 2"},
		{"no verdict", change(`"snapd_verdict"`, `"verdict"`), "snapd_verdict"},
		{"a verdict that its digests deny", change(`"equal":true`, `"equal":false`), "equal is false"},
		{"a verdict that is text", change(`"equal":true`, `"equal":"true"`), "true or false"},
		{"versions that are numbers", change(`"1.3.5"`, `1`), "version"},
	}
}

func TestHostileAttestations(t *testing.T) {
	for _, c := range hostile(t) {
		_, err := attest.Parse([]byte(c.data))
		if !errors.Is(err, attest.ErrMalformed) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v, expected a word about %q", c.name, err, c.word)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("%s: an error of %d bytes", c.name, len(err.Error()))
		}
	}
}

func TestHostileBuilders(t *testing.T) {
	_, public := edKey(t, 0)
	_, pgp := pgpKey(t, "a")
	rsaPublic, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), 2046), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, word string }{
		{"empty", "", "found none"},
		{"a comment", "# nothing\n", "found none"},
		{"no name", "builder \n" + public, "name"},
		{"a name with spaces", "builder a b\n" + public, "name"},
		{"no key", "builder a\nbuilder b\n" + public, "builder a has no key"},
		{"a key before a builder", public, "before a key"},
		{"the name twice", "builder a\n" + public + "builder a\n" + pgp, "twice"},
		{"one key for two", "builder a\n" + public + "builder b\n" + public, "that of a already"},
		{"one certificate for two", "builder a\n" + pgp + "builder b\n" + pgp, "that of a already"},
		{"a key without end", "builder a\n" + strings.Replace(public, "-----END", "", 1), "no end"},
		{"damaged", "builder a\n" + strings.Replace(public, "MC", "!!", 1), "PEM"},
		{"an RSA key", "builder a\n" + string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: rsaPublic})), "Ed25519"},
		{"a private key", "builder a\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PRIVATE KEY"},
		{"other text", "builder a\nkey: x\n", "found \"key: x\""},
		{"huge", strings.Repeat("#", attest.MaxBuilders+1), "at most"},
		{"many", strings.Repeat("builder a\n", 300), "twice"},
	} {
		if _, err := attest.ParseBuilders([]byte(c.text)); !errors.Is(err, attest.ErrBuilders) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v, expected a word about %q", c.name, err, c.word)
		}
	}
}

// Keys that cannot sign are refused, and so are files that others can read.
func TestHostileKeys(t *testing.T) {
	good, public := edKey(t, 0)
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		is         error
	}{
		{"others may read it", string(text), 0o644, sign.ErrKeyMode},
		{"a public key", public, 0o600, sign.ErrKeyFile},
		{"two keys", string(text) + string(text), 0o600, sign.ErrKeyFile},
		{"no key", "hello", 0o600, sign.ErrKeyFile},
		{"damaged", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, sign.ErrKeyFile},
	} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := attest.LoadKey(file); !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
