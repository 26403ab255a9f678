package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
)

// tx is one transaction.
type tx struct {
	pgx.Tx
	s *Store
}

// read runs f in a transaction that sees one committed state.
func (s *Store) read(ctx context.Context, f func(*tx) error) error {
	defer s.o.Latency.Read.Since(latency.Start())
	return mapped(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(t pgx.Tx) error {
		if s.o.Twice {
			if err := f(&tx{t, s}); err != nil {
				return err
			}
		}
		return f(&tx{t, s})
	}))
}

// ask runs one query in a read transaction.
func ask[T any](ctx context.Context, s *Store, f func(*tx) (T, error)) (out T, err error) {
	err = s.read(ctx, func(t *tx) (err error) {
		out, err = f(t)
		return err
	})
	return out, err
}

// maxAttempts limits how often a transaction that conflicts with others is run.
const maxAttempts = 8

// write runs f in a write transaction and commits it durably, while the leases of
// ctx are held. f may run more than once.
func (s *Store) write(ctx context.Context, op string, f func(*tx) error) error {
	defer s.o.Latency.Write.Since(latency.Start())
	var err error
	for range maxAttempts {
		if s.o.Twice {
			if err = s.attempt(ctx, op, f, false); err != nil {
				if conflicts(err) {
					continue
				}
				break
			}
		}
		if err = s.attempt(ctx, op, f, true); !conflicts(err) {
			break
		}
	}
	return mapped(err)
}

// conflicts reports whether a transaction failed because of others and may succeed if it
// is run again.
func conflicts(err error) bool {
	var p *pgconn.PgError
	return errors.As(err, &p) && (p.Code == "40001" || p.Code == "40P01")
}

