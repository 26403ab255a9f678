package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/bolt"
)

func large(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func mustPut(t *testing.T, s cas.Store, data []byte) cas.Digest {
	t.Helper()
	info, err := cas.Put(t.Context(), s, data, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return info.Digest
}

func mustHold(t *testing.T, s cas.Store, data []byte) {
	t.Helper()
	got, err := cas.ReadAll(t.Context(), s, cas.Sum(data), 1<<30)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("blob %s: %d bytes, %v", cas.Sum(data).Short(), len(got), err)
	}
}

// Each request in a store's life is answered with an error, without effect or after it
// has taken effect. The store retries and ends in the same state. It also retries
// conflicts.
func TestTransientFaults(t *testing.T) {
	srv := s3test.Start(t)
	small, big := []byte("a small blob"), large(20<<20, 1)
	for _, op := range []string{"put", "part", "create", "complete", "head", "get", "deletes", "uploads"} {
		for name, f := range map[string]s3test.Fault{
			"before":   {Status: http.StatusServiceUnavailable, Code: "SlowDown"},
			"after":    {Status: http.StatusInternalServerError, Code: "InternalError", After: true},
			"conflict": {Status: http.StatusConflict, Code: "OperationAborted"},
		} {
			if name == "conflict" && op != "put" {
				continue
			}
			t.Run(op+"/"+name, func(t *testing.T) {
				s := newStore(t, srv).open(t, castest.Faults{})
				hit := false
				srv.Decide(func(o, _ string) *s3test.Fault {
					if o != op || hit {
						return nil
					}
					hit = true
					return &f
				})
				defer srv.Decide(nil)
				work := func() error {
					for _, data := range [][]byte{small, big} {
						if _, err := cas.Put(t.Context(), s, data, time.Time{}); err != nil {
							return err
						}
					}
					for _, data := range [][]byte{small, big} {
						if err := cas.Check(t.Context(), s, cas.Sum(data)); err != nil {
							return err
						}
						if err := s.Remove(t.Context(), cas.Sum(data), "gc", nil); err != nil {
							return err
						}
					}
					_, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour))
					return err
				}
				err := work()
				if !hit {
					t.Fatal("no such request was made")
				}
				if err != nil && (!errors.Is(err, cas.ErrUnavailable) || errors.Is(err, cas.ErrNotFound)) {
					t.Errorf("neither tried again nor unavailable: %v", err)
				}
				if err := work(); err != nil {
					t.Errorf("the work repeated: %v", err)
				}
			})
		}
	}
}

// A server that always fails is unavailable, never empty, and no blob is promised.
func TestOutage(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	s := w.open(t, castest.Faults{})
	kept := []byte("kept")
	mustPut(t, s, kept)
	srv.Decide(func(string, string) *s3test.Fault {
		return &s3test.Fault{Status: http.StatusForbidden, Code: "ExpiredToken"}
	})
	_, err := cas.Put(t.Context(), s, []byte("new"), time.Time{})
	if !errors.Is(err, cas.ErrUnavailable) || !strings.Contains(err.Error(), w.location) || !strings.Contains(err.Error(), "store ") {
		t.Errorf("put: %v", err)
	}
	for name, err := range map[string]error{
		"check":   cas.Check(t.Context(), s, cas.Sum(kept)),
		"corrupt": func() error { _, err := s.RemoveCorrupt(t.Context(), cas.Sum(kept)); return err }(),
	} {
		if !errors.Is(err, cas.ErrUnavailable) || errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The S3 client retries what may succeed, so a reader does not retry again.
	srv.Counts()
	if _, err := cas.ReadAll(t.Context(), s, cas.Sum(kept), 1<<20); !errors.Is(err, cas.ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
	if n := srv.Counts()["get"]; n > 4 {
		t.Errorf("%d requests for one blob, expected at most 4", n)
	}
	srv.Decide(nil)
	mustHold(t, s, kept)
	if _, err := s.Stat(t.Context(), cas.Sum([]byte("new"))); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a blob that was never stored: %v", err)
	}
}

// When the server has not answered for a while, only one request in a few seconds is
// sent, so that clients need not wait for each. The first answer ends this.
func TestSilentServer(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	w.open(t, castest.Faults{})
	w.last.Close()
	o := w.options(t, castest.Faults{})
	var ahead atomic.Int64
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	w.last = s
	kept := []byte("kept")
	mustPut(t, s, kept)
	srv.Decide(func(string, string) *s3test.Fault {
		return &s3test.Fault{Hang: true, HangTime: 10 * time.Millisecond}
	})
	for _, step := range []struct {
		ahead    time.Duration
		requests bool
	}{{0, true}, {11 * time.Second, true}, {12 * time.Second, false}, {17 * time.Second, true}} {
		ahead.Store(int64(step.ahead))
		srv.Counts()
		if _, err := cas.ReadAll(t.Context(), s, cas.Sum(kept), 1<<20); !errors.Is(err, cas.ErrUnavailable) {
			t.Errorf("after %v: %v", step.ahead, err)
		}
		if n := srv.Counts()["get"]; n > 0 != step.requests {
			t.Errorf("after %v: %d requests, expected some: %v", step.ahead, n, step.requests)
		}
	}
	srv.Decide(nil)
	ahead.Store(int64(23 * time.Second))
	mustHold(t, s, kept)
}

// Answers that end early are resumed, no reader gets all bytes of a wrong object, and
// slow answers are read.
func TestDamagedAnswers(t *testing.T) {
	srv := s3test.Start(t)
	s := newStore(t, srv).open(t, castest.Faults{})
	data := large(300<<10, 2)
	d := mustPut(t, s, data)
	n := 0
	srv.Decide(func(op, _ string) *s3test.Fault {
		if n++; n > 3 {
			return nil
		}
		return &s3test.Fault{Cut: 50 << 10}
	})
	mustHold(t, s, data)
	if n != 4 {
		t.Errorf("%d requests, expected 4", n)
	}
	srv.Decide(func(string, string) *s3test.Fault { return &s3test.Fault{Flip: true} })
	b, err := s.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(b)
	b.Close()
	if !errors.Is(err, cas.ErrCorrupt) || len(got) >= len(data) {
		t.Errorf("wrong bytes: %d of %d given out, %v", len(got), len(data), err)
	}
	srv.Decide(nil)
	// The object itself has not changed.
	if removed, err := s.RemoveCorrupt(t.Context(), d); removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	srv.Decide(func(string, string) *s3test.Fault { return &s3test.Fault{Pause: time.Millisecond} })
	mustHold(t, s, data)
	// A cancelled reader ends even while the server sends nothing.
	srv.Decide(func(string, string) *s3test.Fault { return &s3test.Fault{Hang: true} })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := cas.Check(ctx, s, d); err == nil || errors.Is(err, cas.ErrCorrupt) || errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a server that hangs: %v", err)
	}
}

