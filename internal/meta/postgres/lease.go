package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
)

// AcquireLease implements meta.Leases. Times are those of the server's clock.
func (s *Store) AcquireLease(ctx context.Context, name, who string, ttl time.Duration) (meta.Lease, error) {
	l := meta.Lease{Name: name, Holder: rand.Text()}
	err := s.write(ctx, "acquire lease", func(t *tx) error {
		ok, err := t.one(ctx, []any{&l.Epoch}, `
			insert into lease (name, epoch, holder, who, expires) values ($1, 1, $2, $3, clock_timestamp() + $4)
			on conflict (name) do update set epoch = lease.epoch + 1, holder = excluded.holder, who = excluded.who, expires = excluded.expires
			where lease.holder = '' or lease.expires < clock_timestamp()
			returning epoch`, name, l.Holder, who, ttl)
		if err != nil || ok {
			return err
		}
		var holder string
		if _, err := t.one(ctx, []any{&holder}, "select who from lease where name = $1", name); err != nil {
			return err
		}
		return fmt.Errorf("lease %s, held by %s: %w", name, holder, meta.ErrLeased)
	})
	if err != nil {
		return meta.Lease{}, err
	}
	return l, nil
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

// ReleaseLease implements meta.Leases.
func (s *Store) ReleaseLease(ctx context.Context, l meta.Lease) error {
	return s.write(ctx, "release lease", func(t *tx) error {
		_, err := t.exec(ctx, "update lease set holder = '', expires = clock_timestamp() where name = $1 and epoch = $2 and holder = $3", l.Name, l.Epoch, l.Holder)
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
