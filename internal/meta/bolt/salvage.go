package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/meta"
)

// Salvaged is the result of Salvage.
type Salvaged struct {
	Sound   bool           // the database has no faults: nothing was changed
	Kept    string         // where the damaged database is now
	Entries map[string]int // copied, by bucket
	// Expected is the number of entries that each bucket had, without buckets whose sum
	// is lost.
	Expected map[string]int
}

// Salvage copies every readable entry of the damaged database at path into a new one, and
// keeps the old one beside it. It copies the sums unchanged, so that Verify reports what
// is missing. It changes nothing if the database has no faults. report is called before
// the new database gets its name. ErrLocked.
func Salvage(path string, now time.Time, report func(*Salvaged) error) (*Salvaged, error) {
	f, err := lock(path, syscall.LOCK_EX, time.Second)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	defer f.Close()
	if st, err := inspect(f); err == nil && st.version == schemaVersion && len(st.faults) == 0 {
		return &Salvaged{Sound: true}, nil
	}
	res, err := salvageFile(f, path)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	res.Kept = path + ".damaged-" + now.UTC().Format(meta.TimestampFormat)
	if err := report(res); err != nil {
		return nil, errors.Join(err, os.Remove(path+".new"))
	}
	if err := rename(path, res.Kept); err != nil {
		return nil, err
	}
	return res, rename(path+".new", path)
}

// salvageFile copies what can be read to path.new.
func salvageFile(f *os.File, path string) (res *Salvaged, err error) {
	m, _, err := readMetas(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Pages beyond the end of a truncated file are faults like others.
	if m.pageSize < minPageSize || m.pageSize > maxPageSize {
		return nil, fmt.Errorf("%w: page size %d", meta.ErrCorrupt, m.pageSize)
	}
	m.pages = min(m.pages, uint64(st.Size())/uint64(m.pageSize))
	r := &pageReader{ctx: context.Background(), r: f, size: st.Size(), meta: m, seen: make([]bool, m.pages)}
	tmp := path + ".new"
	err = build(tmp, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error {
			// A bucket whose sum cannot be read gets no sum, so that it does not count as
			// complete.
			for _, name := range buckets {
				if err := tx.Bucket([]byte(sumsBucket)).Delete([]byte(name)); err != nil {
					return err
				}
			}
			v := &salvage{tx: tx, n: map[string]int{}}
			r.walk(v)
			res = v.result()
			return v.err
		})
	})
	if err == nil && len(res.Entries) == 0 {
		err = fmt.Errorf("%w: nothing can be read: %w", meta.ErrCorrupt, r.err())
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(tmp))
	}
	return res, nil
}

// Buckets returns the names of all buckets of a database.
func Buckets() []string { return append([]string{sumsBucket}, buckets...) }

// salvage is a visitor that copies entries as they are stored.
type salvage struct {
	tx  *bbolt.Tx
	n   map[string]int // entries, by bucket
	err error
	h   hasher
}

func (s *salvage) open(bucket string, sequence uint64) {
	if b := s.tx.Bucket([]byte(bucket)); b != nil && s.err == nil {
		s.err = b.SetSequence(sequence)
	}
}

func (s *salvage) entry(bucket string, k, stored []byte) {
	b := s.tx.Bucket([]byte(bucket))
	if b == nil || s.err != nil {
		return
	}
	if _, _, ok := s.h.split(bucket, k, stored); !ok {
		return
	}
	// Damaged pages may name an entry twice, and build has put the version there.
	if b.Get(k) == nil || bucket == "meta" && string(k) == "version" {
		s.n[bucket]++
	}
	s.err = b.Put(bytes.Clone(k), bytes.Clone(stored))
}

// result counts the copied entries, and reads how many there were from the sums.
func (s *salvage) result() *Salvaged {
	res := &Salvaged{Entries: s.n, Expected: map[string]int{sumsBucket: len(buckets)}}
	t := &txn{tx: s.tx}
	for _, name := range buckets {
		if sum, ok := t.wantedSum(name); ok {
			res.Expected[name] = int(sum.Count)
		}
	}
	return res
}
