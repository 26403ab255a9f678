package acquire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
)

// follower reads an in-flight download from its start.
type follower struct {
	ctx   context.Context // of the reading request
	blobs cas.Reader
	d     *download
	size  int64
	off   int64
	blob  cas.Blob // the finished blob

	// The download may discard bytes that a client already has, if they turn out to be
	// wrong. The follower then continues only if the new bytes are the same.
	from     int64     // offset of the first byte in passed
	passed   hash.Hash // hash of the bytes from there to off that the client has
	restarts int       // attempt of the download that is known to contain the bytes of passed
}

func newFollower(ctx context.Context, blobs cas.Reader, d *download, size int64) *follower {
	return &follower{ctx: ctx, blobs: blobs, d: d, size: size, passed: sha256.New()}
}

// Seek is for http.ServeContent, which seeks to find the size, and moves to the start of
// a range.
func (r *follower) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.off
	case io.SeekEnd:
		off += r.size
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	r.off, r.from = off, off
	r.passed.Reset()
	return off, nil
}

func (r *follower) Read(p []byte) (int, error) {
	if r.blob == nil {
		if r.off >= r.size {
			return 0, io.EOF
		}
		n, err := r.follow(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	n, err := r.blob.ReadAt(p, r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// follow reads the available part of the download, or opens the finished blob.
func (r *follower) follow(p []byte) (int, error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.done {
			return 0, r.finished()
		}
		// The last HoldBack bytes wait until the file is verified.
		end := min(d.n, r.size-HoldBack)
		if d.written != nil && r.off < end {
			if err := r.continues(d.written); err != nil {
				return 0, err
			}
			n, err := d.written.ReadAt(p[:min(int64(len(p)), end-r.off)], r.off)
			r.passed.Write(p[:n])
			r.off += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		if err := d.wait(r.ctx); err != nil {
			return 0, err
		}
	}
}

// finished opens the blob that the download has become.
func (r *follower) finished() error {
	if r.d.err != nil {
		return r.d.err
	}
	blob, err := r.blobs.Open(r.ctx, r.d.info.Digest)
	if err != nil {
		return err
	}
	if err := r.continues(blob); err != nil {
		blob.Close()
		return err
	}
	r.blob = blob
	return nil
}

// continues compares the bytes that the client has with the current ones, if the download
// has started again since.
func (r *follower) continues(now io.ReaderAt) error {
	if r.restarts == r.d.restarts {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(now, r.from, r.off-r.from)); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), r.passed.Sum(nil)) {
		return fmt.Errorf("%w: %d bytes passed on from byte %d were not part of the file", fetch.ErrMismatch, r.off-r.from, r.from)
	}
	r.restarts = r.d.restarts
	return nil
}

// Close stops reading; the download continues.
func (r *follower) Close() error {
	if r.blob != nil {
		return r.blob.Close()
	}
	return nil
}
