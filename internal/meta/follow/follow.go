// Package follow makes a node of a database that several nodes share: it follows the
// feed of changes, so that what other nodes publish is served soon, and it remembers
// answers, so that what was served before goes on being served for a while when the
// database cannot be reached.
//
// An answer is remembered until a change concerns it. Remembered answers are used only
// while the database does not answer, and only good ones: "not there" is never said
// from memory (invariant 8).
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// Source is the shared metadata.
type Source interface {
	meta.Store
	meta.Shared
	Objects() objects.Index
}

// Options adjust a Store.
type Options struct {
	Log *slog.Logger     // nil: none
	Now func() time.Time // nil: time.Now
}

const (
	// Alone is how long answers are served from memory.
	Alone = time.Hour
	// every is how often the feed is asked.
	every = 500 * time.Millisecond
	// noteEvery is how often a node says that it is there.
	noteEvery = 10 * time.Second
	// askTime is how long the database may take where an answer is remembered, and
	// for the feed.
	askTime = 2 * time.Second
	// page bounds the changes of one question.
	page = 1000
)

// Store is the metadata as a node sees it. It implements meta.Store.
type Store struct {
	Source
	o   Options
	mem *memory

	polling sync.Mutex // held while the feed is read

	mu      sync.Mutex
	changed func() // called after changes; nil: not running
	state   State
	last    meta.FeedChange      // the one that was read last; its number is state.Seq
	behind  map[string]time.Time // snapshots that commits were lost of, by mirror
	newest  map[string]time.Time // snapshots that were seen, by mirror
}

// State is how a node stands with the database.
type State struct {
	// Read is when the feed was last read to its end, Seq the number of the change that
	// was then the newest.
	Read time.Time
	Seq  int64
	// Down is since when the database does not answer; zero: it does.
	Down time.Time
	Err  error         // why
	Skew time.Duration // by how much this clock is ahead of the database's
	Lost int           // how often the database lost commits since the start
}

// New makes a Store. Start is to be called before it is used.
func New(src Source, o Options) *Store {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{Source: src, o: o, mem: newMemory(), behind: map[string]time.Time{}, newest: map[string]time.Time{}}
}

