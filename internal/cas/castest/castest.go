// Package castest is the contract of a blob store as a test suite. Every implementation
// passes it, and keeps its promises even if its writes fail.
package castest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/durable"
)

// Faults are called before each step. If a fault returns an error, the step fails, after
// it has taken effect if apply is true. A fault that is nil never fails.
type Faults struct {
	Write spool.Fault // of steps that change the store
	Read  spool.Fault // of steps that only read
}

// Open opens the store of one test: each call closes what the last one returned, and
// opens the same store again. Every step must call the faults.
type Open func(t *testing.T, f Faults) cas.Store

// Run runs the suite. open makes an opener for each test, on a new store.
func Run(t *testing.T, open func(t *testing.T) Open) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Open)
	}{
		{"Put", testPut}, {"FailedWrite", testFailedWrite}, {"Invisible", testInvisible}, {"Mismatch", testMismatch}, {"Writer", testWriter}, {"Walk", testWalk},
		{"ReadInto", testReadInto}, {"Quarantine", testQuarantine}, {"Purge", testPurge}, {"Free", testFree}, {"Locate", testLocate}, {"Hold", testHold}, {"RemoveCorrupt", testRemoveCorrupt}, {"HoldBesideRemove", testHoldBesideRemove}, {"Concurrent", testConcurrent}, {"Faults", testFaults}, {"FailedQuestions", testFailedQuestions}, {"History", testHistory},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, open(t)) })
	}
}

// Blob returns the bytes of the n-th test blob. Their sizes differ widely; the 0th is
// empty.
func Blob(n int) []byte {
	if n == 0 {
		return []byte{}
	}
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	b := make([]byte, []int{1, 100, 4096, 70_000}[n%4]+n)
	r.Read(b)
	return b
}

var modified = time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)

func put(t *testing.T, s cas.Store, data []byte) cas.Digest {
	t.Helper()
	info, err := cas.Put(t.Context(), s, data, modified)
	if err != nil {
		t.Fatal(err)
	}
	return info.Digest
}

// holds reports whether a blob is stored, and fails the test if it is stored with wrong
// bytes.
func holds(t *testing.T, s cas.Store, data []byte) bool {
	t.Helper()
	d := cas.Sum(data)
	info, err := s.Stat(t.Context(), d)
	if errors.Is(err, durable.ErrUnknown) {
		return false // not promised before the store is opened again
	}
	if errors.Is(err, cas.ErrNotFound) {
		if _, err := s.Open(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("Stat does not find %s, Open says %v", d.Short(), err)
		}
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if info.Digest != d || info.Size != int64(len(data)) {
		t.Errorf("Stat of %s: %+v", d.Short(), info)
	}
	got, err := cas.ReadAll(t.Context(), s, d, int64(len(data)))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("blob %s has other bytes: %v", d.Short(), err)
	}
	return true
}

