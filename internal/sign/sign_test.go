package sign_test

import (
	"bytes"
	"errors"
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

var day = time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)

const release = "Origin: Example\nSuite: stable\nDate: Sat, 29 Feb 2020 12:00:00 UTC\nSHA256:\n" +
	" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages\n- dashes -\n-----BEGIN trouble\nFrom here\nDescription: x\n"

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// gpgv runs gpgv with a keyring of the given keys and returns what it says.
func gpgv(t testing.TB, keyring string, args ...string) (stdout, status string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), needs.Program(t, "gpgv"), append([]string{"--homedir", t.TempDir(), "--keyring", keyring, "--status-fd", "2", "--output", "-"}, args...)...)
	var out, serr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &serr
	err = cmd.Run()
	return out.String(), serr.String(), err
}

func TestOwnSignaturesByGpgv(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  *sign.PrivateKey
	}{
		{"EdDSA", signtest.NewKey(t, "ed")},
		{"RSA", signtest.NewRSAKey(t, "rsa")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keyring := signtest.KeyringFile(t, tt.key)
			clear := signtest.ClearSign(t, tt.key, release, day)
			v, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: tt.key.Keyring(), At: day})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSuffix(release, "\n"), string(v.Text)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			want := []sign.Signature{{
				Fingerprint: tt.key.Fingerprint(), SigningKey: string(tt.key.Fingerprint()),
				UserID: tt.key.Public().UserID, Created: day, Digest: "SHA512",
			}}
			if diff := cmp.Diff(want, v.Good); diff != "" {
				t.Errorf("good (-want +got):\n%s", diff)
			}
			out, status, err := gpgv(t, keyring, write(t, "InRelease", clear))
			if err != nil {
				t.Fatalf("gpgv: %v\n%s", err, status)
			}
			if !strings.Contains(status, "GOODSIG") || !strings.Contains(status, "VALIDSIG "+string(tt.key.Fingerprint())+" 2020-02-29") {
				t.Errorf("gpgv status: %s", status)
			}
			if diff := cmp.Diff(string(v.Text), strings.TrimSuffix(out, "\n")); diff != "" {
				t.Errorf("gpgv read another text (-ours +gpgv's):\n%s", diff)
			}
			det := signtest.Detach(t, tt.key, []byte(release), day)
			if _, err := sign.VerifyDetached([]byte(release), det, sign.VerifyOptions{Keyring: tt.key.Keyring(), At: day}); err != nil {
				t.Fatal(err)
			}
			if _, status, err := gpgv(t, keyring, write(t, "Release.gpg", det), write(t, "Release", []byte(release))); err != nil {
				t.Fatalf("gpgv: %v\n%s", err, status)
			}
		})
	}
}

// A refusal says what is wrong once, whom it expected and whom it found.
func TestRefusalWords(t *testing.T) {
	key, other := signtest.NewKey(t, "key"), signtest.NewKey(t, "other")
	clear := signtest.ClearSign(t, key, release, day)
	ring := func(k *sign.PrivateKey) string { return " (" + string(k.Fingerprint()) + ")" }
	for name, tt := range map[string]struct {
		data []byte
		opts sign.VerifyOptions
		want string
	}{
		"changed text": {bytes.Replace(clear, []byte("stable"), []byte("stabel"), 1), sign.VerifyOptions{Keyring: key.Keyring(), At: day},
			"bad signature: expected a good signature by a key of the keyring" + ring(key) + ", found one by " + string(key.Fingerprint()) + " (the signature does not match the signed data)"},
		"revoked": {clear, sign.VerifyOptions{Keyring: signtest.Revoked(t, key, day.AddDate(1, 0, 0), true).Keyring(), At: day},
			"revoked key: expected a good signature by a key of the keyring" + ring(key) + ", found one by " + string(key.Fingerprint()) + " (revoked on 2021-03-01T12:00:00Z (compromised))"},
		"other key": {clear, sign.VerifyOptions{Keyring: other.Keyring(), At: day},
			"signature by an unknown key: expected a good signature by a key of the keyring" + ring(other) + ", found one by " + string(key.Fingerprint())},
	} {
		if _, err := sign.VerifyClearsigned(tt.data, tt.opts); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v\nexpected %s", name, err, tt.want)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	key, other := signtest.NewKey(t, "key"), signtest.NewKey(t, "other")
	expired := signtest.NewExpiringKey(t, "old", day.AddDate(0, 0, -1).AddDate(0, 0, 2))
	clear := signtest.ClearSign(t, key, release, day)
	opts := sign.VerifyOptions{Keyring: key.Keyring(), At: day}
	for _, tt := range []struct {
		name string
		data []byte
		opts sign.VerifyOptions
		want error
	}{
		{"changed text", bytes.Replace(clear, []byte("stable"), []byte("stabel"), 1), opts, sign.ErrBadSignature},
		{"other key", clear, sign.VerifyOptions{Keyring: other.Keyring(), At: day}, sign.ErrUnknownKey},
		{"revoked later as compromised", clear, sign.VerifyOptions{Keyring: signtest.Revoked(t, key, day.AddDate(1, 0, 0), true).Keyring(), At: day}, sign.ErrRevoked},
		{"retired later", clear, sign.VerifyOptions{Keyring: signtest.Revoked(t, key, day.AddDate(1, 0, 0), false).Keyring(), At: day}, nil},
		{"retired before", clear, sign.VerifyOptions{Keyring: signtest.Revoked(t, key, day, false).Keyring(), At: day}, sign.ErrRevoked},
		{"expired since", signtest.ClearSign(t, expired, release, day), sign.VerifyOptions{Keyring: expired.Keyring(), At: day, Now: day.AddDate(5, 0, 0)}, nil},
		{"expired", signtest.ClearSign(t, expired, release, day), sign.VerifyOptions{Keyring: expired.Keyring(), At: day.AddDate(1, 0, 0)}, sign.ErrExpired},
		{"not signed", []byte(release), opts, sign.ErrNoSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := sign.VerifyClearsigned(tt.data, tt.opts); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			} else if err != nil {
				t.Log(err)
			}
		})
	}
}
