package acquire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

var now = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// world is an Acquirer of one mirror, on a temporary directory.
type world struct {
	*acquire.Acquirer
	t      *testing.T
	mirror config.Mirror
	meta   *bolt.Store
	blobs  cas.Store
}

func newWorld(t *testing.T, url string) *world { return faultyWorld(t, url, nil) }

// faultyWorld is newWorld with faults in changes of the blob store.
func faultyWorld(t *testing.T, url string, fault spool.Fault) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, mirror: config.Mirror{Name: "debian", Type: "deb", URL: remote.NewURL(url), Suites: []string{"stable"}}}
	var err error
	if w.blobs, err = casdir.Open(dir, casdir.Options{Now: func() time.Time { return now }, Fault: fault}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.blobs.Close() })
	if w.meta, err = bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.meta.Close() })
	client := fetch.New(fetch.Config{Retries: -1})
	t.Cleanup(func() { client.Close() })
	w.Acquirer, err = acquire.New(acquire.Config{
		Mirrors: []config.Mirror{w.mirror}, Formats: map[string]acquire.Format{"deb": deb.Format{}}, Meta: w.meta, Blobs: w.blobs,
		Client: client, Parallel: 2, DocTime: time.Minute, Changed: func() {}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// packageOf describes a package whose file has these bytes.
func packageOf(name string, data []byte) (*repo.Record, repo.File) {
	f := repo.File{Path: "pool/" + name + ".deb", Size: int64(len(data)), SHA256: cas.Sum(data)}
	return &repo.Record{Kind: repo.KindBinary, Name: name, Version: "1", Arch: "amd64", Files: []repo.File{f}}, f
}

func (w *world) file(name string, data []byte) acquire.File {
	rec, f := packageOf(name, data)
	return acquire.File{Mirror: w.mirror.Name, Record: rec, Listed: repo.Listed{Path: f.Path, Size: f.Size, SHA256: f.SHA256}}
}

// candidates returns the blobs that a collection in an hour would remove.
func (w *world) candidates() []cas.Digest {
	w.t.Helper()
	claimed, _, _, err := w.meta.ClaimBlobs(w.t.Context(), cas.Digest{}, now.Add(time.Hour), 100)
	if err != nil {
		w.t.Fatal(err)
	}
	return claimed
}

// Clients that ask for one file share one download, and each gets all bytes.
func TestOpenShares(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	const clients = 4
	var requests atomic.Int32
	begun := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
		rw.Write(data[:len(data)/2])
		http.NewResponseController(rw).Flush()
		<-begun
		rw.Write(data[len(data)/2:])
	}))
	defer srv.Close()
	w := newWorld(t, srv.URL)
	var wg, opened sync.WaitGroup
	opened.Add(clients)
	for range clients {
		wg.Go(func() {
			r, size, err := w.Open(t.Context(), w.file("a", data))
			opened.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || size != int64(len(data)) || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d, %v; expected %d", len(got), size, err, len(data))
			}
		})
	}
	opened.Wait() // while half of the file is here
	close(begun)
	wg.Wait()
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests, expected 1", n)
	}
	if got, want := w.candidates(), []cas.Digest{cas.Sum(data)}; !slices.Equal(got, want) {
		t.Errorf("candidates %v, expected %v: nothing refers to the file", got, want)
	}
}

// A file below a base URL may be a symbolic link to anywhere below it, and to
// nowhere else.
func TestFileTree(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "debian")
	write := func(p string) {
		t.Helper()
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(filepath.Base(p)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("debian/pool/plain.deb")
	write("debian/by-name/linked.deb")
	write("secret.deb")
	for name, to := range map[string]string{"linked": "../by-name/linked.deb", "secret": "../../secret.deb"} {
		if err := os.Symlink(to, filepath.Join(base, "pool", name+".deb")); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, "file://"+base)
	for name, want := range map[string]error{"plain": nil, "linked": nil, "secret": fetch.ErrRefused} {
		data := []byte(name + ".deb")
		_, err := w.Fetch(t.Context(), w.file(name, data))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, expected %v", name, err, want)
		}
		if _, serr := w.blobs.Stat(t.Context(), cas.Sum(data)); (serr == nil) != (want == nil) {
			t.Errorf("%s: stored: %v", name, serr)
		}
	}
}