func (s *Store) attempt(ctx context.Context, op string, f func(*tx) error, commit bool) (err error) {
	begun, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	// After a commit this does nothing.
	defer func() { _ = begun.Rollback(context.WithoutCancel(ctx)) }()
	t := &tx{begun, s}
	if err := t.fence(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := f(t); err != nil || !commit {
		return err
	}
	var fail error
	if s.o.Fault != nil {
		apply, err := s.o.Fault(op)
		if err != nil && !apply {
			return err
		}
		fail = err
	}
	var xid *string // null: nothing was written
	if err := t.QueryRow(ctx, "select pg_current_xact_id_if_assigned()::text").Scan(&xid); err != nil {
		return err
	}
	if err := t.Commit(ctx); err != nil {
		if err = s.unanswered(ctx, op, xid, err); err != nil {
			return err
		}
	}
	return fail
}

// fence locks the leases of ctx, so that nobody takes them before this transaction ends.
// ErrFenced if one was taken.
func (t *tx) fence(ctx context.Context) error {
	for _, l := range meta.LeasesOf(ctx) {
		var one int
		err := t.QueryRow(ctx, "select 1 from lease where name = $1 and epoch = $2 and holder = $3 for share", l.Name, l.Epoch, l.Holder).Scan(&one)
		if errors.Is(err, pgx.ErrNoRows) {
			return fenced(l)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func fenced(l meta.Lease) error {
	return fmt.Errorf("lease %s of epoch %d: %w", l.Name, l.Epoch, meta.ErrFenced)
}

// Limits of the requests for the outcome of a commit.
const (
	unansweredTime  = 20 * time.Second
	unansweredPause = 250 * time.Millisecond
)

// unanswered finds the outcome of a commit that failed: nil if it took effect,
// durable.ErrUnknown if that is unknown.
func (s *Store) unanswered(ctx context.Context, op string, xid *string, failed error) error {
	var p *pgconn.PgError
	if xid == nil || errors.As(failed, &p) && p.Code != "57P01" && p.Code != "57P02" || errors.Is(failed, pgx.ErrTxCommitRollback) {
		return failed // the server has answered
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unansweredTime)
	defer cancel()
	for {
		var status *string
		err := s.pool.QueryRow(ctx, "select pg_xact_status($1::text::xid8)", *xid).Scan(&status)
		switch {
		case errors.As(err, &p) && p.Code == "22023":
			return failed // a future transaction: a standby without it took over
		case err == nil && status != nil && *status == "committed":
			return nil
		case err == nil && status != nil && *status == "aborted":
			return failed
		}
		pause := time.NewTimer(unansweredPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("%w: commit %s: %w", durable.ErrUnknown, op, failed)
		case <-pause.C:
		}
	}
}

// mapped assigns classes to errors of the database.
func mapped(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, meta.ErrUnreachable) || errors.Is(err, meta.ErrCorrupt) || errors.Is(err, durable.ErrUnknown) {
		return err
	}
	var p *pgconn.PgError
	var connect *pgconn.ConnectError
	var parse *pgconn.ParseConfigError
	switch {
	case errors.As(err, &parse):
		return err
	case errors.As(err, &p) && (p.Code == "XX001" || p.Code == "XX002"):
		return fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	case errors.As(err, &p) && unreachable(p.Code), errors.As(err, &connect), pgconn.SafeToRetry(err), isNetwork(err):
		return fmt.Errorf("%w: %w", meta.ErrUnreachable, err)
	}
	return err
}

// isNetwork reports whether a connection broke.
func isNetwork(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) || err.Error() == "conn closed" || errors.Is(err, context.DeadlineExceeded)
}

// unreachable reports whether an error says that the server or this session is
// unavailable: connection exceptions, too many connections, shutdown, timeouts.
func unreachable(code string) bool {
	switch code {
	case "53300", "55P03", "57014", "57P01", "57P02", "57P03", "25P03", "25006":
		return true
	}
	return len(code) == 5 && code[:2] == "08"
}

// one scans the only row of a query. It returns false if there is no row.
func (t *tx) one(ctx context.Context, dest []any, sql string, args ...any) (bool, error) {
	err := t.QueryRow(ctx, sql, args...).Scan(dest...)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// exec runs a statement.
func (t *tx) exec(ctx context.Context, sql string, args ...any) (int64, error) {
	tag, err := t.Exec(ctx, sql, args...)
	return tag.RowsAffected(), err
}

// each calls f after each row was scanned into dest.
func (t *tx) each(ctx context.Context, dest []any, f func() error, sql string, args ...any) error {
	rows, err := t.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, dest, f)
	return err
}

// doc reads one JSON document. ErrNotFound.
func (t *tx) doc(ctx context.Context, v any, sql string, args ...any) error {
	var data []byte
	ok, err := t.one(ctx, []any{&data}, sql, args...)
	if err != nil {
		return err
	}
	if !ok {
		return meta.ErrNotFound
	}
	return undoc(data, v)
}

func undoc(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	}
	return nil
}

// docs reads JSON documents.
func docs[T any](ctx context.Context, t *tx, sql string, args ...any) (out []*T, err error) {
	var data []byte
	err = t.each(ctx, []any{&data}, func() error {
		v := new(T)
		out = append(out, v)
		return undoc(data, v)
	}, sql, args...)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// values removes a level of pointers.
func values[T any](all []*T, err error) ([]T, error) {
	if err != nil || all == nil {
		return nil, err
	}
	out := make([]T, len(all))
	for i, p := range all {
		out[i] = *p
	}
	return out, nil
}

// strs reads one column of text.
func (t *tx) strs(ctx context.Context, sql string, args ...any) (out []string, err error) {
	var text string
	err = t.each(ctx, []any{&text}, func() error { out = append(out, text); return nil }, sql, args...)
	return out, err
}

// putDoc runs a statement whose last argument is v as JSON.
func (t *tx) putDoc(ctx context.Context, v any, sql string, args ...any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, sql, append(args, data)...)
	return err
}

// lockName locks the name of a freeze or a recording until the transaction ends.
func (t *tx) lockName(ctx context.Context, name string) error {
	_, err := t.exec(ctx, "select pg_advisory_xact_lock(hashtextextended($1, 0))", name)
	return err
}

// changeLock is the advisory lock under which changes are numbered.
const changeLock = 0x6368616e6765 // "change"

// changed records a change in the feed. It is called at the end of a transaction, because
// others wait for its commit to number their changes.
func (t *tx) changed(ctx context.Context, what, name string) error {
	if _, err := t.exec(ctx, "select pg_advisory_xact_lock($1)", changeLock); err != nil {
		return err
	}
	_, err := t.exec(ctx, "insert into change (what, name) values ($1, $2)", what, name)
	return err
}