func testPut(t *testing.T, open Open) {
	s := open(t, Faults{})
	for n := range 6 {
		data := Blob(n)
		if holds(t, s, data) {
			t.Fatalf("blob %d before it was put", n)
		}
		put(t, s, data)
		put(t, s, data) // invariant 2: equal bytes succeed
		if !holds(t, s, data) {
			t.Errorf("blob %d is not there", n)
		}
	}
	s = open(t, Faults{})
	for n := range 6 {
		if !holds(t, s, Blob(n)) {
			t.Errorf("blob %d is not there after opening again", n)
		}
	}
	data := Blob(3)
	if _, err := cas.ReadAll(t.Context(), s, cas.Sum(data), int64(len(data))-1); err == nil || !errors.As(err, new(*cas.SizeError)) {
		t.Errorf("ReadAll beyond its bound: %v", err)
	}
	b, err := s.Open(t.Context(), cas.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Info().ModTime.Equal(modified) && !b.Info().ModTime.IsZero() {
		t.Errorf("time of a blob: %v", b.Info().ModTime)
	}
	part := make([]byte, 7)
	if _, err := b.ReadAt(part, 11); err != nil || !bytes.Equal(part, data[11:18]) {
		t.Errorf("ReadAt: %v", err)
	}
	if _, err := b.Seek(-5, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if tail, err := io.ReadAll(b); err != nil || !bytes.Equal(tail, data[len(data)-5:]) {
		t.Errorf("Seek: %v", err)
	}
}

// A blob is not visible before its batch is flushed, and never if the batch is dropped or
// the process ends (invariant 5).
func testInvisible(t *testing.T, open Open) {
	s := open(t, Faults{})
	b := s.NewBatch()
	for n := range 3 {
		if _, err := cas.PutBatch(t.Context(), b, Blob(n), modified); err != nil {
			t.Fatal(err)
		}
		if holds(t, s, Blob(n)) {
			t.Errorf("blob %d is visible before the flush", n)
		}
	}
	if n, size := b.Pending(); n != 3 || size != int64(len(Blob(0))+len(Blob(1))+len(Blob(2))) {
		t.Errorf("pending: %d blobs, %d bytes", n, size)
	}
	if got, want := b.Digests(), []cas.Digest{cas.Sum(Blob(0)), cas.Sum(Blob(1)), cas.Sum(Blob(2))}; !slices.Equal(got, want) {
		t.Errorf("pending digests: %v", got)
	}
	if _, err := cas.PutBatch(t.Context(), b, Blob(3), modified); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, size := b.Pending(); holds(t, s, Blob(3)) || n != 1 || size != int64(len(Blob(3))) {
		t.Errorf("a blob that was committed after the digests were listed: %d blobs of %d bytes are pending, expected it alone", n, size)
	}
	if err := b.Flush(t.Context()); err != nil || !holds(t, s, Blob(3)) {
		t.Errorf("the flush after that: %v", err)
	}
	b.Discard() // leaves what was flushed
	for n := range 3 {
		if !holds(t, s, Blob(n)) {
			t.Errorf("blob %d is missing after the flush", n)
		}
	}
	b = s.NewBatch()
	if _, err := cas.PutBatch(t.Context(), b, Blob(4), modified); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	if err := b.Flush(t.Context()); err != nil || holds(t, s, Blob(4)) {
		t.Errorf("a dropped batch: %v", err)
	}
	if _, err := cas.PutBatch(t.Context(), b, Blob(5), modified); err != nil {
		t.Fatal(err)
	}
	s = open(t, Faults{}) // as after a crash
	if holds(t, s, Blob(5)) {
		t.Error("a blob that was never flushed is there after opening again")
	}
}

// Invariant 3: bytes that differ from the announced digest are refused.
func testMismatch(t *testing.T, open Open) {
	s := open(t, Faults{})
	b := s.NewBatch()
	for _, c := range []struct {
		want cas.Digest
		size int64
	}{{cas.Sum(Blob(2)), -1}, {cas.Sum(Blob(1)), 5}, {cas.Digest{}, 5}} {
		w, err := b.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.Write(Blob(1))
		if _, err := w.Commit(c.want, c.size, modified); !errors.Is(err, cas.ErrMismatch) {
			t.Errorf("commit as %s of %d bytes: %v", c.want.Short(), c.size, err)
		}
		w.Abort()
	}
	if err := b.Flush(t.Context()); err != nil || holds(t, s, Blob(1)) || holds(t, s, Blob(2)) {
		t.Errorf("a refused blob is there: %v", err)
	}
}

// A failed write cannot be overlooked: the blob is refused even if its digest is that of
// the bytes that were written.
func testFailedWrite(t *testing.T, open Open) {
	fail := false
	s := open(t, Faults{Write: func(op, _ string) (bool, error) {
		if fail {
			return false, fmt.Errorf("%w at %s", errFault, op)
		}
		return false, nil
	}})
	b := s.NewBatch()
	w, err := b.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("one "))
	fail = true
	if _, err := w.Write([]byte("two ")); !errors.Is(err, errFault) {
		t.Fatalf("the fault was not reported: %v", err)
	}
	fail = false
	w.Write([]byte("three"))
	if _, err := w.Commit(cas.Digest{}, -1, modified); !errors.Is(err, errFault) {
		t.Errorf("commit after a failed write: %v", err)
	}
	if w, err = b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	fail = true
	w.Write([]byte("one"))
	fail = false
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("two"))
	if _, err := w.Commit(cas.Sum([]byte("two")), 3, modified); err != nil {
		t.Errorf("commit after starting again: %v", err)
	}
}

