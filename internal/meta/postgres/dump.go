package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Dump implements meta.Dumper in one transaction. It reads by cursors, so that f may be
// slow.
func (s *Store) Dump(ctx context.Context, f func(*meta.Row) error) error {
	return mapped(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(begun pgx.Tx) error {
		d := &dump{tx: &tx{begun, s}, ctx: ctx, f: f, suites: map[int32]suiteName{}, indices: map[int32]indexInfo{}, base: map[int32]int64{}}
		if err := d.unlimited(ctx); err != nil {
			return err
		}
		for _, step := range []func() error{
			d.notes, d.names, d.snapshots, d.generations, d.stanzas, d.listings, d.refs, d.freezes, d.recordings, d.access, d.log, d.events,
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	}))
}

// unlimited disables the timeouts of a transaction that reads or writes everything.
func (t *tx) unlimited(ctx context.Context) error {
	for _, limit := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		if _, err := t.exec(ctx, "set local "+limit+" = 0"); err != nil {
			return err
		}
	}
	return nil
}

type suiteName struct {
	mirror meta.MirrorName
	suite  repo.SuiteName
}

// dump is one run of Dump.
type dump struct {
	*tx
	ctx     context.Context
	f       func(*meta.Row) error
	cursors int
	suites  map[int32]suiteName
	indices map[int32]indexInfo
	mirrors []mirrorName    // by number
	base    map[int32]int64 // subtracted from the number of a stanza, by mirror
}

type mirrorName struct {
	id   int32
	name string
}

// fetched is how many rows a cursor reads at once. Blocks of stanzas have 24 kB.
const (
	fetched       = 5000
	fetchedBlocks = 200
)

// rows calls f after each row of a query was scanned into dest.
func (d *dump) rows(n int, dest []any, f func() error, sql string) error {
	d.cursors++
	name := fmt.Sprintf("dump_%d", d.cursors)
	if _, err := d.exec(d.ctx, "declare "+name+" no scroll cursor for "+sql); err != nil {
		return err
	}
	for more := true; more; {
		got := 0
		if err := d.each(d.ctx, dest, func() error { got++; return f() }, fmt.Sprintf("fetch %d from %s", n, name), pgx.QueryExecModeDescribeExec); err != nil {
			return err
		}
		more = got == n
	}
	_, err := d.exec(d.ctx, "close "+name)
	return err
}

// documents dumps a table of documents by name.
func (d *dump) documents(table, column string, row func(name string, doc []byte) *meta.Row) error {
	var name string
	var doc []byte
	return d.rows(fetched, []any{&name, &doc}, func() error { return d.f(row(name, doc)) }, fmt.Sprintf("select %s, doc from %s", column, table))
}

// named returns the row of a document that has a name.
func named(table meta.Table) func(string, []byte) *meta.Row {
	return func(name string, doc []byte) *meta.Row { return &meta.Row{Table: table, Name: name, Doc: doc} }
}

func (d *dump) notes() error {
	var name, value string
	return d.rows(fetched, []any{&name, &value}, func() error {
		if value == "" || !meta.Dumped(name) {
			return nil
		}
		return d.f(&meta.Row{Table: meta.RowNote, Name: name, Doc: []byte(value)})
	}, "select name, value from note")
}

func (d *dump) names() error {
	var m mirrorName
	err := d.rows(fetched, []any{&m.id, &m.name}, func() error {
		d.mirrors = append(d.mirrors, m)
		return d.f(&meta.Row{Table: meta.RowMirror, Mirror: meta.MirrorName(m.name)})
	}, "select id, name from mirror order by id")
	if err != nil {
		return err
	}
	var id int32
	var mirror, suite string
	err = d.rows(fetched, []any{&id, &mirror, &suite}, func() error {
		d.suites[id] = suiteName{meta.MirrorName(mirror), repo.SuiteName(suite)}
		return d.f(&meta.Row{Table: meta.RowSuite, Mirror: meta.MirrorName(mirror), Suite: repo.SuiteName(suite)})
	}, "select s.id, m.name, s.name from suite s join mirror m on m.id = s.mirror order by s.id")
	if err != nil {
		return err
	}
	var sid int32
	var index []byte
	var dirty bool
	return d.rows(fetched, []any{&id, &sid, &index, &dirty}, func() error {
		s := d.suites[sid]
		d.indices[id] = indexInfo{s.mirror, s.suite, sid, string(index)}
		return d.f(&meta.Row{Table: meta.RowIndex, Mirror: s.mirror, Suite: s.suite, Index: string(index), Dirty: dirty})
	}, "select id, suite, name, dirty from idx order by id")
}

