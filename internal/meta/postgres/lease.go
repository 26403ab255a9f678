package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.org/snapd/internal/meta"
)

// stalledTime is how long a transaction under a lease that has expired may wait for its
// client before the session is ended.
const stalledTime = 5 * time.Second

// acquireTime limits the wait for the transactions of a lease's holder.
const acquireTime = time.Second

// acquire takes a lease. A stalled holder may be in the middle of a transaction, which
// locks the lease's row for as long as the holder stalls: the server limits neither the
// wait for the data of a COPY nor that for a machine that disappeared. So acquire ends
// the sessions of such holders.
const (
	acquire = stalled + take
	stalled = `
	with stalled as materialized (
		select pg_terminate_backend(a.pid) from pg_stat_activity a join pg_locks l on l.pid = a.pid
		where exists (select from lease where name = $1 and holder <> '' and expires < clock_timestamp())
		and l.database = (select oid from pg_database where datname = current_database())
		and l.relation = 'lease'::regclass and l.mode = 'RowShareLock' and a.xact_start is not null
		and a.wait_event_type = 'Client' and a.state_change < clock_timestamp() - $5::interval)`
	take = `
	insert into lease (name, epoch, holder, who, expires)
	select $1::text, 1, $2::text, $3::text, clock_timestamp() + $4::interval where (select count(*) from stalled) >= 0 and set_config('lock_timeout', $6, true) <> ''
	on conflict (name) do update set epoch = lease.epoch + 1, holder = excluded.holder, who = excluded.who, expires = excluded.expires
	where lease.holder = '' or lease.expires < clock_timestamp()
	returning epoch`
)

// AcquireLease implements meta.Leases. Times are those of the server's clock.
func (s *Store) AcquireLease(ctx context.Context, name, who string, ttl time.Duration) (meta.Lease, error) {
	l := meta.Lease{Name: name, Holder: rand.Text()}
	err := s.write(ctx, "acquire lease", func(t *tx) error {
		ok, err := t.one(ctx, []any{&l.Epoch}, acquire, name, l.Holder, who, ttl, stalledTime, millis(acquireTime))
		if locked(err) {
			return leasedInTransaction(name)
		}
		if err != nil || ok {
			return err
		}
		return leased(ctx, t, name)
	})
	if err != nil {
		return meta.Lease{}, err
	}
	return l, nil
}

func leasedInTransaction(name string) error {
	return fmt.Errorf("lease %s, whose holder is in the middle of a transaction: %w", name, meta.ErrLeased)
}

// leased returns meta.ErrLeased for a lease that somebody holds.
func leased(ctx context.Context, t interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, name string) error {
	var holder string
	if err := t.QueryRow(ctx, "select who from lease where name = $1", name).Scan(&holder); err != nil {
		return err
	}
	return fmt.Errorf("lease %s, held by %s: %w", name, holder, meta.ErrLeased)
}

// locked reports whether a lock was not available in time.
func locked(err error) bool {
	var p *pgconn.PgError
	return errors.As(err, &p) && p.Code == "55P03"
}

// RenewLease implements meta.Leases.
func (s *Store) RenewLease(ctx context.Context, l meta.Lease, ttl time.Duration) error {
	return s.write(ctx, "renew lease", func(t *tx) error {
		n, err := t.exec(ctx, "update lease set expires = clock_timestamp() + $4 where name = $1 and epoch = $2 and holder = $3", l.Name, l.Epoch, l.Holder, ttl)
		if err == nil && n == 0 {
			err = fenced(l)
		}
		return err
	})
}

const release = "update lease set holder = '', expires = clock_timestamp() where name = $1 and epoch = $2 and holder = $3"

// ReleaseLease implements meta.Leases.
func (s *Store) ReleaseLease(ctx context.Context, l meta.Lease) error {
	return s.write(ctx, "release lease", func(t *tx) error {
		_, err := t.exec(ctx, release, l.Name, l.Epoch, l.Holder)
		return err
	})
}

// LeaseStates implements meta.Leases.
func (s *Store) LeaseStates(ctx context.Context) ([]meta.LeaseState, error) {
	return ask(ctx, s, func(t *tx) (out []meta.LeaseState, err error) {
		var l meta.LeaseState
		err = t.each(ctx, []any{&l.Name, &l.Epoch, &l.Holder, &l.Who, &l.Expires, &l.Held}, func() error {
			l.Expires = l.Expires.UTC()
			out = append(out, l)
			return nil
		}, "select name, epoch, holder, who, expires, holder <> '' and expires >= clock_timestamp() from lease order by name")
		return out, err
	})
}
