package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/meta"
)

// keptChanges is how long changes are kept, and nodes after their last report.
const keptChanges = 24 * time.Hour

// Changes implements meta.Shared, in one round trip.
func (s *Store) Changes(ctx context.Context, after int64, limit int) (*meta.FeedPage, error) {
	p := &meta.FeedPage{}
	rows, err := s.pool.Query(ctx, `
		select b.first, b.last, clock_timestamp(), c.seq, c.what, c.name, c.at
		from (select coalesce(min(seq), 0), coalesce(max(seq), 0) from change) b (first, last)
		left join lateral (
			select seq, what, name, at from change where seq = $1
			union all (select seq, what, name, at from change where seq > $1 order by seq limit $2)) c on true
		order by c.seq`, after, limit)
	if err != nil {
		return nil, mapped(err)
	}
	var seq *int64
	var what, name *string
	var at *time.Time
	if _, err = pgx.ForEachRow(rows, []any{&p.First, &p.Last, &p.Now, &seq, &what, &name, &at}, func() error {
		if seq == nil {
			return nil
		}
		c := meta.FeedChange{Seq: *seq, What: *what, Name: *name, At: at.UTC()}
		if c.Seq == after {
			p.Seen = &c
		} else {
			p.Changes = append(p.Changes, c)
		}
		return nil
	}); err != nil {
		return nil, mapped(err)
	}
	p.Now = p.Now.UTC()
	return p, nil
}

// Forget implements meta.Shared.
func (s *Store) Forget() { s.indices.Clear() }

// NoteNode implements meta.Shared. It also deletes nodes and changes that are older than
// keptChanges, except the newest of those changes, which a node can have read last.
func (s *Store) NoteNode(ctx context.Context, n meta.NodeState) error {
	return s.write(ctx, "note node", func(t *tx) error {
		err := t.putDoc(ctx, n, "insert into node (name, seen, doc) values ($1, clock_timestamp(), $2) on conflict (name) do update set seen = excluded.seen, doc = excluded.doc", n.Name)
		if err != nil {
			return err
		}
		if _, err := t.exec(ctx, "delete from node where seen < clock_timestamp() - $1::interval", keptChanges); err != nil {
			return err
		}
		_, err = t.exec(ctx, "delete from change where seq < (select max(seq) from change where at < clock_timestamp() - $1::interval)", keptChanges)
		return err
	})
}

// Nodes implements meta.Shared.
func (s *Store) Nodes(ctx context.Context) (nodes []meta.NodeState, now time.Time, err error) {
	err = s.read(ctx, func(t *tx) error {
		nodes = nil
		if _, err := t.one(ctx, []any{&now}, "select clock_timestamp()"); err != nil {
			return err
		}
		var data []byte
		var seen time.Time
		return t.each(ctx, []any{&data, &seen}, func() error {
			var n meta.NodeState
			if err := undoc(data, &n); err != nil {
				return err
			}
			n.Seen = seen.UTC()
			nodes = append(nodes, n)
			return nil
		}, "select doc, seen from node where seen >= clock_timestamp() - $1::interval order by name", keptChanges)
	})
	return nodes, now.UTC(), err
}
