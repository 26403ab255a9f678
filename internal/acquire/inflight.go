package acquire

import (
	"context"
	"io"
	"sync"

	"example.org/snapd/internal/cas"
)

// HoldBack is the number of bytes at the end of an in-flight download that are withheld
// from clients until its size and digest are verified.
const HoldBack = 64 << 10

// download is an in-flight download with any number of followers.
type download struct {
	mu       sync.Mutex
	changed  *sync.Cond
	written  io.ReaderAt // the bytes so far; nil before the first byte and after the last
	n        int64       // bytes written
	size     int64       // expected; -1: unknown
	restarts int         // number of times that the written bytes were discarded
	done     bool
	info     cas.Info
	err      error
	ended    chan struct{} // closed when done
}

func newDownload(size int64) *download {
	d := &download{size: size, ended: make(chan struct{})}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// begun waits until a response to the client can start: the first bytes have arrived, so
// upstream has the file. done means that the whole file is stored.
func (d *download) begun(ctx context.Context) (size int64, done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.done && (d.n <= HoldBack || d.size < 0) {
		if err := d.wait(ctx); err != nil {
			return 0, false, err
		}
	}
	return d.size, d.done, d.err
}

// result waits for the end of the download.
func (d *download) result(ctx context.Context) (cas.Info, error) {
	select {
	case <-d.ended:
		return d.info, d.err
	case <-ctx.Done():
		return cas.Info{}, ctx.Err()
	}
}

// wait sleeps until the download changes or ctx is done. d.mu must be held.
func (d *download) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		d.changed.Broadcast()
		d.mu.Unlock()
	})
	d.changed.Wait()
	stop()
	return ctx.Err()
}

// follow returns dest with a hook: followers read from w, where the bytes written to dest
// arrive. A nil download has no followers.
func (d *download) follow(w, dest cas.BlobWriter) cas.BlobWriter {
	if d == nil {
		return dest
	}
	d.mu.Lock()
	d.written = w
	d.mu.Unlock()
	return &followedWriter{dest, d}
}

// unfollow stops followers from reading w, before it is closed.
func (d *download) unfollow() {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.written = nil
	d.mu.Unlock()
}

// end reports the outcome of the download to everyone who waits.
func (d *download) end(info cas.Info, err error) {
	d.mu.Lock()
	d.done, d.info, d.err, d.written = true, info, err, nil
	d.changed.Broadcast()
	d.mu.Unlock()
	close(d.ended)
}

// followedWriter reports the progress of a download to its followers.
type followedWriter struct {
	cas.BlobWriter
	d *download
}

func (w *followedWriter) Write(p []byte) (int, error) {
	n, err := w.BlobWriter.Write(p)
	w.d.mu.Lock()
	w.d.n += int64(n)
	w.d.changed.Broadcast()
	w.d.mu.Unlock()
	return n, err
}

func (w *followedWriter) Reset() error {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	w.d.n = 0
	w.d.restarts++
	return w.BlobWriter.Reset()
}
