package castest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
)

// ReadInto returns a whole small blob, or the beginning of a larger one.
func testReadInto(t *testing.T, open Open) {
	s := open(t, Faults{})
	data := Blob(2)
	d := put(t, s, data)
	for _, size := range []int{len(data) + 1, len(data), 7} {
		buf := make([]byte, size)
		n, err := s.ReadInto(t.Context(), d, buf)
		if err != nil || !bytes.Equal(buf[:n], data[:min(size, len(data))]) {
			t.Errorf("into %d bytes: %d bytes, %v", size, n, err)
		}
	}
	d = put(t, s, nil)
	if n, err := s.ReadInto(t.Context(), d, make([]byte, 4)); n != 0 || err != nil {
		t.Errorf("an empty blob: %d bytes, %v", n, err)
	}
	if _, err := s.ReadInto(t.Context(), cas.Sum([]byte("never here")), make([]byte, 4)); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("an absent blob: %v", err)
	}
}

// The quarantine lists each removal, oldest first, until it is purged.
func testPurge(t *testing.T, open Open) {
	s := open(t, Faults{})
	list := func() (out []cas.Quarantined) {
		t.Helper()
		out, err := s.Quarantine(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if q := list(); len(q) != 0 {
		t.Errorf("of a new store: %v", q)
	}
	start := time.Now().Add(-time.Second).Truncate(time.Second)
	put(t, s, Blob(1))
	put(t, s, Blob(2))
	for n, why := range map[int]string{1: "gc", 2: cas.WhyCorrupt} {
		if err := s.Remove(t.Context(), cas.Sum(Blob(n)), why, nil); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, Faults{})
	q := list()
	if len(q) != 2 || q[1].At.Before(q[0].At) {
		t.Fatalf("two removals: %v", q)
	}
	for _, e := range q {
		n, why := 1, "gc"
		if e.Digest == cas.Sum(Blob(2)) {
			n, why = 2, cas.WhyCorrupt
		}
		if e.Digest != cas.Sum(Blob(n)) || e.Why != why || e.Size != int64(len(Blob(n))) || e.At.Before(start) || e.At.After(time.Now().Add(time.Second)) {
			t.Errorf("entry %+v", e)
		}
	}
	if err := s.Restore(t.Context(), cas.Sum(Blob(1))); err != nil {
		t.Fatal(err)
	}
	if q := list(); len(q) != 1 || q[0].Digest != cas.Sum(Blob(2)) {
		t.Errorf("after a restore: %v", q)
	}
	if n, size, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); n != 1 || size != int64(len(Blob(2))) || err != nil {
		t.Errorf("purge: %d blobs, %d bytes, %v", n, size, err)
	}
	if q := list(); len(q) != 0 || !holds(t, s, Blob(1)) {
		t.Errorf("after a purge: %v", q)
	}
	// A purged blob can be stored again, and lasts.
	put(t, s, Blob(2))
	s = open(t, Faults{})
	if _, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil || !holds(t, s, Blob(2)) {
		t.Errorf("a blob stored again after its purge: %v", err)
	}
}

func testFree(t *testing.T, open Open) {
	if n, err := open(t, Faults{}).Free(t.Context()); n <= 0 || err != nil {
		t.Errorf("%d bytes free, %v", n, err)
	}
}

// A place contains the blob's bytes.
func testLocate(t *testing.T, open Open) {
	s := open(t, Faults{})
	data := Blob(3)
	d := put(t, s, data)
	p, err := cas.Locate(t.Context(), s, d, cas.Wanted{Life: time.Minute, ContentType: "application/x-test"})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	switch {
	case p.Path != "":
		if !filepath.IsAbs(p.Path) {
			t.Errorf("a relative path: %s", p.Path)
		}
		got, err = os.ReadFile(p.Path)
	case p.URL != "":
		var res *http.Response
		if res, err = http.Get(p.URL); err == nil {
			defer res.Body.Close()
			if ct := res.Header.Get("Content-Type"); ct != "application/x-test" {
				t.Errorf("Content-Type %q", ct)
			}
			got, err = io.ReadAll(res.Body)
		}
	default:
		t.Skip("no Locator")
	}
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes there, %v", len(got), err)
	}
	if _, err := cas.Locate(t.Context(), s, cas.Sum([]byte("never here")), cas.Wanted{Life: time.Minute}); err != nil && !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of an absent blob: %v", err)
	}
}
