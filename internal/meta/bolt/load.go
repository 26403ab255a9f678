package bolt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
)

// Load implements meta.Loader in transactions of limited size.
func (s *Store) Load(ctx context.Context, from meta.Dumper) error {
	if err := s.update(ctx, "load begin", (*txn).clearDumped); err != nil {
		return err
	}
	l := &loader{s: s, base: map[meta.MirrorName]uint64{}}
	err := from.Dump(ctx, func(r *meta.Row) error {
		l.number(r)
		l.rows = append(l.rows, r.Clone())
		if l.size += len(r.Doc) + 100; len(l.rows) >= convertEntries || l.size >= convertBytes {
			return l.flush(ctx)
		}
		return nil
	})
	if err == nil {
		err = l.flush(ctx)
	}
	if err != nil {
		return err
	}
	return s.update(ctx, "load end", func(t *txn) error {
		b := t.b("fact")
		if err := b.b.SetSequence(l.end); err != nil {
			return err
		}
		t.sum(b).Sequence = l.end
		return nil
	})
}

// clearDumped removes everything that a dump lists.
func (t *txn) clearDumped() error {
	for _, name := range buckets {
		if name == "meta" || name == objectBucket {
			continue
		}
		if err := t.tx.DeleteBucket([]byte(name)); err != nil {
			return err
		}
		if _, err := t.tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
		delete(t.cursors, name)
		*t.sum(t.b(name)) = bucketSum{}
	}
	t.s.indices.Clear()
	var notes [][]byte
	b := t.b("meta")
	err := b.ForEach(func(k, _ []byte) error {
		if len(k) > 2 && string(k[:2]) == "m." && meta.Dumped(string(k[2:])) {
			notes = append(notes, clone(k))
		}
		return nil
	})
	for _, k := range notes {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// loader is one run of Load.
type loader struct {
	s    *Store
	rows []*meta.Row
	size int
	// base is added to the numbers of a mirror's stanzas: here all mirrors share one
	// sequence of numbers. end is the highest number.
	base map[meta.MirrorName]uint64
	end  uint64
}

// number gives a stanza its number among those of all mirrors.
func (l *loader) number(r *meta.Row) {
	if r.Table != meta.RowFact && r.Table != meta.RowBlock && r.Table != meta.RowSpan {
		return
	}
	base, ok := l.base[r.Mirror]
	if !ok {
		base = l.end
		l.base[r.Mirror] = base
	}
	switch r.Table {
	case meta.RowFact:
		l.end = max(l.end, base+uint64(r.PID))
	case meta.RowBlock:
		l.end = max(l.end, base+uint64(r.Block)+compact.BlockLen(r.Doc)-1)
	}
}

func (l *loader) flush(ctx context.Context) error {
	err := l.s.update(ctx, "load", func(t *txn) error {
		for _, r := range l.rows {
			if err := l.put(t, r); err != nil {
				return fmt.Errorf("load %v: %w", r.Table, err)
			}
		}
		return nil
	})
	l.rows, l.size = l.rows[:0], 0
	return err
}

// put adds one row, with the look-ups that follow from it. Long because of its list of
// tables.
func (l *loader) put(t *txn, r *meta.Row) error {
	named := func(bucket string) error { return t.b(bucket).Put([]byte(r.Name), r.Doc) }
	switch r.Table {
	case meta.RowNote:
		return t.b("meta").Put([]byte("m."+r.Name), r.Doc)
	case meta.RowMirror:
		_, _, err := t.mirrorID(r.Mirror, true)
		return err
	case meta.RowSuite:
		_, err := t.makeSuiteID(r.Mirror, r.Suite)
		return err
	case meta.RowIndex:
		n, _, err := t.id(string(r.Mirror)+"\x00"+string(r.Suite)+"\x00"+r.Index, true)
		if err != nil || !r.Dirty {
			return err
		}
		return t.b("dirty").Put(key(nil).u32(n), nil)
	case meta.RowSnapshot:
		return t.b("snapshot").Put(key(nil).str(string(r.Mirror)).u64(uint64(r.At)), r.Doc)
	case meta.RowRemoved:
		return t.b("gone").Put(key(nil).str(string(r.Mirror)).u64(uint64(r.At)), []byte{1})
	case meta.RowCheck:
		return t.b("check").Put([]byte(r.Mirror), r.Doc)
	case meta.RowGeneration, meta.RowGenRef, meta.RowGenCandidate, meta.RowListed, meta.RowPath:
		return l.putOfSuite(t, r)
	case meta.RowFact:
		return l.putFact(t, r)
	case meta.RowBlock:
		return t.b("para").Put(key(nil).u64(l.base[r.Mirror]+uint64(r.Block)), r.Doc)
	case meta.RowSpan:
		return l.putSpan(t, r)
	case meta.RowRef:
		owner := []byte(r.Name)
		if r.Kind == meta.OwnerGen {
			sid, err := t.makeSuiteID(r.Mirror, r.Suite)
			if err != nil {
				return err
			}
			owner = key(nil).u32(uint32(sid)).u32(r.Gen)
		}
		return t.b("ref").Put(key(nil).raw(r.Digest[:]).one(r.Kind).raw(owner), nil)
	case meta.RowCandidate:
		v := []byte{}
		if r.At != 0 {
			v = key(nil).u64(uint64(r.At))
		}
		return t.b("suspect").Put(r.Digest[:], v)
	case meta.RowAlias:
		return t.putAlias(meta.Alias{Algo: r.Kind, Other: r.Doc, SHA256: r.Digest})
	case meta.RowFreeze:
		return named("frozen")
	case meta.RowTombstone:
		return named("tombstone")
	case meta.RowNode:
		n := meta.Node{Path: r.Path, Digest: r.Digest, Size: r.Size, ModTime: time.Unix(r.At, 0)}
		return t.b("ftree").Put(key(nil).str(r.Name).raw([]byte(r.Path)), encodeNode(&n))
	case meta.RowImage:
		return t.b("image").Put(key(nil).str(r.Name).raw([]byte(r.Path)), r.Doc)
	case meta.RowKit:
		return t.b("kit").Put([]byte(r.Path), r.Doc)
	case meta.RowRecording:
		return named("recording")
	case meta.RowFetch:
		return t.b("rentry").Put(entryKey(r.Name, &meta.RecordEntry{Mirror: r.Mirror, Path: r.Path, SHA256: r.Digest}), r.Doc)
	case meta.RowCorrupt:
		return t.b("rotten").Put(r.Digest[:], r.Doc)
	case meta.RowChannel:
		return named(channelBucket)
	case meta.RowMove:
		return t.b(movesBucket).Put(key(nil).str(r.Name).u64(uint64(r.At)), r.Doc)
	case meta.RowToken:
		var token meta.Token
		if err := json.Unmarshal(r.Doc, &token); err != nil {
			return fmt.Errorf("%w: token %s: %w", meta.ErrCorrupt, r.Name, err)
		}
		return errors.Join(t.b(tokenBucket).Put(tokenHashKey(token.Hash), []byte(r.Name)), t.b(tokenBucket).Put(tokenKey(r.Name), r.Doc))
	case meta.RowAudit:
		return t.b(auditBucket).Put(key(nil).u64(uint64(r.At)), r.Doc)
	case meta.RowLogHead:
		return t.b(logBucket).Put(logHeadKey, r.Doc)
	case meta.RowLogTile:
		return t.b(logBucket).Put(logTileKey(int(r.Size), r.At), r.Doc)
	case meta.RowLogName:
		return t.b(logBucket).Put(logNameKey(r.Name), key(nil).u64(uint64(r.At)))
	case meta.RowLogPending:
		return t.b(logBucket).Put(logPendingKey(r.Name), r.Doc)
	case meta.RowEvent:
		return t.b(eventBucket).Put(key(nil).u64(uint64(r.At)), r.Doc)
	case meta.RowEventNumber:
		b := t.b(eventBucket)
		t.sum(b).Sequence = uint64(r.At)
		return b.b.SetSequence(uint64(r.At))
	case meta.RowDelivery:
		state := byte(deliveryOver)
		if r.Kind == 1 {
			state = deliveryPending
		}
		return t.b(deliveryBucket).Put(deliveryKey(state, r.Name, r.At), r.Doc)
	}
	return fmt.Errorf("unknown %v", r.Table)
}

// putOfSuite adds a row that belongs to a suite.
func (l *loader) putOfSuite(t *txn, r *meta.Row) error {
	sid, err := t.makeSuiteID(r.Mirror, r.Suite)
	if err != nil {
		return err
	}
	switch r.Table {
	case meta.RowGeneration:
		return t.b("gen").Put(key(nil).u32(uint32(sid)).u32(r.Gen), r.Doc)
	case meta.RowGenRef:
		owner := r.Name
		if r.Kind == meta.OwnerSnapshot {
			owner = string(key(nil).str(string(r.Mirror)).u64(uint64(r.At)))
		}
		return t.b("genref").Put(genRef(sid, r.Gen, r.Kind, owner), nil)
	case meta.RowGenCandidate:
		return t.addGenCandidate(sid, r.Gen)
	case meta.RowListed:
		l := meta.Listing{Path: r.Path, Size: r.Size, First: r.Gen, Last: r.Last}
		if err := t.b("listed").Put(key(nil).u32(uint32(sid)).raw(r.Digest[:]), encodeListing(l)); err != nil || l.Last == meta.Unended {
			return err
		}
		return t.b("lended").Put(key(nil).u32(uint32(sid)).u32(l.Last).raw(r.Digest[:]), nil)
	default: // meta.RowPath
		return t.b("lpath").Put(key(nil).u32(uint32(sid)).raw([]byte(r.Path)), key(nil).raw(r.Digest[:]).u64(uint64(r.At)))
	}
}

func (l *loader) putFact(t *txn, r *meta.Row) error {
	mid, _, err := t.mirrorID(r.Mirror, true)
	if err != nil {
		return err
	}
	pid := meta.PID(l.base[r.Mirror] + uint64(r.PID))
	f, err := compact.DecodeFact(pid, r.Doc)
	if err != nil {
		return err
	}
	if err := t.putFact(mid, pid, &f.Record, f.Digest); err != nil {
		return err
	}
	return t.b("fact").Put(key(nil).u64(uint64(pid)), r.Doc)
}

func (l *loader) putSpan(t *txn, r *meta.Row) error {
	sid, err := t.makeSuiteID(r.Mirror, r.Suite)
	if err != nil {
		return err
	}
	n, _, err := t.id(string(r.Mirror)+"\x00"+string(r.Suite)+"\x00"+r.Index, true)
	if err != nil {
		return err
	}
	mid, _, err := t.mirrorID(r.Mirror, true)
	if err != nil {
		return err
	}
	pid, index := meta.PID(l.base[r.Mirror]+uint64(r.PID)), meta.IndexID(n)
	pk := key(nil).u64(uint64(pid))
	fact := slices.Clone(t.b("fact").Get(pk))
	if len(fact) < 16 {
		return fmt.Errorf("%w: span of stanza %d of mirror %s, which has no fact", meta.ErrCorrupt, r.PID, r.Mirror)
	}
	for _, iv := range r.Intervals {
		if iv.From > 1 { // everything begins with the first generation
			if err := t.b("began").Put(endKey(sid, iv.From, index, pid), nil); err != nil {
				return err
			}
		}
		to, value := t.b("ended"), []byte(nil)
		k := endKey(sid, iv.To, index, pid)
		if iv.To == meta.Unended {
			to, k, value = t.b("live"), key(nil).u32(n).raw(fact[:16]), pk
		}
		if err := to.Put(k, value); err != nil {
			return err
		}
	}
	return t.putSpan(pid, index, mid, r.Intervals)
}
