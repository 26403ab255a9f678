package rpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
)

// dirSink writes to a directory of another sink.
type dirSink struct {
	to  repo.Sink
	dir string // ends with a slash, or is empty
}

func (s dirSink) Put(ctx context.Context, p string, data []byte) (repo.File, error) {
	return s.to.Put(ctx, s.dir+p, data)
}

func (s dirSink) Create(ctx context.Context, p string) (repo.SinkWriter, error) {
	return s.to.Create(ctx, s.dir+p)
}

func (s dirSink) Link(ctx context.Context, p string, f repo.File) error {
	return s.to.Link(ctx, s.dir+p, f)
}

// list writes a list and adds it to repomd.xml.
func (d *deriver) list(ctx context.Context, l *newList, ext string) error {
	return d.write(ctx, string(l.kind), string(l.kind)+".xml"+ext, func(w io.Writer) error {
		if _, err := w.Write(l.head.Open(l.n)); err != nil {
			return err
		}
		if err := l.body.writeTo(w); err != nil {
			return err
		}
		_, err := w.Write(l.head.Close())
		return err
	})
}

// write writes one metadata file, compressed according to its extension, and adds it
// to repomd.xml. It keeps the compressed file in memory until it is complete, because
// the path contains its digest.
func (d *deriver) write(ctx context.Context, typ, name string, content func(io.Writer) error) error {
	var packed chunks
	outer := sha256.New()
	open := &counter{h: sha256.New()}
	z, err := packer(path.Ext(name), io.MultiWriter(&packed, outer))
	if err != nil {
		return err
	}
	open.w = z
	if err := content(open); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	sum := hex.EncodeToString(outer.Sum(nil))
	p := "repodata/" + sum + "-" + name
	w, err := d.sink.Create(ctx, p)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := packed.writeTo(w); err != nil {
		return err
	}
	f, err := w.Commit()
	if err != nil {
		return err
	}
	if f.SHA256.String() != sum {
		return fmt.Errorf("store %s: stored with digest %s: %w", p, f.SHA256, repo.ErrMismatch)
	}
	entry := rpmmd.Data{Type: typ, Href: p, Path: p, Timestamp: d.date,
		Checksum: rpmmd.Checksum{Type: "sha256", Hex: sum}, Size: f.Size, OpenSize: -1, HeaderSize: -1}
	if rpmmd.Compression(name) != "" {
		entry.OpenChecksum = rpmmd.Checksum{Type: "sha256", Hex: hex.EncodeToString(open.h.Sum(nil))}
		entry.OpenSize = open.n
	}
	d.out.Data = append(d.out.Data, entry)
	return nil
}

// packer returns a compressor for an extension. Its output depends only on its input.
func packer(ext string, w io.Writer) (io.WriteCloser, error) {
	switch ext {
	case ".gz":
		z, err := gzip.NewWriterLevel(w, 6)
		if err != nil {
			return nil, err
		}
		z.ModTime = time.Time{} // no time in the header
		return z, nil
	case ".zst":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	}
	return nopCloser{w}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// counter counts and hashes the bytes written to w.
type counter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.h.Write(p)
	return c.w.Write(p)
}

// chunks is a growing buffer that never copies its content.
type chunks struct{ list [][]byte }

func (c *chunks) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		last := len(c.list) - 1
		if last < 0 || len(c.list[last]) == cap(c.list[last]) {
			c.list = append(c.list, make([]byte, 0, 1<<20))
			last++
		}
		room := c.list[last]
		take := min(len(p), cap(room)-len(room))
		c.list[last] = append(room, p[:take]...)
		p = p[take:]
	}
	return n, nil
}

func (c *chunks) writeTo(w io.Writer) error {
	for _, b := range c.list {
		if _, err := io.Copy(w, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}
