package sign_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// gnupg is a GnuPG home of its own, as the other side of every format here.
type gnupg struct {
	t    testing.TB
	home string
}

func newGnuPG(t testing.TB) gnupg {
	t.Helper()
	needs.Program(t, "gpg")
	home, err := os.MkdirTemp("", "gpg") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	// Calibrating how often passphrases are hashed takes seconds.
	if err := os.WriteFile(filepath.Join(home, "gpg-agent.conf"), []byte("s2k-count 65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return gnupg{t, home}
}

// run runs gpg at the given time and returns its standard output.
func (g gnupg) run(at time.Time, stdin []byte, args ...string) []byte {
	g.t.Helper()
	args = append([]string{"--homedir", g.home, "--batch", "--no-tty", "--yes", "--trust-model", "always", "--pinentry-mode", "loopback", "--passphrase", "",
		"--faked-system-time", at.UTC().Format("20060102T150405") + "!"}, args...)
	cmd := exec.CommandContext(g.t.Context(), "gpg", args...)
	var out, serr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &serr
	if err := cmd.Run(); err != nil {
		g.t.Fatalf("gpg %v: %v\n%s", args, err, serr.String())
	}
	return out.Bytes()
}

// key makes a key and returns its certificate.
func (g gnupg) key(name, algo, usage, expires string) *sign.Keyring {
	g.t.Helper()
	g.run(signtest.Created, nil, "--quick-gen-key", name, algo, usage, expires)
	return g.export(name)
}

func (g gnupg) export(name string) *sign.Keyring {
	g.t.Helper()
	kr, err := sign.ParseKeyring(g.run(day, nil, "--export", name))
	if err != nil {
		g.t.Fatal(err)
	}
	return kr
}

func TestSignaturesByGnuPG(t *testing.T) {
	g := newGnuPG(t)
	for _, tt := range []struct{ name, algo, want string }{
		{"rsa@example.org", "rsa2048", "RSA 2048"},
		{"ed@example.org", "ed25519", "EdDSA"},
		{"dsa@example.org", "dsa2048", "DSA 2048"},
		{"ecdsa@example.org", "nistp256", "ECDSA"},
	} {
		t.Run(tt.algo, func(t *testing.T) {
			g := gnupg{t, g.home}
			kr := g.key(tt.name, tt.algo, "sign", "never")
			opts := sign.VerifyOptions{Keyring: kr, At: day}
			k := kr.Keys()[0]
			if diff := cmp.Diff(sign.Key{Fingerprint: kr.Fingerprints()[0], UserID: tt.name, Created: signtest.Created, Algorithm: tt.want}, k); diff != "" {
				t.Errorf("key (-want +got):\n%s", diff)
			}
			v, err := sign.VerifyClearsigned(g.run(day, []byte(release), "-u", tt.name, "--clearsign"), opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSuffix(release, "\n"), string(v.Text)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			for _, how := range [][]string{nil, {"--armor"}, {"--textmode"}, {"--textmode", "--armor"}} {
				sig := g.run(day, []byte(release), append(how, "-u", tt.name, "--detach-sign")...)
				v, err := sign.VerifyDetached([]byte(release), sig, opts)
				if err != nil {
					t.Errorf("%v: %v", how, err)
				} else if got := v.Good[0]; got.Fingerprint != k.Fingerprint || got.UserID != tt.name || !got.Created.Equal(day) {
					t.Errorf("%v: %+v", how, got)
				}
				if _, err := sign.VerifyDetached([]byte(release+" "), sig, opts); !errors.Is(err, sign.ErrBadSignature) {
					t.Errorf("%v over other data: %v", how, err)
				}
			}
		})
	}
}

func TestSubkeysAndExpiryByGnuPG(t *testing.T) {
	g := newGnuPG(t)
	g.run(signtest.Created, nil, "--quick-gen-key", "archive@example.org", "ed25519", "cert", "10y")
	fpr := g.export("archive@example.org").Fingerprints()[0]
	g.run(signtest.Created, nil, "--quick-add-key", string(fpr), "rsa2048", "sign", "7y")
	g.run(signtest.Created, nil, "--quick-add-key", string(fpr), "cv25519", "encr", "never")
	kr := g.export(string(fpr))
	k := kr.Keys()[0]
	clear := g.run(day, []byte(release), "--clearsign")
	at := func(kr *sign.Keyring, t time.Time) (sign.Verified, error) {
		return sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: kr, At: t})
	}
	v, err := at(kr, day)
	if err != nil {
		t.Fatal(err)
	}
	if s := v.Good[0]; s.Fingerprint != fpr || sign.Fingerprint(s.SigningKey) != k.Subkeys[0] {
		t.Errorf("signed by %s of %s, want %s of %s", s.SigningKey, s.Fingerprint, k.Subkeys[0], fpr)
	}
	if f, err := kr.Filter(sign.ParseFingerprint(strings.ToLower(string(k.Subkeys[0])))); err != nil || f.Len() != 1 {
		t.Errorf("filter by subkey: %v", err)
	}
	if !kr.Contains(k.Subkeys[1]) || kr.Contains(sign.Fingerprint(string(fpr[1:])+"0")) {
		t.Error("Contains")
	}
	later := day.AddDate(3, 0, 0) // the subkey has expired, the primary key has not
	if _, err := at(kr, later); !errors.Is(err, sign.ErrExpired) {
		t.Errorf("expired subkey: %v", err)
	}
	// Extended long after: old signatures count again at any time.
	g.run(later, nil, "--quick-set-expire", string(fpr), "30y", string(k.Subkeys[0]))
	g.run(later, nil, "--quick-set-expire", string(fpr), "30y")
	for _, when := range []time.Time{day, later, day.AddDate(10, 0, 0)} {
		if _, err := at(g.export(string(fpr)), when); err != nil {
			t.Errorf("extended, at %v: %v", when, err)
		}
	}
	// A signature with an expiry of its own.
	short := g.run(day, []byte(release), "--default-sig-expire", "10d", "--clearsign")
	opts := sign.VerifyOptions{Keyring: g.export(string(fpr)), At: day}
	if _, err := sign.VerifyClearsigned(short, opts); err != nil {
		t.Errorf("expiring signature: %v", err)
	}
	opts.Now = day.AddDate(0, 0, 11)
	if _, err := sign.VerifyClearsigned(short, opts); !errors.Is(err, sign.ErrExpired) {
		t.Errorf("expired signature: %v", err)
	}
	opts.Now = day.AddDate(0, 0, -2)
	if _, err := sign.VerifyClearsigned(short, opts); !errors.Is(err, sign.ErrBadSignature) {
		t.Errorf("signature from the future: %v", err)
	}
	// The subkey revoked.
	cmd := exec.CommandContext(t.Context(), "gpg", "--homedir", g.home, "--no-tty", "--command-fd", "0", "--status-fd", "2", "--pinentry-mode", "loopback", "--passphrase", "",
		"--faked-system-time", "20240101T000000!", "--edit-key", string(fpr))
	cmd.Stdin = strings.NewReader("key 1\nrevkey\ny\n1\n\ny\nsave\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := at(g.export(string(fpr)), day); !errors.Is(err, sign.ErrRevoked) {
		t.Errorf("revoked subkey: %v", err)
	}
}

func TestSeveralSignatures(t *testing.T) {
	g := newGnuPG(t)
	a, b := g.key("a@example.org", "ed25519", "sign", "never"), g.key("b@example.org", "rsa2048", "sign", "never")
	c := signtest.NewKey(t, "c")
	data := []byte(release)
	both := g.run(day, data, "-u", "a@example.org", "-u", "b@example.org", "--clearsign")
	for _, tt := range []struct {
		name        string
		kr          *sign.Keyring
		good, other int
		err         error
	}{
		{"both", sign.Merge(a, b), 2, 0, nil},
		{"first", a, 1, 1, nil},
		{"second, among others", sign.Merge(c.Keyring(), b), 1, 1, nil},
		{"neither", c.Keyring(), 0, 2, sign.ErrUnknownKey},
		{"none", new(sign.Keyring), 0, 2, sign.ErrUnknownKey},
		{"nil", nil, 0, 2, sign.ErrUnknownKey},
	} {
		v, err := sign.VerifyClearsigned(both, sign.VerifyOptions{Keyring: tt.kr, At: day})
		if !errors.Is(err, tt.err) || len(v.Good) != tt.good || len(v.Other) != tt.other {
			t.Errorf("%s: %v, %d good, %d other", tt.name, err, len(v.Good), len(v.Other))
		}
	}
	det := g.run(day, data, "-u", "a@example.org", "-u", "b@example.org", "--detach-sign")
	opts := sign.VerifyOptions{Keyring: a, At: day}
	// A broken packet and one of an unknown version beside a good one.
	for _, extra := range [][]byte{{0xc2, 3, 4, 0, 1}, {0xc2, 2, 9, 9}, {0xc2, 0}} {
		if v, err := sign.VerifyDetached(data, append(extra[:len(extra):len(extra)], det...), opts); err != nil || len(v.Other) != 2 {
			t.Errorf("with % x: %v", extra, err)
		}
	}
	// Two armored blocks in one file, as some Release.gpg have.
	two := append(signtest.Detach(t, c, data, day), g.run(day, data, "-u", "a@example.org", "--armor", "--detach-sign")...)
	if v, err := sign.VerifyDetached(data, two, opts); err != nil || len(v.Other) != 1 {
		t.Errorf("two blocks: %v", err)
	}
	var many []byte
	for range 65 {
		many = append(many, 0xc2, 2, 9, 9)
	}
	if _, err := sign.VerifyDetached(data, many, opts); !errors.Is(err, sign.ErrMalformed) {
		t.Errorf("65 signatures: %v", err)
	}
}

func TestWeak(t *testing.T) {
	g := newGnuPG(t)
	kr := g.key("weak@example.org", "rsa2048", "sign", "never")
	for _, digest := range []string{"SHA1", "MD5", "RIPEMD160"} {
		clear := g.run(day, []byte(release), "--allow-weak-digest-algos", "--digest-algo", digest, "--clearsign")
		_, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: kr, At: day})
		if digest == "SHA1" && !errors.Is(err, sign.ErrWeak) || err == nil {
			t.Errorf("%s: %v", digest, err)
		}
	}
	small := g.key("small@example.org", "rsa1024", "sign", "never")
	clear := g.run(day, []byte(release), "-u", "small@example.org", "--clearsign")
	if _, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: small, At: day}); !errors.Is(err, sign.ErrWeak) {
		t.Errorf("RSA 1024: %v", err)
	}
}

