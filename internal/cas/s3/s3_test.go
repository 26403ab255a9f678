package s3_test

import (
	"path/filepath"
	"testing"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/cache"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/meta/bolt"
)

// store is the store of one installation, which is opened several times.
type store struct {
	srv      *s3test.Server
	location string
	creds    string
	dir      string
	meta     *bolt.Store
	last     *s3.Store
	keep     func(*spool.File)
}

func newStore(t *testing.T, srv *s3test.Server) *store {
	t.Helper()
	w := &store{srv: srv, location: srv.Location(srv.Bucket(t), "some/prefix"), creds: s3test.CredentialsFile(t), dir: t.TempDir()}
	t.Cleanup(func() { w.close() })
	return w
}

func (w *store) close() {
	if w.last != nil {
		w.last.Close()
		w.meta.Close()
		w.last, w.meta = nil, nil
	}
}

func (w *store) options(t testing.TB, f castest.Faults) s3.Options {
	t.Helper()
	l, err := location.Parse(w.location)
	if err != nil {
		t.Fatal(err)
	}
	return s3.Options{Location: l, CredentialsFile: w.creds, Index: w.meta.Objects(), Installation: "ours", Spool: filepath.Join(w.dir, "incoming"), Keep: w.keep, Fault: f.Write, ReadFault: f.Read}
}

func (w *store) open(t *testing.T, f castest.Faults) cas.Store {
	t.Helper()
	w.close()
	var err error
	if w.meta, err = bolt.Open(filepath.Join(w.dir, "meta.db"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	if w.last, err = s3.Open(t.Context(), w.options(t, f)); err != nil {
		w.meta.Close()
		w.meta, w.last = nil, nil
		t.Fatal(err)
	}
	return w.last
}

func TestS3(t *testing.T) {
	srv := s3test.Start(t)
	castest.Run(t, func(t *testing.T) castest.Open { return newStore(t, srv).open })
}

// The same suite with local copies, which is how snapd opens the store.
func TestS3Cached(t *testing.T) {
	srv := s3test.Start(t)
	castest.Run(t, func(t *testing.T) castest.Open {
		w := newStore(t, srv)
		var last *cache.Store
		t.Cleanup(func() { last.Close() })
		return func(t *testing.T, f castest.Faults) cas.Store {
			if last != nil {
				last.Close()
				w.last = nil
				w.meta.Close()
			}
			w.keep = func(f *spool.File) { last.Adopt(f) }
			var err error
			if last, err = cache.Open(cache.Options{Remote: w.open(t, f), Dir: filepath.Join(w.dir, "cache"), Size: 100_000}); err != nil {
				t.Fatal(err)
			}
			return last
		}
	})
}
