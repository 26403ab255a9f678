package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/sign"
)

// maxPublicKey bounds the certificate of an external signer, in bytes.
const maxPublicKey = 1 << 20

// loadSigner opens the signing key, or makes one where there is none yet: a new
// one would orphan what an older key signed, so only a missing file counts as
// "none".
func loadSigner(cfg *config.Config, now time.Time, log *slog.Logger) (*sign.Signer, error) {
	file := cfg.Signing.KeyFile
	if len(cfg.Signing.Command) > 0 {
		public, err := regfile.Read(file, maxPublicKey)
		if err != nil {
			return nil, fmt.Errorf("public key of the signing command: %w", err)
		}
		return sign.NewCommandSigner(cfg.Signing.Command, public, sign.CommandOptions{})
	}
	s, err := sign.LoadSigner(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	k, err := sign.Generate("snapd "+filepath.Base(cfg.DataDir), "", now, sign.GenerateOptions{})
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(file, k.Armored(), 0o600); err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	log.Info("made a signing key", "key", k.Fingerprint(), "file", file)
	return sign.LoadSigner(file)
}
