package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// loaded are the tables that Load fills, directly or with rows that follow from others.
// Some notes are kept.
var loaded = []string{
	"mirror", "suite", "idx", "snapshot", "removed", "mirrorcheck", "generation", "genref", "gencandidate", "fact", "pfile", "span", "stanza",
	"ref", "blob", "listed", "lpath", "alias", "frozen", "tombstone", "ftree", "image", "kit", "recording", "rentry", "corrupt", "channel", "channel_move",
	"token", "audit", "log_head", "log_tile", "log_name", "log_pending",
	"event", "delivery",
}

// Load implements meta.Loader in one transaction.
func (s *Store) Load(ctx context.Context, from meta.Dumper) error {
	return s.write(ctx, "load", func(t *tx) error {
		if err := t.unlimited(ctx); err != nil {
			return err
		}
		if err := t.clearDumped(ctx); err != nil {
			return err
		}
		l := &loader{tx: t, ctx: ctx, mirrors: map[meta.MirrorName]*loadedMirror{}, suites: map[suiteName]int32{}, indices: map[loadedIndex]int32{}, waiting: map[string]*waiting{}}
		if err := from.Dump(ctx, l.add); err != nil {
			return err
		}
		return l.finish()
	})
}

// clearDumped removes everything that a dump lists.
func (t *tx) clearDumped(ctx context.Context) error {
	if _, err := t.exec(ctx, "truncate "+strings.Join(loaded, ", ")+" restart identity"); err != nil {
		return err
	}
	t.s.indices.Clear()
	names, err := t.strs(ctx, "select name from note")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !meta.Dumped(name) {
			continue
		}
		if _, err := t.exec(ctx, "delete from note where name = $1", name); err != nil {
			return err
		}
	}
	return nil
}

// loader is one attempt of Load.
type loader struct {
	*tx
	ctx     context.Context
	mirrors map[meta.MirrorName]*loadedMirror
	suites  map[suiteName]int32
	indices map[loadedIndex]int32
	waiting map[string]*waiting // by table
	order   []string            // tables in the order of their first row
	rows    int
	size    int
}

type loadedMirror struct {
	id  int32
	end int64 // the highest number of a stanza
}

type loadedIndex struct {
	suiteName
	index string
}

// waiting are rows that are copied together.
type waiting struct {
	columns []string
	rows    [][]any
}

// Limits of the rows that wait to be copied.
const (
	loadRows  = 20_000
	loadBytes = 16 << 20
)

// insert adds a row to a table.
func (l *loader) insert(table, columns string, values ...any) {
	w := l.waiting[table]
	if w == nil {
		w = &waiting{columns: strings.Fields(columns)}
		l.waiting[table] = w
		l.order = append(l.order, table)
	}
	w.rows = append(w.rows, values)
	l.rows++
}

func (l *loader) flush() error {
	for _, table := range l.order {
		w := l.waiting[table]
		if len(w.rows) == 0 {
			continue
		}
		if _, err := l.CopyFrom(l.ctx, pgx.Identifier{table}, w.columns, pgx.CopyFromRows(w.rows)); err != nil {
			return fmt.Errorf("load table %s: %w", table, err)
		}
		w.rows = w.rows[:0]
	}
	l.rows, l.size = 0, 0
	return nil
}

// add adds one row of a dump.
func (l *loader) add(r *meta.Row) error {
	c := *r
	c.Doc = bytes.Clone(r.Doc)
	if err := l.put(&c); err != nil {
		return fmt.Errorf("load %v: %w", r.Table, err)
	}
	if l.size += len(c.Doc) + 200; l.rows >= loadRows || l.size >= loadBytes {
		return l.flush()
	}
	return nil
}

// mirror returns the number of a mirror, and makes one if it has none.
func (l *loader) mirror(name string) (*loadedMirror, error) {
	m := l.mirrors[meta.MirrorName(name)]
	if m != nil {
		return m, nil
	}
	id, err := l.makeMirror(l.ctx, meta.MirrorName(name))
	if err != nil {
		return nil, err
	}
	m = &loadedMirror{id: id}
	l.mirrors[meta.MirrorName(name)] = m
	return m, nil
}

// suite returns the number of a suite, and makes one if it has none.
func (l *loader) suite(mirror meta.MirrorName, suite repo.SuiteName) (int32, error) {
	k := suiteName{mirror, suite}
	if id, ok := l.suites[k]; ok {
		return id, nil
	}
	id, err := l.makeSuite(l.ctx, mirror, suite)
	if err == nil {
		l.suites[k] = id
	}
	return id, err
}

