package mirror

import (
	"context"
	"errors"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
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
	l := f.Want.Listed
	l.Size, l.SHA256 = f.Size, f.Digest
	info, err := e.Decompress(ctx, l, *f.Plain, f.Modified)
	if err != nil {
		return err
	}
	f.Digest, f.Want.Listed.SHA256 = info.Digest, info.Digest
	return nil
}
