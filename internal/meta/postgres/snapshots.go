package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

func atUnix(at int64) time.Time { return time.Unix(at, 0).UTC() }

// mirrorID returns the number of a mirror; 0 if it has none.
func (t *tx) mirrorID(ctx context.Context, mirror meta.MirrorName) (id int32, err error) {
	_, err = t.one(ctx, []any{&id}, "select id from mirror where name = $1", mirror)
	return id, err
}

func (t *tx) makeMirror(ctx context.Context, mirror meta.MirrorName) (id int32, err error) {
	if id, err = t.mirrorID(ctx, mirror); err != nil || id != 0 {
		return id, err
	}
	if _, err = t.exec(ctx, "insert into mirror (name) values ($1) on conflict (name) do nothing", mirror); err != nil {
		return 0, err
	}
	return t.mirrorID(ctx, mirror)
}

// suiteID returns the number of a suite; 0 if it has none.
func (t *tx) suiteID(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (id int32, err error) {
	_, err = t.one(ctx, []any{&id}, "select s.id from suite s join mirror m on m.id = s.mirror where m.name = $1 and s.name = $2", mirror, string(suite))
	return id, err
}

func (t *tx) makeSuite(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (id int32, err error) {
	if id, err = t.suiteID(ctx, mirror, suite); err != nil || id != 0 {
		return id, err
	}
	mid, err := t.makeMirror(ctx, mirror)
	if err != nil {
		return 0, err
	}
	if _, err = t.exec(ctx, "insert into suite (mirror, name) values ($1, $2) on conflict (mirror, name) do nothing", mid, string(suite)); err != nil {
		return 0, err
	}
	return t.suiteID(ctx, mirror, suite)
}

// Mirrors implements meta.Snapshots.
func (s *Store) Mirrors(ctx context.Context) ([]meta.MirrorName, error) {
	return ask(ctx, s, func(t *tx) ([]meta.MirrorName, error) { return t.mirrors(ctx) })
}

func (t *tx) mirrors(ctx context.Context) (out []meta.MirrorName, err error) {
	var name meta.MirrorName
	err = t.each(ctx, []any{&name}, func() error { out = append(out, name); return nil },
		"select name from mirror m where exists (select from snapshot s where s.mirror = m.id) order by name")
	return out, err
}

// MirrorStates implements meta.Snapshots.
func (s *Store) MirrorStates(ctx context.Context, mirrors []meta.MirrorName) ([]meta.MirrorState, error) {
	return ask(ctx, s, func(t *tx) ([]meta.MirrorState, error) {
		out := make([]meta.MirrorState, 0, len(mirrors))
		var name meta.MirrorName
		var latest, check []byte
		err := t.each(ctx, []any{&name, &latest, &check}, func() error {
			state := meta.MirrorState{Mirror: name}
			if latest != nil {
				state.Latest = new(meta.Snapshot)
				if err := undoc(latest, state.Latest); err != nil {
					return err
				}
			}
			if check != nil {
				if err := undoc(check, &state.Check); err != nil {
					return fmt.Errorf("last check of mirror %s: %w", name, err)
				}
			}
			out = append(out, state)
			return nil
		}, `select q.name, (select s.doc from snapshot s where s.mirror = m.id order by at desc limit 1), c.doc
			from unnest($1::text[]) with ordinality q (name, n) left join mirror m on m.name = q.name left join mirrorcheck c on c.mirror = q.name order by q.n`, mirrors)
		return out, err
	})
}

// Snapshot implements meta.Snapshots.
func (s *Store) Snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return ask(ctx, s, func(t *tx) (*meta.Snapshot, error) { return t.snapshot(ctx, mirror, at) })
}

// snapshot finds a snapshot. ErrNotFound, ErrGone.
func (t *tx) snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	var data []byte
	var gone bool
	_, err := t.one(ctx, []any{&data, &gone}, `
		select (select doc from snapshot where mirror = m.id and at = $2), exists (select from removed where mirror = m.id and at = $2) from mirror m where name = $1`, mirror, at.Unix())
	var snap meta.Snapshot
	switch {
	case err != nil:
	case data != nil:
		err = undoc(data, &snap)
	case gone:
		err = meta.ErrGone
	default:
		err = meta.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(at), err)
	}
	return &snap, nil
}