// index returns the number of an index, and makes one if it has none.
func (l *loader) index(r *meta.Row) (int32, error) {
	k := loadedIndex{suiteName{r.Mirror, r.Suite}, r.Index}
	if id, ok := l.indices[k]; ok {
		return id, nil
	}
	sid, err := l.suite(r.Mirror, r.Suite)
	if err != nil {
		return 0, err
	}
	var id int32
	if _, err := l.one(l.ctx, []any{&id}, "insert into idx (suite, name, dirty) values ($1, $2, $3) returning id", sid, []byte(r.Index), r.Dirty); err != nil {
		return 0, err
	}
	l.indices[k] = id
	return id, nil
}

// put adds one row, with the rows that follow from it. Long because of its list of
// tables.
func (l *loader) put(r *meta.Row) error {
	named := func(table string) error { l.insert(table, "name doc", r.Name, r.Doc); return nil }
	switch r.Table {
	case meta.RowNote:
		l.insert("note", "name value", r.Name, string(r.Doc))
	case meta.RowMirror:
		_, err := l.mirror(string(r.Mirror))
		return err
	case meta.RowSuite:
		_, err := l.suite(r.Mirror, r.Suite)
		return err
	case meta.RowIndex:
		_, err := l.index(r)
		return err
	case meta.RowCheck:
		l.insert("mirrorcheck", "mirror doc", r.Mirror, r.Doc)
	case meta.RowSnapshot, meta.RowRemoved, meta.RowFact, meta.RowBlock, meta.RowSpan:
		return l.putOfMirror(r)
	case meta.RowGeneration, meta.RowGenRef, meta.RowGenCandidate, meta.RowListed, meta.RowPath:
		return l.putOfSuite(r)
	case meta.RowRef:
		owner := []byte(r.Name)
		if r.Kind == meta.OwnerGen {
			sid, err := l.suite(r.Mirror, r.Suite)
			if err != nil {
				return err
			}
			owner = genOwner(sid, r.Gen)
		}
		l.insert("ref", "sha256 kind owner", r.Digest[:], int16(r.Kind), owner)
	case meta.RowCandidate:
		l.insert("blob", "sha256 state since", r.Digest[:], int16(blobCandidate), nullable(r.At, 0))
	case meta.RowAlias:
		l.insert("alias", "algo other sha256", int16(r.Kind), r.Doc, r.Digest[:])
	case meta.RowFreeze:
		return named("frozen")
	case meta.RowTombstone:
		return named("tombstone")
	case meta.RowNode:
		l.insert("ftree", "name path sha256 size mtime", r.Name, []byte(r.Path), r.Digest[:], r.Size, r.At)
	case meta.RowImage:
		l.insert("image", "name variant doc", r.Name, r.Path, r.Doc)
	case meta.RowKit:
		l.insert("kit", "path doc", r.Path, r.Doc)
	case meta.RowRecording:
		return named("recording")
	case meta.RowFetch:
		l.insert("rentry", "name mirror path sha256 doc", r.Name, r.Mirror, []byte(r.Path), r.Digest[:], r.Doc)
	case meta.RowCorrupt:
		l.insert("corrupt", "sha256 doc", r.Digest[:], r.Doc)
	case meta.RowChannel:
		var c meta.Channel
		if err := undoc(r.Doc, &c); err != nil {
			return err
		}
		l.insert("channel", "name shows doc", r.Name, c.Freeze, r.Doc)
	case meta.RowMove:
		l.insert("channel_move", "channel at doc", r.Name, r.At, r.Doc)
	case meta.RowToken:
		var t meta.Token
		if err := undoc(r.Doc, &t); err != nil {
			return err
		}
		l.insert("token", "name hash doc", r.Name, t.Hash[:], r.Doc)
	case meta.RowAudit:
		var e meta.AuditEntry
		if err := undoc(r.Doc, &e); err != nil {
			return err
		}
		l.insert("audit", "n at id doc", r.At, e.Time, e.ID, r.Doc)
	case meta.RowLogHead:
		l.insert("log_head", "doc", r.Doc)
	case meta.RowLogTile:
		l.insert("log_tile", "level n data", int32(r.Size), r.At, r.Doc)
	case meta.RowLogName:
		l.insert("log_name", "name entry", []byte(r.Name), r.At)
	case meta.RowLogPending:
		l.insert("log_pending", "name doc", []byte(r.Name), r.Doc)
	case meta.RowEvent:
		var e meta.Event
		if err := undoc(r.Doc, &e); err != nil {
			return err
		}
		l.insert("event", "n at id doc", r.At, e.Time, e.ID, r.Doc)
	case meta.RowEventNumber:
		_, err := l.exec(l.ctx, "select setval(pg_get_serial_sequence('event', 'n')::regclass, $1)", r.At)
		return err
	case meta.RowDelivery:
		var d meta.Delivery
		if err := undoc(r.Doc, &d); err != nil {
			return err
		}
		var next *time.Time
		if r.Kind == 1 {
			next = &d.Next
		}
		l.insert("delivery", "webhook n pending next doc", r.Name, r.At, r.Kind == 1, next, r.Doc)
	default:
		return fmt.Errorf("unknown %v", r.Table)
	}
	return nil
}

