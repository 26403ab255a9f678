package control

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// NextFile returns the next file that a client sends with its request. The file is valid
// until the next call. After the last file, NextFile returns io.ErrUnexpectedEOF.
type NextFile func() (io.Reader, error)

// PublishKits stores the files that next returns, and publishes them below /iuk/, all at
// once.
func (c *Control) PublishKits(ctx context.Context, req *api.KitPublish, next NextFile) (*api.KitPublish, error) {
	if len(req.Files) == 0 {
		return nil, fmt.Errorf("%w: no file to publish", errclass.Usage)
	}
	batch := c.blobs().NewBatch()
	defer batch.Discard()
	kits := make([]meta.Kit, len(req.Files))
	for i, f := range req.Files {
		p, ok := kitPath(f.Path)
		if !ok {
			return nil, fmt.Errorf("%w: path %q below /iuk/: expected a relative path that stays below it", errclass.Usage, f.Path)
		}
		info, err := storeFile(ctx, batch, f, next)
		if err != nil {
			return nil, fmt.Errorf("kit %s: %w", p, err)
		}
		kits[i] = meta.Kit{Path: p, Digest: info.Digest, Size: info.Size}
		req.Files[i].SHA256 = info.Digest.String()
	}
	// Invariant 1: blobs are durable before metadata names them.
	if err := c.acquirer.Flush(ctx, batch); err != nil {
		return nil, err
	}
	defer c.catalog.Changed()
	return req, c.st.PutKits(ctx, kits)
}

// kitPath returns the path below /iuk/ that a request names.
func kitPath(p string) (string, bool) {
	clean := strings.TrimPrefix(path.Clean("/"+p), "/")
	switch {
	case clean == "", len(clean) > 1024, strings.HasSuffix(p, "/"), strings.ContainsRune(p, 0), slices.Contains(strings.Split(p, "/"), ".."):
		return "", false
	}
	return clean, true
}

// storeFile adds the next file that a client sends to a batch.
func storeFile(ctx context.Context, batch cas.Batch, f api.KitFile, next NextFile) (cas.Info, error) {
	var want cas.Digest
	if f.SHA256 != "" {
		var err error
		if want, err = cas.ParseDigest(f.SHA256); err != nil {
			return cas.Info{}, fmt.Errorf("%w: %w", errclass.Usage, err)
		}
	}
	r, err := next()
	if err != nil {
		return cas.Info{}, err
	}
	var modified time.Time
	if f.Modified != nil {
		modified = *f.Modified
	}
	return cas.AddReader(ctx, batch, r, want, modified)
}
