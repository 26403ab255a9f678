package sign_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"example.org/snapd/internal/sign"
)

// TestNewerKeys: kinds of keys that GnuPG 2.2 does not know, as rpm 6 and
// Sequoia use them. The other side is the library itself.
func TestNewerKeys(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  packet.Config
		algo string
	}{
		{"version 6 Ed25519", packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519}, "Ed25519"},
		{"version 6 Ed448", packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd448}, "Ed448"},
		{"version 6 RSA", packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048}, "RSA 2048"},
		{"version 4 Ed25519", packet.Config{Algorithm: packet.PubKeyAlgoEd25519}, "Ed25519"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.cfg
			cfg.Time = func() time.Time { return day }
			cfg.KeyLifetimeSecs = 86400
			e, err := openpgp.NewEntity("new", "", "new@example.org", &cfg)
			if err != nil {
				t.Fatal(err)
			}
			var pub, sig bytes.Buffer
			if err := e.Serialize(&pub); err != nil {
				t.Fatal(err)
			}
			if err := openpgp.DetachSign(&sig, []*openpgp.Entity{e}, bytes.NewReader([]byte(release)), &cfg); err != nil {
				t.Fatal(err)
			}
			kr, err := sign.ParseKeyring(pub.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if k := kr.Keys()[0]; k.Algorithm != tt.algo || !k.Expires.Equal(day.AddDate(0, 0, 1)) || k.UserID != "new <new@example.org>" {
				t.Errorf("%+v", k)
			}
			opts := sign.VerifyOptions{Keyring: kr, At: day}
			if _, err := sign.VerifyPacket(t.Context(), sig.Bytes(), bytes.NewReader([]byte(release)), opts); err != nil {
				t.Error(err)
			}
			if _, err := sign.VerifyDetached([]byte("other"), sig.Bytes(), opts); !errors.Is(err, sign.ErrBadSignature) {
				t.Errorf("other data: %v", err)
			}
			opts.At = day.AddDate(0, 0, 2)
			if _, err := sign.VerifyDetached([]byte(release), sig.Bytes(), opts); !errors.Is(err, sign.ErrExpired) {
				t.Errorf("expired: %v", err)
			}
		})
	}
}
