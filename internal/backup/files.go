package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
)

// writeSynced writes a new file of mode 0600 and makes its content durable. Its
// name is durable after its directory is synced.
func writeSynced(name string, write func(io.Writer) error) (out file, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n := &counter{}
	if err := write(io.MultiWriter(f, h, n)); err != nil {
		return out, err
	}
	if err := f.Sync(); err != nil {
		return out, fmt.Errorf("sync %s: %w", name, err)
	}
	return file{Name: filepath.Base(name), Size: n.n, SHA256: cas.Digest(h.Sum(nil))}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// source reads for a copy. It stops with its context, counts the bytes, and keeps read
// errors separate from write errors.
type source struct {
	ctx   context.Context
	r     io.Reader
	count func(n int64)
	err   error
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if s.count != nil {
		s.count(int64(n))
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Limits of a batch of copies: it becomes durable after this many blobs or bytes. After
// an interruption they may have to be copied again.
const (
	batchBlobs = 1000
	batchBytes = 256 << 20
)

// damage describes wrong content.
type damage struct{ why string }

func (d *damage) Error() string { return d.why }

// copier adds blobs to a blob store.
type copier struct {
	to    cas.Writer
	batch cas.Batch
	buf   []byte
}

func newCopier(to cas.Writer) *copier {
	return &copier{to: to, batch: to.NewBatch(), buf: make([]byte, 1<<20)}
}

// add copies a blob. It returns a *damage error, and adds nothing, if the content
// is wrong.
func (c *copier) add(ctx context.Context, d cas.Digest, r io.Reader, modified time.Time, count func(int64)) error {
	w, err := c.batch.Create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	src := &source{ctx: ctx, r: r, count: count}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, src, c.buf); err != nil {
		if src.err != nil {
			return &damage{"cannot be read: " + src.err.Error()}
		}
		return err
	}
	got, err := w.Commit(d, -1, modified)
	if errors.Is(err, cas.ErrMismatch) {
		return &damage{"its content has SHA-256 " + got.Digest.String()}
	} else if err != nil {
		return err
	}
	if n, bytes := c.batch.Pending(); n >= batchBlobs || bytes >= batchBytes {
		return c.flush(ctx)
	}
	return nil
}

// flush makes the added blobs durable and starts a new batch, because a batch
// remembers each of its blobs.
func (c *copier) flush(ctx context.Context) error {
	err := c.batch.Flush(ctx)
	c.batch.Discard()
	c.batch = c.to.NewBatch()
	return err
}

func (c *copier) discard() { c.batch.Discard() }

// lock locks a directory until the returned file is closed. ErrBusy.
func lock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	// Some network file systems cannot lock a directory. Then continue without a lock.
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
	}
	return f, nil
}

// checkSpace returns ErrNoSpace if the file system of dir has fewer than need bytes free.
func checkSpace(dir string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%w: %s has %d bytes free, %d are needed", ErrNoSpace, dir, free, need)
	}
	return nil
}

// resolve follows the symbolic links in a path whose last elements need not
// exist.
func resolve(p string) (string, error) {
	p, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(p)
	if errors.Is(err, fs.ErrNotExist) && p != "/" {
		dir, err := resolve(filepath.Dir(p))
		return filepath.Join(dir, filepath.Base(p)), err
	}
	return real, err
}

// apart refuses a backup inside the data directory, or a data directory inside the
// backup.
func apart(dir, data string) error {
	d, err := resolve(dir)
	if err != nil {
		return err
	}
	s, err := resolve(data)
	if err != nil {
		return err
	}
	inside := func(a, b string) bool { return a == b || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/") }
	switch {
	case inside(d, s):
		return fmt.Errorf("%w: %s is inside the data directory %s", ErrDirectory, dir, data)
	case inside(s, d):
		return fmt.Errorf("%w: the data directory %s is inside %s", ErrDirectory, data, dir)
	}
	return nil
}

// makeDir creates a directory that only its owner can access. Others must not be
// able to write to an existing one.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if p := st.Mode().Perm(); p&0o022 != 0 {
		return fmt.Errorf("%w: %s: others can write to it (mode %04o), expected 0700", ErrDirectory, dir, p)
	}
	// Its parent may belong to another user and not be readable.
	if err := durable.SyncDir(filepath.Dir(filepath.Clean(dir))); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// names lists a directory, without the entries of a new file system.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.Name() != "lost+found" {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// list returns the first of many names, for messages.
func list(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
