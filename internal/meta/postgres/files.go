package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// PackageAt implements meta.Files.
func (s *Store) PackageAt(ctx context.Context, snap *meta.Snapshot, path string) (hit meta.PathHit, places []meta.Place, err error) {
	err = s.read(ctx, func(t *tx) error {
		found, err := t.packagesAt(ctx, snap, []string{path})
		if err != nil {
			return err
		}
		e, ok := found[path]
		if !ok {
			return fmt.Errorf("path %s in %s: %w", path, snap.ID(), meta.ErrNotFound)
		}
		hit, places = meta.PathHit{Fact: e.Fact, File: e.File}, e.Places
		return nil
	})
	return hit, places, err
}

// PackageNewest implements meta.Files.
func (s *Store) PackageNewest(ctx context.Context, mirror meta.MirrorName, path string) (hit meta.PathHit, since *meta.Generation, err error) {
	err = s.read(ctx, func(t *tx) error {
		mid, err := t.mirrorID(ctx, mirror)
		if err != nil {
			return err
		}
		hits, err := t.byPaths(ctx, mid, []string{path})
		if err != nil {
			return err
		}
		var newest time.Time
		since = nil
		for _, h := range hits {
			for _, sp := range h.spans {
				for _, iv := range sp.intervals {
					last, err := t.genBefore(ctx, sp.info.sid, iv.To)
					if errors.Is(err, meta.ErrNotFound) || err == nil && last.Gen < iv.From {
						continue
					} else if err != nil {
						return err
					}
					if since != nil && !last.Timestamp.After(newest) {
						continue
					}
					newest, hit = last.Timestamp, h.PathHit
					if since, err = t.genFrom(ctx, sp.info.sid, iv.From); err != nil {
						return err
					}
				}
			}
		}
		if since == nil {
			return fmt.Errorf("path %s in %s: %w", path, mirror, meta.ErrNotFound)
		}
		return nil
	})
	return hit, since, err
}

// genBefore returns the last sealed generation before a number. ErrNotFound.
func (t *tx) genBefore(ctx context.Context, sid int32, to uint32) (*meta.Generation, error) {
	var g meta.Generation
	return &g, t.doc(ctx, &g, "select doc from generation where suite = $1 and gen < $2 order by gen desc limit 1", sid, int64(to))
}

// genFrom returns the first sealed generation at or after a number. ErrNotFound.
func (t *tx) genFrom(ctx context.Context, sid int32, from uint32) (*meta.Generation, error) {
	var g meta.Generation
	return &g, t.doc(ctx, &g, "select doc from generation where suite = $1 and gen >= $2 order by gen limit 1", sid, int64(from))
}

// dirPage is how many files PackageDir reads in one statement.
const dirPage = 1000

// PackageDir implements meta.Files.
func (s *Store) PackageDir(ctx context.Context, snap *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
	err = s.read(ctx, func(t *tx) (err error) {
		names, more, err = t.packageDir(ctx, snap, dir, limit)
		return err
	})
	return names, more, err
}

func (t *tx) packageDir(ctx context.Context, snap *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
	mid, err := t.mirrorID(ctx, snap.Mirror)
	if err != nil || mid == 0 {
		return nil, false, err
	}
	end := prefixEnd([]byte(dir))
	for from := []byte(dir); ; {
		rows, err := t.pathList(ctx, mid, from, end)
		if err != nil {
			return nil, false, err
		}
		var pids []meta.PID
		for _, r := range rows {
			pids = append(pids, r.pid)
		}
		spans, err := t.spans(ctx, pids)
		if err != nil {
			return nil, false, err
		}
		skip := ""
		for _, r := range rows {
			if skip != "" && strings.HasPrefix(r.path, skip) || len(placesIn(snap, spans[r.pid])) == 0 {
				continue
			}
			name := r.path[len(dir):]
			if i := strings.IndexByte(name, '/'); i >= 0 {
				name = name[:i+1]
				skip = dir + name // one file below is enough
			}
			if len(names) > 0 && names[len(names)-1] == name {
				continue
			}
			if names = append(names, name); len(names) >= limit {
				return names, true, nil
			}
		}
		if len(rows) < dirPage {
			return names, false, nil
		}
		from = append([]byte(rows[len(rows)-1].path), 0)
		if skip != "" && strings.HasPrefix(rows[len(rows)-1].path, skip) {
			from = prefixEnd([]byte(skip))
		}
	}
}

