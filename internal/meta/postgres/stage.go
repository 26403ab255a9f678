package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// Limits of one staging transaction.
const (
	stageRecords = 4096
	stageBytes   = 8 << 20
)

// Stage is a meta.Stage. Rows are copied in batches.
type Stage struct {
	s      *Store
	mirror meta.MirrorName
	suite  repo.SuiteName
	mid    int32
	sid    int32
	gen    int64

	index   int32
	live    []liveStanza // by digest
	seen    []bool
	fresh   map[[16]byte]bool
	batch   []staged
	size    int
	count   int
	changed int
	zw      *compact.Encoder
}

type liveStanza struct {
	digest [16]byte
	pid    meta.PID
}

type staged struct {
	rec    repo.Record
	digest [16]byte
	doc    []byte
	pid    meta.PID
	block  meta.PID // of a new stanza; 0 if the stanza is known
}

// NewStage implements meta.Writer.
func (s *Store) NewStage(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (meta.Stage, error) {
	st := &Stage{s: s, mirror: mirror, suite: suite}
	err := s.write(ctx, "stage begin", func(t *tx) (err error) {
		if st.sid, err = t.makeSuite(ctx, mirror, suite); err != nil {
			return err
		}
		if st.mid, err = t.mirrorID(ctx, mirror); err != nil {
			return err
		}
		st.gen = 1
		last, err := t.lastGeneration(ctx, mirror, suite)
		if err == nil {
			st.gen = int64(last.Gen) + 1
		} else if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if st.zw, err = compact.NewEncoder(); err != nil {
		return nil, err
	}
	return st, nil
}

// Gen implements meta.Stage.
func (st *Stage) Gen() uint32 { return uint32(st.gen) }

// Dirty implements meta.Stage.
func (st *Stage) Dirty(ctx context.Context, index string) (bool, error) {
	return ask(ctx, st.s, func(t *tx) (dirty bool, err error) {
		_, err = t.one(ctx, []any{&dirty}, "select dirty from idx where suite = $1 and name = $2", st.sid, []byte(index))
		return dirty, err
	})
}

// Indices implements meta.Stage.
func (st *Stage) Indices(ctx context.Context) ([]string, error) {
	return ask(ctx, st.s, func(t *tx) (out []string, err error) {
		var name []byte
		err = t.each(ctx, []any{&name}, func() error { out = append(out, string(name)); return nil }, `
			select name from idx where suite = $1 and exists (select from span where span.mirror = $2 and span.idx = idx.id and gto is null) order by name`, st.sid, st.mid)
		return out, err
	})
}

// Begin implements meta.Stage.
func (st *Stage) Begin(ctx context.Context, index string) error {
	st.fresh = map[[16]byte]bool{}
	st.batch, st.size, st.count, st.changed = nil, 0, 0, 0
	err := st.s.write(ctx, "stage index", func(t *tx) error {
		_, err := t.one(ctx, []any{&st.index}, `insert into idx (suite, name, dirty) values ($1, $2, true)
			on conflict (suite, name) do update set dirty = true returning id`, st.sid, []byte(index))
		if err != nil {
			return err
		}
		st.live = nil
		var digest []byte
		var pid int64
		return t.each(ctx, []any{&digest, &pid}, func() error {
			st.live = append(st.live, liveStanza{[16]byte(digest), meta.PID(pid)})
			return nil
		}, `select f.digest, f.pid from span s join fact f on f.mirror = s.mirror and f.pid = s.pid
			where s.mirror = $1 and s.idx = $2 and s.gto is null order by f.digest`, st.mid, st.index)
	})
	st.seen = make([]bool, len(st.live))
	return err
}

// Add implements meta.Stage.
func (st *Stage) Add(ctx context.Context, rec *repo.Record) error {
	sum := sha256.Sum256(rec.Bytes)
	d := [16]byte(sum[:16])
	st.count++
	if i, ok := slices.BinarySearchFunc(st.live, d, func(a liveStanza, b [16]byte) int { return bytes.Compare(a.digest[:], b[:]) }); ok {
		st.seen[i] = true
		return nil
	}
	if st.fresh[d] {
		return nil // the same stanza twice
	}
	doc, err := compact.Fact(rec, d)
	if err != nil {
		return err
	}
	st.fresh[d] = true
	st.changed++
	r := repo.Record{Kind: rec.Kind, Name: rec.Name, Sources: slices.Clone(rec.Sources), Files: slices.Clone(rec.Files), Bytes: bytes.Clone(rec.Bytes)}
	st.batch = append(st.batch, staged{rec: r, digest: d, doc: doc})
	if st.size += len(r.Bytes) + 300; len(st.batch) >= stageRecords || st.size >= stageBytes {
		return st.flush(ctx)
	}
	return nil
}

// End implements meta.Stage.
func (st *Stage) End(ctx context.Context) (records, changed int, err error) {
	if err := st.flush(ctx); err != nil {
		return 0, 0, err
	}
	var gone []meta.PID
	for i, seen := range st.seen {
		if !seen {
			gone = append(gone, st.live[i].pid)
		}
	}
	st.changed += len(gone)
	for part := range slices.Chunk(gone, stageRecords) {
		if err := st.s.write(ctx, "stage end", func(t *tx) error { return st.close(ctx, t, part) }); err != nil {
			return 0, 0, err
		}
	}
	return st.count, st.changed, nil
}

// lockMirror prevents stagings and collections of a mirror from running at the same time,
// until the transaction ends: a stanza that is staged again must not be deleted.
func (t *tx) lockMirror(ctx context.Context, mid int32) error {
	_, err := t.exec(ctx, "select 1 from mirror where id = $1 for update", mid)
	return err
}

// close ends the presence of live stanzas at this generation.
func (st *Stage) close(ctx context.Context, t *tx, pids []meta.PID) error {
	if err := t.lockMirror(ctx, st.mid); err != nil {
		return err
	}
	_, numbers := pidArrays(pids)
	// Staged for this generation by an attempt that was interrupted.
	n, err := t.exec(ctx, "delete from span where mirror = $1 and idx = $2 and pid = any($3) and gto is null and gfrom >= $4", st.mid, st.index, numbers, st.gen)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "update span set gto = $4 where mirror = $1 and idx = $2 and pid = any($3) and gto is null", st.mid, st.index, numbers, st.gen); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	return t.deleteAbsent(ctx, pids)
}

// deleteAbsent deletes the stanzas that are no longer present anywhere. The blobs of
// their files become candidates.
func (t *tx) deleteAbsent(ctx context.Context, pids []meta.PID) error {
	mirrors, numbers := pidArrays(pids)
	var dead []int64
	var mirror int32
	var pid, block int64
	type key struct {
		mirror int32
		block  int64
	}
	blocks := map[key]int{}
	err := t.each(ctx, []any{&mirror, &pid, &block}, func() error {
		dead = append(dead, pid)
		blocks[key{mirror, block}]++
		return nil
	}, `delete from fact f where mirror = any($1) and pid = any($2) and not exists (select from span s where s.mirror = f.mirror and s.pid = f.pid)
		returning mirror, pid, block`, mirrors, numbers)
	if err != nil || len(dead) == 0 {
		return err
	}
	var sums [][]byte
	var sum []byte
	err = t.each(ctx, []any{&sum}, func() error { sums = append(sums, bytes.Clone(sum)); return nil },
		"delete from pfile where mirror = any($1) and pid = any($2) returning sha256", mirrors, dead)
	if err != nil {
		return err
	}
	if err := t.suspect(ctx, sums); err != nil {
		return err
	}
	for k, n := range blocks {
		if _, err := t.exec(ctx, "update stanza set live = live - $3 where mirror = $1 and block = $2", k.mirror, k.block, n); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "delete from stanza where mirror = $1 and block = $2 and live <= 0", k.mirror, k.block); err != nil {
			return err
		}
	}
	return nil
}

func (st *Stage) flush(ctx context.Context) error {
	if len(st.batch) == 0 {
		return nil
	}
	err := st.s.write(ctx, "stage batch", func(t *tx) error {
		if err := t.lockMirror(ctx, st.mid); err != nil {
			return err
		}
		known, err := st.find(ctx, t)
		if err != nil {
			return err
		}
		if err := st.copyNew(ctx, t); err != nil {
			return err
		}
		return st.open(ctx, t, known)
	})
	st.batch, st.size = st.batch[:0], 0
	return err
}

// find looks for the stanzas of the batch among those that the mirror has or had. A
// stanza that returns, or that is in two indices, keeps its number.
func (st *Stage) find(ctx context.Context, t *tx) (known []int64, err error) {
	names, digests := make([][]byte, len(st.batch)), make([][]byte, len(st.batch))
	at := make(map[[16]byte]*staged, len(st.batch))
	for i := range st.batch {
		r := &st.batch[i]
		r.pid, r.block = 0, 0
		names[i], digests[i] = []byte(compact.NameOf(&r.rec)), r.digest[:]
		at[r.digest] = r
	}
	var digest []byte
	var pid int64
	err = t.each(ctx, []any{&digest, &pid}, func() error {
		at[[16]byte(digest)].pid = meta.PID(pid)
		known = append(known, pid)
		return nil
	}, `select f.digest, f.pid from unnest($2::bytea[], $3::bytea[]) q (name, digest) join fact f on f.mirror = $1 and f.name = q.name and f.digest = q.digest`,
		st.mid, names, digests)
	return known, err
}

// copyNew numbers the new stanzas of the batch, and copies their rows.
func (st *Stage) copyNew(ctx context.Context, t *tx) error {
	var fresh []*staged
	for i := range st.batch {
		if r := &st.batch[i]; r.pid == 0 {
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	var first int64
	if _, err := t.one(ctx, []any{&first}, "update mirror set next_pid = next_pid + $2 where id = $1 returning next_pid - $2", st.mid, len(fresh)); err != nil {
		return err
	}
	var facts, files, stanzas, spans [][]any
	var sums, block [][]byte
	var begin meta.PID
	size := 0
	put := func() {
		if len(block) > 0 {
			stanzas = append(stanzas, []any{st.mid, int64(begin), int32(len(block)), st.zw.Block(block)})
			block, size = nil, 0
		}
	}
	for i, r := range fresh {
		r.pid = meta.PID(int64(st.mid)<<pidBits | (first + int64(i)))
		if len(block) == 0 {
			begin = r.pid
		}
		block = append(block, r.rec.Bytes)
		size += len(r.rec.Bytes)
		facts = append(facts, []any{st.mid, int64(r.pid), []byte(compact.NameOf(&r.rec)), r.digest[:], int64(begin), r.doc, []byte(compact.SourceOf(&r.rec))})
		for nth, f := range r.rec.Files {
			files = append(files, []any{st.mid, []byte(f.Path), int64(r.pid), int32(nth), f.SHA256[:]})
			sums = append(sums, f.SHA256[:])
		}
		spans = append(spans, []any{st.mid, int64(r.pid), st.index, st.gen})
		if size >= compact.StanzaBlock {
			put()
		}
	}
	put()
	if err := t.lockBlobs(ctx, sums); err != nil {
		return err
	}
	for _, c := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{
		{"fact", []string{"mirror", "pid", "name", "digest", "block", "doc", "source"}, facts},
		{"pfile", []string{"mirror", "path", "pid", "nth", "sha256"}, files},
		{"stanza", []string{"mirror", "block", "live", "bytes"}, stanzas},
		{"span", []string{"mirror", "pid", "idx", "gfrom"}, spans},
	} {
		if _, err := t.CopyFrom(ctx, pgx.Identifier{c.table}, c.columns, pgx.CopyFromRows(c.rows)); err != nil {
			return err
		}
	}
	return nil
}

// open begins or continues the presence of known stanzas at this generation.
func (st *Stage) open(ctx context.Context, t *tx, known []int64) error {
	if len(known) == 0 {
		return nil
	}
	// Ended for this generation by an attempt that was interrupted.
	if _, err := t.exec(ctx, "update span set gto = null where mirror = $1 and idx = $2 and pid = any($3) and gto = $4", st.mid, st.index, known, st.gen); err != nil {
		return err
	}
	_, err := t.exec(ctx, `insert into span (mirror, pid, idx, gfrom) select $1, pid, $2, $4 from unnest($3::bigint[]) pid
		where not exists (select from span s where s.mirror = $1 and s.idx = $2 and s.pid = pid.pid and s.gto is null)`, st.mid, st.index, known, st.gen)
	return err
}
