package catalog

import (
	"context"
	"errors"
	"io"

	"example.org/snapd/internal/cas"
)

// FetchFound makes sure that a found file is stored, and describes it.
func (c *Catalog) FetchFound(ctx context.Context, f *Found) (cas.Info, error) {
	if f.Plain != nil && f.Digest.IsZero() {
		return c.decompress(ctx, f)
	}
	return c.cfg.Acquirer.Fetch(ctx, f.Want)
}

// OpenFound opens a found file. If it is not stored, it is downloaded, or
// decompressed from the stored variant.
func (c *Catalog) OpenFound(ctx context.Context, f *Found) (io.ReadSeekCloser, int64, error) {
	want := f.Want
	if f.Plain != nil {
		// Open also finds blobs that can be made again.
		b, err := c.cfg.Blobs.Open(ctx, f.Digest)
		switch {
		case err == nil:
			defer b.Close()
		case errors.Is(err, cas.ErrNotFound):
			info, err := c.decompress(ctx, f)
			if err != nil {
				return nil, 0, err
			}
			want.Listed.SHA256 = info.Digest
		}
	}
	return c.cfg.Acquirer.Open(ctx, want)
}

// decompress makes the plain variant of an index from the stored one.
func (c *Catalog) decompress(ctx context.Context, f *Found) (cas.Info, error) {
	l := f.Want.Listed
	l.Size, l.SHA256 = f.Size, f.Digest
	return c.cfg.Acquirer.Decompress(ctx, l, *f.Plain, f.Modified)
}
