package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// Damage implements meta.Health. PostgreSQL checks its pages itself; a query that meets
// damage returns it as an error.
func (s *Store) Damage() error { return nil }

// Verify implements meta.Health. It reads every row, so that PostgreSQL compares its
// pages with their checksums if the cluster has them.
func (s *Store) Verify(ctx context.Context) (faults []meta.Fault, err error) {
	tables, err := ask(ctx, s, func(t *tx) (names []string, err error) {
		_, err = t.one(ctx, []any{&names}, "select array_agg(relname::text order by relname) from pg_class where relnamespace = current_schema()::regnamespace and relkind = 'r'")
		return names, err
	})
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		var n int64
		err := s.read(ctx, func(t *tx) error {
			if _, err := t.exec(ctx, "set local statement_timeout = 0"); err != nil {
				return err
			}
			_, err := t.one(ctx, []any{&n}, "select coalesce(sum(length(x::text)), 0) from "+pgx.Identifier{table}.Sanitize()+" x")
			return err
		})
		switch {
		case errors.Is(err, meta.ErrCorrupt):
			faults = append(faults, meta.Fault{Bucket: table, Err: fmt.Errorf("table %s: %w", table, err)})
		case err != nil:
			return nil, err
		}
	}
	return faults, nil
}

// Usage implements meta.Health.
func (s *Store) Usage(ctx context.Context) (meta.Usage, error) {
	return ask(ctx, s, func(t *tx) (u meta.Usage, err error) {
		_, err = t.one(ctx, []any{&u.File, &u.Used, &u.Data}, `select pg_database_size(current_database()),
			coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint, coalesce(sum(pg_relation_size(c.oid)), 0)::bigint
			from pg_class c where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'`)
		u.Used = min(u.Used, u.File)
		return u, err
	})
}

// maxReports limits the contradictions of one kind that are reported individually.
const maxReports = 100

// Contradictions implements meta.Checker.
func (s *Store) Contradictions(ctx context.Context) ([]string, error) {
	return ask(ctx, s, func(t *tx) (out []string, err error) {
		if _, err := t.exec(ctx, "set local statement_timeout = 0"); err != nil {
			return nil, err
		}
		for _, sql := range []string{
			"select format('span of stanza %s, which has no fact', s.pid) from span s where not exists (select from fact f where f.mirror = s.mirror and f.pid = s.pid)",
			"select format('stanza %s is present nowhere', f.pid) from fact f where not exists (select from span s where s.mirror = f.mirror and s.pid = f.pid)",
			`select format('stanza %s has intervals that overlap', a.pid) from span a join span b on b.mirror = a.mirror and b.pid = a.pid and b.idx = a.idx and b.gfrom > a.gfrom
				and (a.gto is null or b.gfrom < a.gto)`,
			"select format('stanza %s has no bytes', f.pid) from fact f where not exists (select from stanza s where s.mirror = f.mirror and s.block = f.block)",
			`select format('block %s counts %s stanzas, expected %s', s.block, s.live, (select count(*) from fact f where f.mirror = s.mirror and f.block = s.block))
				from stanza s join (select mirror, block, count(*) as n from fact group by mirror, block) c on c.mirror = s.mirror and c.block = s.block where c.n <> s.live`,
			"select format('blob %s has references and no row', encode(r.sha256, 'hex')) from (select sha256 from ref union select sha256 from pfile) r where not exists (select from blob b where b.sha256 = r.sha256)",
			"select format('freeze %s is there and was removed', name) from tombstone where name in (select name from frozen)",
			"select format('channel %s shows freeze %s, which is not there', name, shows) from channel where shows <> '' and shows not in (select name from frozen)",
			"select format('file of stanza %s, which has no fact', p.pid) from pfile p where not exists (select from fact f where f.mirror = p.mirror and f.pid = p.pid)",
			`select format('%s %s of %s refers to generation %s of suite %s, which is not there', chr(r.kind), r.owner, r.suite, r.gen, r.suite) from genref r
				where not exists (select from generation g where g.suite = r.suite and g.gen = r.gen)`,
			`select format('snapshot %s@%s has no reference to generation %s of %s', m.name, s.at, e->>'gen', e->>'suite') from snapshot s join mirror m on m.id = s.mirror, json_array_elements(case when json_typeof(s.doc->'suites') = 'array' then s.doc->'suites' else '[]' end) e
				where not exists (select from genref r join suite u on u.id = r.suite where u.mirror = s.mirror and u.name = e->>'suite' and r.gen = (e->>'gen')::bigint and r.kind = 115)`,
		} {
			found, err := t.strs(ctx, fmt.Sprintf("%s limit %d", sql, maxReports))
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
		return out, t.checkStanzas(ctx, func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) })
	})
}

// checkPage is how many facts checkStanzas reads at once.
const checkPage = 2000

