package postgres_test

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/cas/objects/objectstest"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

func TestObjects(t *testing.T) {
	srv := pgtest.Start(t)
	for name, o := range map[string]postgres.Options{"once": {}, "twice": {Twice: true}} {
		t.Run(name, func(t *testing.T) {
			objectstest.Run(t, func(t *testing.T) objectstest.Open {
				o.URL, o.Connections = srv.Database(t), 8
				var last *postgres.Store
				t.Cleanup(func() { last.Close() })
				return func(t *testing.T) objects.Index {
					if last != nil {
						last.Close()
					}
					var err error
					if last, err = postgres.Open(t.Context(), o); err != nil {
						t.Fatal(err)
					}
					return last.Objects()
				}
			})
		})
	}
	t.Run("concurrent uploads", func(t *testing.T) { testObjectRace(t, srv.Database(t)) })
}

// When several nodes upload the same blobs, no number is assigned twice. In the end one
// key of each digest is present, and the others are garbage.
func testObjectRace(t *testing.T, url string) {
	s, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x := s.Objects()
	now := time.Unix(1_800_000_000, 0)
	digests := []cas.Digest{cas.Sum([]byte("a")), cas.Sum([]byte("b")), cas.Sum([]byte("c"))}
	const writers, rounds = 8, 10
	var mu sync.Mutex
	used := map[uint64]bool{}
	var eg errgroup.Group
	for w := range writers {
		eg.Go(func() error {
			for range rounds {
				mine := append(append([]cas.Digest{}, digests[w%3:]...), digests[:w%3]...)
				keys, err := x.Reserve(t.Context(), mine, now)
				if err != nil {
					return err
				}
				var added []objects.Object
				mu.Lock()
				for _, k := range keys {
					if used[k.N] {
						t.Errorf("number %d was assigned twice", k.N)
					}
					used[k.N] = true
					added = append(added, objects.Object{Key: k, Size: 1, Stored: now})
				}
				mu.Unlock()
				if err := x.Add(t.Context(), added, now); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	list, err := x.List(t.Context(), cas.Digest{}, 100)
	if err != nil || len(list) != len(digests) {
		t.Errorf("present: %v, %v", list, err)
	}
	garbage, err := x.Garbage(t.Context(), now.Add(time.Second), 10_000, nil)
	if want := (writers*rounds - 1) * len(digests); err != nil || len(garbage) != want {
		t.Errorf("%d keys are garbage, expected %d, %v", len(garbage), want, err)
	}
}