// Files that arrived before the work failed are kept, and a later collection finds them.
func TestFetchPackagesFails(t *testing.T) {
	w := newWorld(t, serve(t, map[string]string{"/pool/a.deb": "a"}))
	failed := errors.New("failed")
	progress := &acquire.Progress{}
	files, size, err := w.FetchPackages(t.Context(), acquire.FetchOptions{
		Mirror: w.mirror, Progress: progress,
		Lost: func(_ *repo.Record, _ repo.File, err error) error {
			if !errors.Is(err, fetch.ErrNotFound) {
				t.Errorf("lost for %v, expected %v", err, fetch.ErrNotFound)
			}
			return failed
		},
	}, func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error {
		if err := fetch(packageOf("a", []byte("a"))); err != nil {
			return err
		}
		for progress.Files.Load() < 1 {
			runtime.Gosched() // until it has arrived
		}
		return fetch(packageOf("b", []byte("b")))
	})
	if !errors.Is(err, failed) || files != 1 || size != 1 {
		t.Fatalf("%d files, %d bytes, %v; expected 1, 1 and the error of Lost", files, size, err)
	}
	a := cas.Sum([]byte("a"))
	if _, err := w.blobs.Stat(t.Context(), a); err != nil {
		t.Errorf("what arrived is not stored: %v", err)
	}
	if got := w.candidates(); !slices.Equal(got, []cas.Digest{a}) {
		t.Errorf("candidates %v, expected %v", got, a)
	}
}

// While a batch of downloads becomes durable, which is slow in a bucket, the next
// packages are downloaded.
func TestFetchPackagesGoesOn(t *testing.T) {
	const batch = 4096 // flushFiles
	var requests atomic.Int32
	further := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == batch+100 {
			close(further)
		}
		io.WriteString(rw, r.URL.Path)
	}))
	defer srv.Close()
	var once sync.Once
	w := faultyWorld(t, srv.URL, func(op, name string) (bool, error) {
		if op == "sync" {
			once.Do(func() {
				select {
				case <-further:
				case <-time.After(20 * time.Second):
					t.Error("nothing is downloaded while a batch becomes durable")
				}
			})
		}
		return false, nil
	})
	const all = batch + 200
	files, _, err := w.FetchPackages(t.Context(), acquire.FetchOptions{Mirror: w.mirror}, func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error {
		for i := range all {
			name := fmt.Sprint("p", i)
			if err := fetch(packageOf(name, []byte("/pool/"+name+".deb"))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || files != all {
		t.Fatalf("%d files, %v", files, err)
	}
	if n := len(w.candidates()); n != 100 { // a page
		t.Errorf("%d candidates, expected a page of 100: nothing refers to the files", n)
	}
}

// Fetching a corrupt blob again repairs it.
func TestFetchRepairs(t *testing.T) {
	w := newWorld(t, serve(t, map[string]string{"/pool/a.deb": "a"}))
	a := cas.Sum([]byte("a"))
	if _, err := w.Fetch(t.Context(), w.file("a", []byte("a"))); err != nil {
		t.Fatal(err)
	}
	if err := w.MarkCorrupt(t.Context(), a, "test", "other bytes"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Open(t.Context(), w.file("a", []byte("a"))); !errors.Is(err, acquire.ErrCorruptBlob) {
		t.Errorf("open: %v, expected %v", err, acquire.ErrCorruptBlob)
	}
	_, _, err := w.FetchPackages(t.Context(), acquire.FetchOptions{Mirror: w.mirror},
		func(_ context.Context, fetch func(*repo.Record, repo.File) error) error {
			return fetch(packageOf("a", []byte("a")))
		})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Corrupt(a); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	if left, err := w.meta.CorruptBlobs(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("corrupt blobs in the metadata: %v, %v", left, err)
	}
	sha1 := []byte("\x86\xf7\xe4\x37\xfa\xa5\xa7\xfc\xe1\x5d\x1d\xdc\xb9\xea\xea\xea\x37\x76\x67\xb8")
	if d, err := w.meta.Alias(t.Context(), meta.AliasSHA1, sha1); err != nil || d != a {
		t.Errorf("alias by SHA-1: %v, %v; expected %v", d, err, a)
	}
}

func serve(t *testing.T, files map[string]string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if data, ok := files[r.URL.Path]; ok {
			io.WriteString(rw, data)
			return
		}
		http.NotFound(rw, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// A request that comes while the stores are being closed, or later, begins no download.
func TestCloseBeginsNoDownload(t *testing.T) {
	for range 10 {
		w := newWorld(t, "http://127.0.0.1:1/")
		begun, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				_, err := w.Fetch(t.Context(), w.file(fmt.Sprint(i), []byte(fmt.Sprint(i))))
				if i == 0 {
					close(begun)
				}
				if errors.Is(err, context.Canceled) {
					return
				}
			}
		}()
		<-begun
		w.Close()
		downloads := w.OnDemand()
		<-ended
		if _, err := w.Fetch(t.Context(), w.file("late", []byte("late"))); !errors.Is(err, context.Canceled) {
			t.Errorf("after Close: %v", err)
		}
		if after := w.OnDemand(); after != downloads {
			t.Fatalf("downloads after Close: %+v, then %+v", downloads, after)
		}
	}
}
