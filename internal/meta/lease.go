package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Lease is the right to do a certain kind of work alone, among all processes that share
// the metadata.
type Lease struct {
	Name string
	// Epoch is the fencing token: it grows each time that the lease is taken.
	Epoch int64
	// Holder is random for each acquisition: a store that lost the commit of an
	// acquisition would assign the same epoch again.
	Holder string
}

// Names of leases. A name that ends in a slash is a prefix.
const (
	LeaseSync   = "sync/"   // + name of a mirror: syncs
	LeaseFreeze = "freeze/" // + name of a freeze: making, importing, clearing what is left of it
	LeaseGC     = "gc"      // collection
)

// LeaseState describes a lease for display.
type LeaseState struct {
	Lease
	Who     string // name that the holder gave
	Expires time.Time
	Held    bool // it has not expired
}

// Leases manages leases. A lease that has expired is lost only when somebody else takes
// it; until then its holder may renew it and write.
type Leases interface {
	// AcquireLease takes a lease that nobody holds or that has expired, until ttl has
	// passed. ErrLeased if somebody holds it.
	AcquireLease(ctx context.Context, name, who string, ttl time.Duration) (Lease, error)
	// RenewLease prolongs a lease until ttl has passed. ErrFenced if it is lost.
	RenewLease(ctx context.Context, l Lease, ttl time.Duration) error
	// ReleaseLease releases a lease. It changes nothing if the lease is lost.
	ReleaseLease(ctx context.Context, l Lease) error
	// LeaseStates lists all leases that were ever taken, by name.
	LeaseStates(ctx context.Context) ([]LeaseState, error)
}

type leaseKey struct{}

// UnderLease returns a context whose writes to the metadata require a lease, in addition
// to the leases of ctx. A transaction commits only while all of them are held, and
// otherwise fails with ErrFenced. No commit under a lease follows a commit of the next
// holder.
func UnderLease(ctx context.Context, l Lease) context.Context {
	held := LeasesOf(ctx)
	if slices.Contains(held, l) {
		return ctx
	}
	return context.WithValue(ctx, leaseKey{}, append(held[:len(held):len(held)], l))
}

// WithoutLeases returns a context whose writes require no lease. It is for transactions
// that take longer than a lease: they would prevent its renewal.
func WithoutLeases(ctx context.Context) context.Context {
	return context.WithValue(ctx, leaseKey{}, []Lease(nil))
}

// LeasesOf returns the leases under which ctx writes.
func LeasesOf(ctx context.Context) []Lease {
	held, _ := ctx.Value(leaseKey{}).([]Lease)
	return held
}

type currentKey struct{}

// Current returns a context in which queries are answered only by the metadata, and never
// from the cache that a node uses while it cannot reach them. Use it before acknowledging
// a change or reporting a fault: a cached answer may be out of date.
func Current(ctx context.Context) context.Context {
	return context.WithValue(ctx, currentKey{}, true)
}

// OnlyCurrent reports whether ctx comes from Current, or has a lease.
func OnlyCurrent(ctx context.Context) bool {
	return ctx.Value(currentKey{}) != nil || len(LeasesOf(ctx)) > 0
}

type detourKey struct{}

// Detour returns a context for a query after whose answer "not found" the caller only
// tries another query. For such a query, a node may cache even "not found" for the time
// in which it cannot reach the metadata.
func Detour(ctx context.Context) context.Context {
	return context.WithValue(ctx, detourKey{}, true)
}

// OnDetour reports whether ctx comes from Detour.
func OnDetour(ctx context.Context) bool { return ctx.Value(detourKey{}) != nil }

// Durations of the leases that Lead takes.
const (
	leaseTime  = 15 * time.Second
	leaseRenew = leaseTime / 3
)

// Lead runs work under a lease, which it renews until work returns. If the lease is lost
// or cannot be renewed in time, the context of work ends and the error wraps ErrFenced.
// ErrLeased if somebody else holds the lease.
func Lead(ctx context.Context, leases Leases, name, who string, work func(context.Context) error) error {
	l, err := leases.AcquireLease(ctx, name, who, leaseTime)
	if err != nil {
		return err
	}
	under, lose := context.WithCancelCause(UnderLease(ctx, l))
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		renew(under, leases, l, lose)
	}()
	err = work(under)
	lose(nil)
	<-renewed
	if cause := context.Cause(under); errors.Is(cause, ErrFenced) && err != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	// A lease that is not released expires.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseRenew)
	defer cancel()
	if release := leases.ReleaseLease(end, l); err == nil && release != nil && !errors.Is(release, ErrFenced) {
		return fmt.Errorf("release lease %s: %w", name, release)
	}
	return err
}

// renew prolongs a lease until ctx ends, and cancels ctx if that fails.
func renew(ctx context.Context, leases Leases, l Lease, lose context.CancelCauseFunc) {
	until := time.Now().Add(leaseTime)
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		start := time.Now()
		ask, cancel := context.WithDeadline(ctx, until)
		err := leases.RenewLease(ask, l, leaseTime)
		cancel()
		switch {
		case err == nil:
			until = start.Add(leaseTime)
		case errors.Is(err, ErrFenced):
			lose(err)
			return
		case !time.Now().Before(until):
			lose(fmt.Errorf("%w: lease %s was not renewed in time: %w", ErrFenced, l.Name, err))
			return
		}
	}
}