// An upload that is interrupted, or whose bytes are changed in transit, stores nothing.
func TestDamagedUploads(t *testing.T) {
	srv := s3test.Start(t)
	for _, size := range []int{100 << 10, 40 << 20} {
		s := newStore(t, srv).open(t, castest.Faults{})
		data := large(size, 3)
		srv.Decide(func(op, _ string) *s3test.Fault {
			if op == "put" || op == "part" {
				return &s3test.Fault{CutRequest: 50 << 10}
			}
			return nil
		})
		if _, err := cas.Put(t.Context(), s, data, time.Time{}); !errors.Is(err, cas.ErrUnavailable) {
			t.Errorf("%d bytes, cut: %v", size, err)
		}
		srv.Decide(nil)
		if _, err := s.Stat(t.Context(), cas.Sum(data)); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%d bytes: there after a cut upload: %v", size, err)
		}
		mustPut(t, s, data)
		mustHold(t, s, data)
	}
}

// An object that is damaged or lost in the bucket is corrupt, not absent. A good copy
// replaces it under another key.
func TestLostObjects(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	s := w.open(t, castest.Faults{})
	for name, damage := range map[string]func(string) error{
		"lost":    os.Remove,
		"flipped": func(f string) error { return os.WriteFile(f, []byte("bytes of b lost"), 0o644) },
		"short":   func(f string) error { return os.WriteFile(f, []byte("by"), 0o644) },
	} {
		data := []byte("bytes of a " + name)
		d := mustPut(t, s, data)
		files, err := filepath.Glob(filepath.Join(srv.Dir, "*/some/prefix/blobs", d.String()[:2], d.String()+".*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		if err := damage(files[0]); err != nil {
			t.Fatal(err)
		}
		if err := cas.Check(t.Context(), s, d); !errors.Is(err, cas.ErrCorrupt) || errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if removed, err := s.RemoveCorrupt(t.Context(), d); !removed || err != nil {
			t.Errorf("%s: removed %v, %v", name, removed, err)
		}
		if err := s.Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%s: restored: %v", name, err)
		}
		mustPut(t, s, data)
		mustHold(t, s, data)
	}
}

// A DELETE that arrives late does not affect a blob that was stored again, because its
// key is another one. Interrupted uploads and replaced objects are deleted a day later,
// even if a listing does not show them.
func TestLateDelete(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	s := w.open(t, castest.Faults{})
	data := []byte("again")
	d := mustPut(t, s, data)
	first, err := w.meta.Objects().Present(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), d, "gc", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, data)
	l, _ := location.Parse(w.location)
	key := fmt.Sprintf("%sblobs/%s/%s.%d", l.Prefix, d.String()[:2], d, first.N)
	if err := srv.Client.RemoveObject(t.Context(), l.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, data)
	// The blob is written again, and the older object is deleted, but not at once.
	mustPut(t, s, data)
	count := func() (n int) {
		for range srv.Client.ListObjects(t.Context(), l.Bucket, minio.ListObjectsOptions{Prefix: l.Prefix + "blobs/", Recursive: true}) {
			n++
		}
		return n
	}
	srv.Decide(func(string, string) *s3test.Fault { return nil })
	if _, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil || count() != 2 {
		t.Errorf("after a purge: %d objects, %v", count(), err)
	}
	o := w.options(t, castest.Faults{})
	o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	later, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	srv.Decide(func(op, _ string) *s3test.Fault {
		if op == "list" {
			return &s3test.Fault{Hide: regexp.MustCompile(".")}
		}
		return nil
	})
	if _, _, err := later.Purge(t.Context(), time.Now().Add(100*time.Hour)); err != nil {
		t.Error(err)
	}
	srv.Decide(nil)
	if n := count(); n != 1 {
		t.Errorf("two days later: %d objects", n)
	}
	mustHold(t, later, data)
}

