package gc_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
)

// The mark of a corrupt blob is removed with the blob, so that good bytes that are stored
// later are trusted.
func TestForgottenCorruption(t *testing.T) {
	w := newWorld(t, time.Minute, 24*time.Hour)
	d := w.digest(t, 1)
	if err := w.MarkCorrupt(t.Context(), d, "scrub", "x"); err != nil {
		t.Fatal(err)
	}
	w.release()
	w.run(t, false)
	if w.has(t, d) || w.Corrupt(d) != nil {
		t.Errorf("after the collection: here %v, %v", w.has(t, d), w.Corrupt(d))
	}
	// A corrupt copy is never restored.
	if err := w.Blobs().Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restored: %v", err)
	}
}

// A scrub keeps to its rate, reads each blob once even if it is stopped several times,
// and removes the mark of a blob that can be read again.
func TestScrubRate(t *testing.T) {
	w := newWorld(t, 0, 0)
	const mib = 1 << 20
	for i := range 8 {
		if _, err := cas.Put(t.Context(), w.Blobs(), bytes.Repeat([]byte{byte(i)}, 3*mib), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	d := w.digest(t, 1)
	if err := w.MarkCorrupt(t.Context(), d, "read", "input/output error"); err != nil {
		t.Fatal(err)
	}
	all := 0
	if err := w.Blobs().Walk(t.Context(), cas.Digest{}, func(cas.Info) error { all++; return nil }); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		blobs, damaged, err := w.c.Scrub(t.Context(), 2*mib)
		// A little more than 24 MiB, of which the first piece is not limited.
		if took := time.Since(start); err != nil || blobs != all || damaged != 0 || took < 11*time.Second || took > 13*time.Second {
			t.Errorf("%d of %d blobs, %d damaged, in %v, %v; expected about 12 s", blobs, all, damaged, took, err)
		}
		sum, stops := 0, 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			n, _, err := w.c.Scrub(ctx, 2*mib)
			cancel()
			sum += n
			if err == nil {
				break
			}
			if stops++; stops > 10 {
				t.Fatalf("does not come to an end: %v", err)
			}
		}
		if sum != all || stops < 2 {
			t.Errorf("stopped %d times: %d blobs read, expected each of %d once", stops, sum, all)
		}
	})
	if err := w.Corrupt(d); err != nil {
		t.Errorf("a blob whose bytes are right: %v", err)
	}
}

// A scrub finds corrupt blobs, and continues where it was stopped.
func TestScrub(t *testing.T) {
	w := newWorld(t, 0, 0)
	d := w.digest(t, 1)
	file := filepath.Join(w.Dir, casdir.Name(d))
	os.Remove(file)
	if err := os.WriteFile(file, []byte("rot"), 0o444); err != nil {
		t.Fatal(err)
	}
	blobs, damaged, err := w.c.Scrub(t.Context(), 0)
	if err != nil || damaged != 1 || blobs == 0 {
		t.Fatalf("scrub: %d blobs, %d damaged, %v", blobs, damaged, err)
	}
	if err := w.Corrupt(d); !errors.Is(err, acquire.ErrCorruptBlob) {
		t.Errorf("known after a scrub: %v", err)
	}
	var middle cas.Digest // of the blobs that are there
	n := 0
	if err := w.Blobs().Walk(t.Context(), cas.Digest{}, func(i cas.Info) error {
		if n++; n <= blobs/2 {
			middle = i.Digest
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Store().SetNote(t.Context(), "scrub.at", middle.String()); err != nil {
		t.Fatal(err)
	}
	rest, _, err := w.c.Scrub(t.Context(), 0)
	if err != nil || rest >= blobs {
		t.Errorf("going on in the middle: %d blobs of %d, %v", rest, blobs, err)
	}
}
