package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"example.org/snapd/internal/meta"
)

// LogHead implements meta.Log.
func (s *Store) LogHead(ctx context.Context) (*meta.LogHead, error) {
	return ask(ctx, s, func(t *tx) (*meta.LogHead, error) { return t.logHead(ctx) })
}

func (t *tx) logHead(ctx context.Context) (*meta.LogHead, error) {
	var h meta.LogHead
	if err := t.doc(ctx, &h, "select doc from log_head"); err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	return &h, nil
}

func (t *tx) putLogHead(ctx context.Context, h *meta.LogHead) error {
	if err := t.putDoc(ctx, h, "insert into log_head (doc) values ($1) on conflict (one) do update set doc = excluded.doc"); err != nil {
		return err
	}
	return t.changed(ctx, meta.ChangeLog, h.Origin)
}

// AppendLog implements meta.Log.
func (s *Store) AppendLog(ctx context.Context, a *meta.LogAppend) error {
	return s.write(ctx, "log", func(t *tx) error {
		if err := t.lockName(ctx, "/log"); err != nil {
			return err
		}
		if a.Restart {
			if _, err := t.exec(ctx, "with h as (delete from log_head), t as (delete from log_tile), n as (delete from log_name) delete from log_pending"); err != nil {
				return err
			}
		}
		h, err := t.logHead(ctx)
		if errors.Is(err, meta.ErrNotFound) {
			h = &meta.LogHead{Origin: a.Origin}
		} else if err != nil {
			return err
		}
		if h.Size != a.From || h.Origin != a.Origin || a.Size < a.From {
			return fmt.Errorf("%w: log %s has %d entries, expected %s with %d", meta.ErrLogMoved, h.Origin, h.Size, a.Origin, a.From)
		}
		h.Size, h.Checkpoint = a.Size, a.Checkpoint
		if err := t.putLog(ctx, a); err != nil {
			return err
		}
		return t.putLogHead(ctx, h)
	})
}

func (t *tx) putLog(ctx context.Context, a *meta.LogAppend) error {
	for _, tile := range a.Tiles {
		if _, err := t.exec(ctx, "insert into log_tile (level, n, data) values ($1, $2, $3) on conflict (level, n) do update set data = excluded.data", tile.Level, tile.N, tile.Data); err != nil {
			return err
		}
	}
	names := slices.Sorted(maps.Keys(a.Names))
	entries := make([]int64, len(names))
	for i, name := range names {
		entries[i] = a.Names[name]
	}
	if _, err := t.exec(ctx, "insert into log_name (name, entry) select * from unnest($1::bytea[], $2::bigint[]) on conflict (name) do update set entry = excluded.entry", byteNames(names), entries); err != nil {
		return err
	}
	if _, err := t.exec(ctx, "delete from log_pending where name = any($1)", byteNames(a.Settled)); err != nil {
		return err
	}
	for _, p := range a.Pending {
		if _, err := t.exec(ctx, "insert into log_pending (name, doc) values ($1, $2) on conflict (name) do update set doc = excluded.doc", []byte(p.Name), p.Doc); err != nil {
			return err
		}
	}
	return nil
}

// CosignLog implements meta.Log.
func (s *Store) CosignLog(ctx context.Context, c meta.LogCosigned) error {
	return s.write(ctx, "cosign log", func(t *tx) error {
		if err := t.lockName(ctx, "/log"); err != nil {
			return err
		}
		h, err := t.logHead(ctx)
		if err != nil {
			return err
		}
		if c.Size == h.Size {
			h.Checkpoint = c.Checkpoint
		}
		if c.Quorum && c.Size >= h.WitnessedSize && c.Size <= h.Size {
			h.Witnessed, h.WitnessedSize = c.Checkpoint, c.Size
		}
		return t.putLogHead(ctx, h)
	})
}

// LogTile implements meta.Log.
func (s *Store) LogTile(ctx context.Context, level int, n int64) ([]byte, error) {
	return ask(ctx, s, func(t *tx) (data []byte, err error) {
		ok, err := t.one(ctx, []any{&data}, "select data from log_tile where level = $1 and n = $2", level, n)
		if err == nil && !ok {
			err = fmt.Errorf("tile %d of level %d of the transparency log: %w", n, level, meta.ErrNotFound)
		}
		return data, err
	})
}

// LogNamed implements meta.Log.
func (s *Store) LogNamed(ctx context.Context, names []string) ([]int64, error) {
	return ask(ctx, s, func(t *tx) (out []int64, err error) {
		var n int64
		err = t.each(ctx, []any{&n}, func() error { out = append(out, n); return nil },
			"select coalesce(l.entry, -1) from unnest($1::bytea[]) with ordinality q (name, n) left join log_name l on l.name = q.name order by q.n", byteNames(names))
		return out, err
	})
}

// LogPending implements meta.Log.
func (s *Store) LogPending(ctx context.Context) ([]meta.LogPending, error) {
	return ask(ctx, s, func(t *tx) (out []meta.LogPending, err error) {
		var name, doc []byte
		err = t.each(ctx, []any{&name, &doc}, func() error { out = append(out, meta.LogPending{Name: string(name), Doc: doc}); return nil }, "select name, doc from log_pending order by name")
		return out, err
	})
}

// byteNames returns names as an array of byte strings, because they may contain any
// bytes.
func byteNames(names []string) [][]byte {
	out := make([][]byte, len(names))
	for i, name := range names {
		out[i] = []byte(name)
	}
	return out
}
