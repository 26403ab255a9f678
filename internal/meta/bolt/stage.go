package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Bounds of one staging transaction.
const (
	stageRecords = 4096
	stageBytes   = 8 << 20
	stanzaBlock  = 24 << 10 // bytes of stanzas in one compressed block
)

// Stage writes the facts of a new generation of one suite in bounded
// transactions. Nothing of it is visible before Tx.Seal. It is used by one
// goroutine.
type Stage struct {
	s      *Store
	mirror string
	suite  repo.SuiteName
	mid    uint32
	sid    meta.SuiteID
	gen    uint32

	index   meta.IndexID
	live    [][16]byte // sorted
	seen    []bool
	fresh   map[[16]byte]bool
	batch   []staged
	size    int
	count   int
	changed int
	zw      *zstd.Encoder
}

type staged struct {
	rec    repo.Record
	digest [16]byte
}

// NewStage is meta.Writer.NewStage.
func (s *Store) NewStage(ctx context.Context, mirror string, suite repo.SuiteName) (meta.Stage, error) {
	st := &Stage{s: s, mirror: mirror, suite: suite}
	err := s.Update(ctx, "stage begin", func(tx *Tx) error {
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
	st.zw, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(64<<10))
	return st, err
}

// Gen is the number of the generation being staged.
func (st *Stage) Gen() uint32 { return st.gen }

// Dirty reports whether an earlier staging touched the index without being
// sealed: it must then be read again even if upstream's bytes are those of the
// last generation.
func (st *Stage) Dirty(ctx context.Context, index string) (dirty bool, err error) {
	err = st.s.View(ctx, func(tx *Tx) error {
		id, ok := tx.IndexID(st.mirror, st.suite, index)
		dirty = ok && tx.b("dirty").Get(key(nil).u32(uint32(id))) != nil
		return nil
	})
	return dirty, err
}

// Indices lists the indices that have live stanzas, so that those that left
// the root can be closed.
func (st *Stage) Indices(ctx context.Context) (out []string, err error) {
	err = st.s.View(ctx, func(tx *Tx) error {
		prefix := []byte(st.mirror + "\x00" + string(st.suite) + "\x00")
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

// Begin starts an index. Every record that it now has must be passed to Add.
func (st *Stage) Begin(ctx context.Context, index string) error {
	st.live, st.seen, st.fresh = nil, nil, map[[16]byte]bool{}
	st.batch, st.size, st.count, st.changed = nil, 0, 0, 0
	return st.s.Update(ctx, "stage index", func(tx *Tx) error {
		n, _, err := tx.id(st.mirror+"\x00"+string(st.suite)+"\x00"+index, true)
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

// Add stages one record. The record is copied.
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
	st.changed++
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

// End closes the index: what was live and was not added again ends here. It
// returns the number of records and how many of them differ from before.
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
	st.changed += len(gone)
	for part := range slices.Chunk(gone, stageRecords) {
		err := st.s.Update(ctx, "stage end", func(tx *Tx) error {
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
	return st.count, st.changed, nil
}

// close ends the presence of a live stanza at this generation.
func (st *Stage) close(tx *Tx, d [16]byte) error {
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
		// Staged for this generation by an attempt that was cut short.
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
	err := st.s.Update(ctx, "stage batch", func(tx *Tx) error {
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
				if size >= stanzaBlock {
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

// open begins (or goes on with) the presence of a stanza at this generation.
func (st *Stage) open(tx *Tx, pid meta.PID, d [16]byte) error {
	span := tx.span(pid, st.index)
	if last := len(span) - 1; last >= 0 && span[last].To == st.gen {
		// Ended for this generation by an attempt that was cut short.
		if err := tx.b("ended").Delete(endKey(st.sid, st.gen, st.index, pid)); err != nil {
			return err
		}
		span[last].To = meta.Unended
	} else if last < 0 || span[last].To != meta.Unended {
		span = append(span, meta.Interval{From: st.gen, To: meta.Unended})
		if st.gen > 1 { // everything begins with the first
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
func (t *Tx) span(pid meta.PID, index meta.IndexID) []meta.Interval {
	return decodeSpan(t.b("span").Get(key(nil).u64(uint64(pid)).u32(uint32(index))))
}

func decodeSpan(v []byte) []meta.Interval {
	d := dec{b: v}
	var out []meta.Interval
	for len(d.b) > 0 && !d.bad {
		iv := meta.Interval{From: uint32(d.uint())}
		iv.To = uint32(d.uint())
		if iv.To == 0 {
			iv.To = meta.Unended
		}
		out = append(out, iv)
	}
	return out
}

// putSpan writes the intervals of a stanza; with none left, what nothing
// else needs of the stanza goes too.
func (t *Tx) putSpan(pid meta.PID, index meta.IndexID, mid uint32, span []meta.Interval) error {
	b := t.b("span")
	k := key(nil).u64(uint64(pid)).u32(uint32(index))
	if len(span) > 0 {
		var e enc
		for _, iv := range span {
			e.uint(uint64(iv.From))
			if iv.To == meta.Unended {
				e.uint(0)
			} else {
				e.uint(uint64(iv.To))
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

// findStanza looks for the same stanza among those known under its name: one
// that returns, or that stands in two indices, keeps its number.
func (t *Tx) findStanza(mid uint32, r *repo.Record, d [16]byte) (meta.PID, bool, error) {
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

func (t *Tx) putFact(mid uint32, pid meta.PID, r *repo.Record, d [16]byte) error {
	var e enc
	e.fixed(d[:])
	e.uint(uint64(r.Kind))
	e.string(r.Name)
	e.string(r.Version)
	e.string(r.Arch)
	e.uint(uint64(len(r.Sources)))
	for _, s := range r.Sources {
		// Most binaries share name and version with their source.
		switch {
		case s == repo.Ref{}:
			s = repo.Ref{Name: notKnown}
		case s.Name == r.Name:
			s.Name = ""
		}
		if s.Version == r.Version {
			s.Version = ""
		}
		e.string(s.Name)
		e.string(s.Version)
	}
	e.uint(uint64(len(r.Files)))
	for _, f := range r.Files {
		e.string(f.Path)
		e.uint(uint64(f.Size))
		e.fixed(f.SHA256[:])
	}
	if err := e.sha512s(r.Files); err != nil {
		return err
	}
	pk := key(nil).u64(uint64(pid))
	if err := t.b("fact").Put(pk, e); err != nil {
		return err
	}
	if err := t.b("name").Put(nameKey(mid, r).u64(uint64(pid)), nil); err != nil {
		return err
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

// notKnown in a source's name stands for a source that is not known.
const notKnown = "\x00"

// nameKey is the key under which a stanza is found by its package's name. Those
// that are of no use are together under no name.
func nameKey(mid uint32, r *repo.Record) key {
	name := r.Name
	if r.Kind == repo.KindUnusable {
		name = ""
	}
	return key(nil).u32(mid).str(name)
}

// strongSizes are the sizes of the digests other than SHA-256 by which upstream may
// know a file.
var strongSizes = [...]int{sha512.Size, sha512.Size384}

// maxFactFiles bounds the files of a fact.
const maxFactFiles = 1 << 16

// sha512s writes the digests of files that upstream knows by one of these alone, at
// the end of a fact: the number of a file, which for each further kind of digest is
// maxFactFiles higher, and the digest.
func (e *enc) sha512s(files []repo.File) error {
	for i, f := range files {
		if f.SHA512 == "" {
			continue
		}
		d, err := hex.DecodeString(f.SHA512)
		kind := slices.Index(strongSizes[:], len(d))
		if err != nil || kind < 0 || i >= maxFactFiles {
			return fmt.Errorf("digest %q of %s", f.SHA512, f.Path)
		}
		e.uint(uint64(kind*maxFactFiles + i))
		e.fixed(d)
	}
	return nil
}

func decodeFact(pid meta.PID, v []byte) (*meta.Fact, error) {
	d := dec{b: v}
	f := &meta.Fact{PID: pid, Digest: [16]byte(d.fixed(16))}
	f.Kind = repo.Kind(d.uint())
	f.Name, f.Version, f.Arch = d.string(), d.string(), d.string()
	for range min(d.uint(), 1<<16) {
		s := repo.Ref{Name: d.string(), Version: d.string()}
		if s.Name == "" {
			s.Name = f.Name
		}
		if s.Version == "" {
			s.Version = f.Version
		}
		if s.Name == notKnown {
			s = repo.Ref{}
		}
		f.Sources = append(f.Sources, s)
	}
	for range min(d.uint(), 1<<16) {
		file := repo.File{Path: d.string(), Size: int64(d.uint())}
		file.SHA256 = cas.Digest(d.fixed(32))
		f.Files = append(f.Files, file)
	}
	for len(d.b) > 0 && !d.bad {
		n := d.uint()
		kind, i := n/maxFactFiles, n%maxFactFiles
		if kind >= uint64(len(strongSizes)) || i >= uint64(len(f.Files)) {
			d.bad = true
			break
		}
		f.Files[i].SHA512 = hex.EncodeToString(d.fixed(strongSizes[kind]))
	}
	if d.bad {
		return nil, fmt.Errorf("%w: fact %d", meta.ErrCorrupt, pid)
	}
	return f, nil
}

// deleteFact removes a stanza that is present nowhere; the blobs of its
// files become suspects.
func (t *Tx) deleteFact(mid uint32, pid meta.PID) error {
	pk := key(nil).u64(uint64(pid))
	f, err := decodeFact(pid, t.b("fact").Get(pk))
	if err != nil {
		return err
	}
	if err := t.b("name").Delete(nameKey(mid, &f.Record).u64(uint64(pid))); err != nil {
		return err
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

// A block of stanzas: the number of stanzas, the length of each, and
// their bytes, zstd-compressed together. Its key is the number of the first.

func (t *Tx) putStanzas(first meta.PID, block []staged, zw *zstd.Encoder) error {
	var plain []byte
	var e enc
	e.uint(uint64(len(block)))
	for i := range block {
		e.uint(uint64(len(block[i].rec.Bytes)))
		plain = append(plain, block[i].rec.Bytes...)
	}
	return t.b("para").Put(key(nil).u64(uint64(first)), zw.EncodeAll(plain, e))
}

// trimStanzas deletes the block that holds pid once no fact of it is left.
func (t *Tx) trimStanzas(pid meta.PID) error {
	b := t.b("para")
	k, v := seekLast(b.Cursor(), nil, key(nil).u64(uint64(pid)))
	if k == nil {
		return nil
	}
	d := dec{b: v}
	end := be64(k) + d.uint()
	if f, _ := t.b("fact").Cursor().Seek(k); f != nil && be64(f) < end {
		return nil
	}
	return b.Delete(clone(k))
}