func (d *dump) snapshots() error {
	var mirror string
	var at int64
	var doc []byte
	err := d.rows(fetched, []any{&mirror, &at, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowSnapshot, Mirror: meta.MirrorName(mirror), At: at, Doc: doc})
	}, "select m.name, s.at, s.doc from snapshot s join mirror m on m.id = s.mirror")
	if err != nil {
		return err
	}
	err = d.rows(fetched, []any{&mirror, &at}, func() error {
		return d.f(&meta.Row{Table: meta.RowRemoved, Mirror: meta.MirrorName(mirror), At: at})
	}, "select m.name, r.at from removed r join mirror m on m.id = r.mirror")
	if err != nil {
		return err
	}
	return d.documents("mirrorcheck", "mirror", func(name string, doc []byte) *meta.Row {
		return &meta.Row{Table: meta.RowCheck, Mirror: meta.MirrorName(name), Doc: doc}
	})
}

// ofSuite returns a row that belongs to a generation of a suite.
func (d *dump) ofSuite(table meta.Table, sid int32, gen int64) *meta.Row {
	s := d.suites[sid]
	return &meta.Row{Table: table, Mirror: s.mirror, Suite: s.suite, Gen: uint32(gen)}
}

func (d *dump) generations() error {
	var sid int32
	var gen int64
	var doc []byte
	err := d.rows(fetched, []any{&sid, &gen, &doc}, func() error {
		r := d.ofSuite(meta.RowGeneration, sid, gen)
		r.Doc = doc
		return d.f(r)
	}, "select suite, gen, doc from generation")
	if err != nil {
		return err
	}
	var kind int16
	var owner string
	err = d.rows(fetched, []any{&sid, &gen, &kind, &owner}, func() error {
		r := d.ofSuite(meta.RowGenRef, sid, gen)
		r.Kind = byte(kind)
		if r.Kind != meta.OwnerSnapshot {
			r.Name = owner
			return d.f(r)
		}
		mirror, text, _ := strings.Cut(owner, "@")
		at, err := time.Parse(meta.TimestampFormat, text)
		if err != nil || meta.MirrorName(mirror) != r.Mirror {
			return fmt.Errorf("%w: reference of snapshot %q to a generation of mirror %s", meta.ErrCorrupt, owner, r.Mirror)
		}
		r.At = at.Unix()
		return d.f(r)
	}, "select suite, gen, kind, owner from genref")
	if err != nil {
		return err
	}
	return d.rows(fetched, []any{&sid, &gen}, func() error { return d.f(d.ofSuite(meta.RowGenCandidate, sid, gen)) }, "select suite, gen from gencandidate")
}

// stanzas dumps facts, blocks and spans, mirror by mirror.
func (d *dump) stanzas() error {
	for _, m := range d.mirrors {
		var base *int64
		if _, err := d.one(d.ctx, []any{&base}, "select min(block) - 1 from stanza where mirror = $1", m.id); err != nil {
			return err
		}
		if base == nil {
			continue // no stanzas
		}
		d.base[m.id] = *base
		var pid, block int64
		var doc []byte
		err := d.rows(fetched, []any{&pid, &block, &doc}, func() error {
			return d.f(&meta.Row{Table: meta.RowFact, Mirror: meta.MirrorName(m.name), PID: meta.PID(pid - *base), Block: meta.PID(block - *base), Doc: doc})
		}, fmt.Sprintf("select pid, block, doc from fact where mirror = %d order by pid", m.id))
		if err != nil {
			return err
		}
		var live int64
		err = d.rows(fetchedBlocks, []any{&block, &live, &doc}, func() error {
			return d.f(&meta.Row{Table: meta.RowBlock, Mirror: meta.MirrorName(m.name), Block: meta.PID(block - *base), Size: live, Doc: doc})
		}, fmt.Sprintf("select block, live::bigint, bytes from stanza where mirror = %d order by block", m.id))
		if err != nil {
			return err
		}
	}
	for _, m := range d.mirrors {
		if err := d.spans(m); err != nil {
			return err
		}
	}
	return nil
}

