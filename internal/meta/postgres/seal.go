package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Seal implements meta.Writer.
func (s *Store) Seal(ctx context.Context, sealing *meta.Sealing, now time.Time) (*meta.Snapshot, error) {
	var snap meta.Snapshot
	err := s.write(ctx, "seal", func(t *tx) (err error) {
		snap = sealing.Snapshot
		return t.seal(ctx, &snap, sealing, now)
	})
	if err != nil {
		return nil, err
	}
	return &snap, nil
}

func (t *tx) seal(ctx context.Context, snap *meta.Snapshot, s *meta.Sealing, now time.Time) error {
	mid, err := t.makeMirror(ctx, snap.Mirror)
	if err != nil {
		return err
	}
	if err := t.timestamp(ctx, mid, snap, s.History, now); err != nil {
		return err
	}
	for i := range s.Generations {
		g := s.Generations[i]
		g.Timestamp = snap.Timestamp
		if err := t.putGeneration(ctx, &g, s.Listings[i], s.History); err != nil {
			return err
		}
	}
	if err := t.putAliases(ctx, s.Aliases); err != nil {
		return err
	}
	for _, e := range snap.Suites {
		id, err := t.makeSuite(ctx, snap.Mirror, e.Suite)
		if err != nil {
			return err
		}
		if err := t.addGenRef(ctx, id, e.Gen, meta.OwnerSnapshot, snap.ID()); err != nil {
			return fmt.Errorf("generation %d of suite %s of %s: %w", e.Gen, e.Suite, snap.Mirror, err)
		}
	}
	if err := t.putDoc(ctx, snap, "insert into snapshot (mirror, at, doc) values ($1, $2, $3)", mid, snap.Timestamp.Unix()); err != nil {
		return err
	}
	if err := t.changed(ctx, meta.ChangeSnapshot, snap.ID()); err != nil {
		return err
	}
	return t.putEvent(ctx, meta.SnapshotEvent(snap, now))
}

// timestamp sets or checks the timestamp of a snapshot.
func (t *tx) timestamp(ctx context.Context, mid int32, snap *meta.Snapshot, history bool, now time.Time) error {
	if history {
		snap.Timestamp = snap.Timestamp.UTC().Truncate(time.Second)
		if _, err := t.snapshot(ctx, snap.Mirror, snap.Timestamp); !errors.Is(err, meta.ErrNotFound) {
			if err == nil || errors.Is(err, meta.ErrGone) {
				err = meta.ErrExists
			}
			return fmt.Errorf("snapshot %s: %w", snap.ID(), err)
		}
		return nil
	}
	snap.Timestamp = now.UTC().Truncate(time.Second)
	var last *int64
	if _, err := t.one(ctx, []any{&last}, "select max(at) from (select max(at) as at from snapshot where mirror = $1 union all select max(at) from removed where mirror = $1) a", mid); err != nil {
		return err
	}
	if last != nil && snap.Timestamp.Unix() <= *last {
		snap.Timestamp = atUnix(*last + 1)
	}
	return nil
}

// addGenRef records that an owner needs a generation, and locks the generation until the
// transaction ends. ErrGone if it does not exist.
func (t *tx) addGenRef(ctx context.Context, sid int32, gen uint32, kind byte, owner string) error {
	var one int
	ok, err := t.one(ctx, []any{&one}, "select 1 from generation where suite = $1 and gen = $2 for share", sid, int64(gen))
	if err != nil {
		return err
	}
	if !ok {
		return meta.ErrGone
	}
	_, err = t.exec(ctx, "insert into genref (suite, gen, kind, owner) values ($1, $2, $3, $4) on conflict do nothing", sid, int64(gen), int16(kind), owner)
	return err
}

// dropGenRef removes a reference that addGenRef recorded.
func (t *tx) dropGenRef(ctx context.Context, sid int32, gen uint32, kind byte, owner string) error {
	if _, err := t.exec(ctx, "delete from genref where suite = $1 and gen = $2 and kind = $3 and owner = $4", sid, int64(gen), int16(kind), owner); err != nil {
		return err
	}
	_, err := t.exec(ctx, "insert into gencandidate (suite, gen) values ($1, $2) on conflict do nothing", sid, int64(gen))
	return err
}

