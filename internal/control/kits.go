package control

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/regfile"
)

// PublishKits stores files and publishes them below /iuk/. All of them appear at
// once.
func (c *Control) PublishKits(ctx context.Context, req *api.KitPublish, report func(api.Progress)) (*api.KitPublish, error) {
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
		if !filepath.IsAbs(f.File) {
			return nil, fmt.Errorf("%w: file %q: expected an absolute path", errclass.Usage, f.File)
		}
		report(api.Progress{Phase: "storing " + filepath.Base(f.File), Files: int64(i), FilesTotal: int64(len(req.Files))})
		info, err := storeFile(ctx, batch, f.File)
		if err != nil {
			return nil, err
		}
		kits[i] = meta.Kit{Path: p, Digest: info.Digest, Size: info.Size}
	}
	// Invariant 1: durable before metadata names them.
	if err := c.e.Flush(ctx, batch); err != nil {
		return nil, err
	}
	return req, c.publish(ctx, "kit", func(tx *bolt.Tx) error {
		for _, k := range kits {
			if err := tx.PutKit(k); err != nil {
				return err
			}
		}
		return nil
	})
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

// storeFile adds a file of this machine to a batch.
func storeFile(ctx context.Context, batch cas.Batch, name string) (cas.Info, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return cas.Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return cas.Info{}, err
	}
	w, err := batch.Create(ctx)
	if err != nil {
		return cas.Info{}, err
	}
	defer w.Abort()
	// One byte more shows a file that grows.
	if _, err := io.Copy(w, io.LimitReader(regfile.WithContext(ctx, f), st.Size()+1)); err != nil {
		return cas.Info{}, fmt.Errorf("store %s: %w", name, err)
	}
	return w.Commit(cas.Digest{}, st.Size(), st.ModTime())
}
