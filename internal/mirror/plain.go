package mirror

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// FetchFound makes sure that a file which was found is stored, and describes it.
func (e *Engine) FetchFound(ctx context.Context, f *catalog.Found) (cas.Info, error) {
	if f.Plain != nil && f.Digest.IsZero() {
		made := *f
		if err := e.makePlain(ctx, &made); err != nil {
			return cas.Info{}, err
		}
		f = &made
	}
	return e.Fetch(ctx, f.Want)
}

// OpenFound opens a file that was found. Where it is not stored it is fetched, or
// made from the variant that is stored.
func (e *Engine) OpenFound(ctx context.Context, f *catalog.Found) (io.ReadSeekCloser, int64, error) {
	if f.Plain != nil {
		if _, err := e.cfg.Blobs.Stat(ctx, f.Digest); errors.Is(err, cas.ErrNotFound) {
			if err := e.makePlain(ctx, f); err != nil {
				return nil, 0, err
			}
		}
	}
	return e.Open(ctx, f.Want)
}

// makePlain decompresses an index that is stored and checks it against the listed
// digest of its plain variant. A collection deletes it again.
func (e *Engine) makePlain(ctx context.Context, f *catalog.Found) error {
	if err := e.CheckSpace(); err != nil {
		return err
	}
	format, err := e.Format(f.Plain.Type)
	if err != nil {
		return err
	}
	src, err := e.cfg.Blobs.Open(ctx, f.Plain.Digest)
	if err != nil {
		return err
	}
	defer src.Close()
	r, err := format.Decode(f.Plain.Path, src)
	if err != nil {
		return err
	}
	defer r.Close()
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	w, err := batch.Create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	want := f.Want.Listed
	h := repo.NewStrong(want.SHA512)
	var dest io.Writer = w
	if f.Digest.IsZero() {
		dest = io.MultiWriter(w, h)
	}
	if _, err := io.Copy(dest, io.LimitReader(r, f.Size+1)); err != nil {
		return fmt.Errorf("decompress %s: %w", f.Plain.Path, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); f.Digest.IsZero() && sum != want.SHA512 {
		return fmt.Errorf("decompress %s: %w: digest %s, %s listed", f.Plain.Path, repo.ErrMismatch, sum, want.SHA512)
	}
	info, err := w.Commit(f.Digest, f.Size, f.Modified)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", f.Plain.Path, err)
	}
	if f.Digest.IsZero() {
		f.Digest, f.Want.Listed.SHA256 = info.Digest, info.Digest
		err := e.cfg.Store.Update(ctx, "alias", func(tx *bolt.Tx) error {
			return tx.PutAlias(meta.Alias{Algo: meta.AliasSHA512, Other: []byte(want.SHA512), SHA256: info.Digest})
		})
		if err != nil {
			return err
		}
	}
	return e.Flush(ctx, batch)
}
