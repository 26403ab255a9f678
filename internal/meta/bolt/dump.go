package bolt

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// Dump implements meta.Dumper. It is one read transaction: writers continue, and the
// file grows meanwhile.
func (s *Store) Dump(ctx context.Context, f func(*meta.Row) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			d := &dump{t: &txn{tx: tx, s: s}, ctx: ctx, f: f, suites: map[uint32]suiteName{}}
			for _, step := range []func() error{
				d.notes, d.names, d.snapshots, d.generations, d.stanzas, d.spans, d.listings, d.refs, d.freezes, d.recordings, d.channels, d.access, d.log, d.events,
			} {
				if err := step(); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

type suiteName struct {
	mirror meta.MirrorName
	suite  repo.SuiteName
}

// dump is one run of Dump.
type dump struct {
	t      *txn
	ctx    context.Context
	f      func(*meta.Row) error
	suites map[uint32]suiteName
	runs   []stanzaRun // in the order of numbers
}

// stanzaRun is a range of stanza numbers that belong to one mirror: from first to before
// end.
type stanzaRun struct {
	first, end uint64
	mirror     meta.MirrorName
	base       uint64 // subtracted from a number to get the number within the mirror
}

// each calls f for each entry of a bucket whose key has a prefix.
func (d *dump) each(bucket string, prefix []byte, f func(k, v []byte) error) error {
	c := d.t.b(bucket).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}

// malformed reports a key that nothing in this package writes.
func malformed(bucket string, k []byte) error {
	return fmt.Errorf("%w: key %q of bucket %s", meta.ErrCorrupt, k, bucket)
}

// split2 splits a key at its first NUL.
func split2(k []byte) (string, []byte) {
	a, b, _ := bytes.Cut(k, []byte{0})
	return string(a), b
}

// suite returns the suite with a number.
func (d *dump) suite(id uint32) (suiteName, error) {
	if s, ok := d.suites[id]; ok {
		return s, nil
	}
	name := string(d.t.b("names").Get(key(nil).u32(id)))
	mirror, suite, ok := strings.Cut(name, "\x00")
	if !ok {
		return suiteName{}, fmt.Errorf("%w: suite %d has no name", meta.ErrCorrupt, id)
	}
	s := suiteName{meta.MirrorName(mirror), repo.SuiteName(suite)}
	d.suites[id] = s
	return s, nil
}

func (d *dump) notes() error {
	return d.each("meta", []byte("m."), func(k, v []byte) error {
		name := string(k[2:])
		if len(v) == 0 || !meta.Dumped(name) {
			return nil
		}
		return d.f(&meta.Row{Table: meta.RowNote, Name: name, Doc: v})
	})
}

func (d *dump) names() error {
	return d.each("names", nil, func(k, v []byte) error {
		parts := strings.SplitN(string(v), "\x00", 3)
		r := &meta.Row{Table: meta.RowMirror, Mirror: meta.MirrorName(parts[0])}
		if len(parts) > 1 {
			r.Table, r.Suite = meta.RowSuite, repo.SuiteName(parts[1])
		}
		if len(parts) > 2 {
			r.Table, r.Index, r.Dirty = meta.RowIndex, parts[2], d.t.b("dirty").Get(k) != nil
		}
		return d.f(r)
	})
}

func (d *dump) snapshots() error {
	for _, b := range []struct {
		bucket string
		table  meta.Table
	}{{"snapshot", meta.RowSnapshot}, {"gone", meta.RowRemoved}} {
		err := d.each(b.bucket, nil, func(k, v []byte) error {
			mirror, at := split2(k)
			if len(at) != 8 {
				return malformed(b.bucket, k)
			}
			r := &meta.Row{Table: b.table, Mirror: meta.MirrorName(mirror), At: int64(be64(at))}
			if b.table == meta.RowSnapshot {
				r.Doc = v
			}
			return d.f(r)
		})
		if err != nil {
			return err
		}
	}
	return d.each("check", nil, func(k, v []byte) error {
		return d.f(&meta.Row{Table: meta.RowCheck, Mirror: meta.MirrorName(k), Doc: v})
	})
}

func (d *dump) generations() error {
	row := func(bucket string, k []byte, table meta.Table) (*meta.Row, error) {
		if len(k) < 8 {
			return nil, malformed(bucket, k)
		}
		s, err := d.suite(be32(k))
		return &meta.Row{Table: table, Mirror: s.mirror, Suite: s.suite, Gen: be32(k[4:])}, err
	}
	err := d.each("gen", nil, func(k, v []byte) error {
		r, err := row("gen", k, meta.RowGeneration)
		if err != nil {
			return err
		}
		r.Doc = v
		return d.f(r)
	})
	if err != nil {
		return err
	}
	err = d.each("genref", nil, func(k, _ []byte) error {
		r, err := row("genref", k, meta.RowGenRef)
		if err != nil {
			return err
		}
		if len(k) < 9 {
			return malformed("genref", k)
		}
		r.Kind = k[8]
		if r.Kind != meta.OwnerSnapshot {
			r.Name = string(k[9:])
			return d.f(r)
		}
		mirror, at := split2(k[9:])
		if meta.MirrorName(mirror) != r.Mirror || len(at) != 8 {
			return malformed("genref", k)
		}
		r.At = int64(be64(at))
		return d.f(r)
	})
	if err != nil {
		return err
	}
	return d.each("suspect", []byte("G"), func(k, _ []byte) error {
		if len(k) != 9 {
			return nil // a digest
		}
		r, err := row("suspect", k[1:], meta.RowGenCandidate)
		if err != nil {
			return err
		}
		return d.f(r)
	})
}

// blocks calls f for each block of stanzas that has facts left, with the number of its
// first stanza, the number of its first fact, and the end of its numbers.
func (d *dump) blocks(from, to uint64, f func(first, fact, end uint64, block []byte) error) error {
	facts, c := d.t.b("fact").Cursor(), d.t.b("para").Cursor()
	for k, v := c.Seek(key(nil).u64(from)); k != nil && be64(k) < to; k, v = c.Next() {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		first := be64(k)
		end := first + compact.BlockLen(v)
		if fk, _ := facts.Seek(k); fk != nil && be64(fk) < end {
			if err := f(first, be64(fk), end, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// stanzas dumps facts and blocks, mirror by mirror.
func (d *dump) stanzas() error {
	base := map[meta.MirrorName]uint64{}
	err := d.blocks(0, math.MaxUint64, func(first, fact, end uint64, _ []byte) error {
		mirror, err := d.t.MirrorOf(meta.PID(fact))
		if err != nil {
			return err
		}
		if _, ok := base[meta.MirrorName(mirror)]; !ok {
			base[meta.MirrorName(mirror)] = first - 1
		}
		if n := len(d.runs); n > 0 && d.runs[n-1].mirror == meta.MirrorName(mirror) {
			d.runs[n-1].end = end
		} else {
			d.runs = append(d.runs, stanzaRun{first, end, meta.MirrorName(mirror), base[meta.MirrorName(mirror)]})
		}
		return nil
	})
	if err != nil {
		return err
	}
	sorted := slices.Clone(d.runs)
	slices.SortStableFunc(sorted, func(a, b stanzaRun) int { return strings.Compare(string(a.mirror), string(b.mirror)) })
	for _, run := range sorted {
		err := d.blocks(run.first, run.end, func(first, _, end uint64, block []byte) error {
			left := int64(0)
			c := d.t.b("fact").Cursor()
			for k, v := c.Seek(key(nil).u64(first)); k != nil && be64(k) < end; k, v = c.Next() {
				left++
				if err := d.f(&meta.Row{Table: meta.RowFact, Mirror: run.mirror, PID: meta.PID(be64(k) - run.base), Block: meta.PID(first - run.base), Doc: v}); err != nil {
					return err
				}
			}
			return d.f(&meta.Row{Table: meta.RowBlock, Mirror: run.mirror, Block: meta.PID(first - run.base), Size: left, Doc: block})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) spans() error {
	runs := d.runs
	return d.each("span", nil, func(k, v []byte) error {
		if len(k) != 12 {
			return malformed("span", k)
		}
		pid := be64(k)
		for len(runs) > 0 && pid >= runs[0].end {
			runs = runs[1:]
		}
		if len(runs) == 0 || pid < runs[0].first {
			return fmt.Errorf("%w: span of stanza %d, which has no bytes", meta.ErrCorrupt, pid)
		}
		info, err := d.t.index(meta.IndexID(be32(k[8:])))
		if err != nil {
			return err
		}
		if info.mirror != runs[0].mirror {
			return fmt.Errorf("%w: stanza %d of mirror %s is in an index of mirror %s", meta.ErrCorrupt, pid, runs[0].mirror, info.mirror)
		}
		return d.f(&meta.Row{Table: meta.RowSpan, Mirror: info.mirror, Suite: info.suite, Index: info.name, PID: meta.PID(pid - runs[0].base), Intervals: decodeSpan(v)})
	})
}

func (d *dump) listings() error {
	err := d.each("listed", nil, func(k, v []byte) error {
		if len(k) != 36 {
			return malformed("listed", k)
		}
		s, err := d.suite(be32(k))
		if err != nil {
			return err
		}
		l := decodeListing(v)
		return d.f(&meta.Row{
			Table: meta.RowListed, Mirror: s.mirror, Suite: s.suite, Digest: cas.Digest(k[4:]), Path: l.Path, Size: l.Size, Gen: l.First, Last: l.Last,
		})
	})
	if err != nil {
		return err
	}
	err = d.each("lpath", nil, func(k, v []byte) error {
		if len(k) < 4 || len(v) != 40 {
			return malformed("lpath", k)
		}
		s, err := d.suite(be32(k))
		if err != nil {
			return err
		}
		return d.f(&meta.Row{Table: meta.RowPath, Mirror: s.mirror, Suite: s.suite, Path: string(k[4:]), Digest: cas.Digest(v[:32]), At: int64(be64(v[32:]))})
	})
	if err != nil {
		return err
	}
	return d.each("alias", nil, func(k, v []byte) error {
		if len(k) < 2 || len(v) != 32 {
			return malformed("alias", k)
		}
		return d.f(&meta.Row{Table: meta.RowAlias, Kind: k[0], Doc: k[1:], Digest: cas.Digest(v)})
	})
}

func (d *dump) refs() error {
	err := d.each("ref", nil, func(k, _ []byte) error {
		if len(k) < 33 {
			return malformed("ref", k)
		}
		r := &meta.Row{Table: meta.RowRef, Digest: cas.Digest(k[:32]), Kind: k[32]}
		switch owner := k[33:]; {
		case r.Kind == meta.OwnerPackage:
			return nil // follows from the facts
		case r.Kind == meta.OwnerGen && len(owner) == 8:
			s, err := d.suite(be32(owner))
			if err != nil {
				return err
			}
			r.Mirror, r.Suite, r.Gen = s.mirror, s.suite, be32(owner[4:])
		default:
			r.Name = string(owner)
		}
		return d.f(r)
	})
	if err != nil {
		return err
	}
	err = d.each("suspect", nil, func(k, v []byte) error {
		if len(k) != 32 {
			return nil
		}
		r := &meta.Row{Table: meta.RowCandidate, Digest: cas.Digest(k)}
		if len(v) == 8 {
			r.At = int64(be64(v))
		}
		return d.f(r)
	})
	if err != nil {
		return err
	}
	return d.each("rotten", nil, func(k, v []byte) error {
		if len(k) != 32 {
			return malformed("rotten", k)
		}
		return d.f(&meta.Row{Table: meta.RowCorrupt, Digest: cas.Digest(k), Doc: v})
	})
}

// documents dumps a bucket of documents by name.
func (d *dump) documents(bucket string, table meta.Table) error {
	return d.each(bucket, nil, func(k, v []byte) error { return d.f(&meta.Row{Table: table, Name: string(k), Doc: v}) })
}

func (d *dump) freezes() error {
	if err := d.documents("frozen", meta.RowFreeze); err != nil {
		return err
	}
	if err := d.documents("tombstone", meta.RowTombstone); err != nil {
		return err
	}
	err := d.each("ftree", nil, func(k, v []byte) error {
		name, path := split2(k)
		n := decodeNode(string(path), v)
		return d.f(&meta.Row{Table: meta.RowNode, Name: name, Path: n.Path, Digest: n.Digest, Size: n.Size, At: n.ModTime.Unix()})
	})
	if err != nil {
		return err
	}
	err = d.each("image", nil, func(k, v []byte) error {
		name, variant := split2(k)
		return d.f(&meta.Row{Table: meta.RowImage, Name: name, Path: string(variant), Doc: v})
	})
	if err != nil {
		return err
	}
	return d.each("kit", nil, func(k, v []byte) error { return d.f(&meta.Row{Table: meta.RowKit, Path: string(k), Doc: v}) })
}

func (d *dump) recordings() error {
	if err := d.documents("recording", meta.RowRecording); err != nil {
		return err
	}
	return d.each("rentry", nil, func(k, v []byte) error {
		name, rest := split2(k)
		mirror, rest := split2(rest)
		n := len(rest) - 33
		if n < 0 || rest[n] != 0 {
			return malformed("rentry", k)
		}
		return d.f(&meta.Row{Table: meta.RowFetch, Name: name, Mirror: meta.MirrorName(mirror), Path: string(rest[:n]), Digest: cas.Digest(rest[n+1:]), Doc: v})
	})
}

func (d *dump) channels() error {
	if err := d.documents(channelBucket, meta.RowChannel); err != nil {
		return err
	}
	return d.each(movesBucket, nil, func(k, v []byte) error {
		name, at := split2(k)
		if len(at) != 8 {
			return malformed(movesBucket, k)
		}
		return d.f(&meta.Row{Table: meta.RowMove, Name: name, At: int64(be64(at)), Doc: v})
	})
}

func (d *dump) access() error {
	err := d.each(tokenBucket, []byte(tokenNamePrefix), func(k, v []byte) error {
		return d.f(&meta.Row{Table: meta.RowToken, Name: string(k[len(tokenNamePrefix):]), Doc: v})
	})
	if err != nil {
		return err
	}
	return d.each(auditBucket, nil, func(k, v []byte) error {
		if len(k) != 8 {
			return malformed(auditBucket, k)
		}
		return d.f(&meta.Row{Table: meta.RowAudit, At: int64(be64(k)), Doc: v})
	})
}

func (d *dump) log() error {
	return d.each(logBucket, nil, func(k, v []byte) error {
		name, isName := bytes.CutPrefix(k, []byte("name"))
		tile, isTile := bytes.CutPrefix(k, []byte("tile"))
		pending, isPending := bytes.CutPrefix(k, []byte(logPendingPrefix))
		switch {
		case bytes.Equal(k, logHeadKey):
			return d.f(&meta.Row{Table: meta.RowLogHead, Doc: v})
		case isName && len(v) == 8:
			return d.f(&meta.Row{Table: meta.RowLogName, Name: string(name), At: int64(be64(v))})
		case isTile && len(tile) == 9:
			return d.f(&meta.Row{Table: meta.RowLogTile, Size: int64(tile[0]) - 1, At: int64(be64(tile[1:])), Doc: v})
		case isPending:
			return d.f(&meta.Row{Table: meta.RowLogPending, Name: string(pending), Doc: v})
		}
		return malformed(logBucket, k)
	})
}

func (d *dump) events() error {
	err := d.each(eventBucket, nil, func(k, v []byte) error {
		if len(k) != 8 {
			return malformed(eventBucket, k)
		}
		return d.f(&meta.Row{Table: meta.RowEvent, At: int64(be64(k)), Doc: v})
	})
	if err != nil {
		return err
	}
	if last := d.t.lastEvent(); last > 0 {
		if err := d.f(&meta.Row{Table: meta.RowEventNumber, At: last}); err != nil {
			return err
		}
	}
	return d.each(deliveryBucket, nil, func(k, v []byte) error {
		if len(k) < 10 || k[len(k)-9] != 0 {
			return malformed(deliveryBucket, k)
		}
		r := &meta.Row{Table: meta.RowDelivery, Name: string(k[1 : len(k)-9]), At: deliverySeq(k), Doc: v}
		if k[0] == deliveryPending {
			r.Kind = 1
		}
		return d.f(r)
	})
}
