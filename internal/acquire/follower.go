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
	ctx   context.Context // of the request that reads
	blobs cas.Store
	d     *download
	size  int64
	off   int64
	blob  cas.Blob // the finished blob

	// What was passed on may turn out wrong afterwards and be dropped: what follows
	// must continue the same bytes.
	from     int64     // where passed begins
	passed   hash.Hash // of the bytes from there to off
	restarts int       // of the download, when passed was last known to be part of it
}

func newFollower(ctx context.Context, blobs cas.Store, d *download, size int64) *follower {
	return &follower{ctx: ctx, blobs: blobs, d: d, size: size, passed: sha256.New()}
}

// Seek serves http.ServeContent, which asks for the size and goes to the beginning
// of a range.
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

// follow reads what may be passed on of the download, or opens the finished blob.
func (r *follower) follow(p []byte) (int, error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.done {
			return 0, r.finished()
		}
		// The last HoldBack bytes of the file wait for the verdict.
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

// continues compares what was passed on with what is there now, if the download has
// started again since.
func (r *follower) continues(now io.ReaderAt) error {
	if r.restarts == r.d.restarts {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(now, r.from, r.off-r.from)); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), r.passed.Sum(nil)) {
		return fmt.Errorf("%w: %d bytes that were passed on from byte %d were not the file's", fetch.ErrMismatch, r.off-r.from, r.from)
	}
	r.restarts = r.d.restarts
	return nil
}

// Close ends the reading; the download goes on.
func (r *follower) Close() error {
	if r.blob != nil {
		return r.blob.Close()
	}
	return nil
}
