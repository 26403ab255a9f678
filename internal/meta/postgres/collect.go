package postgres

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/retention"
)

// RemoveExpired implements meta.Collection.
func (s *Store) RemoveExpired(ctx context.Context, keep []meta.Keep, now time.Time, limit int) (removed []*meta.Snapshot, err error) {
	// Invariant 1: unpublish first.
	err = s.write(ctx, "gc snapshots", func(t *tx) error {
		removed = nil
		old, err := t.expired(ctx, keep, now, limit)
		if err != nil || len(old) == 0 {
			return err
		}
		for _, snap := range old {
			if err := t.lockSnapshot(ctx, snap.Mirror, snap.Timestamp); err != nil {
				return err
			}
		}
		// Decide again, because a pin, a recording or a freeze may have been added before
		// the locks.
		again, err := t.expired(ctx, keep, now, limit)
		if err != nil {
			return err
		}
		for _, snap := range again {
			if !slices.ContainsFunc(old, func(o *meta.Snapshot) bool { return o.ID() == snap.ID() }) {
				continue // not locked
			}
			if err := t.removeSnapshot(ctx, snap); err != nil {
				return err
			}
			removed = append(removed, snap)
		}
		return nil
	})
	return removed, err
}

// expired lists the snapshots that a collection removes; limit 0: all.
func (t *tx) expired(ctx context.Context, keep []meta.Keep, now time.Time, limit int) (out []*meta.Snapshot, err error) {
	var rule *retention.Rule
	for _, k := range keep {
		// Snapshots that are young enough are not read.
		old, err := t.snapshots(ctx, k.Mirror, k.Before.Add(time.Second), 0)
		if err != nil {
			return nil, err
		}
		if len(old) == 0 {
			continue
		}
		newest, err := t.latest(ctx, k.Mirror)
		if err != nil {
			return nil, err
		}
		if rule == nil {
			if rule, err = t.rule(ctx, now); err != nil {
				return nil, err
			}
		}
		for _, snap := range old {
			if !rule.Expired(snap, k, newest) {
				continue
			}
			if out = append(out, snap); len(out) == limit {
				return out, nil
			}
		}
	}
	return out, nil
}

// OrphanTrees implements meta.Collection.
func (s *Store) OrphanTrees(ctx context.Context) ([]string, error) {
	return ask(ctx, s, func(t *tx) ([]string, error) { return t.orphanTrees(ctx) })
}

func (t *tx) orphanTrees(ctx context.Context) ([]string, error) {
	return t.strs(ctx, `
		with recursive n (name) as (
			(select name from ftree order by name limit 1)
			union all
			select (select f.name from ftree f where f.name > n.name order by f.name limit 1) from n where n.name is not null)
		select name from n where name is not null and not exists (select from frozen where frozen.name = n.name) order by name`)
}

// errMaking ends the transaction of an orphan tree whose freeze is being made.
var errMaking = errors.New("being made")

// ClearOrphanTree implements meta.Collection.
func (s *Store) ClearOrphanTree(ctx context.Context, name meta.FreezeName, making func() bool) error {
	for more := true; more; {
		err := s.write(ctx, "gc tree", func(t *tx) (err error) {
			// A freeze is registered as being made before its first node is stored. A
			// freeze that starts after this question waits for the name, and then finds
			// the tree cleared.
			if err := t.lockName(ctx, string(name)); err != nil {
				return err
			}
			if making() {
				return errMaking
			}
			more, err = t.clearTree(ctx, name, s.o.Page)
			return err
		})
		switch {
		case errors.Is(err, errMaking), errors.Is(err, meta.ErrExists):
			return nil // being made, or published in the meantime
		case err != nil:
			return err
		}
	}
	return nil
}

