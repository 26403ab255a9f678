package bolt

import (
	"bytes"
	"context"
	"fmt"

	"example.org/snapd/internal/meta"
)

// logBucket contains the transparency log: the head, tiles by level and number, numbers
// of entries by name, and pending entries by name.
const logBucket = "log"

var logHeadKey = []byte("head")

func logTileKey(level int, n int64) key { return key("tile").one(byte(level + 1)).u64(uint64(n)) }
func logNameKey(name string) key        { return key("name").raw([]byte(name)) }
func logPendingKey(name string) key     { return key(logPendingPrefix).raw([]byte(name)) }

const logPendingPrefix = "pending"

// LogHead implements meta.Log.
func (s *Store) LogHead(ctx context.Context) (*meta.LogHead, error) {
	var h meta.LogHead
	err := s.view(ctx, func(tx *txn) error { return getJSON(tx.b(logBucket), logHeadKey, &h) })
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	return &h, nil
}

// AppendLog implements meta.Log.
func (s *Store) AppendLog(ctx context.Context, a *meta.LogAppend) error {
	return s.update(ctx, "log", func(tx *txn) error {
		b := tx.b(logBucket)
		if a.Restart {
			if err := tx.clearLog(); err != nil {
				return err
			}
		}
		var h meta.LogHead
		if b.Get(logHeadKey) == nil {
			h.Origin = a.Origin
		} else if err := getJSON(b, logHeadKey, &h); err != nil {
			return err
		}
		if h.Size != a.From || h.Origin != a.Origin || a.Size < a.From {
			return fmt.Errorf("%w: log %s has %d entries, expected %s with %d", meta.ErrLogMoved, h.Origin, h.Size, a.Origin, a.From)
		}
		h.Size, h.Checkpoint = a.Size, a.Checkpoint
		for _, t := range a.Tiles {
			if err := b.Put(logTileKey(t.Level, t.N), t.Data); err != nil {
				return err
			}
		}
		for name, i := range a.Names {
			if err := b.Put(logNameKey(name), key(nil).u64(uint64(i))); err != nil {
				return err
			}
		}
		for _, name := range a.Settled {
			if err := b.Delete(logPendingKey(name)); err != nil {
				return err
			}
		}
		for _, p := range a.Pending {
			if err := b.Put(logPendingKey(p.Name), p.Doc); err != nil {
				return err
			}
		}
		return putJSON(b, logHeadKey, &h)
	})
}

// clearLog removes the whole log.
func (t *txn) clearLog() error {
	b := t.b(logBucket)
	var keys [][]byte
	if err := b.ForEach(func(k, _ []byte) error { keys = append(keys, clone(k)); return nil }); err != nil {
		return err
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// CosignLog implements meta.Log.
func (s *Store) CosignLog(ctx context.Context, c meta.LogCosigned) error {
	return s.update(ctx, "cosign log", func(tx *txn) error {
		b := tx.b(logBucket)
		var h meta.LogHead
		if err := getJSON(b, logHeadKey, &h); err != nil {
			return fmt.Errorf("transparency log: %w", err)
		}
		if c.Size == h.Size {
			h.Checkpoint = c.Checkpoint
		}
		if c.Quorum && c.Size >= h.WitnessedSize && c.Size <= h.Size {
			h.Witnessed, h.WitnessedSize = c.Checkpoint, c.Size
		}
		return putJSON(b, logHeadKey, &h)
	})
}

// LogTile implements meta.Log.
func (s *Store) LogTile(ctx context.Context, level int, n int64) (data []byte, err error) {
	err = s.view(ctx, func(tx *txn) error {
		v := tx.b(logBucket).Get(logTileKey(level, n))
		if v == nil {
			return fmt.Errorf("tile %d of level %d of the transparency log: %w", n, level, meta.ErrNotFound)
		}
		data = clone(v)
		return nil
	})
	return data, err
}

// LogNamed implements meta.Log.
func (s *Store) LogNamed(ctx context.Context, names []string) ([]int64, error) {
	out := make([]int64, len(names))
	err := s.view(ctx, func(tx *txn) error {
		b := tx.b(logBucket)
		for i, name := range names {
			out[i] = -1
			if v := b.Get(logNameKey(name)); v != nil {
				out[i] = int64(be64(v))
			}
		}
		return nil
	})
	return out, err
}

// LogPending implements meta.Log.
func (s *Store) LogPending(ctx context.Context) (out []meta.LogPending, err error) {
	err = s.view(ctx, func(tx *txn) error {
		out = nil
		c := tx.b(logBucket).Cursor()
		prefix := []byte(logPendingPrefix)
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			out = append(out, meta.LogPending{Name: string(k[len(prefix):]), Doc: clone(v)})
		}
		return nil
	})
	return out, err
}
