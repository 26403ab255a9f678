package postgres

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// single runs one statement, which is a transaction. If its answer is lost, single does
// not find out whether it took effect, so either outcome must be harmless.
func (s *Store) single(ctx context.Context, op string, f func() error) error {
	defer s.o.Latency.Write.Since(latency.Start())
	var err error
	for range maxAttempts {
		if err = s.once(op, f); !conflicts(err) {
			break
		}
	}
	return mapped(err)
}

// once runs f with the injected faults of tests.
func (s *Store) once(op string, f func() error) error {
	if s.o.Fault == nil {
		return f()
	}
	apply, fail := s.o.Fault(op)
	if fail != nil && !apply {
		return fail
	}
	if err := f(); err != nil {
		return err
	}
	return fail
}

// begin takes a lease and reads the result of Head. The statement sees what was committed
// before it began, but takes the lease in the state that it has when its row is locked.
// current says whether the lease had been released when the statement began: only then
// does it see every commit of the last holder.
const begin = stalled + `, taken as (` + take + `)
	select taken.epoch, taken.epoch = coalesce((select epoch + 1 from lease where name = $1 and holder = ''), 1) as current,
		(select doc from mirrorcheck where mirror = $7), s.doc, (
			select json_agg(g.doc order by q.n) from json_array_elements(s.doc->'suites') with ordinality q (doc, n)
			left join suite on suite.mirror = s.mirror and suite.name = q.doc->>'suite'
			left join generation g on g.suite = suite.id and g.gen = (q.doc->>'gen')::bigint)
	from taken left join lateral (
		select s.mirror, s.doc from snapshot s join mirror m on m.id = s.mirror where m.name = $7 order by s.at desc limit 1) s on true`

// BeginSync implements meta.Writer with one statement, if the last holder released the
// lease.
func (s *Store) BeginSync(ctx context.Context, mirror meta.MirrorName, who string, ttl time.Duration) (meta.Lease, *meta.Head, error) {
	l := meta.Lease{Name: meta.LeaseSync + string(mirror), Holder: rand.Text()}
	var err error
	if len(meta.LeasesOf(ctx)) > 0 {
		if l, err = s.AcquireLease(ctx, l.Name, who, ttl); err != nil {
			return meta.Lease{}, nil, err
		}
		return s.andHead(ctx, l, mirror)
	}
	var current bool
	var check, snap, gens []byte
	err = s.single(ctx, "begin sync", func() error {
		err := s.pool.QueryRow(ctx, begin, l.Name, l.Holder, who, ttl, stalledTime, millis(acquireTime), mirror).Scan(&l.Epoch, &current, &check, &snap, &gens)
		switch {
		case locked(err):
			return leasedInTransaction(l.Name)
		case errors.Is(err, pgx.ErrNoRows):
			return leased(ctx, s.pool, l.Name)
		}
		return err
	})
	if err != nil {
		return meta.Lease{}, nil, err
	}
	if !current {
		return s.andHead(ctx, l, mirror)
	}
	h, err := headOf(mirror, check, snap, gens)
	if err != nil {
		return meta.Lease{}, nil, errors.Join(err, s.ReleaseLease(context.WithoutCancel(ctx), l))
	}
	return l, h, nil
}

// andHead adds the result of Head to a lease that was taken.
func (s *Store) andHead(ctx context.Context, l meta.Lease, mirror meta.MirrorName) (meta.Lease, *meta.Head, error) {
	h, err := s.Head(ctx, mirror)
	if err != nil {
		return meta.Lease{}, nil, errors.Join(err, s.ReleaseLease(context.WithoutCancel(ctx), l))
	}
	return l, h, nil
}

// headOf decodes the result of begin.
func headOf(mirror meta.MirrorName, check, snap, gens []byte) (*meta.Head, error) {
	h := &meta.Head{Generations: map[repo.SuiteName]*meta.Generation{}}
	if check != nil {
		if err := undoc(check, &h.Check); err != nil {
			return nil, fmt.Errorf("last check of mirror %s: %w", mirror, err)
		}
	}
	if snap == nil {
		return h, nil
	}
	h.Snapshot = new(meta.Snapshot)
	if err := undoc(snap, h.Snapshot); err != nil {
		return nil, fmt.Errorf("newest snapshot of mirror %s: %w", mirror, err)
	}
	var all []*meta.Generation
	if gens != nil {
		if err := undoc(gens, &all); err != nil {
			return nil, fmt.Errorf("generations of %s: %w", h.Snapshot.ID(), err)
		}
	}
	for i, e := range h.Snapshot.Suites {
		if i >= len(all) || all[i] == nil {
			return nil, fmt.Errorf("generation %d of %s %s: %w", e.Gen, mirror, e.Suite, meta.ErrNotFound)
		}
		h.Generations[e.Suite] = all[i]
	}
	return h, nil
}

// end replaces the result of a mirror's last syncs and releases a held lease.
const end = `
	with released as (` + release + ` returning 1)
	insert into mirrorcheck (mirror, doc) select $4, $5::json from released
	on conflict (mirror) do update set doc = excluded.doc`

// EndSync implements meta.Writer. It uses one statement, unless it has to add the event
// of a failure or ctx has another lease.
func (s *Store) EndSync(ctx context.Context, l meta.Lease, mirror meta.MirrorName, before, c meta.Check) error {
	other := func(held meta.Lease) bool { return held != l }
	if slices.ContainsFunc(meta.LeasesOf(ctx), other) || meta.FailureEvent(mirror, &before, &c) != nil {
		ctx = meta.UnderLease(ctx, l)
		return s.write(ctx, "end sync", func(t *tx) error {
			if _, err := t.exec(ctx, release, l.Name, l.Epoch, l.Holder); err != nil {
				return err
			}
			return t.setCheck(ctx, mirror, c)
		})
	}
	doc, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.single(ctx, "end sync", func() error {
		tag, err := s.pool.Exec(ctx, end, l.Name, l.Epoch, l.Holder, mirror, doc)
		if err == nil && tag.RowsAffected() == 0 {
			err = fenced(l)
		}
		return err
	})
}