type pathRow struct {
	path string
	pid  meta.PID
}

// pathList lists package files with paths from one on and before end (nil: all). All
// files with the same path are in one result.
func (t *tx) pathList(ctx context.Context, mid int32, from, end []byte) (out []pathRow, err error) {
	var path []byte
	var pid int64
	err = t.each(ctx, []any{&path, &pid}, func() error {
		out = append(out, pathRow{string(path), meta.PID(pid)})
		return nil
	}, `select path, pid from pfile where mirror = $1 and path >= $2 and ($3::bytea is null or path < $3) order by path
		fetch first $4 rows with ties`, mid, from, end, dirPage)
	return out, err
}

// Listed implements meta.Files.
func (s *Store) Listed(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, d cas.Digest) (meta.Listing, error) {
	return ask(ctx, s, func(t *tx) (l meta.Listing, err error) {
		all, err := t.listings(ctx, d, &mirror, &suite)
		if err == nil && len(all) == 0 {
			err = meta.ErrNotFound
		}
		if err != nil {
			return l, fmt.Errorf("digest %s in %s %s: %w", d, mirror, suite, err)
		}
		return all[0].Listing, nil
	})
}

// listing is a suite that listed a digest.
type listing struct {
	meta.ListedIn
	sid int32
	sum cas.Digest
}

// listings lists the suites whose Release files listed a digest, or only the given suite.
func (t *tx) listings(ctx context.Context, d cas.Digest, mirror *meta.MirrorName, suite *repo.SuiteName) (out []listing, err error) {
	var l listing
	var path []byte
	var name string
	var first int64
	var last *int64
	var only *string
	if suite != nil {
		text := string(*suite)
		only = &text
	}
	err = t.each(ctx, []any{&l.sid, &l.Mirror, &name, &path, &l.Size, &first, &last}, func() error {
		l.Suite, l.Path, l.First, l.Last = repo.SuiteName(name), string(path), uint32(first), meta.Unended
		if last != nil {
			l.Last = uint32(*last)
		}
		out = append(out, l)
		return nil
	}, `select s.id, m.name, s.name, l.path, l.size, l.first, l.last from listed l join suite s on s.id = l.suite join mirror m on m.id = s.mirror
		where l.sha256 = $1 and ($2::text is null or m.name = $2) and ($3::text is null or s.name = $3) order by s.id`, d[:], mirror, only)
	return out, err
}

// ListedSince implements meta.Files.
func (s *Store) ListedSince(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, path string, d cas.Digest) (time.Time, error) {
	return ask(ctx, s, func(t *tx) (time.Time, error) {
		var at int64
		ok, err := t.one(ctx, []any{&at}, `select l.at from lpath l join suite s on s.id = l.suite join mirror m on m.id = s.mirror
			where m.name = $1 and s.name = $2 and l.path = $3 and l.sha256 = $4`, mirror, string(suite), []byte(path), d[:])
		if err == nil && !ok {
			err = fmt.Errorf("%s of %s with SHA-256 %s: %w", path, mirror, d, meta.ErrNotFound)
		}
		if err != nil {
			return time.Time{}, err
		}
		return atUnix(at), nil
	})
}

// Alias implements meta.Files.
func (s *Store) Alias(ctx context.Context, algo byte, other []byte) (cas.Digest, error) {
	all, err := s.Aliases(ctx, algo, [][]byte{other})
	if err == nil && all[0].IsZero() {
		err = fmt.Errorf("digest %x: %w", other, meta.ErrNotFound)
	}
	if err != nil {
		return cas.Digest{}, err
	}
	return all[0], nil
}

