package postgres

import (
	"context"
	"errors"
	"fmt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// Rebuild implements meta.Checker. It adds missing references and rows that follow from
// documents, for example after a part of the tables was restored.
func (s *Store) Rebuild(ctx context.Context, r meta.Repairs) (changed, failed []string, err error) {
	for _, step := range []struct {
		name string
		run  func(*tx, context.Context, meta.Repairs) (int64, error)
	}{
		{"ftree", (*tx).rebuildTrees},
		{"genref", (*tx).rebuildGenRefs},
		{"ref", (*tx).rebuildRefs},
		{"alias", (*tx).rebuildAliases},
	} {
		var n int64
		err := s.write(ctx, "rebuild "+step.name, func(t *tx) (err error) {
			n, err = step.run(t, ctx, r)
			return err
		})
		switch {
		case errors.Is(err, meta.ErrCorrupt):
			failed = append(failed, fmt.Sprintf("metadata %s: %v", step.name, err))
		case err != nil:
			return changed, failed, err
		case n > 0:
			changed = append(changed, fmt.Sprintf("metadata %s: %d entries", step.name, n))
		}
	}
	return changed, failed, nil
}

// rebuildTrees adds the files of frozen trees that their listings name.
func (t *tx) rebuildTrees(ctx context.Context, r meta.Repairs) (n int64, err error) {
	all, err := t.allFrozen(ctx)
	if err != nil || r.Tree == nil {
		return 0, err
	}
	for _, f := range all {
		if f.Tree.SHA256.IsZero() {
			continue
		}
		_, nodes, err := r.Tree(ctx, f.Tree.SHA256)
		if err != nil {
			return 0, fmt.Errorf("%w: tree listing of %s: %w", meta.ErrCorrupt, f.Name, err)
		}
		for _, st := range f.Statements {
			nodes = append(nodes, f.StatementNode(st))
		}
		var have int64
		if _, err := t.one(ctx, []any{&have}, "select count(*) from ftree where name = $1", f.Name); err != nil {
			return 0, err
		}
		if have >= int64(len(nodes)) {
			continue
		}
		if err := t.putNodes(ctx, f.Name, nodes); err != nil {
			return 0, err
		}
		n += int64(len(nodes)) - have
	}
	return n, nil
}

// rebuildGenRefs adds the references to generations from everything that refers to them.
func (t *tx) rebuildGenRefs(ctx context.Context, _ meta.Repairs) (n int64, err error) {
	add := func(mirror meta.MirrorName, suites []meta.SnapshotSuite, kind byte, owner string) error {
		for _, e := range suites {
			sid, err := t.suiteID(ctx, mirror, e.Suite)
			if err != nil {
				return err
			}
			added, err := t.exec(ctx, `insert into genref (suite, gen, kind, owner) select g.suite, g.gen, $3::smallint, $4::text from generation g
				where g.suite = $1 and g.gen = $2 on conflict do nothing`, sid, int64(e.Gen), int16(kind), owner)
			if err != nil {
				return err
			}
			n += added
		}
		return nil
	}
	snaps, err := docs[meta.Snapshot](ctx, t, "select doc from snapshot")
	if err != nil {
		return 0, err
	}
	for _, s := range snaps {
		if err := add(s.Mirror, s.Suites, meta.OwnerSnapshot, s.ID()); err != nil {
			return 0, err
		}
	}
	users, err := t.users(ctx)
	if err != nil {
		return 0, err
	}
	for _, f := range users.Freezes {
		for i := range f.Mirrors {
			for _, state := range f.Mirrors[i].States() {
				if err := add(state.Mirror, state.Suites, meta.OwnerFrozen, string(f.Name)); err != nil {
					return 0, err
				}
			}
		}
	}
	for _, rec := range users.Recordings {
		for _, p := range rec.Pins {
			for _, s := range snaps {
				if s.Mirror != p.Mirror || !s.Timestamp.Equal(p.Timestamp) {
					continue
				}
				if err := add(s.Mirror, s.Suites, meta.OwnerRecording, rec.Name); err != nil {
					return 0, err
				}
			}
		}
	}
	return n, nil
}

// rebuildRefs adds the references to blobs from everything that refers to them.
func (t *tx) rebuildRefs(ctx context.Context, _ meta.Repairs) (n int64, err error) {
	add := func(sql string, args ...any) error {
		added, err := t.exec(ctx, "insert into ref (sha256, kind, owner) "+sql+" on conflict do nothing", args...)
		n += added
		return err
	}
	list := func(blobs []cas.Digest, kind byte, owner []byte) error {
		return add("select distinct d, $2::smallint, $3::bytea from unnest($1::bytea[]) d", bytesOf(blobs), int16(kind), owner)
	}
	var sid int32
	var data []byte
	type generation struct {
		sid int32
		g   meta.Generation
	}
	var gens []generation
	err = t.each(ctx, []any{&sid, &data}, func() error {
		g := generation{sid: sid}
		err := undoc(data, &g.g)
		gens = append(gens, g)
		return err
	}, "select suite, doc from generation")
	if err != nil {
		return 0, err
	}
	for i := range gens {
		if err := list(gens[i].g.Blobs(), meta.OwnerGen, genOwner(gens[i].sid, gens[i].g.Gen)); err != nil {
			return 0, err
		}
	}
	frozen, err := t.allFrozen(ctx)
	if err != nil {
		return 0, err
	}
	for _, f := range frozen {
		if err := list(f.Blobs(), meta.OwnerFrozen, []byte(f.Name)); err != nil {
			return 0, err
		}
	}
	images, err := t.images(ctx, "")
	if err != nil {
		return 0, err
	}
	for _, im := range images {
		if err := list([]cas.Digest{im.SHA256}, meta.OwnerImage, []byte(im.Name)); err != nil {
			return 0, err
		}
	}
	kits, err := docs[meta.Kit](ctx, t, "select doc from kit")
	if err != nil {
		return 0, err
	}
	for _, k := range kits {
		if err := list([]cas.Digest{k.Digest}, meta.OwnerKit, []byte(k.Path)); err != nil {
			return 0, err
		}
	}
	channels, err := docs[meta.Channel](ctx, t, "select doc from channel")
	if err != nil {
		return 0, err
	}
	for _, c := range channels {
		if err := list(c.Blobs(), meta.OwnerChannel, []byte(c.Name)); err != nil {
			return 0, err
		}
	}
	for _, q := range []struct {
		sql  string
		kind byte
	}{
		{"select distinct sha256, $1::smallint, convert_to(name, 'UTF8') from ftree", meta.OwnerFrozen},
		{"select distinct sha256, $1::smallint, convert_to(name, 'UTF8') from rentry", meta.OwnerRecording},
	} {
		if err := add(q.sql, int16(q.kind)); err != nil {
			return 0, err
		}
	}
	rows, err := t.exec(ctx, "insert into blob (sha256) select sha256 from ref union select sha256 from pfile order by 1 on conflict do nothing")
	return n + rows, err
}

// rebuildAliases adds the aliases of the stored blobs.
func (t *tx) rebuildAliases(ctx context.Context, r meta.Repairs) (n int64, err error) {
	for _, a := range r.Aliases {
		added, err := t.exec(ctx, "insert into alias (algo, other, sha256) values ($1, $2, $3) on conflict do nothing", int16(a.Algo), a.Other, a.SHA256[:])
		if err != nil {
			return 0, err
		}
		n += added
	}
	return n, nil
}
