package castest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
)

var errFault = errors.New("injected fault")

// testFaults makes each write of a history fail, without effect or after it has taken
// effect. Then all blobs that were promised are stored, no blob is incomplete, and the
// work can be repeated.
func testFaults(t *testing.T, open Open) {
	var mu sync.Mutex // an engine may write several blobs at a time
	steps := 0
	work := func(s cas.Store, promised map[int]bool) error {
		b := s.NewBatch()
		defer b.Discard()
		for n := range 3 {
			if _, err := cas.PutBatch(t.Context(), b, Blob(n), modified); err != nil {
				return err
			}
		}
		if err := b.Flush(t.Context()); err != nil {
			return err
		}
		promised[0], promised[1], promised[2] = true, true, true
		b.Discard()
		promised[1] = false
		if err := s.Remove(t.Context(), cas.Sum(Blob(1)), "gc", nil); err != nil {
			return err
		}
		if err := s.Restore(t.Context(), cas.Sum(Blob(1))); err != nil {
			return err
		}
		promised[1] = true
		promised[2] = false
		if err := s.Remove(t.Context(), cas.Sum(Blob(2)), "gc", nil); err != nil {
			return err
		}
		_, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour))
		return err
	}
	if err := work(open(t, Faults{Write: func(string, string) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		steps++
		return false, nil
	}}), map[int]bool{}); err != nil {
		t.Fatal(err)
	}
	if steps < 10 {
		t.Fatalf("%d writes were announced, expected more", steps)
	}
	for at := range steps {
		for _, apply := range []bool{false, true} {
			n := 0
			var op string
			s := open(t, Faults{Write: func(o, _ string) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				if n++; n-1 == at {
					op = o
					return apply, fmt.Errorf("%w at %s", errFault, o)
				}
				return false, nil
			}})
			promised := map[int]bool{}
			if err := work(s, promised); err == nil {
				t.Errorf("step %d: the fault was not reported", at)
			}
			row := fmt.Sprintf("step %d (%s), took effect: %v", at, op, apply)
			for i := 0; i < 2; i++ {
				for n := range 3 {
					if there := holds(t, s, Blob(n)); promised[n] && !there {
						t.Errorf("%s: blob %d was promised and is missing (opened again: %v)", row, n, i > 0)
					}
				}
				s = open(t, Faults{})
			}
			if err := work(s, promised); err != nil {
				t.Errorf("%s: the work repeated: %v", row, err)
			}
			for n, want := range []bool{true, true, false} {
				if holds(t, s, Blob(n)) != want {
					t.Errorf("%s: blob %d after the work was repeated: %v, expected %v", row, n, !want, want)
				}
			}
		}
	}
}

// testFailedQuestions checks that no method mistakes a failure for an absent blob or an
// empty store (invariant 8), and that the method works again afterwards. Long because it
// lists every method that reads.
func testFailedQuestions(t *testing.T, open Open) {
	fail := false
	asked := 0
	s := open(t, Faults{Read: func(op, _ string) (bool, error) {
		if fail {
			asked++
			return false, fmt.Errorf("%w at %s", errFault, op)
		}
		return false, nil
	}})
	there, removed, never := put(t, s, Blob(2)), put(t, s, Blob(3)), cas.Sum([]byte("never here"))
	if err := s.Remove(t.Context(), removed, "gc", nil); err != nil {
		t.Fatal(err)
	}
	questions := []struct {
		name string
		ask  func() error
	}{
		{"Open", func() error {
			got, err := cas.ReadAll(t.Context(), s, there, 1<<20)
			if err == nil && !bytes.Equal(got, Blob(2)) {
				t.Error("Open: other bytes")
			}
			return err
		}},
		{"ReadInto", func() error {
			buf := make([]byte, 10)
			_, err := s.ReadInto(t.Context(), there, buf)
			if err == nil && !bytes.Equal(buf, Blob(2)[:10]) {
				t.Error("ReadInto: other bytes")
			}
			return err
		}},
		{"Stat", func() error { _, err := s.Stat(t.Context(), there); return err }},
		{"Hold", func() error {
			b := s.NewBatch()
			defer b.Discard()
			_, err := b.Hold(t.Context(), there)
			return err
		}},
		{"Walk", func() error { return s.Walk(t.Context(), cas.Digest{}, func(cas.Info) error { return nil }) }},
		{"Quarantine", func() error { _, err := s.Quarantine(t.Context()); return err }},
		{"Restore", func() error {
			err := s.Restore(t.Context(), never)
			if errors.Is(err, cas.ErrNotFound) && !fail {
				return nil
			}
			return err
		}},
		{"Check", func() error { return cas.Check(t.Context(), s, there) }},
		{"Free", func() error {
			n, err := s.Free(t.Context())
			if err != nil && n != 0 {
				t.Errorf("Free: %d and %v", n, err)
			}
			return err
		}},
	}
	for _, q := range questions {
		fail, asked = true, 0
		err := q.ask()
		fail = false
		if err == nil && asked == 0 && q.name != "Free" {
			t.Errorf("%s does not ask the medium", q.name)
		}
		// A copy may answer if the medium cannot.
		answered := err == nil && (q.name == "Open" || q.name == "ReadInto")
		if asked > 0 && !answered && (err == nil || errors.Is(err, cas.ErrNotFound)) {
			t.Errorf("%s of a medium that fails: %v", q.name, err)
		}
		if err := q.ask(); err != nil {
			t.Errorf("%s asked again: %v", q.name, err)
		}
	}
	if !holds(t, s, Blob(2)) {
		t.Error("the blob is gone")
	}
	if err := s.Restore(t.Context(), removed); err != nil || !holds(t, s, Blob(3)) {
		t.Errorf("restore after failures: %v", err)
	}
}
