package bolt

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/meta"
)

// leases are the leases of the one process that has the database open. They need not
// outlive it.
type leases struct {
	mu   sync.RWMutex // held for reading by each commit under a lease
	held map[string]*meta.LeaseState
}

// has reports whether a lease is current. The caller holds mu.
func (ls *leases) has(l meta.Lease) bool {
	have := ls.held[l.Name]
	return have != nil && have.Lease == l && l.Holder != ""
}

// fence checks that leases are held, and prevents others from taking them until done is
// called. ErrFenced.
func (ls *leases) fence(all []meta.Lease) (done func(), err error) {
	if len(all) == 0 {
		return func() {}, nil
	}
	ls.mu.RLock()
	for _, l := range all {
		if !ls.has(l) {
			ls.mu.RUnlock()
			return func() {}, fenced(l)
		}
	}
	return ls.mu.RUnlock, nil
}

// check checks that leases are held now. ErrFenced.
func (ls *leases) check(all []meta.Lease) error {
	done, err := ls.fence(all)
	done()
	return err
}

func fenced(l meta.Lease) error {
	return fmt.Errorf("lease %s of epoch %d: %w", l.Name, l.Epoch, meta.ErrFenced)
}

// AcquireLease implements meta.Leases.
func (s *Store) AcquireLease(ctx context.Context, name, who string, ttl time.Duration) (meta.Lease, error) {
	if err := ctx.Err(); err != nil {
		return meta.Lease{}, err
	}
	ls := &s.leases
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	next := meta.LeaseState{Lease: meta.Lease{Name: name, Epoch: 1, Holder: rand.Text()}, Who: who, Expires: now.Add(ttl)}
	if old := ls.held[name]; old != nil {
		if old.Holder != "" && now.Before(old.Expires) {
			return meta.Lease{}, fmt.Errorf("lease %s, held by %s: %w", name, old.Who, meta.ErrLeased)
		}
		next.Epoch = old.Epoch + 1
	}
	if ls.held == nil {
		ls.held = map[string]*meta.LeaseState{}
	}
	ls.held[name] = &next
	return next.Lease, nil
}

// RenewLease implements meta.Leases.
func (s *Store) RenewLease(ctx context.Context, l meta.Lease, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ls := &s.leases
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !ls.has(l) {
		return fenced(l)
	}
	ls.held[l.Name].Expires = time.Now().Add(ttl)
	return nil
}

// ReleaseLease implements meta.Leases.
func (s *Store) ReleaseLease(ctx context.Context, l meta.Lease) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ls := &s.leases
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.has(l) {
		ls.held[l.Name].Holder, ls.held[l.Name].Expires = "", time.Now()
	}
	return nil
}

// LeaseStates implements meta.Leases.
func (s *Store) LeaseStates(ctx context.Context) ([]meta.LeaseState, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ls := &s.leases
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	var out []meta.LeaseState
	for _, l := range ls.held {
		state := *l
		state.Held = l.Holder != "" && time.Now().Before(l.Expires)
		out = append(out, state)
	}
	slices.SortFunc(out, func(a, b meta.LeaseState) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
