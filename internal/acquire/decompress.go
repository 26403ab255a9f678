package acquire

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Variant is a stored compression variant of an index.
type Variant struct {
	Type   string // of the format
	Path   string
	Digest cas.Digest
}

// Decompress makes the plain variant of an index from a stored variant, and checks it
// against its listed digest. The blob is durable on return, and a later collection
// deletes it.
func (a *Acquirer) Decompress(ctx context.Context, plain repo.Listed, from Variant, modified time.Time) (cas.Info, error) {
	if err := a.CheckSpace(ctx); err != nil {
		return cas.Info{}, err
	}
	batch := a.cfg.Blobs.NewBatch()
	defer batch.Discard()
	got, err := a.decompress(ctx, batch, plain, from, modified)
	if err != nil {
		return cas.Info{}, fmt.Errorf("decompress %s: %w", from.Path, err)
	}
	return got.Info, a.Keep(ctx, batch, []Acquired{got})
}

func (a *Acquirer) decompress(ctx context.Context, batch cas.Batch, plain repo.Listed, from Variant, modified time.Time) (Acquired, error) {
	format := a.cfg.Formats[from.Type]
	if format == nil {
		return Acquired{}, fmt.Errorf("unknown repository type %q", from.Type)
	}
	src, err := a.cfg.Blobs.Open(ctx, from.Digest)
	if err != nil {
		return Acquired{}, err
	}
	defer src.Close()
	r, err := format.Decode(from.Path, src)
	if err != nil {
		return Acquired{}, err
	}
	defer r.Close()
	w, err := batch.Create(ctx)
	if err != nil {
		return Acquired{}, err
	}
	defer w.Abort()
	h := repo.NewStrong(plain.SHA512)
	var dest io.Writer = w
	if plain.SHA256.IsZero() {
		dest = io.MultiWriter(w, h)
	}
	if _, err := io.Copy(dest, io.LimitReader(r, plain.Size+1)); err != nil {
		return Acquired{}, err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); plain.SHA256.IsZero() && sum != plain.SHA512 {
		return Acquired{}, fmt.Errorf("%w: digest %s, %s listed", repo.ErrMismatch, sum, plain.SHA512)
	}
	info, err := w.Commit(plain.SHA256, plain.Size, modified)
	if err != nil {
		return Acquired{}, err
	}
	got := Acquired{Info: info}
	if plain.SHA256.IsZero() {
		got.SHA512 = plain.SHA512
	}
	return got, nil
}
