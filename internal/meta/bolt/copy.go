package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"

	"go.etcd.io/bbolt"
)

// WriteTo writes the whole database to w as one read transaction sees it; writers
// continue in the meantime. Open and OpenReadOnly can open the result.
func (s *Store) WriteTo(ctx context.Context, w io.Writer) (n int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	out := &ctxWriter{ctx: ctx, w: w}
	err = s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			n, err = tx.WriteTo(out)
			return err
		})
	})
	if out.err != nil {
		err = out.err // bbolt returns only its text
	}
	if err != nil {
		return n, fmt.Errorf("copy metadata: %w", err)
	}
	return n, nil
}

// Size is the number of bytes that WriteTo would write.
func (s *Store) Size(ctx context.Context) (n int64, err error) {
	err = s.view(ctx, func(t *txn) error { n = t.tx.Size(); return nil })
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

// OpenReadOnly opens an existing database file only for reading, and changes nothing in
// it. Damage that would crash bbolt is ErrCorrupt; Damage reports other damage.
// ErrLocked, ErrVersion.
func OpenReadOnly(path string) (*Store, error) {
	s, err := openReadOnly(path)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	return s, nil
}

func openReadOnly(path string) (*Store, error) {
	f, err := lock(path, syscall.LOCK_SH, time.Second)
	if err != nil {
		return nil, err
	}
	st, err := inspect(f)
	if err == nil && st.version < schemaVersion {
		err = fmt.Errorf("%w: schema %d, expected %d", meta.ErrVersion, st.version, schemaVersion)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &Store{file: f, latency: new(latency.Metadata)}
	if s.zr, err = compact.NewDecoder(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if s.db, err = openBolt(f, true); err != nil {
		return nil, err
	}
	if err := joinFaults(st.faults); err != nil {
		s.damaged.Store(&err)
	}
	return s, nil
}
