package iuk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/squashfs"
)

// ErrInput means that an input is not an image, or not one that kits can be made from.
var ErrInput = errors.New("unfit image")

// Input is a SquashFS file, or an ISO image with one at live/filesystem.squashfs.
type Input struct {
	R    io.ReaderAt
	Size int64 // bytes
	// Name is the name of the image in messages.
	Name string
	// SHA256 is the digest of a SquashFS file, if a trusted source has it. It saves
	// computing the digest.
	SHA256 cas.Digest
}

// openInput is an opened Input.
type openInput struct {
	in    Input
	iso   *iso9660.FS // nil for a SquashFS file
	image io.ReaderAt // the SquashFS file
	size  int64       // bytes of the SquashFS file
	r     *squashfs.Reader
}

// open determines the kind of an Input, and opens it.
func (in Input) open(limits squashfs.Limits) (*openInput, error) {
	o := &openInput{in: in, image: in.R, size: in.Size}
	head := make([]byte, 4)
	if _, err := in.R.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", in.Name, err)
	}
	if string(head) != "hsqs" {
		iso, err := iso9660.Open(in.R, in.Size)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w: neither a SquashFS nor an ISO image: %w", in.Name, ErrInput, err)
		}
		f, err := openBase(iso)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w: %w", in.Name, ErrInput, err)
		}
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", in.Name, err)
		}
		at, ok := f.(io.ReaderAt)
		if !ok || !st.Mode().IsRegular() {
			return nil, fmt.Errorf("open %s: %w: %s is not a regular file", in.Name, ErrInput, baseImage)
		}
		o.iso, o.image, o.size = iso, at, st.Size()
	}
	r, err := squashfs.Open(o.image, o.size, limits)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", in.Name, ErrInput, err)
	}
	if err := r.CheckMountable(); err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", in.Name, ErrInput, err)
	}
	o.r = r
	return o, nil
}

// digest returns the SHA-256 of the SquashFS file.
func (o *openInput) digest(ctx context.Context) (cas.Digest, error) {
	if o.iso == nil && !o.in.SHA256.IsZero() {
		return o.in.SHA256, nil
	}
	h := sha256.New()
	buf := make([]byte, 128<<10)
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, regfile.WithContext(ctx, io.NewSectionReader(o.image, 0, o.size)), buf); err != nil {
		return cas.Digest{}, fmt.Errorf("read %s: %w", o.in.Name, err)
	}
	var d cas.Digest
	h.Sum(d[:0])
	return d, nil
}

// openBase opens the SquashFS file of an ISO image.
func openBase(iso *iso9660.FS) (fs.File, error) {
	name, err := findPath(iso, baseImage)
	if err == nil {
		return iso.Open(name)
	}
	if errors.Is(err, fs.ErrNotExist) && iso.Naming() == iso9660.Plain {
		err = fmt.Errorf("%w (the image has neither Rock Ridge nor Joliet names, and its own may be cut short)", err)
	}
	return nil, err
}