// genCandidates lists generations that lost a reference.
func (t *tx) genCandidates(ctx context.Context) (out []meta.GenCandidate, err error) {
	var suite int32
	var gen int64
	err = t.each(ctx, []any{&suite, &gen}, func() error {
		out = append(out, meta.GenCandidate{Suite: meta.SuiteID(suite), Gen: uint32(gen)})
		return nil
	}, "select suite, gen from gencandidate order by suite, gen")
	return out, err
}

// CollectGenerations implements meta.Collection.
func (s *Store) CollectGenerations(ctx context.Context) (n int, err error) {
	gens, err := ask(ctx, s, func(t *tx) ([]meta.GenCandidate, error) { return t.genCandidates(ctx) })
	if err != nil {
		return 0, err
	}
	for _, g := range gens {
		for first, done := true, false; !done; first = false {
			var deleted bool
			err := s.write(ctx, "gc generation", func(t *tx) (err error) {
				done, deleted, err = t.collectGen(ctx, g, s.o.Page)
				return err
			})
			if err != nil {
				return n, err
			}
			if deleted && first {
				n++
			}
		}
	}
	return n, nil
}

// collectGen deletes a generation that nothing refers to, and at most limit of the spans
// that only it contained. done is false while work is left; deleted is false if something
// needs the generation.
func (t *tx) collectGen(ctx context.Context, g meta.GenCandidate, limit int) (done, deleted bool, err error) {
	sid, gen := int32(g.Suite), int64(g.Gen)
	var mid int32
	if _, err := t.one(ctx, []any{&mid}, "select mirror from suite where id = $1", sid); err != nil {
		return false, false, err
	}
	if err := t.lockMirror(ctx, mid); err != nil {
		return false, false, err
	}
	// A transaction that adds a reference waits for this lock, and then finds no
	// generation.
	if _, err := t.exec(ctx, "select 1 from generation where suite = $1 and gen = $2 for update", sid, gen); err != nil {
		return false, false, err
	}
	var used, newest bool
	_, err = t.one(ctx, []any{&used, &newest}, `select exists (select from genref where suite = $1 and gen = $2),
		coalesce((select max(gen) = $2 from generation where suite = $1), false)`, sid, gen)
	switch {
	case err != nil:
		return false, false, err
	case used:
		_, err := t.exec(ctx, "delete from gencandidate where suite = $1 and gen = $2", sid, gen)
		return true, false, err
	case newest:
		// This is the base of the next sync and of the check for rollbacks. It becomes a
		// candidate again when a newer generation arrives.
		return true, false, nil
	}
	if err := t.deleteGen(ctx, sid, gen); err != nil {
		return false, false, err
	}
	next := gen + 1
	if _, err := t.one(ctx, []any{&next}, "select gen from generation where suite = $1 and gen > $2 order by gen limit 1", sid, gen); err != nil {
		return false, false, err
	}
	n, err := t.deleteSpans(ctx, sid, gen, next, limit)
	if err != nil {
		return false, false, err
	}
	if n >= limit {
		return false, true, nil
	}
	if err := t.deleteListings(ctx, sid, gen, next); err != nil {
		return false, false, err
	}
	_, err = t.exec(ctx, "delete from gencandidate where suite = $1 and gen = $2", sid, gen)
	return true, true, err
}

func (t *tx) deleteGen(ctx context.Context, sid int32, gen int64) error {
	gens, err := docs[meta.Generation](ctx, t, "delete from generation where suite = $1 and gen = $2 returning doc", sid, gen)
	if err != nil {
		return err
	}
	for _, g := range gens {
		if err := t.dropRefs(ctx, g.Blobs(), meta.OwnerGen, genOwner(sid, g.Gen)); err != nil {
			return err
		}
	}
	return nil
}

