package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/latency"
)

const (
	// page is how many entries of the index are read or deleted at once.
	page = 1000
)

// Walk implements cas.Keeper over the index.
func (s *Store) Walk(ctx context.Context, after cas.Digest, f func(cas.Info) error) error {
	for {
		var list []objects.Object
		err := s.o.ReadFault.Step("list", after.String(), func() (err error) {
			list, err = s.o.Index.List(ctx, after, page)
			return err
		})
		if err != nil || len(list) == 0 {
			return err
		}
		for _, o := range list {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f(infoOf(o)); err != nil {
				return err
			}
		}
		after = list[len(list)-1].Digest
	}
}

// Remove implements cas.Keeper.
func (s *Store) Remove(ctx context.Context, d cas.Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	defer s.o.Latency.Remove.Since(latency.Start())
	s.trash.Lock()
	defer s.trash.Unlock()
	return s.holds.Apart(func() error {
		if err := s.holds.CheckRemoval(ctx, d, unreferenced); err != nil {
			return err
		}
		o, err := s.present(ctx, d)
		if errors.Is(err, cas.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		_, err = s.toQuarantine(ctx, o.Key, why)
		return err
	})
}

// toQuarantine removes an object if it is still present.
func (s *Store) toQuarantine(ctx context.Context, k objects.Key, why string) (removed bool, err error) {
	err = s.o.Fault.Step("remove", s.key(k), func() (err error) {
		removed, err = s.o.Index.Remove(ctx, k, why, s.o.Now())
		return err
	})
	return removed, err
}

// RemoveCorrupt implements cas.Keeper. It also removes an object that is missing from the
// bucket.
func (s *Store) RemoveCorrupt(ctx context.Context, d cas.Digest) (removed bool, err error) {
	for {
		o, err := s.present(ctx, d)
		if err != nil {
			return false, err
		}
		if err := s.check(ctx, o); !errors.Is(err, cas.ErrCorrupt) {
			return false, err
		}
		err = s.holds.Apart(func() (err error) {
			removed, err = s.toQuarantine(ctx, o.Key, cas.WhyCorrupt)
			return err
		})
		if removed || err != nil {
			return removed, err
		}
		// Another copy has taken its place.
	}
}

// check reads an object whole. cas.ErrCorrupt.
func (s *Store) check(ctx context.Context, o objects.Object) error {
	b := s.open(ctx, o)
	defer b.Close()
	return cas.CheckBytes(ctx, b, o.Digest)
}

// Restore implements cas.Keeper.
func (s *Store) Restore(ctx context.Context, d cas.Digest) error {
	q, err := s.quarantine(ctx)
	if err != nil {
		return err
	}
	none := fmt.Errorf("%w: %s", cas.ErrNotFound, d)
	for _, r := range slices.Backward(q) {
		if r.Digest != d || r.Why == cas.WhyCorrupt {
			continue
		}
		err := s.check(ctx, r.Object)
		if errors.Is(err, cas.ErrCorrupt) {
			none = err
			continue
		}
		if err == nil {
			err = s.restore(ctx, r.Key)
		}
		if errors.Is(err, cas.ErrNotFound) {
			// Purged or restored by another caller.
			if _, serr := s.Stat(ctx, d); serr == nil {
				return nil
			}
			continue
		}
		return err
	}
	return none
}

func (s *Store) restore(ctx context.Context, k objects.Key) error {
	s.trash.Lock()
	defer s.trash.Unlock()
	return s.o.Fault.Step("restore", s.key(k), func() error { return s.o.Index.Restore(ctx, k, s.o.Now()) })
}

func (s *Store) quarantine(ctx context.Context) (q []objects.Removed, err error) {
	err = s.o.ReadFault.Step("quarantine", "", func() (err error) {
		q, err = s.o.Index.Quarantine(ctx)
		return err
	})
	return q, err
}

// Quarantine implements cas.Keeper.
func (s *Store) Quarantine(ctx context.Context) ([]cas.Quarantined, error) {
	q, err := s.quarantine(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]cas.Quarantined, len(q))
	for i, r := range q {
		out[i] = cas.Quarantined{Digest: r.Digest, At: r.At, Why: r.Why, Size: r.Size}
	}
	return out, nil
}

// OpenQuarantined implements cas.QuarantineReader.
func (s *Store) OpenQuarantined(ctx context.Context, q cas.Quarantined) (io.ReadCloser, error) {
	all, err := s.quarantine(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Digest == q.Digest && r.Why == q.Why && r.At.Equal(q.At) {
			return s.open(ctx, r.Object), nil
		}
	}
	return nil, fmt.Errorf("%w: %s in the quarantine", cas.ErrNotFound, q.Digest)
}

// Purge implements cas.Keeper. It deletes keys that were replaced, or whose upload was
// interrupted, only after a day: a reader may still be reading the former, and another
// process may still be writing the latter.
func (s *Store) Purge(ctx context.Context, t time.Time) (n int, bytes int64, err error) {
	s.trash.Lock()
	defer s.trash.Unlock()
	for {
		var condemned []objects.Removed
		err := s.o.Fault.Step("condemn", "", func() (err error) {
			condemned, err = s.o.Index.Condemn(ctx, t, page)
			return err
		})
		if err != nil {
			return n, bytes, err
		}
		for _, r := range condemned {
			n++
			bytes += r.Size
		}
		if len(condemned) == 0 {
			break
		}
	}
	if old := s.o.Now().Add(-abandoned); old.Before(t) {
		t = old
	}
	if err := s.deleteGarbage(ctx, t); err != nil {
		return n, bytes, err
	}
	return n, bytes, s.sweepUploads(ctx)
}

// deleteGarbage deletes the objects of keys that are garbage since before t.
func (s *Store) deleteGarbage(ctx context.Context, t time.Time) error {
	for {
		keys, err := s.o.Index.Garbage(ctx, t, page, s.isSending)
		if err != nil || len(keys) == 0 {
			return err
		}
		if err := s.o.Fault.Step("delete", fmt.Sprint(len(keys)), func() error { return s.deleteKeys(ctx, keys) }); err != nil {
			return err
		}
		if err := s.o.Fault.Step("forget", fmt.Sprint(len(keys)), func() error { return s.o.Index.Forget(ctx, keys) }); err != nil {
			return err
		}
	}
}

func (s *Store) isSending(k objects.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sending[k]
}

// deleteKeys deletes objects. Deleting an absent object succeeds.
func (s *Store) deleteKeys(ctx context.Context, keys []objects.Key) error {
	list := make(chan minio.ObjectInfo, len(keys))
	for _, k := range keys {
		list <- minio.ObjectInfo{Key: s.key(k)}
	}
	close(list)
	for r := range s.core.RemoveObjectsWithResult(ctx, s.location.Bucket, list, minio.RemoveObjectsOptions{}) {
		if r.Err != nil && !gone(r.Err) {
			return s.failed("delete", r.ObjectName, r.Err)
		}
	}
	return ctx.Err()
}
