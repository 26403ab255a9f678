package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// Limits of one staging transaction.
const (
	stageRecords = 4096
	stageBytes   = 8 << 20
)

// Stage writes the facts of a new generation of one suite in transactions of limited
// size. Nothing is visible before Store.Seal. It is used by one goroutine.
type Stage struct {
	s      *Store
	mirror meta.MirrorName
	suite  repo.SuiteName
	mid    uint32
	sid    meta.SuiteID
	gen    uint32

	index meta.IndexID
	live  [][16]byte // sorted
	seen  []bool
	fresh map[[16]byte]bool
	batch []staged
	size  int
	count int
	zw    *compact.Encoder
}

type staged struct {
	rec    repo.Record
	digest [16]byte
}

// NewStage is meta.Writer.NewStage.
func (s *Store) NewStage(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (meta.Stage, error) {
	st := &Stage{s: s, mirror: mirror, suite: suite}
	err := s.update(ctx, "stage begin", func(tx *txn) error {
		mid, _, err := tx.mirrorID(mirror, true)
		if err != nil {
			return err
		}
		sid, err := tx.makeSuiteID(mirror, suite)
		if err != nil {
			return err
		}
		st.mid, st.sid, st.gen = mid, sid, 1
		last, err := tx.lastGeneration(mirror, suite)
		if err == nil {
			st.gen = last.Gen + 1
		} else if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	st.zw, err = compact.NewEncoder()
	return st, err
}

// Gen is the number of the generation being staged.
func (st *Stage) Gen() uint32 { return st.gen }

// Dirty reports whether an earlier staging touched the index and was not sealed. The
// index must then be read again even if it has not changed since the last generation.
func (st *Stage) Dirty(ctx context.Context, index string) (dirty bool, err error) {
	err = st.s.view(ctx, func(tx *txn) error {
		id, ok := tx.IndexID(st.mirror, st.suite, index)
		dirty = ok && tx.b("dirty").Get(key(nil).u32(uint32(id))) != nil
		return nil
	})
	return dirty, err
}

// Indices lists the indices that have live stanzas, so that the caller can close those
// that are no longer in the Release.
func (st *Stage) Indices(ctx context.Context) (out []string, err error) {
	err = st.s.view(ctx, func(tx *txn) error {
		prefix := []byte(string(st.mirror) + "\x00" + string(st.suite) + "\x00")
		c := tx.b("ids").Cursor()
		live := tx.b("live")
		out = nil
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if lk, _ := live.Cursor().Seek(v); lk != nil && bytes.HasPrefix(lk, v) {
				out = append(out, string(k[len(prefix):]))
			}
		}
		return nil
	})
	return out, err
}

// Begin starts an index. All of its records must be passed to Add.
func (st *Stage) Begin(ctx context.Context, index string) error {
	st.live, st.seen, st.fresh = nil, nil, map[[16]byte]bool{}
	st.batch, st.size, st.count = nil, 0, 0
	return st.s.update(ctx, "stage index", func(tx *txn) error {
		n, _, err := tx.id(string(st.mirror)+"\x00"+string(st.suite)+"\x00"+index, true)
		if err != nil {
			return err
		}
		st.index, st.live = meta.IndexID(n), nil
		prefix := key(nil).u32(n)
		c := tx.b("live").Cursor()
		for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			st.live = append(st.live, [16]byte(k[4:]))
		}
		st.seen = make([]bool, len(st.live))
		return tx.b("dirty").Put(prefix, nil)
	})
}

// Add stages one record, which it copies.
func (st *Stage) Add(ctx context.Context, rec *repo.Record) error {
	sum := sha256.Sum256(rec.Bytes)
	d := [16]byte(sum[:16])
	st.count++
	if i, ok := slices.BinarySearchFunc(st.live, d, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }); ok {
		st.seen[i] = true
		return nil
	}
	if st.fresh[d] {
		return nil // the same stanza twice
	}
	st.fresh[d] = true
	r := *rec
	r.Bytes = clone(rec.Bytes)
	r.Files = slices.Clone(rec.Files)
	r.Sources = slices.Clone(rec.Sources)
	st.batch = append(st.batch, staged{r, d})
	st.size += len(r.Bytes) + 300
	if len(st.batch) >= stageRecords || st.size >= stageBytes {
		return st.flush(ctx)
	}
	return nil
}

