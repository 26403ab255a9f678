package acquire

import (
	"context"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// maxUnknown limits a file whose size is not in upstream's index, in bytes.
const maxUnknown = 8 << 30

// transfer is the transfer of one file from upstream into a batch of blobs.
type transfer struct {
	upstream *upstream
	listed   repo.Listed  // Path and Alternates are relative to the places
	record   *repo.Record // of a package file, for the check of its format; may be nil
	places   places
	batch    cas.Batch
	download *download // has followers; may be nil

	onBytes      func(n int64)
	ignorePauses int64 // as in fetch.Request
}

// listedOf describes the file of a package.
func listedOf(f repo.File) repo.Listed {
	return repo.Listed{Path: f.Path, Size: f.Size, SHA256: f.SHA256, SHA512: f.SHA512}
}

// Acquired is a file in a batch.
type Acquired struct {
	cas.Info
	SHA1   [20]byte // zero: not wanted
	SHA512 string   // lower-case hex; empty if the file was not listed by it
}

// aliases returns the other known digests of the blob.
func (g *Acquired) aliases() (out []meta.Alias) {
	if g.SHA1 != [20]byte{} {
		out = append(out, meta.Alias{Algo: meta.AliasSHA1, Other: g.SHA1[:], SHA256: g.Digest})
	}
	if g.SHA512 != "" {
		out = append(out, meta.Alias{Algo: meta.AliasSHA512, Other: []byte(g.SHA512), SHA256: g.Digest})
	}
	return out
}

// run acquires a file: it downloads the bytes from the places in their order, checks the
// digest and the format, and adds the blob to the batch.
func (a *Acquirer) run(ctx context.Context, t *transfer) (Acquired, error) {
	w, err := t.batch.Create(ctx)
	if err != nil {
		return Acquired{}, err
	}
	defer w.Abort()
	check, err := a.checked(t.upstream, t.record, w)
	if err != nil {
		return Acquired{}, err
	}
	res, err := a.get(ctx, t, t.download.follow(w, check))
	if verdict := check.finish(); err == nil {
		err = verdict
	}
	// Followers read through w, so stop them before it is closed.
	t.download.unfollow()
	if err != nil {
		return Acquired{}, err
	}
	info, err := w.Commit(t.listed.SHA256, t.listed.Size, res.LastModified)
	if err != nil {
		return Acquired{}, err
	}
	return Acquired{Info: info, SHA1: w.SHA1(), SHA512: t.listed.SHA512}, nil
}

// get downloads the bytes from the first place that has them.
func (a *Acquirer) get(ctx context.Context, t *transfer, dest cas.BlobWriter) (fetch.Result, error) {
	if t.upstream.Local {
		return fetch.Result{}, fmt.Errorf("mirror %s is local, so there is no other copy: %w", t.upstream.Name, fetch.ErrNotFound)
	}
	want := fetch.StrongDigests(t.listed.SHA256, t.listed.SHA512)
	want.SHA1, want.MD5 = t.listed.SHA1, t.listed.MD5
	req := fetch.Request{
		Size: t.listed.Size, Want: want, Dest: dest,
		Access: t.upstream.access, Scope: t.upstream.scope, OnBytes: t.onBytes, IgnorePauses: t.ignorePauses,
	}
	if t.listed.Size < 0 {
		req.MaxSize = maxUnknown
	}
	from := func(bases []remote.URL) (fetch.Result, error) {
		req.URLs, req.Tree = nil, treeOf(bases)
		for _, b := range bases {
			for _, p := range t.listed.Alternates {
				req.URLs = append(req.URLs, b.Join(p))
			}
			req.URLs = append(req.URLs, b.Join(t.listed.Path))
		}
		return a.request(ctx, t.upstream, req)
	}
	res, err := from(t.places.bases)
	if !errors.Is(err, fetch.ErrNotFound) || t.places.earlier == nil {
		return res, err
	}
	more, merr := t.places.earlier(ctx)
	if merr != nil {
		return res, merr
	}
	if len(more) == 0 {
		return res, err
	}
	return from(more)
}

// checked returns a writer that checks a package by its format and writes it to w.
func (a *Acquirer) checked(u *upstream, rec *repo.Record, w cas.BlobWriter) (*checkedWriter, error) {
	c := &checkedWriter{BlobWriter: w}
	if rec == nil {
		return c, nil
	}
	kr, err := u.loadKeyring()
	if err != nil {
		return nil, err
	}
	c.start = func() (io.WriteCloser, error) { return u.format.CheckPackage(u.Mirror, rec, kr) }
	c.check, err = c.start()
	return c, err
}

// checkedWriter checks a package as it is written, if its mirror requires that.
type checkedWriter struct {
	cas.BlobWriter
	start func() (io.WriteCloser, error)
	check io.WriteCloser // nil: no check
	err   error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.BlobWriter.Write(p)
	if err == nil && c.err == nil && c.check != nil {
		_, c.err = c.check.Write(p[:n])
	}
	return n, err
}

func (c *checkedWriter) Reset() error {
	if c.check != nil {
		c.check.Close()
		c.check, c.err = nil, nil
		var err error
		if c.check, err = c.start(); err != nil {
			return err
		}
	}
	return c.BlobWriter.Reset()
}

// finish returns the result of the check.
func (c *checkedWriter) finish() error {
	if c.check == nil {
		return nil
	}
	err := c.check.Close()
	if c.err != nil {
		return c.err
	}
	return err
}
