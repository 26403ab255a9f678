package bolt

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// The conversion of a database with schema 3 adds the look-ups by source package and by
// other digests, even if it was interrupted or entries of the database are damaged.
func TestConvertSchema3(t *testing.T) {
	for _, kind := range []string{"whole", "cut short", "damaged"} {
		t.Run(kind, func(t *testing.T) { testConvertSchema3(t, kind) })
	}
}

func testConvertSchema3(t *testing.T, kind string) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.NewStage(ctx, "debian", "stable")
	fail(err)
	fail(st.Begin(ctx, "main/binary-amd64/Packages"))
	for _, name := range []string{"lib", "tool"} {
		fail(st.Add(ctx, &repo.Record{
			Kind: repo.KindBinary, Name: name, Version: "1", Arch: "amd64", Bytes: []byte("Package: " + name + "\n"), Sources: []repo.Ref{{Name: "tool", Version: "1"}},
			Files: []repo.File{{Path: "pool/" + name, Size: 1, SHA256: cas.Sum([]byte(name))}},
		}))
	}
	_, _, err = st.End(ctx)
	fail(err)
	fail(s.NoteBlobs(ctx, nil, []meta.Alias{{Algo: meta.AliasSHA1, Other: []byte("one"), SHA256: cas.Sum([]byte("lib"))}}, time.Unix(1, 0)))
	fail(s.Update(ctx, "older", func(tx *Tx) error {
		for _, name := range []string{"source", "other"} {
			if kind == "cut short" && name == "source" {
				continue
			}
			if err := tx.tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
			if err := tx.tx.Bucket([]byte(sumsBucket)).Delete([]byte(name)); err != nil {
				return err
			}
		}
		if kind == "damaged" {
			k, v := tx.b("fact").b.Cursor().First()
			v = slices.Clone(v)
			v[20] ^= 1
			if err := tx.b("fact").b.Put(slices.Clone(k), v); err != nil {
				return err
			}
		}
		return tx.b("meta").Put([]byte("version"), key(nil).u32(3))
	}))
	fail(s.Close())
	for range 2 {
		s, err = Open(path, Options{})
		fail(err)
		facts, err := s.FactsBySource(ctx, "debian", []string{"tool"})
		fail(err)
		names, err := s.SourceNames(ctx, "debian", "", 10)
		if fail(err); !slices.Equal(names, []string{"tool"}) {
			t.Errorf("sources: %q", names)
		}
		want := 2
		if kind == "damaged" {
			want = 1
		}
		if len(facts[0]) != want {
			t.Errorf("%d stanzas of tool, expected %d", len(facts[0]), want)
		}
		others, err := s.OtherDigests(ctx, meta.AliasSHA1, []cas.Digest{cas.Sum([]byte("lib"))})
		if fail(err); string(others[0]) != "one" {
			t.Errorf("other digest: %q", others[0])
		}
		if damage := s.Damage(); (damage != nil) != (kind == "damaged") {
			t.Errorf("damage: %v", damage)
		}
		if kind != "damaged" {
			if found, err := s.Contradictions(ctx); err != nil || len(found) > 0 {
				t.Errorf("contradictions: %v, %v", found, err)
			}
		}
		fail(s.Close())
	}
}

// A database of schema 5 from before events lacks their buckets. It is not damaged, and
// Open creates them. A bucket that existed and is missing remains a fault.
func TestLaterBuckets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	remove := func(s *Store, sums bool) {
		t.Helper()
		fail(s.Update(ctx, "older", func(tx *Tx) error {
			for _, name := range laterBuckets {
				if err := tx.tx.DeleteBucket([]byte(name)); err != nil {
					return err
				}
				if sums {
					if err := tx.tx.Bucket([]byte(sumsBucket)).Delete([]byte(name)); err != nil {
						return err
					}
				}
			}
			return nil
		}))
		fail(s.Close())
	}
	remove(s, true)
	s, err = OpenReadOnly(path)
	fail(err)
	if err := s.Damage(); err != nil {
		t.Errorf("opened for reading: %v", err)
	}
	fail(s.Close())
	for range 2 {
		s, err = Open(path, Options{})
		fail(err)
		if err := s.Damage(); err != nil {
			t.Errorf("opened: %v", err)
		}
		fail(s.AppendEvent(ctx, meta.Event{Type: meta.EventStale, Stale: &meta.EventAge{}}, meta.EventOnce{}))
		if faults, err := s.Verify(ctx); err != nil || len(faults) > 0 {
			t.Errorf("verify: %v, %v", faults, err)
		}
		fail(s.Close())
	}
	s, err = Open(path, Options{})
	fail(err)
	if all, err := s.Events(ctx, 0, 10); err != nil || len(all) != 2 {
		t.Errorf("%d events, expected 2; %v", len(all), err)
	}
	remove(s, false)
	s, err = Open(path, Options{})
	fail(err)
	if s.Damage() == nil {
		t.Error("a bucket that was lost is not noticed")
	}
	fail(s.Close())
}