// Start begins to follow where the feed is now.
func (s *Store) Start(ctx context.Context) error {
	p, err := s.Changes(ctx, 0, 0)
	if err == nil {
		p, err = s.Changes(ctx, p.Last, 0)
	}
	if err != nil {
		return fmt.Errorf("read the feed of changes: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read(p)
	if p.Seen != nil {
		s.follow(*p.Seen)
	}
	return nil
}

// State returns the state of now.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Lag is how long ago the feed was read to its end.
func (s *Store) Lag() time.Duration { return max(s.o.Now().Sub(s.State().Read), 0) }

// Run follows the feed until ctx ends, and calls changed after changes. self is what
// this node says of itself; nil: nothing.
func (s *Store) Run(ctx context.Context, changed func(), self func() meta.NodeState) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	s.mu.Lock()
	s.changed = changed
	s.mu.Unlock()
	var noted time.Time
	for {
		s.Poll(ctx)
		if now := s.o.Now(); self != nil && now.Sub(noted) >= noteEvery && s.State().Down.IsZero() {
			noted = now
			ask, cancel := context.WithTimeout(ctx, askTime)
			if err := s.NoteNode(ask, self()); err != nil && ctx.Err() == nil {
				s.o.Log.Warn("note this node in the database", "err", err)
			}
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Poll reads the feed to its end. It returns whether anything was changed.
func (s *Store) Poll(ctx context.Context) (changed bool) {
	s.polling.Lock()
	defer s.polling.Unlock()
	defer func() {
		s.mu.Lock()
		f := s.changed
		s.mu.Unlock()
		if changed && f != nil {
			f()
		}
	}()
	for {
		after := s.State().Seq
		ask, cancel := context.WithTimeout(ctx, askTime)
		p, err := s.Changes(ask, after, page)
		cancel()
		if ctx.Err() != nil {
			return changed
		}
		if err != nil {
			s.down(err)
			return changed
		}
		if s.lost(p, after) {
			changed = true // and the feed is read from its beginning
			continue
		}
		changed = s.apply(p, after) || changed
		if len(p.Changes) < page {
			return changed
		}
	}
}

// down notes that the database does not answer.
func (s *Store) down(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Err = err; s.state.Down.IsZero() {
		s.state.Down = s.o.Now()
		s.o.Log.Error("the database does not answer: what was served before is served from memory", "err", err)
	}
}

// read notes an answer to a question about the feed; s.mu is held.
func (s *Store) read(p *meta.FeedPage) {
	now := s.o.Now()
	if !s.state.Down.IsZero() {
		s.o.Log.Info("the database answers again", "after", now.Sub(s.state.Down).Round(time.Millisecond).String())
	}
	s.state.Down, s.state.Err, s.state.Skew = time.Time{}, nil, now.Sub(p.Now)
	s.state.Read = now
}

// lost reports whether the database lost commits that this node has seen: a standby took
// over that did not have the last ones, or a backup was restored.
func (s *Store) lost(p *meta.FeedPage, after int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.Last < after:
	case p.Seen != nil && *p.Seen != s.last:
	case p.Seen == nil && p.First < after: // though what is older is there
	default:
		return false
	}
	s.read(p)
	s.state.Lost++
	s.follow(meta.FeedChange{})
	maps.Copy(s.behind, s.newest)
	s.mem.forgetAll()
	s.o.Log.Error("the database lost commits: latest is not served until it is as new as it was", "change", p.Last, "was", after)
	return true
}

// follow notes the change that was read last; s.mu is held.
func (s *Store) follow(c meta.FeedChange) { s.last, s.state.Seq = c, c.Seq }

// apply forgets what changes concern.
func (s *Store) apply(p *meta.FeedPage, after int64) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read(p)
	switch {
	case len(p.Changes) == 0:
		return false
	case p.First > after+1 && p.Changes[0].Seq > after+1:
		s.mem.forgetAll() // some are gone already
	}
	for _, c := range p.Changes {
		if mirror, at, ok := snapshotOf(c); ok {
			s.saw(mirror, at)
		}
	}
	s.mem.forget(p.Changes)
	s.follow(p.Changes[len(p.Changes)-1])
	return true
}

// ahead reports whether a snapshot is newer than what this node has seen of its mirror.
func (s *Store) ahead(snap *meta.Snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snap.Timestamp.After(s.newest[snap.Mirror])
}

// saw notes that a snapshot is, or was, there; s.mu is held.
func (s *Store) saw(mirror string, at time.Time) {
	if at.After(s.newest[mirror]) {
		s.newest[mirror] = at
	}
}

// snapshotOf is the snapshot that a change is about.
func snapshotOf(c meta.FeedChange) (mirror string, at time.Time, ok bool) {
	if c.What != meta.ChangeSnapshot && c.What != meta.ChangePin {
		return "", at, false
	}
	mirror, text, _ := strings.Cut(c.Name, "@")
	at, err := time.Parse(meta.TimestampFormat, text)
	return mirror, at, err == nil
}

// notBack keeps latest from going back after the database lost commits.
// meta.ErrUnreachable.
func (s *Store) notBack(snap *meta.Snapshot) (*meta.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.behind[snap.Mirror]
	if ok && snap.Timestamp.Before(was) {
		return nil, fmt.Errorf("%w: it lost snapshot %s@%s, and has none as new yet", meta.ErrUnreachable, snap.Mirror, meta.FormatTimestamp(was))
	}
	delete(s.behind, snap.Mirror)
	s.saw(snap.Mirror, snap.Timestamp)
	return snap, nil
}

// alone reports whether the database is known not to answer, and whether answers from
// memory may still be used.
func (s *Store) alone() (down, allowed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.state.Down.IsZero(), s.o.Now().Sub(s.state.Read) < Alone
}

// recall asks, and answers from memory while the database does not. k names the
// question, a what the answer is about.
func recall[T any](ctx context.Context, s *Store, k string, a about, f func(context.Context) (T, error)) (T, error) {
	if len(meta.LeasesOf(ctx)) > 0 {
		return f(ctx) // who writes must know, not remember
	}
	kept, have := s.mem.get(k)
	down, allowed := s.alone()
	if have && down && allowed {
		return kept.(T), nil
	}
	ask, cancel := ctx, context.CancelFunc(func() {})
	if have || down {
		ask, cancel = context.WithTimeout(ctx, askTime)
	}
	defer cancel()
	before := s.mem.changes()
	v, err := f(ask)
	switch {
	case err == nil:
		s.mem.put(k, v, a, before)
	case errors.Is(err, meta.ErrUnreachable) && ctx.Err() == nil:
		if have && allowed {
			return kept.(T), nil
		}
		if have {
			return v, fmt.Errorf("%w (and what was served before is served for %v at most)", err, Alone)
		}
	case errors.Is(err, errclass.NotFound):
		s.mem.drop(k)
	}
	return v, err
}
