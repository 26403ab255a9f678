package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/sign"
)

// maxPublicKey bounds the certificate of an external signer, in bytes.
const maxPublicKey = 1 << 20

// loadSigner opens the signing key, or creates one if the file is missing. A new key
// would orphan everything that an older one signed. So other errors than a missing file
// do not lead to a new key, nor does it create one if this server has signed freezes.
func loadSigner(ctx context.Context, cfg *config.Config, st meta.Catalog, now time.Time, log *slog.Logger) (*sign.Signer, error) {
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
	frozen, err := st.Freezes(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(frozen, func(f *meta.Frozen) bool { return !f.Imported }); i >= 0 {
		return nil, fmt.Errorf("%w: the signing key %s is missing, but it signed the freeze %s (fingerprint %s); restore it from a backup, or create a new one with 'snapctl key generate'",
			ErrLost, file, frozen[i].Name, frozen[i].Key)
	}
	k, err := sign.Generate("snapd "+filepath.Base(cfg.DataDir), "", now, sign.GenerateOptions{})
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(file, k.Armored(), 0o600); err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	log.Info("created a signing key", "key", k.Fingerprint(), "file", file)
	return sign.LoadSigner(file)
}
