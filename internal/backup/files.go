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

// writeSynced writes a file of mode 0600 that does not exist yet, and makes its
// bytes durable. Its name is durable once its directory is synced.
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

// source reads for a copy: it ends with its context, counts, and keeps the
// error of reading apart from those of writing.
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

// A batch of a copy becomes durable after so many blobs or bytes: what an
// interruption makes to be copied again.
const (
	batchBlobs = 1000
	batchBytes = 256 << 20
)

// damage says what is wrong with bytes that were read.
type damage struct{ why string }

func (d *damage) Error() string { return d.why }

// copier adds blobs to a blob store.
type copier struct {
	to    *cas.Dir
	batch cas.Batch
	buf   []byte
}

func newCopier(to *cas.Dir) *copier {
	return &copier{to: to, batch: to.NewBatch(), buf: make([]byte, 1<<20)}
}

// add copies a blob's bytes. A *damage error means that they are not the
// blob's; nothing is added then.
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
		return &damage{"its bytes have SHA-256 " + got.Digest.String()}
	} else if err != nil {
		return err
	}
	if n, bytes := c.batch.Pending(); n >= batchBlobs || bytes >= batchBytes {
		return c.flush(ctx)
	}
	return nil
}

// flush makes what was added durable, and begins anew: a batch remembers each
// blob that it wrote.
func (c *copier) flush(ctx context.Context) error {
	err := c.batch.Flush(ctx)
	c.batch.Discard()
	c.batch = c.to.NewBatch()
	return err
}

func (c *copier) discard() { c.batch.Discard() }

// lock locks a directory until the file that it returns is closed. ErrBusy.
func lock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	// Some network file systems cannot lock a directory: there it is not locked.
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
	}
	return f, nil
}

// checkSpace fails when dir's file system has fewer than need bytes free.
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

// resolve follows the symbolic links of a path, of which the last elements need
// not exist.
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

// apart refuses a backup below the data directory, or the other way round.
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

// makeDir makes a directory for its owner alone. One that exists must not be
// writable by others.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if p := st.Mode().Perm(); p&0o022 != 0 {
		return fmt.Errorf("%w: %s: mode %04o lets others write, expected 0700", ErrDirectory, dir, p)
	}
	// A directory of others above may not be readable for us.
	if err := durable.SyncDir(filepath.Dir(filepath.Clean(dir))); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// names lists a directory without what a new file system has in it.
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

// list puts a few of many names into words.
func list(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
