package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// WriteTo writes the whole database to w, as one read transaction sees it:
// writers go on meanwhile. What it wrote is a database file that Open and
// OpenReadOnly open.
func (s *Store) WriteTo(ctx context.Context, w io.Writer) (n int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	out := &ctxWriter{ctx: ctx, w: w}
	err = s.db.View(func(tx *bolt.Tx) error {
		n, err = tx.WriteTo(out)
		return err
	})
	if out.err != nil {
		err = out.err // bbolt tells only its text
	}
	if err != nil {
		return n, fmt.Errorf("copy metadata: %w", err)
	}
	return n, nil
}

// Size is the number of bytes that WriteTo would write.
func (s *Store) Size(ctx context.Context) (n int64, err error) {
	err = s.View(ctx, func(t *Tx) error { n = t.tx.Size(); return nil })
	return n, err
}

// ctxWriter fails once its context has ended.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
	err error // the first
}

func (w *ctxWriter) Write(p []byte) (n int, err error) {
	if err = w.ctx.Err(); err == nil {
		n, err = w.w.Write(p)
	}
	if err != nil && w.err == nil {
		w.err = err
	}
	return n, err
}

// OpenReadOnly opens an existing database file for View alone and changes
// nothing in it. ErrLocked, ErrVersion.
func OpenReadOnly(path string) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("metadata %s: %w", path, ErrLocked)
	} else if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		db.Close()
		return nil, err
	}
	s := &Store{db: db, zr: zr}
	if err := s.View(context.Background(), checkSchema); err != nil {
		db.Close()
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	return s, nil
}

// checkSchema refuses a database that this program cannot read.
func checkSchema(t *Tx) error {
	for _, b := range buckets {
		if t.tx.Bucket([]byte(b)) == nil {
			return fmt.Errorf("%w: no bucket %q", ErrCorrupt, b)
		}
	}
	if v := t.b("meta").Get([]byte("version")); len(v) != 4 || be32(v) > schemaVersion {
		return fmt.Errorf("%w: schema %x, this program knows %d", ErrVersion, v, schemaVersion)
	}
	return nil
}

// CheckReadOnly checks every page of a database that OpenReadOnly opened.
func (s *Store) CheckReadOnly(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) (first error) {
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
		return first
	})
}