// checkStanzas compares the bytes of stanzas with their digests.
func (t *tx) checkStanzas(ctx context.Context, report func(string, ...any)) error {
	mirrors, err := t.mirrorNames(ctx)
	if err != nil {
		return err
	}
	for mid := range mirrors {
		for after := int64(0); ; {
			facts, err := t.factRows(ctx, "select pid, doc from fact where mirror = $1 and pid > $2 order by pid limit $3", mid, after, checkPage)
			if err != nil {
				return err
			}
			bytes, err := t.stanzas(ctx, pidsOf(facts))
			if err != nil {
				return err
			}
			for _, f := range facts {
				b, ok := bytes[f.PID]
				if sum := cas.Sum(b); ok && [16]byte(sum[:16]) != f.Digest {
					report("stanza of %s %s does not have its digest", f.Name, f.Version)
				}
				after = int64(f.PID)
			}
			if len(facts) < checkPage {
				break
			}
		}
	}
	return nil
}

// promised returns which of the blobs must be stored: those that anything but a package
// refers to, and packages of generations that were complete or frozen whole.
func (t *tx) promised(ctx context.Context, digests [][]byte) (map[cas.Digest]bool, error) {
	frozen, err := t.allFrozen(ctx)
	if err != nil {
		return nil, err
	}
	sids, gens := []int32{}, []int64{}
	for _, f := range frozen {
		for _, m := range f.Mirrors {
			for _, su := range m.Suites {
				if !m.Whole {
					continue
				}
				sid, err := t.suiteID(ctx, m.Mirror, su.Suite)
				if err != nil {
					return nil, err
				}
				sids, gens = append(sids, sid), append(gens, int64(su.Gen))
			}
		}
	}
	out := map[cas.Digest]bool{}
	var sum []byte
	err = t.each(ctx, []any{&sum}, func() error { out[cas.Digest(sum)] = true; return nil }, `
		select distinct sha256 from ref where sha256 = any($1)
		union
		select distinct p.sha256 from pfile p join span s on s.mirror = p.mirror and s.pid = p.pid join idx i on i.id = s.idx where p.sha256 = any($1) and (
			coalesce((select g.complete and g.gen >= s.gfrom from generation g where g.suite = i.suite and (s.gto is null or g.gen < s.gto) order by g.gen desc limit 1), false)
			or exists (select from unnest($2::int[], $3::bigint[]) w (suite, gen) where w.suite = i.suite and s.gfrom <= w.gen and (s.gto is null or w.gen < s.gto)))`,
		digests, sids, gens)
	return out, err
}

// PromisedBlobs implements meta.Checker.
func (s *Store) PromisedBlobs(ctx context.Context, after cas.Digest, limit int) (promised []cas.Digest, next cas.Digest, more bool, err error) {
	err = s.read(ctx, func(t *tx) error {
		promised, next = nil, after
		var page [][]byte
		var sum []byte
		err := t.each(ctx, []any{&sum}, func() error { page = append(page, slices.Clone(sum)); return nil }, "select sha256 from blob where sha256 > $1 order by sha256 limit $2", after[:], limit)
		if err != nil {
			return err
		}
		if more = len(page) == limit; len(page) > 0 {
			next = cas.Digest(page[len(page)-1])
		}
		yes, err := t.promised(ctx, page)
		for _, d := range page {
			if yes[cas.Digest(d)] {
				promised = append(promised, cas.Digest(d))
			}
		}
		return err
	})
	return promised, next, more, err
}

// Promised implements meta.Checker.
func (s *Store) Promised(ctx context.Context, d cas.Digest) (bool, error) {
	return ask(ctx, s, func(t *tx) (bool, error) {
		yes, err := t.promised(ctx, [][]byte{d[:]})
		return yes[d], err
	})
}

// Needed implements meta.Checker.
func (s *Store) Needed(ctx context.Context, d cas.Digest) (bool, error) {
	return ask(ctx, s, func(t *tx) (bool, error) {
		needed, err := t.needed(ctx, [][]byte{d[:]}, nil)
		return needed[d], err
	})
}

// ReferencesInWords implements meta.Checker.
func (s *Store) ReferencesInWords(ctx context.Context, d cas.Digest, limit int) ([]string, error) {
	return ask(ctx, s, func(t *tx) (words []string, err error) {
		refs, err := t.refs(ctx, [][]byte{d[:]}, limit)
		if err != nil {
			return nil, err
		}
		for _, r := range refs[d] {
			text, err := t.describe(ctx, r)
			if err != nil {
				return nil, err
			}
			words = append(words, text)
		}
		return words, nil
	})
}

// ListedAs implements meta.Checker.
func (s *Store) ListedAs(ctx context.Context, d cas.Digest) ([]meta.ListedIn, error) {
	return ask(ctx, s, func(t *tx) (out []meta.ListedIn, err error) {
		all, err := t.listings(ctx, d, nil, nil)
		for _, l := range all {
			out = append(out, l.ListedIn)
		}
		return out, err
	})
}

// AliasesComplete implements meta.Checker. PostgreSQL does not lose rows of one table
// alone.
func (s *Store) AliasesComplete(context.Context) error { return nil }
