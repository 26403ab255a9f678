package attest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/cas"
)

// linkOf returns a link about a package, signed by a key.
func linkOf(t *testing.T, key ed25519.PrivateKey, name string, file cas.Digest) []byte {
	t.Helper()
	signed := fmt.Sprintf(`{"_type":"link","byproducts":{},"command":[],"environment":null,"materials":{},"name":"rebuild %[1]s","products":{"%[1]s":{"sha256":"%[2]s"}}}`, name, file)
	return fmt.Appendf(nil, `{ "signed": %s, "signatures": [{"keyid":"1","sig":"%s"}] }`, signed, hex.EncodeToString(ed25519.Sign(key, []byte(signed))))
}

func publicPEM(t *testing.T, k ed25519.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// An attestation of a public rebuilder is verified with the key that it publishes, whose
// encoding crypto/x509 refuses.
func TestRebuilderdLink(t *testing.T) {
	data, err := os.ReadFile("testdata/rebuilderd/librust-as-slice-dev.link")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("testdata/rebuilderd/rebuilders.txt")
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRebuilders(list)
	if err != nil {
		t.Fatal(err)
	}
	if l := r.List(); len(l) != 1 || l[0].URL != "https://rebuilder.example.org/amd64" || !r.Except("hello") || r.Except("debian") {
		t.Errorf("%+v", l)
	}
	l, err := ParseLink(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Signers(l); !slices.Equal(got, []string{"debian"}) {
		t.Errorf("signed by %q", got)
	}
	lists := EncodeLinks([]*Link{l, l})
	if len(lists) != 1 {
		t.Fatalf("%d lists", len(lists))
	}
	again, err := ParseLinks(lists[0])
	if err != nil || len(again) != 1 || again[0].Text() != l.Text() || len(r.Signers(again[0])) != 1 {
		t.Errorf("%v: %s", err, lists[0])
	}
	const file = "32be954941cdb42bce44c19ece910af04ece3a1acc9b79fa3e8ff735ffb511cd"
	if got := r.Reproduced(again); len(got) != 1 || l.Products[0].String() != file || !slices.Equal(got[l.Products[0]], []string{"debian"}) {
		t.Errorf("reproduced %v", got)
	}
	changed, err := ParseLink(bytes.Replace(data, []byte("32be9549"), []byte("32be9548"), 1))
	if err != nil || len(r.Signers(changed)) != 0 {
		t.Errorf("a changed link: %v, signed by %q", err, r.Signers(changed))
	}
}

// A rebuilder counts once, regardless of the number of its links and keys.
func TestReproduced(t *testing.T) {
	key := func(n byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)) }
	r, err := ParseRebuilders([]byte("rebuilder one\n" + publicPEM(t, key(1)) + publicPEM(t, key(2)) + "rebuilder two\n" + publicPEM(t, key(3))))
	if err != nil {
		t.Fatal(err)
	}
	a, b := cas.Sum([]byte("a")), cas.Sum([]byte("b"))
	var links []*Link
	for _, x := range []struct {
		key  byte
		file cas.Digest
	}{{1, a}, {2, a}, {3, a}, {1, b}, {4, b}} {
		l, err := ParseLink(linkOf(t, key(x.key), "x.deb", x.file))
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	if got := fmt.Sprint(r.Reproduced(links)[a], r.Reproduced(links)[b]); got != "[one two] [one]" {
		t.Errorf("reproduced by %s", got)
	}
	// Lists are limited in size, sorted and complete.
	var many []*Link
	for i := range 3000 {
		l, err := ParseLink(linkOf(t, key(1), strings.Repeat("x", 500), cas.Sum(fmt.Append(nil, i))))
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, l)
	}
	n := 0
	for _, list := range EncodeLinks(many) {
		links, err := ParseLinks(list)
		if err != nil || len(list) > MaxEnvelope {
			t.Errorf("a list of %d bytes: %v", len(list), err)
		}
		n += len(links)
	}
	if n != len(many) {
		t.Errorf("%d links, expected %d", n, len(many))
	}
}

func TestHostileLinks(t *testing.T) {
	digest := strings.Repeat("0", 64)
	good := `{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"link","products":{"x":{"sha256":"` + digest + `"}}}}`
	if _, err := ParseLink([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"no JSON":           "x",
		"no object":         "[]",
		"another type":      strings.Replace(good, `"link"`, `"layout"`, 1),
		"no products":       strings.Replace(good, `{"x":{"sha256":"`+digest+`"}}`, `{}`, 1),
		"another digest":    strings.Replace(good, "sha256", "sha512", 1),
		"a short digest":    strings.Replace(good, digest, "00", 1),
		"no signature":      strings.Replace(good, `{"keyid":"","sig":""}`, "", 1),
		"no hexadecimal":    strings.Replace(good, `"sig":""`, `"sig":"x"`, 1),
		"a key twice":       strings.Replace(good, `"_type":"link"`, `"_type":"link","_type":"link"`, 1),
		"a fraction":        strings.Replace(good, `"_type"`, `"n":0.5,"_type"`, 1),
		"a control":         strings.Replace(good, `"_type"`, `"n":"\u0001","_type"`, 1),
		"too many products": strings.Replace(good, `"x":`, strings.Repeat(`"y":{},`, 2), 1),
		"too long":          strings.Replace(good, `"_type"`, `"n":"`+strings.Repeat("x", MaxLink)+`","_type"`, 1),
	} {
		if _, err := ParseLink([]byte(data)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ParseLinks([]byte("[" + data + "]")); !errors.Is(err, ErrMalformed) && name != "too long" {
			t.Errorf("%s in a list: %v", name, err)
		}
	}
	key := publicPEM(t, ed25519.NewKeyFromSeed(make([]byte, 32)))
	for want, list := range map[string]string{
		"expected \"rebuilder NAME\" and keys":    "# nothing\n",
		"has no key":                              "rebuilder one\n",
		"before a key":                            key,
		"is that of one already":                  "rebuilder one\n" + key + "rebuilder two\n" + key,
		"rebuilder one occurs twice":              "rebuilder one\n" + key + "rebuilder one\n",
		"expected an http or https URL":           "rebuilder one file:///x\n" + key,
		"the key has no end":                      "rebuilder one\n-----BEGIN PUBLIC KEY-----\n",
		"expected the name of a package":          "rebuilder one\n" + key + "except ../x\n",
		"or a public key, found \"builder one\"":  "builder one\n",
		"expected an Ed25519 public key":          "rebuilder one\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"expected at most 64 letters, digits and": "rebuilder é\n",
		"expected a public key as PEM":            "rebuilder one\n-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n",
	} {
		if _, err := ParseRebuilders([]byte(list)); !errors.Is(err, ErrRebuilders) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, expected %q", list, err, want)
		}
	}
}