// deleteSpans deletes at most limit intervals that ended between a deleted generation and
// the next remaining one, and that contain no remaining generation.
func (t *tx) deleteSpans(ctx context.Context, sid int32, gen, next int64, limit int) (n int, err error) {
	var pids []meta.PID
	var pid int64
	err = t.each(ctx, []any{&pid}, func() error { n++; pids = append(pids, meta.PID(pid)); return nil }, `
		delete from span s using (
			select s.mirror, s.pid, s.idx, s.gfrom from span s join suite u on u.id = $1
			where s.mirror = u.mirror and s.idx in (select id from idx where suite = $1) and s.gto > $2 and s.gto <= $3
				and not exists (select from generation g where g.suite = $1 and g.gen >= s.gfrom and g.gen < s.gto)
			order by s.pid, s.idx limit $4
		) dead where s.mirror = dead.mirror and s.pid = dead.pid and s.idx = dead.idx and s.gfrom = dead.gfrom returning s.pid`, sid, gen, next, limit)
	if err != nil || n == 0 {
		return n, err
	}
	return n, t.deleteAbsent(ctx, pids)
}

// deleteListings removes digests that were listed only by deleted generations: gen was
// the last of them, and next is the first remaining one after it.
func (t *tx) deleteListings(ctx context.Context, sid int32, gen, next int64) error {
	var sums [][]byte
	var sum []byte
	err := t.each(ctx, []any{&sum}, func() error { sums = append(sums, bytes.Clone(sum)); return nil }, `
		delete from listed l where suite = $1 and last >= $2 and last < $3
			and not exists (select from generation g where g.suite = l.suite and g.gen between l.first and l.last) returning sha256`, sid, gen, next)
	if err != nil {
		return err
	}
	return t.suspect(ctx, sums)
}

// ClaimBlobs implements meta.Collection.
func (s *Store) ClaimBlobs(ctx context.Context, after cas.Digest, until time.Time, limit int) (out []cas.Digest, next cas.Digest, more bool, err error) {
	err = s.write(ctx, "gc claim", func(t *tx) error {
		out, next = nil, cas.Digest{}
		page, err := t.candidates(ctx, after, until, limit, "for update")
		if more = len(page) > 0; err != nil || !more {
			return err
		}
		next = cas.Digest(page[len(page)-1])
		// A new statement sees the references that were committed before the locks.
		needed, err := t.needed(ctx, page, nil)
		if err != nil {
			return err
		}
		var keep, claim [][]byte
		for _, d := range page {
			if needed[cas.Digest(d)] {
				keep = append(keep, d)
			} else {
				claim = append(claim, d)
				out = append(out, cas.Digest(d))
			}
		}
		if _, err := t.exec(ctx, "update blob set state = $2, since = null where sha256 = any($1)", keep, blobPresent); err != nil {
			return err
		}
		_, err = t.exec(ctx, "update blob set state = $2, since = null where sha256 = any($1)", claim, blobClaimed)
		return err
	})
	return out, next, more, err
}

// candidates lists collection candidates after a digest, in order, that became so
// at or before until.
func (t *tx) candidates(ctx context.Context, after cas.Digest, until time.Time, limit int, lock string) (out [][]byte, err error) {
	var sum []byte
	err = t.each(ctx, []any{&sum}, func() error { out = append(out, bytes.Clone(sum)); return nil },
		"select sha256 from blob where sha256 > $1 and state > 0 and (since is null or since <= $2) order by sha256 limit $3 "+lock, after[:], until.Unix(), limit)
	return out, err
}

// Claimed implements meta.Collection.
func (s *Store) Claimed(ctx context.Context, d cas.Digest) (bool, error) {
	return ask(ctx, s, func(t *tx) (yes bool, err error) {
		if _, err := t.one(ctx, []any{&yes}, "select state = $2 from blob where sha256 = $1", d[:], blobClaimed); err != nil || !yes {
			return false, err
		}
		needed, err := t.needed(ctx, [][]byte{d[:]}, nil)
		return !needed[d], err
	})
}