// SnapshotAt implements meta.Snapshots.
func (s *Store) SnapshotAt(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return ask(ctx, s, func(t *tx) (*meta.Snapshot, error) {
		var data []byte
		var have, gone *int64
		_, err := t.one(ctx, []any{&data, &have, &gone}, `
			select s.doc, s.at, (select max(at) from removed where mirror = m.id and at <= $2)
			from mirror m left join lateral (select doc, at from snapshot where mirror = m.id and at <= $2 order by at desc limit 1) s on true where name = $1`, mirror, at.Unix())
		switch {
		case err != nil:
			return nil, err
		case gone != nil && (have == nil || *gone > *have):
			return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(atUnix(*gone)), meta.ErrGone)
		case have == nil:
			return nil, fmt.Errorf("mirror %s has no snapshot at or before %s: %w", mirror, meta.FormatTimestamp(at), meta.ErrNotFound)
		}
		var snap meta.Snapshot
		return &snap, undoc(data, &snap)
	})
}

// Latest implements meta.Snapshots.
func (s *Store) Latest(ctx context.Context, mirror meta.MirrorName) (*meta.Snapshot, error) {
	return ask(ctx, s, func(t *tx) (*meta.Snapshot, error) { return t.latest(ctx, mirror) })
}

// latest finds the newest snapshot of a mirror. ErrNotFound.
func (t *tx) latest(ctx context.Context, mirror meta.MirrorName) (*meta.Snapshot, error) {
	var snap meta.Snapshot
	err := t.doc(ctx, &snap, "select doc from snapshot s join mirror m on m.id = s.mirror where m.name = $1 order by s.at desc limit 1", mirror)
	if err != nil {
		return nil, fmt.Errorf("mirror %s has no snapshot: %w", mirror, err)
	}
	return &snap, nil
}

// NextSnapshot implements meta.Snapshots.
func (s *Store) NextSnapshot(ctx context.Context, mirror meta.MirrorName, after time.Time) (*meta.Snapshot, error) {
	return ask(ctx, s, func(t *tx) (*meta.Snapshot, error) {
		var snap meta.Snapshot
		err := t.doc(ctx, &snap, "select doc from snapshot s join mirror m on m.id = s.mirror where m.name = $1 and s.at > $2 order by s.at limit 1", mirror, after.Unix())
		if err != nil {
			return nil, fmt.Errorf("mirror %s has no snapshot after %s: %w", mirror, meta.FormatTimestamp(after), err)
		}
		return &snap, nil
	})
}

// SnapshotsBefore implements meta.Snapshots.
func (s *Store) SnapshotsBefore(ctx context.Context, mirror meta.MirrorName, before time.Time, limit int) ([]*meta.Snapshot, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Snapshot, error) { return t.snapshots(ctx, mirror, before, limit) })
}

// noLimit means no limit.
const noLimit = 1 << 40

// snapshots lists snapshots, newest first; limit 0: all.
func (t *tx) snapshots(ctx context.Context, mirror meta.MirrorName, before time.Time, limit int) ([]*meta.Snapshot, error) {
	end := int64(noLimit)
	if !before.IsZero() {
		end = before.Unix()
	}
	if limit <= 0 {
		limit = noLimit
	}
	return docs[meta.Snapshot](ctx, t, "select doc from snapshot s join mirror m on m.id = s.mirror where m.name = $1 and s.at < $2 order by s.at desc limit $3", mirror, end, limit)
}

// RemovedTimestamps implements meta.Snapshots.
func (s *Store) RemovedTimestamps(ctx context.Context, mirror meta.MirrorName) ([]time.Time, error) {
	return ask(ctx, s, func(t *tx) (out []time.Time, err error) {
		var at int64
		err = t.each(ctx, []any{&at}, func() error { out = append(out, atUnix(at)); return nil },
			"select at from removed r join mirror m on m.id = r.mirror where m.name = $1 order by at", mirror)
		return out, err
	})
}

// Generation implements meta.Snapshots.
func (s *Store) Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	return ask(ctx, s, func(t *tx) (*meta.Generation, error) { return t.generation(ctx, mirror, suite, gen) })
}

func (t *tx) generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	all, err := t.generations(ctx, &meta.Snapshot{Mirror: mirror, Suites: []meta.SnapshotSuite{{Suite: suite, Gen: gen}}})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Generations implements meta.Snapshots.
func (s *Store) Generations(ctx context.Context, snap *meta.Snapshot) ([]*meta.Generation, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Generation, error) { return t.generations(ctx, snap) })
}