// spans dumps the spans of a mirror. It combines the rows of a stanza and an index to
// one.
func (d *dump) spans(m mirrorName) error {
	var row *meta.Row
	var of int32 // the index of row
	put := func() error {
		if row == nil {
			return nil
		}
		return d.f(row)
	}
	var pid, from int64
	var idx int32
	var to *int64
	err := d.rows(fetched, []any{&pid, &idx, &from, &to}, func() error {
		n := meta.PID(pid - d.base[m.id])
		if row == nil || row.PID != n || of != idx {
			if err := put(); err != nil {
				return err
			}
			info, ok := d.indices[idx]
			if !ok || info.mirror != meta.MirrorName(m.name) {
				return fmt.Errorf("%w: stanza %d of mirror %s is in index %d of mirror %q", meta.ErrCorrupt, n, m.name, idx, info.mirror)
			}
			row, of = &meta.Row{Table: meta.RowSpan, Mirror: meta.MirrorName(m.name), Suite: info.suite, Index: info.name, PID: n}, idx
		}
		iv := meta.Interval{From: uint32(from), To: meta.Unended}
		if to != nil {
			iv.To = uint32(*to)
		}
		row.Intervals = append(row.Intervals, iv)
		return nil
	}, fmt.Sprintf("select pid, idx, gfrom, gto from span where mirror = %d order by pid, idx, gfrom", m.id))
	if err != nil {
		return err
	}
	return put()
}

func (d *dump) listings() error {
	var sid int32
	var sum, path []byte
	var size, first int64
	var last *int64
	err := d.rows(fetched, []any{&sid, &sum, &path, &size, &first, &last}, func() error {
		r := d.ofSuite(meta.RowListed, sid, first)
		r.Digest, r.Path, r.Size, r.Last = cas.Digest(sum), string(path), size, meta.Unended
		if last != nil {
			r.Last = uint32(*last)
		}
		return d.f(r)
	}, "select suite, sha256, path, size, first, last from listed")
	if err != nil {
		return err
	}
	var at int64
	err = d.rows(fetched, []any{&sid, &path, &sum, &at}, func() error {
		r := d.ofSuite(meta.RowPath, sid, 0)
		r.Path, r.Digest, r.At = string(path), cas.Digest(sum), at
		return d.f(r)
	}, "select suite, path, sha256, at from lpath")
	if err != nil {
		return err
	}
	var algo int16
	var other []byte
	return d.rows(fetched, []any{&algo, &other, &sum}, func() error {
		return d.f(&meta.Row{Table: meta.RowAlias, Kind: byte(algo), Doc: other, Digest: cas.Digest(sum)})
	}, "select algo, other, sha256 from alias")
}

func (d *dump) refs() error {
	var sum, owner []byte
	var kind int16
	err := d.rows(fetched, []any{&sum, &kind, &owner}, func() error {
		r := &meta.Row{Table: meta.RowRef, Digest: cas.Digest(sum), Kind: byte(kind)}
		if r.Kind == meta.OwnerGen && len(owner) == len(genOwner(0, 0)) {
			sid, gen := ofGenOwner(owner)
			s := d.suites[sid]
			r.Mirror, r.Suite, r.Gen = s.mirror, s.suite, gen
		} else {
			r.Name = string(owner)
		}
		return d.f(r)
	}, "select sha256, kind, owner from ref")
	if err != nil {
		return err
	}
	var since *int64
	err = d.rows(fetched, []any{&sum, &since}, func() error {
		r := &meta.Row{Table: meta.RowCandidate, Digest: cas.Digest(sum)}
		if since != nil {
			r.At = *since
		}
		return d.f(r)
	}, "select sha256, since from blob where state > 0")
	if err != nil {
		return err
	}
	var doc []byte
	return d.rows(fetched, []any{&sum, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowCorrupt, Digest: cas.Digest(sum), Doc: doc})
	}, "select sha256, doc from corrupt")
}

