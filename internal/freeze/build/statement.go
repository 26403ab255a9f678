package build

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// AddImage records an image that was built from a freeze, and stores the bytes of image.
func (b *Builder) AddImage(ctx context.Context, req *api.ImageAdd, image io.Reader) (*api.Image, error) {
	f, err := b.meta.Freeze(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	if req.Variant == "" {
		req.Variant = "default"
	}
	if err := checkVariant(req.Variant); err != nil {
		return nil, err
	}
	if err := b.fetcher.CheckSpace(ctx); err != nil {
		return nil, err
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	info, err := cas.AddReader(ctx, batch, image, cas.Digest{}, f.Date)
	if err != nil {
		return nil, err
	}
	im := &meta.Image{Name: f.Name, Variant: req.Variant, SHA256: info.Digest, Size: info.Size}
	if err := b.checkImage(ctx, im); err != nil {
		return nil, err
	}
	s := &freeze.Statement{
		Type: freeze.ImageStatement, Freeze: f.Name, Manifest: f.Manifest.SHA256,
		Variant: im.Variant, SHA256: im.SHA256, Size: im.Size, How: req.How,
	}
	if known, err := b.imageStatement(ctx, f, im); err != nil {
		return nil, err
	} else if known != nil {
		// The statement was imported, and is about this image.
		im.Statement = known.SHA256
		if err := b.keep(ctx, batch, meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Image: im, Files: []repo.File{*known}}); err != nil {
			return nil, err
		}
		return b.clients.Image(ctx, im)
	}
	if err := b.addStatement(ctx, batch, f, imagePrefix+req.Variant, s, im); err != nil {
		return nil, err
	}
	return b.clients.Image(ctx, im)
}

// imagePrefix begins the names of statements about images.
const imagePrefix = "image-"

// imageStatement returns the statement about the image of a variant, or nil if the freeze
// has none. freeze.ErrExists if the statement is about another image.
func (b *Builder) imageStatement(ctx context.Context, f *meta.Frozen, im *meta.Image) (*repo.File, error) {
	path := freeze.StatementDir + "/" + imagePrefix + im.Variant + ".json"
	i := slices.IndexFunc(f.Statements, func(s repo.File) bool { return s.Path == path })
	if i < 0 {
		return nil, nil
	}
	data, err := cas.ReadAll(ctx, b.blobs, f.Statements[i].SHA256, freeze.MaxSignature)
	if err != nil {
		return nil, err
	}
	var s freeze.Statement
	if err := canonical.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("statement %s of %s: %w", path, f.Name, err)
	}
	if s.SHA256 != im.SHA256 {
		return nil, fmt.Errorf("image %s of %s: %w: its statement is about SHA-256 %s, this one has %s", im.Variant, f.Name, freeze.ErrExists, s.SHA256, im.SHA256)
	}
	return &f.Statements[i], nil
}

// checkVariant refuses an invalid name of an image variant.
func checkVariant(name string) error {
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return fmt.Errorf("%w: variant %q: expected letters, digits and ._-", freeze.ErrUsage, name)
		}
	}
	return nil
}

// checkImage refuses an image of a variant that already has a different one.
// freeze.ErrExists.
func (b *Builder) checkImage(ctx context.Context, im *meta.Image) error {
	images, err := b.meta.Images(ctx, im.Name)
	if err != nil {
		return err
	}
	for _, o := range images {
		if o.Variant == im.Variant && o.SHA256 != im.SHA256 {
			return fmt.Errorf("image %s of %s: %w: SHA-256 %s, this one has %s", im.Variant, im.Name, freeze.ErrExists, o.SHA256, im.SHA256)
		}
	}
	return nil
}

// addStatement signs a statement and publishes it beside the manifest, with the image
// that it describes, if any. The bytes of the image must be in the batch.
func (b *Builder) addStatement(ctx context.Context, batch cas.Batch, f *meta.Frozen, name string, s *freeze.Statement, im *meta.Image) error {
	if err := b.checkKey(); err != nil {
		return err
	}
	data, err := s.Encode()
	if err != nil {
		return err
	}
	add := meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Image: im}
	if add.Files, err = b.putStatement(ctx, batch, f, name, data); err != nil {
		return err
	}
	if im != nil {
		im.Statement = add.Files[0].SHA256
	}
	return b.keep(ctx, batch, add)
}

// putStatement signs a statement and adds it with its signature to a batch.
func (b *Builder) putStatement(ctx context.Context, batch cas.Batch, f *meta.Frozen, name string, data []byte) (files []repo.File, err error) {
	sig, err := b.signer.SignDetached(data, b.signedAt(f.Date))
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	for _, e := range []struct {
		path string
		data []byte
	}{{freeze.StatementDir + "/" + name + ".json", data}, {freeze.StatementDir + "/" + name + ".json.asc", sig}} {
		info, err := cas.PutBatch(ctx, batch, e.data, time.Time{})
		if err != nil {
			return nil, err
		}
		files = append(files, repo.File{Path: e.path, Size: info.Size, SHA256: info.Digest})
	}
	return files, nil
}

// keep publishes a statement, whose files are in the batch.
func (b *Builder) keep(ctx context.Context, batch cas.Batch, add meta.StatementFiles) error {
	if err := b.keeper.Flush(ctx, batch); err != nil {
		return err
	}
	if err := b.meta.AddStatement(ctx, add); err != nil {
		return err
	}
	b.cat.Changed()
	return nil
}