// End closes the index: live stanzas that were not added again end here. It returns the
// number of records and how many of them changed.
func (st *Stage) End(ctx context.Context) (records, changed int, err error) {
	if err := st.flush(ctx); err != nil {
		return 0, 0, err
	}
	var gone [][16]byte
	for i, seen := range st.seen {
		if !seen {
			gone = append(gone, st.live[i])
		}
	}
	for part := range slices.Chunk(gone, stageRecords) {
		err := st.s.update(ctx, "stage end", func(tx *txn) error {
			for _, d := range part {
				if err := st.close(tx, d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	changed, err = st.changes(ctx, len(st.live)-len(gone)+len(st.fresh))
	return st.count, changed, err
}

// changes counts the stanzas of the index that begin or end with this generation,
// including those that an interrupted attempt staged. held is the number of stanzas in
// the index.
func (st *Stage) changes(ctx context.Context, held int) (n int, err error) {
	if st.gen == 1 {
		return held, nil // everything begins with the first generation
	}
	prefix := key(nil).u32(uint32(st.sid)).u32(st.gen).u32(uint32(st.index))
	err = st.s.view(ctx, func(tx *txn) error {
		n = 0
		for _, bucket := range []string{"began", "ended"} {
			c := tx.b(bucket).Cursor()
			for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
				n++
			}
		}
		return nil
	})
	return n, err
}

// close ends the presence of a live stanza at this generation.
func (st *Stage) close(tx *txn, d [16]byte) error {
	live := tx.b("live")
	lk := key(nil).u32(uint32(st.index)).raw(d[:])
	pid := meta.PID(be64(live.Get(lk)))
	if err := live.Delete(lk); err != nil {
		return err
	}
	span := tx.span(pid, st.index)
	last := len(span) - 1
	if last < 0 {
		return fmt.Errorf("%w: live stanza %d has no span", meta.ErrCorrupt, pid)
	}
	if span[last].From >= st.gen {
		// An interrupted attempt staged it for this generation.
		if err := tx.b("began").Delete(endKey(st.sid, st.gen, st.index, pid)); err != nil {
			return err
		}
		return tx.putSpan(pid, st.index, st.mid, span[:last])
	}
	span[last].To = st.gen
	if err := tx.putSpan(pid, st.index, st.mid, span); err != nil {
		return err
	}
	return tx.b("ended").Put(endKey(st.sid, st.gen, st.index, pid), nil)
}

func endKey(sid meta.SuiteID, gen uint32, index meta.IndexID, pid meta.PID) key {
	return key(nil).u32(uint32(sid)).u32(gen).u32(uint32(index)).u64(uint64(pid))
}

func (st *Stage) flush(ctx context.Context) error {
	if len(st.batch) == 0 {
		return nil
	}
	err := st.s.update(ctx, "stage batch", func(tx *txn) error {
		var block []staged
		var first meta.PID
		size := 0
		putBlock := func() error {
			if len(block) == 0 {
				return nil
			}
			err := tx.putStanzas(first, block, st.zw)
			block, size = nil, 0
			return err
		}
		for i := range st.batch {
			r := &st.batch[i]
			pid, known, err := tx.findStanza(st.mid, &r.rec, r.digest)
			if err != nil {
				return err
			}
			if !known {
				n, err := tx.b("fact").NextSequence()
				if err != nil {
					return err
				}
				pid = meta.PID(n)
				if len(block) == 0 {
					first = pid
				}
				block = append(block, *r)
				size += len(r.rec.Bytes)
				if err := tx.putFact(st.mid, pid, &r.rec, r.digest); err != nil {
					return err
				}
				if size >= compact.StanzaBlock {
					if err := putBlock(); err != nil {
						return err
					}
				}
			}
			if err := st.open(tx, pid, r.digest); err != nil {
				return err
			}
		}
		return putBlock()
	})
	st.batch, st.size = st.batch[:0], 0
	return err
}

// open begins or continues the presence of a stanza at this generation.
func (st *Stage) open(tx *txn, pid meta.PID, d [16]byte) error {
	span := tx.span(pid, st.index)
	if last := len(span) - 1; last >= 0 && span[last].To == st.gen {
		// An interrupted attempt ended it for this generation.
		if err := tx.b("ended").Delete(endKey(st.sid, st.gen, st.index, pid)); err != nil {
			return err
		}
		span[last].To = meta.Unended
	} else if last < 0 || span[last].To != meta.Unended {
		span = append(span, meta.Interval{From: st.gen, To: meta.Unended})
		if st.gen > 1 { // everything begins with the first generation
			if err := tx.b("began").Put(endKey(st.sid, st.gen, st.index, pid), nil); err != nil {
				return err
			}
		}
	}
	if err := tx.putSpan(pid, st.index, st.mid, span); err != nil {
		return err
	}
	return tx.b("live").Put(key(nil).u32(uint32(st.index)).raw(d[:]), key(nil).u64(uint64(pid)))
}

// span reads the intervals of a stanza in an index.
func (t *txn) span(pid meta.PID, index meta.IndexID) []meta.Interval {
	return decodeSpan(t.b("span").Get(key(nil).u64(uint64(pid)).u32(uint32(index))))
}

func decodeSpan(v []byte) []meta.Interval {
	d := dec{B: v}
	var out []meta.Interval
	for len(d.B) > 0 && !d.Bad {
		iv := meta.Interval{From: uint32(d.Uint())}
		iv.To = uint32(d.Uint())
		if iv.To == 0 {
			iv.To = meta.Unended
		}
		out = append(out, iv)
	}
	return out
}

// putSpan writes the intervals of a stanza. If no intervals are left, it removes what
// only the stanza needed.
func (t *txn) putSpan(pid meta.PID, index meta.IndexID, mid uint32, span []meta.Interval) error {
	b := t.b("span")
	k := key(nil).u64(uint64(pid)).u32(uint32(index))
	if len(span) > 0 {
		var e enc
		for _, iv := range span {
			e.Uint(uint64(iv.From))
			if iv.To == meta.Unended {
				e.Uint(0)
			} else {
				e.Uint(uint64(iv.To))
			}
		}
		return b.Put(k, e)
	}
	if err := b.Delete(k); err != nil {
		return err
	}
	prefix := key(nil).u64(uint64(pid))
	if o, _ := b.Cursor().Seek(prefix); o != nil && bytes.HasPrefix(o, prefix) {
		return nil
	}
	return t.deleteFact(mid, pid)
}

// findStanza looks for the same stanza among those with its name. A stanza that returns,
// or that is in two indices, keeps its number.
func (t *txn) findStanza(mid uint32, r *repo.Record, d [16]byte) (meta.PID, bool, error) {
	prefix := nameKey(mid, r)
	c := t.b("name").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		pid := meta.PID(be64(k[len(prefix):]))
		v := t.b("fact").Get(key(nil).u64(uint64(pid)))
		if len(v) >= 16 && bytes.Equal(v[:16], d[:]) {
			return pid, true, nil
		}
	}
	return 0, false, nil
}

func (t *txn) putFact(mid uint32, pid meta.PID, r *repo.Record, d [16]byte) error {
	e, err := compact.Fact(r, d)
	if err != nil {
		return err
	}
	pk := key(nil).u64(uint64(pid))
	if err := t.b("fact").Put(pk, e); err != nil {
		return err
	}
	if err := t.b("name").Put(nameKey(mid, r).u64(uint64(pid)), nil); err != nil {
		return err
	}
	if sk := sourceKey(mid, r); sk != nil {
		if err := t.b("source").Put(sk.u64(uint64(pid)), nil); err != nil {
			return err
		}
	}
	path := t.b("path")
	for i, f := range r.Files {
		if err := path.Put(key(nil).u32(mid).str(f.Path).u64(uint64(pid)), []byte{byte(i), byte(i >> 8)}); err != nil {
			return err
		}
		if err := t.PutRef(f.SHA256, meta.OwnerPackage, string(pk)); err != nil {
			return err
		}
	}
	return nil
}

// nameKey is the key of a stanza in the look-up by package name.
func nameKey(mid uint32, r *repo.Record) key {
	return key(nil).u32(mid).str(compact.NameOf(r))
}

// sourceKey is the key of a stanza in the look-up by source package; nil if that is
// unknown.
func sourceKey(mid uint32, r *repo.Record) key {
	name := compact.SourceOf(r)
	if name == "" {
		return nil
	}
	return key(nil).u32(mid).str(name)
}

// deleteFact removes a stanza that is no longer present anywhere. The blobs of its files
// become collection candidates.
func (t *txn) deleteFact(mid uint32, pid meta.PID) error {
	pk := key(nil).u64(uint64(pid))
	f, err := compact.DecodeFact(pid, t.b("fact").Get(pk))
	if err != nil {
		return err
	}
	if err := t.b("name").Delete(nameKey(mid, &f.Record).u64(uint64(pid))); err != nil {
		return err
	}
	if sk := sourceKey(mid, &f.Record); sk != nil {
		if err := t.b("source").Delete(sk.u64(uint64(pid))); err != nil {
			return err
		}
	}
	for _, file := range f.Files {
		if err := t.b("path").Delete(key(nil).u32(mid).str(file.Path).u64(uint64(pid))); err != nil {
			return err
		}
		if err := t.DropRef(file.SHA256, meta.OwnerPackage, string(pk)); err != nil {
			return err
		}
	}
	if err := t.b("fact").Delete(pk); err != nil {
		return err
	}
	return t.trimStanzas(pid)
}

// The key of a block of stanzas is the number of its first stanza.
func (t *txn) putStanzas(first meta.PID, block []staged, zw *compact.Encoder) error {
	stanzas := make([][]byte, len(block))
	for i := range block {
		stanzas[i] = block[i].rec.Bytes
	}
	return t.b("para").Put(key(nil).u64(uint64(first)), zw.Block(stanzas))
}

// trimStanzas deletes the block that contains pid if none of its facts are left.
func (t *txn) trimStanzas(pid meta.PID) error {
	b := t.b("para")
	k, v := seekLast(b.Cursor(), nil, key(nil).u64(uint64(pid)))
	if k == nil {
		return nil
	}
	end := be64(k) + compact.BlockLen(v)
	if f, _ := t.b("fact").Cursor().Seek(k); f != nil && be64(f) < end {
		return nil
	}
	return b.Delete(clone(k))
}