// genOwner returns the owner of a generation's references to blobs.
func genOwner(sid int32, gen uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(sid)), gen)
}

// ofGenOwner reads what genOwner returned.
func ofGenOwner(owner []byte) (sid int32, gen uint32) {
	return int32(binary.BigEndian.Uint32(owner)), binary.BigEndian.Uint32(owner[4:])
}

func (t *tx) putGeneration(ctx context.Context, g *meta.Generation, files []repo.File, history bool) error {
	sid, err := t.makeSuite(ctx, g.Mirror, g.Suite)
	if err != nil {
		return err
	}
	var exists bool
	if _, err := t.one(ctx, []any{&exists}, "select exists (select from generation where suite = $1 and gen = $2)", sid, int64(g.Gen)); err != nil {
		return err
	}
	if exists {
		return fmt.Errorf("generation %d of %s %s: %w", g.Gen, g.Mirror, g.Suite, meta.ErrExists)
	}
	if err := t.addRefs(ctx, g.Blobs(), meta.OwnerGen, genOwner(sid, g.Gen)); err != nil {
		return err
	}
	var packages [][]byte
	for i := range g.Groups {
		if g.Groups[i].Packages {
			packages = append(packages, []byte(g.Groups[i].Index))
		}
	}
	if _, err := t.exec(ctx, "update idx set dirty = false where suite = $1 and name = any($2)", sid, packages); err != nil {
		return err
	}
	if err := t.putDoc(ctx, g, "insert into generation (suite, gen, complete, doc) values ($1, $2, $3, $4)", sid, int64(g.Gen), g.Complete); err != nil {
		return err
	}
	return t.putListings(ctx, sid, g, files, history)
}

// putListings records which digests the Release lists (for by-hash names), and since when
// each path has had its content (for `latest`). It writes only changes.
func (t *tx) putListings(ctx context.Context, sid int32, g *meta.Generation, files []repo.File, history bool) error {
	var sums, paths [][]byte
	var sizes []int64
	listed := map[cas.Digest]bool{}
	for _, f := range files {
		if !listed[f.SHA256] { // any path with that content will do
			listed[f.SHA256] = true
			sums, paths, sizes = append(sums, bytes.Clone(f.SHA256[:])), append(paths, []byte(f.Path)), append(sizes, f.Size)
		}
	}
	// End the listings of digests that are no longer listed.
	var gone [][]byte
	var sum []byte
	err := t.each(ctx, []any{&sum}, func() error { gone = append(gone, bytes.Clone(sum)); return nil },
		"update listed set last = $3 where suite = $1 and last is null and not sha256 = any($2) returning sha256", sid, nonNil(sums), int64(g.Gen)-1)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, `insert into blob (sha256, state) select q.sha256, $2::smallint from unnest($1::bytea[]) q (sha256) where not `+hasRef+` order by 1
		on conflict (sha256) do update set state = $2, since = null where blob.state = $3`, gone, blobCandidate, blobPresent); err != nil {
		return err
	}
	_, err = t.exec(ctx, `insert into listed (suite, sha256, path, size, first) select $1, q.sha256, q.path, q.size, $5 from unnest($2::bytea[], $3::bytea[], $4::bigint[]) q (sha256, path, size)
		on conflict (suite, sha256) do update set last = null, path = excluded.path, size = excluded.size where listed.last is not null`, sid, sums, paths, sizes, int64(g.Gen))
	if err != nil {
		return err
	}
	return t.putPaths(ctx, sid, g, files, history)
}

// nonNil replaces nil for arrays that are compared, because comparisons with NULL are
// never true.
func nonNil(all [][]byte) [][]byte {
	if all == nil {
		return [][]byte{}
	}
	return all
}

func (t *tx) putPaths(ctx context.Context, sid int32, g *meta.Generation, files []repo.File, history bool) error {
	var sums, paths [][]byte
	at := map[string]int{}
	for _, f := range files {
		sum := bytes.Clone(f.SHA256[:])
		if history {
			// After an older state was added to the history, every change that follows
			// counts from the next ordinary snapshot. A time that is too late only costs
			// a client another download; one that is too early would hide a change.
			sum = make([]byte, len(sum))
		}
		if i, twice := at[f.Path]; twice {
			sums[i] = sum
			continue
		}
		at[f.Path] = len(paths)
		sums, paths = append(sums, sum), append(paths, []byte(f.Path))
	}
	since := g.Timestamp.Unix()
	if history {
		since = 0
	}
	_, err := t.exec(ctx, `insert into lpath (suite, path, sha256, at) select $1, q.path, q.sha256, $4 from unnest($2::bytea[], $3::bytea[]) q (path, sha256)
		on conflict (suite, path) do update set sha256 = excluded.sha256, at = excluded.at where lpath.sha256 <> excluded.sha256 or $5`, sid, paths, sums, since, history)
	return err
}