// v3 makes a version 3 signature packet by an RSA key (RFC 4880, section
// 5.2.2), as rpm before 4.14 did.
func v3(t testing.TB, k *sign.PrivateKey, data []byte, at time.Time, hash crypto.Hash) []byte {
	t.Helper()
	key := sign.RSAKey(k)
	suffix := binary.BigEndian.AppendUint32([]byte{0}, uint32(at.Unix()))
	h, id := sha256.New(), byte(8)
	if hash == crypto.SHA1 {
		h, id = sha1.New(), 2
	}
	h.Write(data)
	h.Write(suffix)
	sum := h.Sum(nil)
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, hash, sum)
	if err != nil {
		t.Fatal(err)
	}
	var keyID uint64
	fmt.Sscanf(string(k.Fingerprint()[24:]), "%X", &keyID)
	body := append([]byte{3, 5}, suffix...)
	body = binary.BigEndian.AppendUint64(body, keyID)
	body = append(body, 1, id, sum[0], sum[1])
	for len(sig) > 0 && sig[0] == 0 {
		sig = sig[1:]
	}
	bits := len(sig)*8 - 8
	for b := sig[0]; b > 0; b >>= 1 {
		bits++
	}
	body = append(binary.BigEndian.AppendUint16(body, uint16(bits)), sig...)
	return append(binary.BigEndian.AppendUint16([]byte{0x89}, uint16(len(body))), body...)
}

