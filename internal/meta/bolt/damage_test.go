package bolt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

const (
	pageSize  = 4096
	sampleLen = 400 // stanzas in the sample database
)

// sample makes a database with a snapshot, a freeze and references, and returns its file
// and the referenced digests.
func sample(t testing.TB) (path string, needed []cas.Digest) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "meta.db")
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	st, err := s.NewStage(ctx, mirrorName, suite)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Begin(ctx, indices[0]); err != nil {
		t.Fatal(err)
	}
	for i := range sampleLen {
		r := para{fmt.Sprint("package-", i), "1.0", strings.Repeat("x", i%50)}.record()
		needed = append(needed, r.Files[0].SHA256)
		if err := st.Add(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := st.End(ctx); err != nil {
		t.Fatal(err)
	}
	err = s.Update(ctx, "test", func(tx *bolt.Tx) error {
		err := tx.Seal(&meta.Sealing{
			Snapshot:    meta.Snapshot{Mirror: mirrorName, Suites: []meta.SnapshotSuite{{Suite: suite, Gen: 1}}},
			Generations: []meta.Generation{{Mirror: mirrorName, Suite: suite, Gen: 1}}, Listings: [][]repo.File{nil},
		}, day)
		if err != nil {
			return err
		}
		var nodes []meta.Node
		for i := range sampleLen {
			d := cas.Sum(fmt.Append(nil, "node", i))
			needed = append(needed, d)
			nodes = append(nodes, meta.Node{Path: fmt.Sprint("debian/", i), Digest: d, Size: 1, ModTime: day})
		}
		if err := tx.PutNodes("4.1", nodes); err != nil {
			return err
		}
		return tx.PutFrozen(&meta.Frozen{Name: "4.1", Manifest: repo.File{SHA256: cas.Sum([]byte("manifest"))}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	shrink(t, path)
	return path, append(needed, cas.Sum([]byte("manifest")))
}

// shrink removes the space after the pages in use, where damage is harmless.
func shrink(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := int64(0)
	for meta := range 2 { // the newer of the two meta pages knows
		used = max(used, int64(binary.NativeEndian.Uint64(data[meta*pageSize+16+40:]))*pageSize)
	}
	if err := os.Truncate(path, used); err != nil {
		t.Fatal(err)
	}
}

// dump describes all answers of the sample database.
func dump(s *bolt.Store, needed []cas.Digest) (string, error) {
	var b strings.Builder
	err := s.View(context.Background(), func(tx *bolt.Tx) error {
		snap, err := tx.Latest(mirrorName)
		if err != nil {
			return err
		}
		var after []byte
		for {
			entries, next, err := tx.Packages(snap, after, 100)
			if err != nil {
				return err
			}
			for _, e := range entries {
				fmt.Fprintln(&b, e.Name, e.Version, e.Files, e.Places)
				hit, err := tx.PathAt(snap, e.Files[0].Path)
				if err != nil {
					return err
				}
				fmt.Fprintln(&b, hit.File)
			}
			if next == nil {
				break
			}
			after = next
		}
		for _, n := range tx.Nodes("4.1", "", "", 0) {
			fmt.Fprintln(&b, n)
		}
		for _, d := range needed {
			fmt.Fprintln(&b, d, tx.Needed(d))
		}
		return tx.Check(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
	})
	return b.String(), err
}

// damageFile changes a file as bad memory, disks and file systems do.
func damageFile(rng *rand.Rand, data []byte) ([]byte, string) {
	data = append([]byte(nil), data...)
	at := rng.IntN(len(data))
	page := at / pageSize * pageSize
	end := min(page+pageSize, len(data))
	switch rng.IntN(7) {
	case 0:
		data[at] ^= 1 << rng.IntN(8)
		return data, fmt.Sprintf("bit of byte %d flipped", at)
	case 1:
		n := min(1+rng.IntN(64), len(data)-at)
		for i := range n {
			data[at+i] = byte(rng.Uint32())
		}
		return data, fmt.Sprintf("%d bytes from %d on overwritten", n, at)
	case 2:
		clear(data[page:end])
		return data, fmt.Sprintf("page %d zeroed", page/pageSize)
	case 3:
		other := rng.IntN(len(data)/pageSize) * pageSize
		copy(data[page:end], data[other:other+pageSize])
		return data, fmt.Sprintf("page %d overwritten by page %d", page/pageSize, other/pageSize)
	case 4:
		return data[:at], fmt.Sprintf("cut to %d bytes", at)
	case 5:
		head := page + rng.IntN(64) // headers of pages and of their first elements
		if head < len(data) {
			data[head] ^= 1 << rng.IntN(8)
		}
		return data, fmt.Sprintf("bit of byte %d flipped, in the head of page %d", head, page/pageSize)
	default:
		clear(data[page+512 : min(page+1024, len(data))])
		return data, fmt.Sprintf("second sector of page %d zeroed", page/pageSize)
	}
}

// If a file is damaged in any way, Open refuses it, or the damage is reported, or every
// answer is the one that was stored.
func TestRandomDamage(t *testing.T) {
	path, needed := sample(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := open2(t, path, needed)
	rounds := 1000
	if testing.Short() {
		rounds = 150
	}
	outcomes := map[string]int{}
	for seed := range rounds {
		data, what := damageFile(rand.New(rand.NewPCG(uint64(seed), 1)), sound)
		file := filepath.Join(t.TempDir(), "meta.db")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := bolt.Open(file, bolt.Options{MustExist: true})
		if err != nil {
			outcomes["refused"]++
			if !errors.Is(err, meta.ErrCorrupt) && !errors.Is(err, meta.ErrLost) && !errors.Is(err, meta.ErrVersion) {
				t.Errorf("seed %d, %s: %v", seed, what, err)
			}
			continue
		}
		torn := ""
		if err := s.View(t.Context(), func(tx *bolt.Tx) error { torn = tx.Torn(); return nil }); err != nil && s.Damage() == nil {
			t.Errorf("seed %d, %s: %v", seed, what, err)
		}
		switch got, err := dump(s, needed); {
		case s.Damage() != nil:
			outcomes["reported"]++
		case torn != "":
			outcomes["last commit lost"]++
		case err != nil || got != want:
			t.Errorf("seed %d, %s: nothing was reported: %v", seed, what, err)
		default:
			outcomes["harmless"]++
		}
		if err := s.Close(); err != nil {
			t.Errorf("seed %d, %s: close: %v", seed, what, err)
		}
	}
	t.Log(outcomes)
}

func open2(t *testing.T, path string, needed []cas.Digest) string {
	t.Helper()
	s, err := bolt.Open(path, bolt.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Damage(); err != nil {
		t.Fatal(err)
	}
	out, err := dump(s, needed)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A file that is damaged or truncated while it is in use causes errors, never a crash,
// and Verify finds the damage.
func TestDamageWhileOpen(t *testing.T) {
	path, needed := sample(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range 60 {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		file := filepath.Join(t.TempDir(), "meta.db")
		if err := os.WriteFile(file, sound, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := bolt.Open(file, bolt.Options{MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		what := ""
		if seed%3 == 0 {
			n := int64(rng.IntN(len(sound)))
			what = fmt.Sprintf("cut to %d bytes", n)
			err = os.Truncate(file, n)
		} else {
			var data []byte
			if data, what = damageFile(rng, sound); len(data) < len(sound) {
				continue
			}
			var f *os.File
			if f, err = os.OpenFile(file, os.O_WRONLY, 0); err == nil {
				_, err = f.WriteAt(data, 0)
				err = errors.Join(err, f.Close())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		_, _ = dump(s, needed)
		_ = s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.RemoveFrozen("4.1") })
		_ = s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return errors.New("rolled back") })
		_ = s.Update(t.Context(), "test", func(tx *bolt.Tx) error {
			_, err := tx.ClearFrozenTree("4.1", 1000)
			return err
		})
		if _, err := s.Verify(t.Context()); err != nil && !errors.Is(err, meta.ErrCorrupt) {
			t.Errorf("seed %d, %s: %v", seed, what, err)
		}
		_ = s.Close()
	}
}

// If a file that is in use is truncated to any number of pages, or loses its first ones,
// every caller gets ErrCorrupt, and none waits forever.
func TestCutWhileOpen(t *testing.T) {
	path, needed := sample(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	pages := len(sound) / page
	for n := 0; n <= pages; n++ {
		if n > 8 && n%7 != 0 {
			continue
		}
		for _, how := range []string{"cut", "overwritten"} {
			file := filepath.Join(t.TempDir(), "meta.db")
			if err := os.WriteFile(file, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := bolt.Open(file, bolt.Options{MustExist: true})
			if err != nil {
				t.Fatal(err)
			}
			if how == "cut" {
				err = os.Truncate(file, int64(n*page))
			} else {
				var f *os.File
				if f, err = os.OpenFile(file, os.O_WRONLY, 0); err == nil {
					_, err = f.WriteAt(make([]byte, n*page), 0)
					err = errors.Join(err, f.Close())
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				var errs []error
				for range 3 {
					_, err := dump(s, needed)
					errs = append(errs, err, s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.RemoveFrozen("4.1") }))
				}
				_, err := s.Verify(t.Context())
				done <- errors.Join(append(errs, err, s.Close())...)
			}()
			select {
			case err := <-done:
				if lost := how == "cut" && n < 2 || how == "overwritten" && n >= 2; lost && !errors.Is(err, meta.ErrCorrupt) {
					t.Errorf("%s at page %d of %d: %v, expected %v", how, n, pages, err, meta.ErrCorrupt)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%s at page %d of %d: somebody waits", how, n, pages)
			}
		}
	}
}

// Nothing is written to a file that was removed or replaced while in use.
func TestReplacedWhileOpen(t *testing.T) {
	for name, replace := range map[string]func(file string) error{
		"removed": os.Remove,
		"moved":   func(file string) error { return os.Rename(file, file+".old") },
		"replaced": func(file string) error {
			return errors.Join(os.WriteFile(file+".new", nil, 0o600), os.Rename(file+".new", file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := sample(t)
			s, err := bolt.Open(path, bolt.Options{MustExist: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			remove := func() error {
				return s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.RemoveFrozen("4.1") })
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			if err := remove(); !errors.Is(err, meta.ErrLost) {
				t.Errorf("error %v, expected %v", err, meta.ErrLost)
			}
			if name == "moved" {
				if err := errors.Join(os.Rename(path+".old", path), remove()); err != nil {
					t.Errorf("moved back: %v", err)
				}
			}
		})
	}
}

// A lost key, as after the loss of a page, is noticed in every bucket.
func TestLostKeys(t *testing.T) {
	path, _ := sample(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if k, _ := b.Cursor().First(); k != nil {
				names = append(names, string(name))
			}
			return nil
		})
	})
	if err = errors.Join(err, db.Close()); err != nil || len(names) < 10 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		file := filepath.Join(t.TempDir(), "meta.db")
		if err := os.WriteFile(file, sound, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(file, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			c := tx.Bucket([]byte(name)).Cursor()
			c.First()
			return c.Delete()
		})
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		s, err := bolt.Open(file, bolt.Options{MustExist: true})
		if name == "meta" && err != nil {
			continue // the schema version
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Damage(); !errors.Is(err, meta.ErrCorrupt) || !strings.Contains(err.Error(), name) && name != "sums" {
			t.Errorf("key lost in %s: %v", name, err)
		}
		if faults, err := s.Verify(t.Context()); err != nil || len(faults) == 0 {
			t.Errorf("key lost in %s: %v, %v", name, faults, err)
		}
		s.Close()
	}
}

// A missing or empty database is refused if the directory had one, and created otherwise.
func TestLostDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	if _, err := bolt.Open(path, bolt.Options{MustExist: true}); !errors.Is(err, meta.ErrLost) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Open(path, bolt.Options{MustExist: true}); !errors.Is(err, meta.ErrLost) {
		t.Errorf("empty: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// The remains of an interrupted creation do no harm.
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if faults, err := s.Verify(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("new: %v, %v", faults, err)
	}
	s.Close()
}

// A database of schema 1, without checksums, is converted with everything in it.
func TestConvert(t *testing.T) {
	path, needed := sample(t)
	want := open2(t, path, needed)
	old := filepath.Join(t.TempDir(), "meta.db")
	src, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := bbolt.Open(old, 0o600, &bbolt.Options{NoFreelistSync: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = src.View(func(from *bbolt.Tx) error {
		return dst.Update(func(to *bbolt.Tx) error {
			return from.ForEach(func(name []byte, b *bbolt.Bucket) error {
				if string(name) == "sums" {
					return nil
				}
				nb, err := to.CreateBucket(name)
				if err != nil {
					return err
				}
				if err := nb.SetSequence(b.Sequence()); err != nil {
					return err
				}
				return b.ForEach(func(k, v []byte) error {
					v = v[:len(v)-4]
					if string(name) == "meta" && string(k) == "version" {
						v = []byte{0, 0, 0, 1}
					}
					return nb.Put(k, v)
				})
			})
		})
	})
	if err = errors.Join(err, src.Close(), dst.Close()); err != nil {
		t.Fatal(err)
	}
	if got := open2(t, old, needed); got != want {
		t.Errorf("converted:\n%.2000s\nwant:\n%.2000s", got, want)
	}
	if got := open2(t, old, needed); got != want {
		t.Error("opened again: other contents")
	}
}