func testWriter(t *testing.T, open Open) {
	s := open(t, Faults{})
	b := s.NewBatch()
	w, err := b.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("wrong start"))
	if w.Offset() != 11 {
		t.Errorf("offset %d", w.Offset())
	}
	if err := w.Reset(); err != nil || w.Offset() != 0 {
		t.Fatalf("reset: %v, offset %d", err, w.Offset())
	}
	data := Blob(3)
	for part := range slices.Chunk(data, 1000) {
		if n, err := w.Write(part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
		got := make([]byte, len(part))
		if _, err := w.ReadAt(got, w.Offset()-int64(len(part))); err != nil || !bytes.Equal(got, part) {
			t.Fatalf("reading what was written: %v", err)
		}
	}
	if _, err := w.Commit(cas.Sum(data), int64(len(data)), modified); err != nil {
		t.Fatal(err)
	}
	w.Abort() // does nothing
	if err := b.Flush(t.Context()); err != nil || !holds(t, s, data) {
		t.Errorf("a blob in pieces: %v", err)
	}
	w, err = b.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Abort()
	w.Abort()
	if n, _ := b.Pending(); n != 0 {
		t.Errorf("%d blobs pending after an abort", n)
	}
}

func testWalk(t *testing.T, open Open) {
	s := open(t, Faults{})
	var want []cas.Digest
	b := s.NewBatch()
	for n := range 60 {
		data := fmt.Appendf(nil, "blob %d", n)
		if _, err := cas.PutBatch(t.Context(), b, data, modified); err != nil {
			t.Fatal(err)
		}
		want = append(want, cas.Sum(data))
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(want, func(a, b cas.Digest) int { return bytes.Compare(a[:], b[:]) })
	walk := func(after cas.Digest) (out []cas.Digest) {
		if err := s.Walk(t.Context(), after, func(i cas.Info) error { out = append(out, i.Digest); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := walk(cas.Digest{}); !slices.Equal(got, want) {
		t.Errorf("walk: %d blobs, expected %d in order", len(got), len(want))
	}
	for i, d := range want {
		if got := walk(d); !slices.Equal(got, want[i+1:]) {
			t.Errorf("walk after %s: %d blobs, expected %d", d.Short(), len(got), len(want)-i-1)
		}
	}
	stop := errors.New("stop")
	n := 0
	if err := s.Walk(t.Context(), cas.Digest{}, func(cas.Info) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("a walk that is stopped: %v after %d", err, n)
	}
}

func testQuarantine(t *testing.T, open Open) {
	s := open(t, Faults{})
	data := Blob(3)
	d := put(t, s, data)
	b, err := s.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := s.Remove(t.Context(), d, "gc", nil); err != nil || holds(t, s, data) {
		t.Fatalf("remove: %v", err)
	}
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("an open blob after its removal: %v", err)
	}
	if err := s.Remove(t.Context(), d, "gc", nil); err != nil {
		t.Errorf("removing an absent blob: %v", err)
	}
	s = open(t, Faults{})
	if err := s.Restore(t.Context(), d); err != nil || !holds(t, s, data) {
		t.Errorf("restore: %v", err)
	}
	if err := s.Restore(t.Context(), cas.Sum([]byte("never here"))); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restoring what never was: %v", err)
	}
	if err := s.Remove(t.Context(), d, cas.WhyCorrupt, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) || holds(t, s, data) {
		t.Errorf("restoring a corrupt copy: %v", err)
	}
	put(t, s, data)
	if err := s.Remove(t.Context(), d, "gc", nil); err != nil {
		t.Fatal(err)
	}
	if n, _, err := s.Purge(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("purge of what is younger: %d, %v", n, err)
	}
	n, size, err := s.Purge(t.Context(), time.Now().Add(time.Hour))
	if err != nil || n == 0 || size != int64(n*len(data)) {
		t.Errorf("purge: %d blobs, %d bytes, %v", n, size, err)
	}
	if err := s.Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restoring what was purged: %v", err)
	}
}

// A batch holds the blobs that it writes, and those for which Hold was called, until
// Discard.
func testHold(t *testing.T, open Open) {
	s := open(t, Faults{})
	remove := func(n int) error { return s.Remove(t.Context(), cas.Sum(Blob(n)), "gc", nil) }
	refused := func(n int, when string) {
		t.Helper()
		if err := remove(n); !errors.Is(err, cas.ErrInUse) {
			t.Errorf("removal of blob %d %s: %v", n, when, err)
		}
	}
	put(t, s, Blob(1))
	put(t, s, Blob(2))
	a, b := s.NewBatch(), s.NewBatch()
	for range 2 {
		if _, err := cas.PutBatch(t.Context(), a, Blob(1), modified); err != nil {
			t.Fatal(err)
		}
	}
	refused(1, "before the flush of an equal one")
	if info, err := b.Hold(t.Context(), cas.Sum(Blob(1))); err != nil || info.Size != int64(len(Blob(1))) {
		t.Errorf("hold of a blob that is there: %+v, %v", info, err)
	}
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(1, "after the flush")
	a.Discard()
	a.Discard()
	refused(1, "that a second batch holds")
	if !holds(t, s, Blob(1)) {
		t.Error("blob 1 went although it was held")
	}
	b.Discard()
	if err := remove(1); err != nil || holds(t, s, Blob(1)) {
		t.Errorf("removal after the last batch was dropped: %v", err)
	}
	// An absent blob can be held, too, and then be stored.
	c := s.NewBatch()
	if _, err := c.Hold(t.Context(), cas.Sum(Blob(1))); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("hold of a blob that is not there: %v", err)
	}
	if err := s.Restore(t.Context(), cas.Sum(Blob(1))); err != nil {
		t.Fatal(err)
	}
	refused(1, "that was restored while it was held")
	// A writer that was aborted, or whose Commit was refused, holds nothing.
	w, err := c.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(Blob(2))
	w.Abort()
	if w, err = c.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Write(Blob(2))
	if _, err := w.Commit(cas.Sum(Blob(3)), -1, modified); !errors.Is(err, cas.ErrMismatch) {
		t.Fatal(err)
	}
	if err := remove(2); err != nil || holds(t, s, Blob(2)) {
		t.Errorf("removal of what no batch holds: %v", err)
	}
	s = open(t, Faults{}) // as after a crash
	if err := remove(1); err != nil || holds(t, s, Blob(1)) {
		t.Errorf("removal after opening again: %v", err)
	}
	c.Discard()
}