// nullable returns nil if n is the number that represents null.
func nullable(n, null int64) *int64 {
	if n == null {
		return nil
	}
	return &n
}

// putOfMirror adds a row that belongs to a mirror.
func (l *loader) putOfMirror(r *meta.Row) error {
	m, err := l.mirror(string(r.Mirror))
	if err != nil {
		return err
	}
	base := int64(m.id) << pidBits
	switch r.Table {
	case meta.RowSnapshot:
		l.insert("snapshot", "mirror at doc", m.id, r.At, r.Doc)
	case meta.RowRemoved:
		l.insert("removed", "mirror at", m.id, r.At)
	case meta.RowFact:
		pid := base | int64(r.PID)
		f, err := compact.DecodeFact(meta.PID(pid), r.Doc)
		if err != nil {
			return err
		}
		l.insert("fact", "mirror pid name digest block doc source", m.id, pid, []byte(compact.NameOf(&f.Record)), f.Digest[:], base|int64(r.Block), r.Doc, []byte(compact.SourceOf(&f.Record)))
		for nth, file := range f.Files {
			l.insert("pfile", "mirror path pid nth sha256", m.id, []byte(file.Path), pid, int32(nth), file.SHA256[:])
		}
	case meta.RowBlock:
		m.end = max(m.end, int64(r.Block)+int64(compact.BlockLen(r.Doc))-1)
		l.insert("stanza", "mirror block live bytes", m.id, base|int64(r.Block), int32(r.Size), r.Doc)
	case meta.RowSpan:
		idx, err := l.index(r)
		if err != nil {
			return err
		}
		for _, iv := range r.Intervals {
			l.insert("span", "mirror pid idx gfrom gto", m.id, base|int64(r.PID), idx, int64(iv.From), nullable(int64(iv.To), int64(meta.Unended)))
		}
	}
	return nil
}

// putOfSuite adds a row that belongs to a suite.
func (l *loader) putOfSuite(r *meta.Row) error {
	sid, err := l.suite(r.Mirror, r.Suite)
	if err != nil {
		return err
	}
	switch r.Table {
	case meta.RowGeneration:
		var g meta.Generation
		if err := json.Unmarshal(r.Doc, &g); err != nil {
			return fmt.Errorf("%w: generation %d of %s %s: %w", meta.ErrCorrupt, r.Gen, r.Mirror, r.Suite, err)
		}
		l.insert("generation", "suite gen complete doc", sid, int64(r.Gen), g.Complete, r.Doc)
	case meta.RowGenRef:
		owner := r.Name
		if r.Kind == meta.OwnerSnapshot {
			owner = (&meta.Snapshot{Mirror: r.Mirror, Timestamp: time.Unix(r.At, 0)}).ID()
		}
		l.insert("genref", "suite gen kind owner", sid, int64(r.Gen), int16(r.Kind), owner)
	case meta.RowGenCandidate:
		l.insert("gencandidate", "suite gen", sid, int64(r.Gen))
	case meta.RowListed:
		l.insert("listed", "suite sha256 path size first last", sid, r.Digest[:], []byte(r.Path), r.Size, int64(r.Gen), nullable(int64(r.Last), int64(meta.Unended)))
	case meta.RowPath:
		l.insert("lpath", "suite path sha256 at", sid, []byte(r.Path), r.Digest[:], r.At)
	}
	return nil
}

// finish adds the rows that follow from all rows together.
func (l *loader) finish() error {
	if err := l.flush(); err != nil {
		return err
	}
	for _, m := range l.mirrors {
		if _, err := l.exec(l.ctx, "update mirror set next_pid = $2 where id = $1", m.id, m.end+1); err != nil {
			return err
		}
	}
	if _, err := l.exec(l.ctx, "insert into blob (sha256) select sha256 from ref union select sha256 from pfile order by 1 on conflict do nothing"); err != nil {
		return err
	}
	// Without statistics, the first queries would read whole tables.
	_, err := l.exec(l.ctx, "analyze "+strings.Join(loaded, ", "))
	return err
}
