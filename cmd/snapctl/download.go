package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/stream"
)

// downloads is how many files of an export are downloaded at a time.
const downloads = 8

// errNoExport means that there is no export at a URL.
var errNoExport = errors.New("no export at this URL")

// isURL reports whether an argument is a URL and not the name of a directory.
func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// exportURL checks the URL of an export.
func (c *call) exportURL(s string) (remote.URL, error) {
	u := remote.NewURL(s)
	if err := u.CheckSource(); err != nil {
		return u, c.usagef("%s: %v", u, err)
	}
	return u.Trim(), nil
}

// isTar reports whether a URL names an export as a tar stream.
func isTar(u remote.URL) bool { return strings.HasSuffix(u.Path(), ".tar") }

// openTar opens an export that is a tar stream.
func openTar(ctx context.Context, cl *fetch.Client, u remote.URL) (*fetch.Stream, error) {
	return cl.Open(ctx, fetch.Request{URLs: []remote.URL{u}, Size: -1, MaxSize: math.MaxInt64})
}

// room is the free space that a download must leave on its disk, in bytes.
const room = 64 << 20

// enoughSpace checks that a directory's disk has more than room bytes left.
func enoughSpace(dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < room {
		return fmt.Errorf("%s has only %s left: %w; name another directory with $TMPDIR", dir, bytesText(free), syscall.ENOSPC)
	}
	return nil
}

// download copies the export at a URL to an empty directory: the files in its
// SHA256SUMS, or those in a tar stream.
func (c *call) download(ctx context.Context, u remote.URL, dir string, progress func(api.Progress)) error {
	if progress == nil {
		progress = func(api.Progress) {}
	}
	cl := fetch.New(fetch.Config{Parallel: downloads})
	defer cl.Close()
	if isTar(u) {
		in, err := openTar(ctx, cl, u)
		if err != nil {
			return err
		}
		defer in.Close()
		at := api.Progress{Task: u.String(), Phase: "downloading", BytesTotal: max(in.Length, 0)}
		return stream.Unpack(ctx, &reported{r: in, at: at, progress: progress}, dir, func() error { return enoughSpace(dir) })
	}
	data, _, err := cl.GetBytes(ctx, fetch.Request{URLs: []remote.URL{u.Join(freeze.SumsFile)}, Size: -1, MaxSize: freeze.MaxSums})
	if errors.Is(err, fetch.ErrNotFound) {
		return fmt.Errorf("%w: %w", errNoExport, err)
	} else if err != nil {
		return err
	}
	sums, err := stream.ParseSums(data)
	if err != nil {
		return fmt.Errorf("%s: %w", u.Join(freeze.SumsFile), err)
	}
	if err := os.WriteFile(filepath.Join(dir, freeze.SumsFile), data, 0o644); err != nil {
		return err
	}
	p := new(acquire.Progress)
	p.SetPhase("downloading")
	p.FilesTotal.Store(int64(len(sums)))
	stop := watch(p, u.String(), progress)
	defer stop()
	var busy errgroup.Group
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	for range downloads {
		busy.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(sums)); i = next.Add(1) - 1 {
				if err := downloadFile(ctx, cl, u, sums[i], dir, p); err != nil {
					cancel(err)
					return context.Cause(ctx)
				}
			}
			return nil
		})
	}
	return busy.Wait()
}

// downloadFile downloads one file of an export.
func downloadFile(ctx context.Context, cl *fetch.Client, u remote.URL, s stream.Sum, dir string, p *acquire.Progress) error {
	if err := enoughSpace(dir); err != nil {
		return err
	}
	name := filepath.Join(dir, filepath.FromSlash(s.Name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	_, err = cl.Get(ctx, fetch.Request{
		URLs: []remote.URL{u.Join(s.Name)}, Size: -1, MaxSize: math.MaxInt64, Want: fetch.StrongDigests(s.Digest, ""),
		Dest: &fileSink{File: f, dir: dir}, OnBytes: func(n int64) { p.Bytes.Add(n) },
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	p.Files.Add(1)
	return nil
}

// fileSink is a fetch.Sink that writes a file.
type fileSink struct {
	*os.File
	dir     string
	n       int64
	checked int64 // how many bytes there were when the space was checked last
}

func (s *fileSink) Write(b []byte) (int, error) {
	if s.n-s.checked >= room/downloads/2 {
		if err := enoughSpace(s.dir); err != nil {
			return 0, err
		}
		s.checked = s.n
	}
	n, err := s.File.Write(b)
	s.n += int64(n)
	return n, err
}

// Offset implements fetch.Sink.
func (s *fileSink) Offset() int64 { return s.n }

// Reset implements fetch.Sink.
func (s *fileSink) Reset() error {
	s.n, s.checked = 0, 0
	if _, err := s.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.Truncate(0)
}

// reported is a reader that reports progress after each MiB.
type reported struct {
	r        io.Reader
	at       api.Progress
	last     int64
	progress func(api.Progress)
}

func (r *reported) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.at.Bytes += int64(n)
	if r.at.Bytes-r.last >= 1<<20 || err != nil {
		r.last = r.at.Bytes
		r.progress(r.at)
	}
	return n, err
}

// downloaded runs f with the export at a URL in a temporary directory ($TMPDIR).
func (c *call) downloaded(ctx context.Context, s string, f func(dir string) error) error {
	u, err := c.exportURL(s)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "snapctl-export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// Error messages contain the last element of this path.
	dir := filepath.Join(tmp, "export")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	err = c.download(ctx, u, dir, c.ui.progress)
	c.ui.endProgress()
	if err != nil {
		return err
	}
	return f(dir)
}
