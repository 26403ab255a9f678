package catalog

import (
	"context"
	"errors"
	"io"

	"example.org/snapd/internal/cas"
)

// FetchFound makes sure that a file which was found is stored, and describes it.
func (c *Catalog) FetchFound(ctx context.Context, f *Found) (cas.Info, error) {
	if f.Plain != nil && f.Digest.IsZero() {
		return c.decompress(ctx, f)
	}
	return c.cfg.Acquirer.Fetch(ctx, f.Want)
}

// OpenFound opens a file that was found. Where it is not stored it is fetched, or
// decompressed from the variant that is stored.
func (c *Catalog) OpenFound(ctx context.Context, f *Found) (io.ReadSeekCloser, int64, error) {
	want := f.Want
	if f.Plain != nil {
		if _, err := c.cfg.Blobs.Stat(ctx, f.Digest); errors.Is(err, cas.ErrNotFound) {
			info, err := c.decompress(ctx, f)
			if err != nil {
				return nil, 0, err
			}
			want.Listed.SHA256 = info.Digest
		}
	}
	return c.cfg.Acquirer.Open(ctx, want)
}

// decompress makes the plain variant of an index from the one that is stored.
func (c *Catalog) decompress(ctx context.Context, f *Found) (cas.Info, error) {
	l := f.Want.Listed
	l.Size, l.SHA256 = f.Size, f.Digest
	return c.cfg.Acquirer.Decompress(ctx, l, *f.Plain, f.Modified)
}