func (d *dump) freezes() error {
	for _, step := range []func() error{
		func() error { return d.documents("frozen", "name", named(meta.RowFreeze)) },
		func() error { return d.documents("tombstone", "name", named(meta.RowTombstone)) },
		func() error {
			return d.documents("kit", "path", func(path string, doc []byte) *meta.Row { return &meta.Row{Table: meta.RowKit, Path: path, Doc: doc} })
		},
		func() error { return d.documents("channel", "name", named(meta.RowChannel)) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	var name, variant string
	var path, sum, doc []byte
	var size, mtime, at int64
	err := d.rows(fetched, []any{&name, &path, &sum, &size, &mtime}, func() error {
		return d.f(&meta.Row{Table: meta.RowNode, Name: name, Path: string(path), Digest: cas.Digest(sum), Size: size, At: mtime})
	}, "select name, path, sha256, size, mtime from ftree")
	if err != nil {
		return err
	}
	err = d.rows(fetched, []any{&name, &variant, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowImage, Name: name, Path: variant, Doc: doc})
	}, "select name, variant, doc from image")
	if err != nil {
		return err
	}
	return d.rows(fetched, []any{&name, &at, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowMove, Name: name, At: at, Doc: doc})
	}, "select channel, at, doc from channel_move")
}

func (d *dump) recordings() error {
	if err := d.documents("recording", "name", named(meta.RowRecording)); err != nil {
		return err
	}
	var name, mirror string
	var path, sum, doc []byte
	return d.rows(fetched, []any{&name, &mirror, &path, &sum, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowFetch, Name: name, Mirror: meta.MirrorName(mirror), Path: string(path), Digest: cas.Digest(sum), Doc: doc})
	}, "select name, mirror, path, sha256, doc from rentry")
}

func (d *dump) access() error {
	if err := d.documents("token", "name", named(meta.RowToken)); err != nil {
		return err
	}
	var n int64
	var doc []byte
	return d.rows(fetched, []any{&n, &doc}, func() error { return d.f(&meta.Row{Table: meta.RowAudit, At: n, Doc: doc}) }, "select n, doc from audit")
}

func (d *dump) log() error {
	var name, doc []byte
	if err := d.rows(1, []any{&doc}, func() error { return d.f(&meta.Row{Table: meta.RowLogHead, Doc: doc}) }, "select doc from log_head"); err != nil {
		return err
	}
	var level, n int64
	err := d.rows(fetchedBlocks, []any{&level, &n, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowLogTile, Size: level, At: n, Doc: doc})
	}, "select level::bigint, n, data from log_tile")
	if err != nil {
		return err
	}
	err = d.rows(fetched, []any{&name, &n}, func() error { return d.f(&meta.Row{Table: meta.RowLogName, Name: string(name), At: n}) }, "select name, entry from log_name")
	if err != nil {
		return err
	}
	return d.rows(fetched, []any{&name, &doc}, func() error {
		return d.f(&meta.Row{Table: meta.RowLogPending, Name: string(name), Doc: doc})
	}, "select name, doc from log_pending")
}

func (d *dump) events() error {
	var n int64
	var doc []byte
	err := d.rows(fetched, []any{&n, &doc}, func() error { return d.f(&meta.Row{Table: meta.RowEvent, At: n, Doc: doc}) }, "select n, doc from event")
	if err != nil {
		return err
	}
	var last *int64
	if _, err := d.one(d.ctx, []any{&last}, "select pg_sequence_last_value(pg_get_serial_sequence('event', 'n')::regclass)"); err != nil {
		return err
	}
	if last != nil {
		if err := d.f(&meta.Row{Table: meta.RowEventNumber, At: *last}); err != nil {
			return err
		}
	}
	var name string
	var pending bool
	return d.rows(fetched, []any{&name, &n, &pending, &doc}, func() error {
		r := &meta.Row{Table: meta.RowDelivery, Name: name, At: n, Doc: doc}
		if pending {
			r.Kind = 1
		}
		return d.f(r)
	}, "select webhook, n, pending, doc from delivery")
}
