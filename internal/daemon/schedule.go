package daemon

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror"
)

const (
	// jitter spreads syncs by this part of their interval to either side, so
	// that many servers do not ask a mirror at the same second.
	jitter = 0.05
	// minRetry is the shortest wait after a sync that failed.
	minRetry = time.Minute
	// taskRetry is the wait after other periodic work that failed.
	taskRetry = time.Hour
)

// scheduler syncs each mirror at its interval, and runs other periodic work.
type scheduler struct {
	d     *daemon
	mu    sync.Mutex
	times map[string]time.Time
}

func newScheduler(d *daemon) *scheduler {
	return &scheduler{d: d, times: map[string]time.Time{}}
}

// next tells when a mirror is synced next; the zero time: only when asked for.
func (s *scheduler) next(name string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[name]
}

func (s *scheduler) set(name string, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[name] = t.UTC().Truncate(time.Second)
}

// run ends with ctx.
func (s *scheduler) run(ctx context.Context) error {
	var eg errgroup.Group
	for _, m := range s.d.cfg.Mirrors {
		if m.Interval > 0 {
			eg.Go(func() error { return s.mirror(ctx, m) })
		}
	}
	for _, p := range s.d.periodic() {
		if p.every > 0 {
			eg.Go(func() error { return s.every(ctx, p) })
		}
	}
	<-ctx.Done()
	return eg.Wait()
}

// spread moves a duration by the jitter.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*rand.Float64()-1)))
}

// mirror syncs one mirror: at once when the last check is older than the
// interval, then an interval after each.
func (s *scheduler) mirror(ctx context.Context, m config.Mirror) error {
	interval := m.Interval.D()
	last, err := s.d.store.LastCheck(ctx, m.Name)
	if ctx.Err() != nil {
		return nil
	} else if err != nil {
		s.d.log.Error("read the last check", "mirror", m.Name, "err", err) // it is due at once
	}
	due := notAfter(last.Checked.Add(interval), s.d.o.Now().Add(interval))
	for {
		s.set(m.Name, due)
		if !sleep(ctx, due.Sub(s.d.o.Now())) {
			return nil
		}
		wait := spread(interval)
		if _, err := s.d.control.Sync(ctx, m.Name, mirror.SyncOptions{}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.d.log.Error("sync failed", "repo", m.Name, "err", err)
			wait = min(wait, spread(max(interval/4, minRetry)))
		}
		due = s.d.o.Now().Add(wait)
	}
}

// notAfter bounds a time: what was noted by a clock that was ahead must not put
// work off for as long.
func notAfter(t, bound time.Time) time.Time {
	if t.After(bound) {
		return bound
	}
	return t
}

// task is periodic work other than syncs.
type task struct {
	name  string // also of the store's mark of its last run
	every time.Duration
	run   func(ctx context.Context) error
}

// every runs a task at its interval, counted over restarts.
func (s *scheduler) every(ctx context.Context, t task) error {
	key := "last." + t.name
	var last time.Time
	noted, err := s.d.store.Note(ctx, key)
	if ctx.Err() != nil {
		return nil
	} else if err != nil {
		s.d.log.Error("read when it was done last", "task", t.name, "err", err) // it is due at once
	}
	if noted != "" {
		if last, err = time.Parse(time.RFC3339, noted); err != nil {
			s.d.log.Error("read when it was done last", "task", t.name, "err", err)
		}
	}
	due := notAfter(last.Add(t.every), s.d.o.Now().Add(t.every))
	for {
		// Not in the rush of a start.
		if !sleep(ctx, max(due.Sub(s.d.o.Now()), minRetry)) {
			return nil
		}
		if err := t.run(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.d.log.Error("periodic work failed", "task", t.name, "err", err)
			due = s.d.o.Now().Add(min(t.every, spread(taskRetry)))
			continue
		}
		now := s.d.o.Now()
		if err := s.d.store.SetNote(ctx, key, now.UTC().Format(time.RFC3339)); ctx.Err() != nil {
			return nil
		} else if err != nil {
			s.d.log.Error("note when it was done", "task", t.name, "err", err)
		}
		due = now.Add(spread(t.every))
	}
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