func TestVersion3(t *testing.T) {
	k := signtest.NewRSAKey(t, "rpm")
	data := []byte("header\nand more\n")
	opts := sign.VerifyOptions{Keyring: k.Keyring(), At: day}
	sig := v3(t, k, data, day, crypto.SHA256)
	if _, status, err := gpgv(t, signtest.KeyringFile(t, k), write(t, "sig", sig), write(t, "data", data)); err != nil {
		t.Fatalf("gpgv does not take the test's own signature: %v\n%s", err, status)
	}
	v, err := sign.VerifyPacket(t.Context(), sig, bytes.NewReader(data), opts)
	if err != nil {
		t.Fatal(err)
	}
	want := []sign.Signature{{Fingerprint: k.Fingerprint(), SigningKey: string(k.Fingerprint()), UserID: "rpm <rpm@example.org>", Created: day, Digest: "SHA256"}}
	if diff := cmp.Diff(want, v.Good); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := sign.VerifyPacket(t.Context(), sig, strings.NewReader("other"), opts); !errors.Is(err, sign.ErrBadSignature) {
		t.Errorf("other data: %v", err)
	}
	if _, err := sign.VerifyPacket(t.Context(), v3(t, k, data, day, crypto.SHA1), bytes.NewReader(data), opts); !errors.Is(err, sign.ErrWeak) {
		t.Errorf("SHA-1: %v", err)
	}
	for n := range sig {
		if _, err := sign.VerifyPacket(t.Context(), sig[:n], bytes.NewReader(data), opts); err == nil {
			t.Fatalf("accepted when cut to %d bytes", n)
		}
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 0x10
		// The two digest bytes and the key id are only hints.
		if v, err := sign.VerifyPacket(t.Context(), bad, bytes.NewReader(data), opts); err == nil && (i < 20 || i > 21) {
			t.Errorf("accepted with byte %d changed: %+v", i, v)
		}
	}
	pv, err := sign.NewPacketVerifier(sig, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range data {
		pv.Write([]byte{b})
	}
	if _, err := pv.Verify(); err != nil {
		t.Errorf("piecewise: %v", err)
	}
}

func TestRenewAndRevokeByGnuPG(t *testing.T) {
	k := signtest.NewExpiringKey(t, "renew", day.AddDate(0, 0, 1))
	clear := write(t, "InRelease", signtest.ClearSign(t, k, release, day))
	later := day.AddDate(1, 0, 0)
	show := func(k *sign.PrivateKey) string {
		g := newGnuPG(t)
		g.run(later, k.Armored(), "--import")
		out := g.run(later, nil, "--with-colons", "--list-keys", string(k.Fingerprint()))
		return strings.Join(strings.Split(strings.Split(string(out), "\npub:")[1], ":")[:6], ":")
	}
	r, err := k.Renew(later, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Public().Expires.IsZero() || r.Fingerprint() != k.Fingerprint() {
		t.Errorf("renewed: %+v", r.Public())
	}
	if got, want := show(r), fmt.Sprintf("-:255:22:%s:%d:", k.Fingerprint()[24:], signtest.Created.Unix()); got != want {
		t.Errorf("gpg reads %s, want %s", got, want)
	}
	end := later.AddDate(5, 0, 0)
	r2, err := r.Renew(later.Add(time.Second), end)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(r2), fmt.Sprintf("-:255:22:%s:%d:%d", k.Fingerprint()[24:], signtest.Created.Unix(), end.Unix()); got != want {
		t.Errorf("gpg reads %s, want %s", got, want)
	}
	if _, err := r2.Renew(later, time.Time{}); err == nil {
		t.Error("renewed with a time before the last self-signature")
	}
	for _, kr := range []*sign.PrivateKey{k, r, r2} {
		if _, status, err := gpgv(t, signtest.KeyringFile(t, kr), clear); err != nil {
			t.Errorf("gpgv: %v\n%s", err, status)
		}
	}
	if _, status, _ := gpgv(t, signtest.KeyringFile(t, signtest.Revoked(t, r, later, true)), clear); !strings.Contains(status, "REVKEYSIG") {
		t.Errorf("gpgv does not see the revocation:\n%s", status)
	}
	if s, err := sign.NewSigner(k); err != nil {
		t.Error(err)
	} else if _, err := s.SignDetached([]byte("x"), later); !errors.Is(err, sign.ErrExpired) {
		t.Errorf("signing with an expired key: %v", err)
	}
}

// TestRenewSubkeys: a key made by GnuPG whose signing subkey expires.
func TestRenewSubkeys(t *testing.T) {
	g := newGnuPG(t)
	g.run(signtest.Created, nil, "--quick-gen-key", "a@example.org", "ed25519", "cert", "1y")
	fpr := g.export("a@example.org").Fingerprints()[0]
	g.run(signtest.Created, nil, "--quick-add-key", string(fpr), "ed25519", "sign", "1y")
	g.run(signtest.Created, nil, "--quick-add-uid", string(fpr), "b@example.org")
	k, err := sign.ParsePrivateKey(g.run(signtest.Created, nil, "--armor", "--export-secret-keys", string(fpr)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := k.Renew(day, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustParse(t, r.Armored()).Armored(), r.Armored()) {
		t.Error("armor does not read back")
	}
	clear := signtest.ClearSign(t, r, release, day)
	v, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: r.Keyring(), At: day.AddDate(50, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if s := v.Good[0]; sign.Fingerprint(s.SigningKey) != r.Public().Subkeys[0] {
		t.Errorf("signed by %s", s.SigningKey)
	}
	if _, status, err := gpgv(t, signtest.KeyringFile(t, r), write(t, "InRelease", clear)); err != nil || strings.Contains(status, "EXPKEYSIG") {
		t.Errorf("gpgv: %v\n%s", err, status)
	}
}

func mustParse(t testing.TB, armored []byte) *sign.PrivateKey {
	t.Helper()
	k, err := sign.ParsePrivateKey(armored)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyFiles(t *testing.T) {
	k := signtest.NewKey(t, "server")
	path := signtest.PrivateKeyFile(t, k)
	s, err := sign.LoadSigner(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Fingerprint() != k.Fingerprint() || !s.CreatedAt().Equal(signtest.Created) || !s.Expiry().IsZero() {
		t.Errorf("%+v", s.Public())
	}
	os.Chmod(path, 0o640)
	_, err = sign.LoadSigner(path)
	if want := "unusable private key: " + path + " has mode 0640, expected 0600"; err == nil || err.Error() != want || !errors.Is(err, sign.ErrKeyFile) {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := sign.LoadSigner(t.TempDir()); !errors.Is(err, sign.ErrKeyFile) {
		t.Errorf("directory: %v", err)
	}
	if _, err := sign.LoadSigner(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if os.Geteuid() == 0 {
		foreign := signtest.PrivateKeyFile(t, k)
		os.Chown(foreign, 12345, 0)
		if _, err := sign.LoadSigner(foreign); !errors.Is(err, sign.ErrKeyFile) || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("foreign: %v", err)
		}
	}
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(f, k); got != "private key "+string(k.Fingerprint()) {
			t.Errorf("%s shows %q", f, got)
		}
	}
	g := newGnuPG(t)
	g.run(day, nil, "--passphrase", "secret", "--quick-gen-key", "locked@example.org", "ed25519", "sign", "never")
	locked := g.run(day, nil, "--passphrase", "secret", "--armor", "--export-secret-keys")
	if _, err := sign.ParsePrivateKey(locked); !errors.Is(err, sign.ErrKeyFile) || !strings.Contains(err.Error(), "protected by a passphrase") {
		t.Errorf("locked: %v", err)
	}
	g = newGnuPG(t)
	g.run(day, nil, "--quick-gen-key", "p256@example.org", "nistp256", "sign", "never")
	if _, err := sign.NewSigner(mustParse(t, g.run(day, nil, "--armor", "--export-secret-keys"))); !errors.Is(err, sign.ErrKeyFile) {
		t.Errorf("ECDSA: %v", err)
	}
	if _, err := sign.ParsePrivateKey(k.Keyring().ExportArmored()); !errors.Is(err, sign.ErrMalformed) {
		t.Errorf("public key: %v", err)
	}
	if _, err := sign.ParseKeyring(k.Armored()); !errors.Is(err, sign.ErrMalformed) {
		t.Errorf("private key as a keyring: %v", err)
	}
}

func TestCommandSigner(t *testing.T) {
	k, other := signtest.NewKey(t, "remote"), signtest.NewKey(t, "other")
	g := newGnuPG(t)
	g.run(day, k.Armored(), "--import")
	public := k.Keyring().ExportArmored()
	gpg := `exec gpg --homedir ` + g.home + ` --batch --faked-system-time "$SNAPD_SIGN_TIME!" -u "$SNAPD_SIGN_FINGERPRINT" --textmode --detach-sign`
	for _, tt := range []struct {
		name   string
		script string
		public []byte
		opts   sign.CommandOptions
		msg    string // a part of the error; empty: good
	}{
		{"binary", gpg, public, sign.CommandOptions{}, ""},
		{"armored", gpg + " --armor", public, sign.CommandOptions{}, ""},
		{"wrong time", strings.Replace(gpg, `"$SNAPD_SIGN_TIME!"`, "20200301T000000!", 1), public, sign.CommandOptions{},
			"the signature is dated 2020-03-01T00:00:00Z, expected 2020-02-29T12:00:00Z"},
		{"wrong time, allowed", strings.Replace(gpg, `"$SNAPD_SIGN_TIME!"`, "20200301T000000!", 1), public, sign.CommandOptions{AnyTime: true}, ""},
		{"wrong type", strings.Replace(gpg, "--textmode", "", 1), public, sign.CommandOptions{}, "expected one of type text"},
		{"wrong key", gpg, other.Keyring().ExportArmored(), sign.CommandOptions{}, "exit status 2"},
		{"a key that is not the announced one", strings.Replace(gpg, `"$SNAPD_SIGN_FINGERPRINT"`, string(k.Fingerprint()), 1), other.Keyring().ExportArmored(), sign.CommandOptions{}, "signature by an unknown key"},
		{"other data", "(cat; echo x) | (" + gpg + ")", public, sign.CommandOptions{}, "bad signature"},
		{"failure", "echo no card >&2; exit 3", public, sign.CommandOptions{}, "exit status 3: no card"},
		{"failure after a signature", strings.TrimPrefix(gpg, "exec ") + "; exit 4", public, sign.CommandOptions{}, "exit status 4"},
		{"garbage", "cat >/dev/null; echo this is no signature", public, sign.CommandOptions{}, "signing command sh: "},
		{"a certificate", "exec gpg --homedir " + g.home + " --batch --export", public, sign.CommandOptions{}, "signing command sh: "},
		{"two signatures", "cat >in; " + strings.TrimPrefix(gpg, "exec ") + " <in; " + strings.TrimPrefix(gpg, "exec ") + " <in", public, sign.CommandOptions{}, "2 signatures, expected one"},
		{"not there", "", public, sign.CommandOptions{}, "signing command /nonexistent: "},
		{"nothing", "cat >/dev/null", public, sign.CommandOptions{}, "the signature is empty"},
		{"flood", "cat /dev/zero | head -c 100000", public, sign.CommandOptions{}, "more than 65536 bytes"},
		{"hangs", "sleep 60", public, sign.CommandOptions{Timeout: 100 * time.Millisecond}, "no signature within 100ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			argv := []string{"sh", "-c", tt.script}
			if tt.script == "" {
				argv = []string{"/nonexistent"}
			}
			s, err := sign.NewCommandSigner(argv, tt.public, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			clear, err := s.ClearSign([]byte(release), day)
			if tt.msg != "" {
				if err == nil || !strings.Contains(err.Error(), tt.msg) {
					t.Errorf("got %v, want %q in it", err, tt.msg)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, status, err := gpgv(t, signtest.KeyringFile(t, k), write(t, "InRelease", clear)); err != nil {
				t.Errorf("gpgv: %v\n%s", err, status)
			}
			det, err := s.SignDetached([]byte(release), day)
			if err != nil {
				t.Fatal(err)
			}
			if _, status, err := gpgv(t, signtest.KeyringFile(t, k), write(t, "Release.gpg", det), write(t, "Release", []byte(release))); err != nil {
				t.Errorf("gpgv: %v\n%s", err, status)
			}
		})
	}
}

// TestDebian reads the machine's own Debian keyrings and lists.
func TestDebian(t *testing.T) {
	lists, _ := filepath.Glob("/var/lib/apt/lists/*_InRelease")
	kr, err := sign.LoadKeyring("/usr/share/keyrings/debian-archive-keyring.gpg")
	if errors.Is(err, os.ErrNotExist) || len(lists) == 0 {
		t.Skip("no Debian keyring or lists here")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lists {
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data[:min(len(data), 500)], []byte("Origin: Debian\n")) {
			continue
		}
		v, err := sign.VerifyClearsigned(data, sign.VerifyOptions{Keyring: kr})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		t.Logf("%s: %d good, %d other, first by %s", filepath.Base(path), len(v.Good), len(v.Other), v.Good[0].UserID)
		out, status, err := gpgv(t, "/usr/share/keyrings/debian-archive-keyring.gpg", path)
		if err != nil || strings.TrimSuffix(out, "\n") != string(v.Text) {
			t.Errorf("gpgv reads another text: %v\n%s", err, status)
		}
	}
}
