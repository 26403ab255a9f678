package freeze

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
)

// Statement is a signed statement beside a frozen manifest: what came later or
// from elsewhere. It is canonical JSON, and holds no time.
type Statement struct {
	Type     string            `json:"type"` // "image", "signature"
	Freeze   string            `json:"freeze"`
	Manifest cas.Digest        `json:"manifest_sha256"`
	Variant  string            `json:"variant,omitempty"`
	SHA256   cas.Digest        `json:"sha256,omitzero"`
	Size     int64             `json:"size,omitempty"`
	How      map[string]string `json:"how"`
}

// AddImage records an image that was built from a frozen snapshot and keeps
// its bytes.
func (z *Freezer) AddImage(ctx context.Context, req *api.ImageAdd) (*api.Image, error) {
	f, _, _, err := z.frozen(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	if req.Variant == "" {
		req.Variant = "default"
	}
	for _, c := range req.Variant {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return nil, fmt.Errorf("%w: variant %q: expected letters, digits and ._-", ErrUsage, req.Variant)
		}
	}
	if err := z.e.CheckSpace(); err != nil {
		return nil, err
	}
	src, err := regfile.Open(req.File)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return nil, err
	}
	batch := z.blobs.NewBatch()
	defer batch.Discard()
	w, err := batch.Create(ctx)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	// One byte more shows a file that grows.
	if _, err := io.Copy(w, io.LimitReader(regfile.WithContext(ctx, src), st.Size()+1)); err != nil {
		return nil, err
	}
	info, err := w.Commit(cas.Digest{}, st.Size(), f.Date)
	if err != nil {
		return nil, err
	}
	s := Statement{Type: "image", Freeze: f.Name, Manifest: f.Manifest.SHA256, Variant: req.Variant, SHA256: info.Digest, Size: info.Size, How: req.How}
	if s.How == nil {
		s.How = map[string]string{}
	}
	im := &meta.Image{Name: f.Name, Variant: req.Variant, SHA256: info.Digest, Size: info.Size}
	if err := z.st.View(ctx, func(tx *bolt.Tx) error {
		old, err := tx.Images(f.Name)
		for _, o := range old {
			if o.Variant == req.Variant && o.SHA256 != im.SHA256 {
				return fmt.Errorf("image %s of %s: %w: SHA-256 %s, this one has %s", req.Variant, f.Name, ErrExists, o.SHA256, im.SHA256)
			}
		}
		return err
	}); err != nil {
		return nil, err
	}
	if err := z.addStatement(ctx, batch, f, "image-"+req.Variant, s, func(tx *bolt.Tx, st cas.Digest) error {
		im.Statement = st
		return tx.PutImage(im)
	}); err != nil {
		return nil, err
	}
	return z.apiImage(ctx, im)
}

// addStatement signs a statement and publishes it beside the manifest. The batch
// holds what the statement is about.
func (z *Freezer) addStatement(ctx context.Context, batch cas.Batch, f *meta.Frozen, name string, v any, also func(*bolt.Tx, cas.Digest) error) error {
	if err := z.checkKey(); err != nil {
		return err
	}
	data, err := Canonical(v)
	if err != nil {
		return err
	}
	at := f.Date
	if c := z.cfg.Signer.CreatedAt(); c.After(at) {
		at = c
	}
	sig, err := z.cfg.Signer.SignDetached(data, at)
	if err != nil {
		return fmt.Errorf("sign statement: %w", err)
	}
	var files []repo.File
	for _, e := range []struct {
		path string
		data []byte
	}{{statementDir + "/" + name + ".json", data}, {statementDir + "/" + name + ".json.asc", sig}} {
		info, err := cas.PutBatch(ctx, batch, e.data, time.Time{})
		if err != nil {
			return err
		}
		files = append(files, repo.File{Path: e.path, Size: info.Size, SHA256: info.Digest})
	}
	if err := z.e.Flush(ctx, batch); err != nil {
		return err
	}
	err = z.st.Update(ctx, "statement", func(tx *bolt.Tx) error {
		now, err := tx.Frozen(f.Name)
		if err != nil {
			return err
		}
		if now.Manifest.SHA256 != f.Manifest.SHA256 {
			return fmt.Errorf("frozen snapshot %s with manifest %s: %w", f.Name, f.Manifest.SHA256, meta.ErrGone)
		}
		var nodes []meta.Node
		for _, file := range files {
			nodes = append(nodes, meta.Node{Path: file.Path, Digest: file.SHA256, Size: file.Size, ModTime: f.Date})
			known := false
			for _, s := range now.Statements {
				known = known || s == file
			}
			if !known {
				now.Statements = append(now.Statements, file)
			}
		}
		if err := tx.PutNodes(f.Name, nodes); err != nil {
			return err
		}
		if err := tx.UpdateFrozen(now); err != nil {
			return err
		}
		return also(tx, files[0].SHA256)
	})
	if err == nil {
		z.e.Changed()
	}
	return err
}

// Images lists the images of a frozen snapshot; an empty name lists all.
func (z *Freezer) Images(ctx context.Context, name string) ([]api.Image, error) {
	var images []meta.Image
	err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		images, err = tx.Images(name)
		return err
	})
	out := []api.Image{}
	for i := range images {
		im, err := z.apiImage(ctx, &images[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *im)
	}
	return out, err
}

func (z *Freezer) apiImage(ctx context.Context, im *meta.Image) (*api.Image, error) {
	out := &api.Image{Name: im.Name, Variant: im.Variant, SHA256: im.SHA256.String(), Size: im.Size}
	if data, err := cas.ReadAll(ctx, z.blobs, im.Statement, 1<<20); err == nil {
		var s Statement
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		out.How = s.How
	}
	if d, ok := z.blobs.(*cas.Dir); ok {
		out.Path = d.Path() + "/" + cas.Name(im.SHA256)
	}
	return out, nil
}