func (t *tx) generations(ctx context.Context, snap *meta.Snapshot) ([]*meta.Generation, error) {
	suites, gens := suitesOf(snap)
	out := make([]*meta.Generation, 0, len(suites))
	var data []byte
	err := t.each(ctx, []any{&data}, func() error {
		e := snap.Suites[len(out)]
		err := meta.ErrNotFound
		g := new(meta.Generation)
		if data != nil {
			err = undoc(data, g)
		}
		if err != nil {
			return fmt.Errorf("generation %d of %s %s: %w", e.Gen, snap.Mirror, e.Suite, err)
		}
		out = append(out, g)
		return nil
	}, `select g.doc from unnest($2::text[], $3::bigint[]) with ordinality q (suite, gen, n) left join mirror m on m.name = $1
		left join suite s on s.mirror = m.id and s.name = q.suite left join generation g on g.suite = s.id and g.gen = q.gen order by q.n`, snap.Mirror, suites, gens)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// suitesOf returns the suites of a snapshot as arrays.
func suitesOf(snap *meta.Snapshot) (suites []string, gens []int64) {
	suites, gens = []string{}, []int64{}
	for _, e := range snap.Suites {
		suites, gens = append(suites, string(e.Suite)), append(gens, int64(e.Gen))
	}
	return suites, gens
}

// lastGeneration returns the generation of a suite that was sealed last. ErrNotFound.
func (t *tx) lastGeneration(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (*meta.Generation, error) {
	var g meta.Generation
	err := t.doc(ctx, &g, `select g.doc from generation g join suite s on s.id = g.suite join mirror m on m.id = s.mirror
		where m.name = $1 and s.name = $2 order by g.gen desc limit 1`, mirror, string(suite))
	if err != nil {
		return nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, err)
	}
	return &g, nil
}

// LastCheck implements meta.Snapshots.
func (s *Store) LastCheck(ctx context.Context, mirror meta.MirrorName) (meta.Check, error) {
	return ask(ctx, s, func(t *tx) (meta.Check, error) { return t.lastCheck(ctx, mirror) })
}

func (t *tx) lastCheck(ctx context.Context, mirror meta.MirrorName) (c meta.Check, err error) {
	if err := t.doc(ctx, &c, "select doc from mirrorcheck where mirror = $1", mirror); err != nil && !errors.Is(err, meta.ErrNotFound) {
		return c, fmt.Errorf("last check of mirror %s: %w", mirror, err)
	}
	return c, nil
}

// SetCheck implements meta.Writer.
func (s *Store) SetCheck(ctx context.Context, mirror meta.MirrorName, c meta.Check) error {
	return s.write(ctx, "check", func(t *tx) error { return t.setCheck(ctx, mirror, c) })
}

func (t *tx) setCheck(ctx context.Context, mirror meta.MirrorName, c meta.Check) error {
	before, err := t.lastCheck(ctx, mirror)
	if err != nil {
		return err
	}
	if err := t.putDoc(ctx, c, "insert into mirrorcheck (mirror, doc) values ($1, $2) on conflict (mirror) do update set doc = excluded.doc", mirror); err != nil {
		return err
	}
	if e := meta.FailureEvent(mirror, &before, &c); e != nil {
		return t.putEvent(ctx, e)
	}
	return nil
}

// Head implements meta.Writer.
func (s *Store) Head(ctx context.Context, mirror meta.MirrorName) (*meta.Head, error) {
	return ask(ctx, s, func(t *tx) (*meta.Head, error) {
		h := &meta.Head{Generations: map[repo.SuiteName]*meta.Generation{}}
		var err error
		if h.Check, err = t.lastCheck(ctx, mirror); err != nil {
			return nil, err
		}
		h.Snapshot, err = t.latest(ctx, mirror)
		if errors.Is(err, meta.ErrNotFound) {
			h.Snapshot = nil
			return h, nil
		} else if err != nil {
			return nil, err
		}
		gens, err := t.generations(ctx, h.Snapshot)
		if err != nil {
			return nil, err
		}
		for i, e := range h.Snapshot.Suites {
			h.Generations[e.Suite] = gens[i]
		}
		return h, nil
	})
}

// LastGeneration implements meta.Writer.
func (s *Store) LastGeneration(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (*meta.Generation, error) {
	return ask(ctx, s, func(t *tx) (*meta.Generation, error) { return t.lastGeneration(ctx, mirror, suite) })
}