// A good blob stays. Damage that cannot be detected is outside this suite.
func testRemoveCorrupt(t *testing.T, open Open) {
	s := open(t, Faults{})
	d := put(t, s, Blob(3))
	if removed, err := s.RemoveCorrupt(t.Context(), d); removed || err != nil || !holds(t, s, Blob(3)) {
		t.Errorf("of a good blob: %v, %v", removed, err)
	}
	if removed, err := s.RemoveCorrupt(t.Context(), cas.Sum(Blob(1))); removed || !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of no blob: %v, %v", removed, err)
	}
}

// A batch that holds a blob and finds or writes it keeps the blob until Discard, however
// often others try to remove it.
func testHoldBesideRemove(t *testing.T, open Open) {
	s := open(t, Faults{})
	stop := make(chan struct{})
	var remover, wg sync.WaitGroup
	remover.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Remove(t.Context(), cas.Sum(Blob(n%4)), "gc", nil); err != nil && !errors.Is(err, cas.ErrInUse) {
				t.Error(err)
			}
			if n%50 == 0 {
				if _, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for g := range 4 {
		wg.Go(func() {
			for i := range 60 {
				n := (g + i) % 4
				b := s.NewBatch()
				_, err := b.Hold(t.Context(), cas.Sum(Blob(n)))
				if errors.Is(err, cas.ErrNotFound) {
					if _, err = cas.PutBatch(t.Context(), b, Blob(n), modified); err == nil {
						err = b.Flush(t.Context())
					}
				}
				if err != nil {
					t.Error(err)
				}
				for range 10 {
					if !holds(t, s, Blob(n)) {
						t.Errorf("blob %d was removed although a batch holds it", n)
					}
				}
				b.Discard()
			}
		})
	}
	wg.Wait()
	close(stop)
	remover.Wait()
}

// Batches of equal and different blobs, readers and walkers run concurrently.
func testConcurrent(t *testing.T, open Open) {
	s := open(t, Faults{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			b := s.NewBatch()
			for i := range 12 {
				if _, err := cas.PutBatch(t.Context(), b, Blob((g*3+i)%20+1), modified); err != nil {
					t.Error(err)
				}
				if i%4 == 3 {
					if err := b.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if data := Blob(i + 1); i%3 == 0 {
					if _, err := s.Stat(t.Context(), cas.Sum(data)); err == nil && !holds(t, s, data) {
						t.Errorf("blob %d was removed", i+1)
					}
				}
			}
		})
	}
	wg.Wait()
	for n := range 20 {
		if !holds(t, s, Blob(n+1)) {
			t.Errorf("blob %d is missing", n+1)
		}
	}
}