// Abandoned multipart uploads are aborted after a day.
func TestAbandonedUploads(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	s := w.open(t, castest.Faults{})
	l, _ := location.Parse(w.location)
	core := minio.Core{Client: srv.Client}
	for _, key := range []string{l.Prefix + "blobs/ab/x.1", "other/x"} {
		if _, err := core.NewMultipartUpload(t.Context(), l.Bucket, key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (keys []string) {
		for u := range srv.Client.ListIncompleteUploads(t.Context(), l.Bucket, "", true) {
			keys = append(keys, u.Key)
		}
		return keys
	}
	if _, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil || len(left()) != 2 {
		t.Errorf("young uploads: %v left, %v", left(), err)
	}
	o := w.options(t, castest.Faults{})
	o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	later, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if _, _, err := later.Purge(t.Context(), time.Now()); err != nil || fmt.Sprint(left()) != "[other/x]" {
		t.Errorf("old uploads: %v left, %v", left(), err)
	}
}

// Unusable settings are refused at the start, with their names.
func TestRefusals(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	w.open(t, castest.Faults{})
	w.close()
	var err error
	if w.meta, err = bolt.Open(filepath.Join(w.dir, "meta.db"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	defer w.meta.Close()
	ours := w.options(t, castest.Faults{})
	check := func(name string, o s3.Options, class error, want string) {
		t.Helper()
		s, err := s3.Open(t.Context(), o)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, class) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "s3://") || strings.Contains(err.Error(), s3test.SecretKey) {
			t.Errorf("%s: %v, expected %q", name, err, want)
		}
	}
	o := ours
	o.Installation = "theirs"
	check("another installation", o, s3.ErrRefused, `another installation uses it: object some/prefix/installation names "ours", this one is "theirs"`)
	o = ours
	o.Location.Bucket = "no-such-bucket"
	check("no bucket", o, s3.ErrRefused, "there is no bucket no-such-bucket")
	o = ours
	o.CredentialsFile = s3test.WriteCredentials(t, filepath.Join(t.TempDir(), "c"), "wrong")
	check("wrong secret", o, s3.ErrRefused, "the credentials do not permit access to bucket")
	o.CredentialsFile = filepath.Join(t.TempDir(), "absent")
	check("no credentials", o, cas.ErrUnavailable, "no such file")
	for name, c := range map[string]struct {
		op    string
		nth   int
		want  string
		fault s3test.Fault
	}{
		"no checksums":  {"put", 1, "the server stores an object whose x-amz-checksum-sha256 does not match its bytes", s3test.Fault{Status: 200}},
		"no conditions": {"put", 3, "the server ignores If-None-Match", s3test.Fault{Status: 200}},
		"read only":     {"put", 1, "the credentials do not permit writing", s3test.Fault{Status: 403, Code: "AccessDenied"}},
	} {
		n := 0
		srv.Decide(func(op, _ string) *s3test.Fault {
			if op != c.op {
				return nil
			}
			if n++; n == c.nth {
				return &c.fault
			}
			return nil
		})
		check(name, ours, s3.ErrRefused, c.want)
	}
	srv.Decide(func(string, string) *s3test.Fault { return &s3test.Fault{Status: 503, Code: "SlowDown"} })
	check("outage", ours, cas.ErrUnavailable, "look for")
	srv.Decide(nil)
	s, err := s3.Open(t.Context(), ours)
	if err != nil {
		t.Fatalf("in the end: %v", err)
	}
	s.Close()
}

// Credentials that are replaced while the store is open are used.
func TestCredentialsChange(t *testing.T) {
	srv := s3test.Start(t)
	w := newStore(t, srv)
	s := w.open(t, castest.Faults{})
	s3test.WriteCredentials(t, w.creds, "wrong")
	must(t, os.Chtimes(w.creds, time.Now(), time.Now().Add(time.Hour)))
	if _, err := cas.Put(t.Context(), s, []byte("x"), time.Time{}); !errors.Is(err, cas.ErrUnavailable) {
		t.Errorf("with a wrong secret: %v", err)
	}
	s3test.WriteCredentials(t, w.creds, s3test.SecretKey)
	must(t, os.Chtimes(w.creds, time.Now(), time.Now().Add(2*time.Hour)))
	mustPut(t, s, []byte("x"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