// putAliases records other digests of blobs.
func (t *tx) putAliases(ctx context.Context, aliases []meta.Alias) error {
	if len(aliases) == 0 {
		return nil
	}
	// The last of several wins.
	at := map[string]int{}
	var algos []int16
	var others, sums [][]byte
	for _, a := range aliases {
		k := string(rune(a.Algo)) + string(a.Other)
		if i, twice := at[k]; twice {
			sums[i] = bytes.Clone(a.SHA256[:])
			continue
		}
		at[k] = len(algos)
		algos, others, sums = append(algos, int16(a.Algo)), append(others, a.Other), append(sums, bytes.Clone(a.SHA256[:]))
	}
	_, err := t.exec(ctx, `insert into alias (algo, other, sha256) select * from unnest($1::smallint[], $2::bytea[], $3::bytea[]) q (algo, other, sha256) order by 1, 2
		on conflict (algo, other) do update set sha256 = excluded.sha256 where alias.sha256 <> excluded.sha256`, algos, others, sums)
	return err
}

// Begun implements meta.Writer.
func (s *Store) Begun(ctx context.Context, g *meta.Generation) (base *meta.Generation, begun []meta.PID, err error) {
	err = s.read(ctx, func(t *tx) error {
		base, begun = nil, nil
		last, err := t.lastGeneration(ctx, g.Mirror, g.Suite)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		base = last
		changes, err := t.changes(ctx, g.Mirror, g.Suite, last.Gen, g.Gen)
		for _, c := range changes {
			if c.Added {
				begun = append(begun, c.PID)
			}
		}
		return err
	})
	return base, begun, err
}

// suiteIndices returns the numbers of a mirror, a suite and its indices. ErrNotFound.
func (t *tx) suiteIndices(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (mid, sid int32, ids []int32, err error) {
	if mid, err = t.mirrorID(ctx, mirror); err != nil {
		return 0, 0, nil, err
	}
	if sid, err = t.suiteID(ctx, mirror, suite); err != nil {
		return 0, 0, nil, err
	}
	if sid == 0 {
		return 0, 0, nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
	}
	var id int32
	err = t.each(ctx, []any{&id}, func() error { ids = append(ids, id); return nil }, "select id from idx where suite = $1", sid)
	return mid, sid, ids, err
}

// changes lists what differs between two generations of a suite, by index and number, at
// a cost proportional to the difference. ErrNotFound.
func (t *tx) changes(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32) (out []meta.Change, err error) {
	mid, _, ids, err := t.suiteIndices(ctx, mirror, suite)
	if err != nil {
		return nil, err
	}
	var pid int64
	var name []byte
	var added bool
	err = t.each(ctx, []any{&pid, &name, &added}, func() error {
		out = append(out, meta.Change{PID: meta.PID(pid), Index: string(name), Added: added})
		return nil
	}, `with touched as (
			select idx, pid from span where mirror = $1 and idx = any($2) and gfrom > $3 and gfrom <= $4
			union
			select idx, pid from span where mirror = $1 and idx = any($2) and gto > $3 and gto <= $4
		), presence as (
			select t.idx, t.pid, coalesce(bool_or(s.gfrom <= $5 and (s.gto is null or s.gto > $5)), false) as before, coalesce(bool_or(s.gfrom <= $6 and (s.gto is null or s.gto > $6)), false) as after
			from touched t join span s on s.mirror = $1 and s.pid = t.pid and s.idx = t.idx group by t.idx, t.pid
		) select p.pid, i.name, p.after from presence p join idx i on i.id = p.idx where p.before <> p.after order by i.name, p.pid`,
		mid, ids, int64(min(from, to)), int64(max(from, to)), int64(from), int64(to))
	return out, err
}
