package bolt

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

func openTest(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "meta.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A reference that is added after a claim ends the claim. ForgetBlobs returns blobs to
// which a reference was added after their removal.
func TestReferenceEndsClaim(t *testing.T) {
	s := openTest(t)
	ctx := t.Context()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a, b := cas.Sum([]byte("a")), cas.Sum([]byte("b"))
	if _, err := s.AddOrphans(ctx, []cas.Info{{Digest: a}, {Digest: b}}, now); err != nil {
		t.Fatal(err)
	}
	if claimed, _, _, err := s.ClaimBlobs(ctx, cas.Digest{}, now, 10); err != nil || len(claimed) != 2 {
		t.Fatal(claimed, err)
	}
	ref := func(d cas.Digest) {
		if err := s.update(ctx, "test", func(tx *txn) error { return tx.PutRef(d, meta.OwnerKit, "k") }); err != nil {
			t.Fatal(err)
		}
	}
	ref(a)
	if yes, err := s.Claimed(ctx, a); err != nil || yes {
		t.Errorf("claimed although something refers to it: %v, %v", yes, err)
	}
	ref(b)
	if referenced, err := s.ForgetBlobs(ctx, []cas.Digest{b}); err != nil || !slices.Equal(referenced, []cas.Digest{b}) {
		t.Errorf("removed although something refers to it: %v, %v", referenced, err)
	}
	if claimed, _, _, err := s.ClaimBlobs(ctx, cas.Digest{}, now, 10); err != nil || len(claimed) != 0 {
		t.Errorf("claimed: %v, %v", claimed, err)
	}
}

// A simulation sees its own changes, in whatever order steps are made, and no other
// transaction does.
func TestOverlay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := openTest(t)
		model := map[string]string{}
		key := rapid.Custom(func(rt *rapid.T) string { return fmt.Sprintf("k%02d", rapid.IntRange(0, 20).Draw(rt, "key")) })
		put := func(tx *txn) error {
			for range rapid.IntRange(0, 12).Draw(rt, "changes") {
				k := key.Draw(rt, "k")
				if rapid.Bool().Draw(rt, "delete") {
					delete(model, k)
					if err := tx.b("check").Delete([]byte(k)); err != nil {
						return err
					}
					continue
				}
				v := rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "v")
				model[k] = v
				if err := tx.b("check").Put([]byte(k), []byte(v)); err != nil {
					return err
				}
			}
			return nil
		}
		if err := s.update(t.Context(), "test", put); err != nil {
			rt.Fatal(err)
		}
		before := maps.Clone(model)
		err := s.rehearse(t.Context(), func(tx *txn) error {
			if err := put(tx); err != nil {
				return err
			}
			keys := slices.Sorted(maps.Keys(model))
			c := tx.b("check").Cursor()
			var forward, backward []string
			for k, v := c.First(); k != nil; k, v = c.Next() {
				forward = append(forward, string(k))
				if string(v) != model[string(k)] || tx.b("check").Get(k) == nil {
					rt.Errorf("%s: %q, expected %q", k, v, model[string(k)])
				}
			}
			for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
				backward = append(backward, string(k))
			}
			slices.Reverse(backward)
			if !slices.Equal(forward, keys) || !slices.Equal(backward, keys) {
				rt.Errorf("forward %v, backward %v, expected %v", forward, backward, keys)
			}
			from := key.Draw(rt, "seek")
			i, _ := slices.BinarySearch(keys, from)
			k, _ := c.Seek([]byte(from))
			if i < len(keys) && string(k) != keys[i] || i == len(keys) && k != nil {
				rt.Errorf("seek %s: %q in %v", from, k, keys)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		err = s.view(t.Context(), func(tx *txn) error {
			n := 0
			return errors.Join(tx.b("check").ForEach(func(k, v []byte) error {
				n++
				if before[string(k)] != string(v) {
					rt.Errorf("written: %s", k)
				}
				return nil
			}), func() error {
				if n != len(before) {
					rt.Errorf("%d entries, expected %d", n, len(before))
				}
				return nil
			}())
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}
