package proof

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"runtime"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// packageFile checks that a package file of a whole mirror is stored or listed as
// missing. With deep it also checks its bytes.
func (x *suiteProof) packageFile(ctx context.Context, r *repo.Record, f repo.File) {
	c, mirror := x.c, x.d.Name
	size, body, err := c.t.Package(ctx, mirror, f)
	object := x.packageObject(r.Name, r.Version, r.Arch)
	if err != nil {
		gone := errors.Is(err, cas.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
		if gone && c.mayMiss(freeze.MissingStanza(r, x.f.SourceArch())) {
			return // upstream did not have it when the freeze was made
		}
		c.fault(object, digestText(f), "", "%s: %v", f.Path, err)
		return
	}
	c.files.Add(1)
	if body != nil {
		defer body.Close()
	}
	if size != f.Size {
		c.fault(object, fmt.Sprint(f.Size), fmt.Sprint(size), "%s: size in bytes", f.Path)
		return
	}
	if body == nil || !c.o.Deep {
		if c.dir != nil {
			c.proveFile(string(mirror)+"/"+f.Path, f.Size, f.SHA256)
		}
		return
	}
	c.later(f.Size, func(ctx context.Context) {
		_, body, err := c.t.Package(ctx, mirror, f)
		if err != nil {
			c.fault(object, digestText(f), "", "%s: %v", f.Path, err)
			return
		}
		defer body.Close()
		found := f.SHA256
		if sum := c.hash(ctx, object, f, body); found.IsZero() {
			found = sum
		}
		if c.dir != nil {
			c.proveFile(string(mirror)+"/"+f.Path, f.Size, found)
		}
	})
}

// later schedules the reading of a file of a size for readFiles.
func (c *check) later(size int64, read func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = append(c.unread, unread{size, read})
}

// unread is a file that has not been read yet.
type unread struct {
	size int64
	read func(context.Context)
}

// readFiles reads the files that were scheduled. The number of files, for the progress,
// is known only when all indices have been read.
func (c *check) readFiles(ctx context.Context) error {
	p := c.o.Progress
	p.FilesTotal.Store(int64(len(c.unread)))
	if c.o.Deep {
		for _, u := range c.unread {
			p.BytesTotal.Add(u.size)
		}
	}
	p.SetPhase("verifying files")
	var eg errgroup.Group
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for _, u := range c.unread {
		if ctx.Err() != nil {
			break
		}
		eg.Go(func() error {
			u.read(ctx)
			p.Files.Add(1)
			return nil
		})
	}
	c.unread = nil
	if err := eg.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// hash reads a file, compares its digests, and returns its SHA-256. It returns
// zero if the file cannot be read or does not have upstream's digest.
func (c *check) hash(ctx context.Context, object string, f repo.File, r io.Reader) cas.Digest {
	own := sha256.New()
	w := io.Writer(own)
	var strong hash.Hash
	if f.SHA512 != "" {
		strong = repo.NewStrong(f.SHA512)
		w = io.MultiWriter(own, strong)
	}
	if !c.copyTo(ctx, w, object, f, r) {
		return cas.Digest{}
	}
	sum := cas.Digest(own.Sum(nil))
	if !f.SHA256.IsZero() && sum != f.SHA256 {
		c.fault(object, f.SHA256.String(), sum.String(), "%s: wrong digest", f.Path)
		c.damage(f.SHA256, f.Path+": content has SHA-256 "+sum.String())
		return sum
	}
	if strong == nil {
		return sum
	}
	if got := hex.EncodeToString(strong.Sum(nil)); got != f.SHA512 {
		c.fault(object, f.SHA512, got, "%s: digest differs from upstream's", f.Path)
		return cas.Digest{}
	}
	return sum
}

// copyTo copies a file of a known size. It reports read errors, and a file that is
// larger.
func (c *check) copyTo(ctx context.Context, w io.Writer, object string, f repo.File, r io.Reader) (ok bool) {
	b, _ := c.buffers.Get().(*[256 << 10]byte)
	if b == nil {
		b = new([256 << 10]byte)
	}
	defer c.buffers.Put(b)
	buf := b[:]
	for left := f.Size; ctx.Err() == nil; {
		n, err := r.Read(buf)
		if left -= int64(n); left < 0 {
			c.fault(object, fmt.Sprint(f.Size), "more", "%s: size in bytes", f.Path)
			return false
		}
		w.Write(buf[:n])
		c.bytes.Add(int64(n))
		c.o.Progress.Bytes.Add(int64(n))
		if err == io.EOF {
			return true
		} else if err != nil {
			c.fault(object, digestText(f), "", "%s: cannot be read: %v", f.Path, err)
			c.damage(f.SHA256, f.Path+": "+err.Error())
			return false
		}
	}
	return false
}

// digestText returns the digest that identifies a file, for a message.
func digestText(f repo.File) string {
	if f.SHA256.IsZero() {
		return f.SHA512
	}
	return f.SHA256.String()
}

// drain reads a file to the end.
func drain(ctx context.Context, open func(context.Context, repo.Listed) (io.ReadCloser, error), l repo.Listed) error {
	r, err := open(ctx, l)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// proofBytes reads an upstream file of at most max bytes, and checks its size and
// digest.
func (c *check) proofBytes(ctx context.Context, mirror meta.MirrorName, f repo.File, max int64) ([]byte, error) {
	if f.Size < 0 || f.Size > max {
		return nil, fmt.Errorf("expected at most %d bytes: %w", max, &tree.SizeError{Path: f.Path, Expected: f.Size, Found: -1})
	}
	r, err := c.proofReader(ctx, mirror, f)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// proofReader reads an upstream file, and checks its size and digest.
func (c *check) proofReader(ctx context.Context, mirror meta.MirrorName, f repo.File) (io.ReadCloser, error) {
	r, err := c.t.Proof(ctx, mirror, f)
	if err != nil {
		return nil, err
	}
	c.files.Add(1)
	c.proveFile(path.Join(freeze.ProofDir, string(mirror), f.SHA256.String()), f.Size, f.SHA256)
	return c.reader(ctx, f, r), nil
}

// reader limits r to the size of a file, and checks its digest at the end.
func (c *check) reader(ctx context.Context, f repo.File, r io.ReadCloser) *digestReader {
	return &digestReader{ctx: ctx, r: r, f: f, left: f.Size, sum: sha256.New(), c: c}
}

type digestReader struct {
	ctx  context.Context
	r    io.ReadCloser
	f    repo.File
	left int64
	sum  hash.Hash
	c    *check
}

func (d *digestReader) Read(p []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := d.r.Read(p)
	d.sum.Write(p[:n])
	d.c.bytes.Add(int64(n))
	d.left -= int64(n)
	switch {
	case d.left < 0:
		n, err = 0, &tree.SizeError{Path: d.f.Path, Expected: d.f.Size, Found: -1}
	case err == io.EOF && d.left != 0:
		err = &tree.SizeError{Path: d.f.Path, Expected: d.f.Size, Found: d.f.Size - d.left}
	case err == io.EOF:
		if got := cas.Digest(d.sum.Sum(nil)); got != d.f.SHA256 {
			err = fmt.Errorf("%w: %s: content has SHA-256 %s, expected %s", repo.ErrMismatch, d.f.Path, got, d.f.SHA256)
		}
	}
	if err != nil && err != io.EOF {
		d.c.damage(d.f.SHA256, err.Error())
	}
	return n, err
}

func (d *digestReader) Close() error { return d.r.Close() }