// Aliases implements meta.Notes.
func (s *Store) Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error) {
	return ask(ctx, s, func(t *tx) ([]cas.Digest, error) {
		known := map[string]cas.Digest{}
		var other, sum []byte
		err := t.each(ctx, []any{&other, &sum}, func() error { known[string(other)] = cas.Digest(sum); return nil },
			"select other, sha256 from alias where algo = $1 and other = any($2)", int16(algo), others)
		out := make([]cas.Digest, len(others))
		for i, o := range others {
			out[i] = known[string(o)]
		}
		return out, err
	})
}

// OtherDigests implements meta.Files.
func (s *Store) OtherDigests(ctx context.Context, algo byte, digests []cas.Digest) ([][]byte, error) {
	return ask(ctx, s, func(t *tx) ([][]byte, error) {
		known := map[cas.Digest][]byte{}
		var other, sum []byte
		err := t.each(ctx, []any{&sum, &other}, func() error { known[cas.Digest(sum)] = bytes.Clone(other); return nil },
			"select sha256, other from alias where algo = $1 and sha256 = any($2) order by other", int16(algo), bytesOf(digests))
		out := make([][]byte, len(digests))
		for i, d := range digests {
			out[i] = known[d]
		}
		return out, err
	})
}

// KnownNames implements meta.Files.
func (s *Store) KnownNames(ctx context.Context, names []string) (map[string]bool, error) {
	return ask(ctx, s, func(t *tx) (map[string]bool, error) {
		out := map[string]bool{}
		var wanted [][]byte
		for _, name := range names {
			if out[name] = false; name != "" {
				wanted = append(wanted, []byte(name))
			}
		}
		var name []byte
		err := t.each(ctx, []any{&name}, func() error { out[string(name)] = true; return nil }, `
			select q.name from unnest($1::bytea[]) q (name) where exists (
				select from fact f where f.name = q.name and f.mirror in (select mirror from snapshot group by mirror))`, wanted)
		return out, err
	})
}

// namesLookedAt limits the names that PackagesNamed reads in one call.
const namesLookedAt = 500

// PackagesNamed implements meta.Files.
func (s *Store) PackagesNamed(ctx context.Context, snap *meta.Snapshot, prefix, from string, limit int) (found []meta.Entry, next string, err error) {
	err = s.read(ctx, func(t *tx) error {
		found, next = nil, ""
		mid, err := t.mirrorID(ctx, snap.Mirror)
		if err != nil || mid == 0 {
			return err
		}
		var names []string
		var name []byte
		err = t.each(ctx, []any{&name}, func() error { names = append(names, string(name)); return nil }, `
			with recursive n (name) as (
				(select name from fact where mirror = $1 and name >= $2 and name > '' and ($3::bytea is null or name < $3) order by name limit 1)
				union all
				select (select f.name from fact f where f.mirror = $1 and f.name > n.name and ($3::bytea is null or f.name < $3) order by f.name limit 1) from n where n.name is not null)
			select name from n where name is not null limit $4`, mid, []byte(max(prefix, from)), prefixEnd([]byte(prefix)), namesLookedAt+1)
		if err != nil {
			return err
		}
		if len(names) > namesLookedAt {
			next, names = names[namesLookedAt], names[:namesLookedAt]
		}
		facts, err := t.byNames(ctx, snap.Mirror, names)
		if err != nil {
			return err
		}
		var all []*meta.Fact
		for _, name := range names {
			all = append(all, facts[name]...)
		}
		entries, err := t.present(ctx, snap, all)
		if err != nil {
			return err
		}
		for i, e := range entries {
			if len(found) >= limit && e.Name != entries[i-1].Name {
				next = e.Name
				break
			}
			found = append(found, e)
		}
		return nil
	})
	return found, next, err
}
