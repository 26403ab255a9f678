package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
)

const (
	// jitter is the fraction of its interval by which a sync is moved earlier or later, so
	// that many servers do not contact a mirror in the same second.
	jitter = 0.05
	// minRetry is the shortest wait after a failed sync.
	minRetry = time.Minute
	// taskRetry is the wait after other failed work.
	taskRetry = time.Hour
)

// scheduler syncs each mirror at its interval, and runs other periodic work.
type scheduler struct {
	d *daemon

	mu      sync.Mutex
	times   map[string]time.Time
	start   func()                     // starts configured loops that are not running; nil: the scheduler is not running
	mirrors map[config.MirrorName]bool // mirrors with a loop
	tasks   map[string]*loop           // by name
	changed chan struct{}              // closed by a reload
}

// loop is a running periodic task.
type loop struct {
	every time.Duration
	stop  context.CancelFunc
}

func newScheduler(d *daemon) *scheduler {
	return &scheduler{d: d, times: map[string]time.Time{}, mirrors: map[meta.MirrorName]bool{}, tasks: map[string]*loop{}, changed: make(chan struct{})}
}

// next returns the time of the next sync of a mirror; zero: only on request.
func (s *scheduler) next(name config.MirrorName) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[string(name)]
}

func (s *scheduler) set(name config.MirrorName, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[string(name)] = t.UTC().Truncate(time.Second)
}

// run runs until ctx is done.
func (s *scheduler) run(ctx context.Context) error {
	if s.d.cfg.Store.Serves() {
		<-ctx.Done()
		return nil
	}
	var running sync.WaitGroup
	s.mu.Lock()
	s.start = func() { s.startAll(ctx, &running) }
	s.start()
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.start = nil
	s.mu.Unlock()
	running.Wait()
	return nil
}

// reload applies a change of the configuration in effect. Syncs in progress continue; a
// periodic task whose interval changed starts again.
func (s *scheduler) reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	if s.start != nil {
		s.start()
	}
}

// startAll starts a loop for each mirror and task that needs one and has none. The caller
// holds s.mu.
func (s *scheduler) startAll(ctx context.Context, running *sync.WaitGroup) {
	for _, m := range s.d.reloads.live.Load().Mirrors {
		if m.Interval > 0 && !s.mirrors[m.Name] {
			s.mirrors[m.Name] = true
			running.Go(func() { s.mirror(ctx, m.Name) })
		}
	}
	for _, t := range s.d.periodic() {
		if l := s.tasks[t.name]; l != nil && l.every != t.every {
			l.stop()
			delete(s.tasks, t.name)
		}
		if t.every > 0 && s.tasks[t.name] == nil {
			own, stop := context.WithCancel(ctx)
			s.tasks[t.name] = &loop{t.every, stop}
			running.Go(func() {
				defer stop()
				s.every(own, t)
			})
		}
	}
}

// scheduled returns the configuration of a mirror that is synced at intervals, and the
// channel that the next reload closes. If it returns nil, the mirror is not scheduled any
// more and its loop must end.
func (s *scheduler) scheduled(name config.MirrorName) (*config.Mirror, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.d.reloads.live.Load().Mirrors {
		if m.Name == name && m.Interval > 0 {
			return &m, s.changed
		}
	}
	delete(s.mirrors, name)
	delete(s.times, string(name))
	return nil, nil
}

// sameMirror reports whether two configurations of a mirror are equal.
func sameMirror(a, b *config.Mirror) bool { return reflect.DeepEqual(a, b) }

// spread moves a duration by the jitter.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*rand.Float64()-1)))
}

// mirror syncs one mirror: at once if the last check is older than the interval or
// the mirror's configuration changes, then an interval after each sync.
func (s *scheduler) mirror(ctx context.Context, name config.MirrorName) {
	m, changed := s.scheduled(name)
	if m == nil {
		return
	}
	last, err := s.d.store.LastCheck(ctx, name)
	if ctx.Err() != nil {
		return
	} else if err != nil {
		s.d.log.Error("read the last check", "mirror", name, "err", err) // it is due at once
	}
	due := firstDue(last.Checked, m.Interval.D(), s.d.o.Now())
	for {
		s.set(name, due)
		if !sleepUnless(ctx, due.Sub(s.d.o.Now()), changed) {
			return
		}
		next, nextChange := s.scheduled(name)
		if next == nil {
			return
		}
		if !sameMirror(m, next) {
			due = s.d.o.Now()
		}
		if m, changed = next, nextChange; s.d.o.Now().Before(due) {
			continue
		}
		wait := spread(m.Interval.D())
		if _, err := s.d.control.Sync(ctx, name, mirror.SyncOptions{}); err != nil {
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, meta.ErrLeased) {
				s.d.log.Info("another node syncs this mirror", "repo", name, "err", err)
			} else {
				s.d.log.Error("sync failed", "repo", name, "err", err)
			}
			wait = min(wait, spread(max(m.Interval.D()/4, minRetry)))
		}
		due = s.d.o.Now().Add(wait)
	}
}

// firstDue returns when work is due that was last done at a time: an interval later, or
// now if that has passed or the work was never done.
func firstDue(last time.Time, interval time.Duration, now time.Time) time.Time {
	due := notAfter(last.Add(interval), now.Add(interval))
	if due.Before(now) {
		return now
	}
	return due
}

// notAfter bounds a time: a time recorded by a clock that was ahead must not
// delay work for as long.
func notAfter(t, bound time.Time) time.Time {
	if t.After(bound) {
		return bound
	}
	return t
}

// task is periodic work other than syncs.
type task struct {
	name  string // also the name of the mark of its last run in the store
	every time.Duration
	run   func(ctx context.Context) error
}

// every runs a task at its interval, even across restarts.
func (s *scheduler) every(ctx context.Context, t task) {
	key := "last." + t.name
	var last time.Time
	noted, err := s.d.store.Note(ctx, key)
	if ctx.Err() != nil {
		return
	} else if err != nil {
		s.d.log.Error("read the time of the last run", "task", t.name, "err", err) // it is due at once
	}
	if noted != "" {
		if last, err = time.Parse(time.RFC3339, noted); err != nil {
			s.d.log.Error("read the time of the last run", "task", t.name, "err", err)
		}
	}
	due := notAfter(last.Add(t.every), s.d.o.Now().Add(t.every))
	for {
		// Do not add to the load of a start.
		if !sleep(ctx, max(due.Sub(s.d.o.Now()), minRetry)) {
			return
		}
		if err := t.run(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.d.log.Error("periodic work failed", "task", t.name, "err", err)
			due = s.d.o.Now().Add(min(t.every, spread(taskRetry)))
			continue
		}
		now := s.d.o.Now()
		if err := s.d.store.SetNote(ctx, key, now.UTC().Format(time.RFC3339)); ctx.Err() != nil {
			return
		} else if err != nil {
			s.d.log.Error("record the time of the run", "task", t.name, "err", err)
		}
		due = now.Add(spread(t.every))
	}
}

// sleep waits. It returns false if ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool { return sleepUnless(ctx, d, nil) }

// sleepUnless is like sleep, but ends early when wake is closed.
func sleepUnless(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