// ReleaseClaims implements meta.Collection.
func (s *Store) ReleaseClaims(ctx context.Context, digests []cas.Digest) error {
	if len(digests) == 0 {
		return nil
	}
	return s.write(ctx, "gc release", func(t *tx) error {
		_, err := t.exec(ctx, "update blob set state = $2, since = null where sha256 = any($1) and state = $3", bytesOf(digests), blobCandidate, blobClaimed)
		return err
	})
}

// ForgetBlobs implements meta.Collection.
func (s *Store) ForgetBlobs(ctx context.Context, digests []cas.Digest) (referenced []cas.Digest, err error) {
	if len(digests) == 0 {
		return nil, nil
	}
	err = s.write(ctx, "gc blobs", func(t *tx) error {
		referenced = nil
		all := bytesOf(digests)
		if _, err := t.exec(ctx, "select 1 from blob where sha256 = any($1) order by sha256 for update", all); err != nil {
			return err
		}
		have, err := t.referenced(ctx, all)
		if err != nil {
			return err
		}
		var gone [][]byte
		for i, d := range digests {
			if have[d] {
				referenced = append(referenced, d)
			} else {
				gone = append(gone, all[i])
			}
		}
		if _, err := t.exec(ctx, "delete from blob where sha256 = any($1)", gone); err != nil {
			return err
		}
		_, err = t.exec(ctx, "delete from corrupt where sha256 = any($1)", gone)
		return err
	})
	return referenced, err
}

// orphanPage limits the blobs that AddOrphans checks in one transaction.
const orphanPage = 2000

// AddOrphans implements meta.Collection.
func (s *Store) AddOrphans(ctx context.Context, blobs []cas.Info, now time.Time) (unknown int, err error) {
	for page := range slices.Chunk(blobs, orphanPage) {
		var n int
		err := s.write(ctx, "orphans", func(t *tx) error {
			n = 0
			since, err := t.knownSince(ctx)
			if err != nil {
				return err
			}
			var all, loose [][]byte
			for i := range page {
				all = append(all, page[i].Digest[:])
			}
			skip := map[cas.Digest]bool{} // referenced, or candidates
			listed := map[cas.Digest]bool{}
			var sum []byte
			var known, isListed bool
			err = t.each(ctx, []any{&sum, &known, &isListed}, func() error {
				skip[cas.Digest(sum)], listed[cas.Digest(sum)] = known, isListed
				return nil
			}, "select q.sha256, "+hasRef+` or exists (select from blob b where b.sha256 = q.sha256 and b.state > 0), exists (select from listed l where l.sha256 = q.sha256)
				from unnest($1::bytea[]) q (sha256)`, all)
			if err != nil {
				return err
			}
			for i, info := range page {
				switch {
				case skip[info.Digest]:
				case info.Stored.Before(since) && !listed[info.Digest]:
					n++
				default:
					loose = append(loose, all[i])
				}
			}
			_, err = t.exec(ctx, `insert into blob as b (sha256, state, since) select distinct d, $2::smallint, $3::bigint from unnest($1::bytea[]) d order by d
				on conflict (sha256) do update set state = excluded.state, since = excluded.since
				where b.state = 0 and not exists (select from ref where ref.sha256 = b.sha256) and not exists (select from pfile where pfile.sha256 = b.sha256)`,
				loose, blobCandidate, now.Unix())
			return err
		})
		if err != nil {
			return unknown, err
		}
		unknown += n
	}
	return unknown, nil
}

// Referenced implements meta.Collection.
func (s *Store) Referenced(ctx context.Context, digests []cas.Digest) ([]cas.Digest, error) {
	return ask(ctx, s, func(t *tx) (out []cas.Digest, err error) {
		have, err := t.referenced(ctx, bytesOf(digests))
		for _, d := range digests {
			if have[d] {
				out = append(out, d)
			}
		}
		return out, err
	})
}

// Torn implements meta.Collection. PostgreSQL loses no commit that it confirmed.
func (s *Store) Torn(context.Context) (string, error) { return "", nil }
