// Package follow implements a node's view of a database that several nodes share. It
// follows the feed of changes, so that the node soon serves what other nodes publish. It
// caches answers, so that the node can serve for a while what it served before if the
// database cannot be reached.
//
// An answer is cached until a change affects it. Cached answers are used only while the
// database does not answer. "Not found" is never cached (invariant 8).
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

// Options configures a Store.
type Options struct {
	Log *slog.Logger     // nil: none
	Now func() time.Time // nil: time.Now
}

const (
	// Alone is how long cached answers are used after the feed was last read.
	Alone = time.Hour
	// every is the interval between reads of the feed.
	every = 500 * time.Millisecond
	// noteEvery is the interval between reports of this node's state.
	noteEvery = 10 * time.Second
	// askTime is the timeout of reading the feed, of queries for which there is a cached
	// answer, and, while the database does not answer, of the other queries. Those that
	// only the database may answer (meta.OnlyCurrent) wait as long as the engine does: a
	// change must not fail because the database was slow for a moment.
	askTime = 2 * time.Second
	// page is the maximum number of changes in one read of the feed.
	page = 1000
)

// Store is a node's view of the shared metadata. It implements meta.Store.
type Store struct {
	Source
	o   Options
	mem *memory

	polling sync.Mutex              // held while the feed is read
	again   []func(context.Context) // requests answers again that changes affected; guarded by polling

	mu      sync.Mutex
	up      context.Context // ends when the database stops answering
	ended   context.CancelFunc
	changed func(lost bool) // called after changes; nil if Run was not called
	state   State
	last    meta.FeedChange               // the last change that was read; its number is state.Seq
	behind  map[meta.MirrorName]time.Time // newest snapshots seen before commits were lost, by mirror
	newest  map[meta.MirrorName]time.Time // newest snapshots seen, by mirror
}

// State describes a node's connection to the database.
type State struct {
	// Read is the time of the last successful read of the feed, and Seq the number of the
	// last change that was read.
	Read time.Time
	Seq  int64
	// Down is the time at which the database stopped answering; zero if it answers.
	Down time.Time
	Err  error         // why it does not answer
	Skew time.Duration // by which this clock is ahead of the database's
	Lost int           // number of times that the database lost commits since Start
}

// New returns a Store. Call Start before using it.
func New(src Source, o Options) *Store {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{Source: src, o: o, mem: newMemory(), behind: map[meta.MirrorName]time.Time{}, newest: map[meta.MirrorName]time.Time{}}
	s.up, s.ended = context.WithCancel(context.Background())
	return s
}

// Start starts following the feed at its current end.
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

// State returns the current state.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Lag returns the time since the last successful read of the feed.
func (s *Store) Lag() time.Duration { return max(s.o.Now().Sub(s.State().Read), 0) }

// Run follows the feed until ctx is done, and calls changed after changes. lost means
// that the database has lost commits, so that numbers that it assigned in them may now
// mean something else; the caller then reads the remaining changes again. Unless self is
// nil, Run reports the state that self returns to the other nodes.
func (s *Store) Run(ctx context.Context, changed func(lost bool), self func() meta.NodeState) {
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
				s.o.Log.Warn("report the state of this node to the database", "err", err)
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

// Poll reads the feed to its end, and requests answers again that changes affected. It
// reports whether there were changes.
func (s *Store) Poll(ctx context.Context) (changed bool) {
	changed = s.poll(ctx)
	s.polling.Lock()
	again := s.again
	s.again = nil
	s.polling.Unlock()
	for _, f := range again {
		if down, _ := s.alone(); down || ctx.Err() != nil {
			break
		}
		ask, cancel := context.WithTimeout(ctx, askTime)
		f(ask)
		cancel()
	}
	return changed
}

// poll reads the feed to its end.
func (s *Store) poll(ctx context.Context) (changed bool) {
	s.polling.Lock()
	defer s.polling.Unlock()
	defer func() {
		if changed {
			s.tell(false)
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
			changed = true
			s.Forget()
			s.tell(true) // now, because reading the feed from its beginning takes a while
			continue
		}
		changed = s.apply(p, after) || changed
		if len(p.Changes) < page {
			return changed
		}
	}
}

// tell calls the function that was passed to Run.
func (s *Store) tell(lost bool) {
	s.mu.Lock()
	f := s.changed
	s.mu.Unlock()
	if f != nil {
		f(lost)
	}
}

// down records that the database does not answer.
func (s *Store) down(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Err = err; s.state.Down.IsZero() {
		s.state.Down = s.o.Now()
		s.ended()
		s.o.Log.Error("the database does not answer: serving cached answers", "err", err)
	}
}

// read records that the feed was read. The caller holds s.mu.
func (s *Store) read(p *meta.FeedPage) {
	now := s.o.Now()
	if !s.state.Down.IsZero() {
		s.up, s.ended = context.WithCancel(context.Background())
		s.o.Log.Info("the database answers again", "after", now.Sub(s.state.Down).Round(time.Millisecond).String())
	}
	s.state.Down, s.state.Err, s.state.Skew = time.Time{}, nil, now.Sub(p.Now)
	s.state.Read = now
}

// lost reports whether the database has lost commits that this node has seen, because a
// standby without them took over, or a backup was restored. If so, it drops all cached
// answers, and the feed will be read from its beginning.
func (s *Store) lost(p *meta.FeedPage, after int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.Last < after:
	case p.Seen != nil && *p.Seen != s.last:
	case p.Seen == nil && p.First < after: // although the feed has an older change
	default:
		return false
	}
	s.read(p)
	s.state.Lost++
	s.follow(meta.FeedChange{})
	maps.Copy(s.behind, s.newest)
	s.mem.forgetAll()
	s.again = nil
	s.o.Log.Error("the database lost commits: latest is not served until a snapshot is as new as the last one served", "change", p.Last, "was", after)
	return true
}

// follow records the last change that was read. The caller holds s.mu.
func (s *Store) follow(c meta.FeedChange) { s.last, s.state.Seq = c, c.Seq }

// apply drops the cached answers that the changes affect.
func (s *Store) apply(p *meta.FeedPage, after int64) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read(p)
	switch {
	case len(p.Changes) == 0:
		return false
	case p.First > after+1 && p.Changes[0].Seq > after+1:
		s.mem.forgetAll() // some changes were deleted before this node read them
	}
	for _, c := range p.Changes {
		if mirror, at, ok := snapshotOf(c); ok {
			s.saw(mirror, at)
		}
	}
	s.again = append(s.again, s.mem.forget(p.Changes)...)
	s.follow(p.Changes[len(p.Changes)-1])
	return true
}

// ahead reports whether a snapshot is newer than all that this node has seen of its
// mirror.
func (s *Store) ahead(snap *meta.Snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snap.Timestamp.After(s.newest[snap.Mirror])
}

// saw records that a snapshot exists or has existed. The caller holds s.mu.
func (s *Store) saw(mirror meta.MirrorName, at time.Time) {
	if at.After(s.newest[mirror]) {
		s.newest[mirror] = at
	}
}

// snapshotOf returns the snapshot that a change is about.
func snapshotOf(c meta.FeedChange) (mirror meta.MirrorName, at time.Time, ok bool) {
	if c.What != meta.ChangeSnapshot && c.What != meta.ChangePin {
		return "", at, false
	}
	name, text, _ := strings.Cut(c.Name, "@")
	at, err := time.Parse(meta.TimestampFormat, text)
	return meta.MirrorName(name), at, err == nil
}

// notBack returns snap, or meta.ErrUnreachable if the database has lost commits and snap is
// older than the newest snapshot that this node has seen.
func (s *Store) notBack(snap *meta.Snapshot) (*meta.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.behind[snap.Mirror]
	if ok && snap.Timestamp.Before(was) {
		return nil, fmt.Errorf("%w: it has lost snapshot %s@%s, and its newest snapshot is older", meta.ErrUnreachable, snap.Mirror, meta.FormatTimestamp(was))
	}
	delete(s.behind, snap.Mirror)
	s.saw(snap.Mirror, snap.Timestamp)
	return snap, nil
}

// alone reports whether the database is known not to answer, and whether cached answers
// may still be used.
func (s *Store) alone() (down, allowed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.state.Down.IsZero(), s.o.Now().Sub(s.state.Read) < Alone
}

// recall calls f to query the database, and caches the answer. While the database does
// not answer, it returns the cached answer. k identifies the query, and a says which
// changes affect its answer. "Not found" is returned from memory only to a caller that then
// asks something else (meta.Detour).
func recall[T any](ctx context.Context, s *Store, k string, a about, f func(context.Context) (T, error)) (T, error) {
	down, allowed := s.alone()
	if meta.OnlyCurrent(ctx) {
		v, err := f(ctx)
		if err == nil && down {
			s.poll(ctx) // it answers again
		}
		return v, err
	}
	kept, have := s.mem.get(k)
	if have && down && allowed {
		return kept.(T), nil
	}
	var lacks error
	if meta.OnDetour(ctx) {
		if kept, ok := s.mem.get(absent + k); ok && allowed {
			lacks = kept.(error)
		}
	}
	if lacks != nil && down {
		var none T
		return none, lacks
	}
	ask, cancel := context.WithCancel(ctx)
	if have || down || lacks != nil {
		ask, cancel = context.WithTimeout(ctx, askTime)
	}
	defer cancel()
	if !down {
		defer s.whileUp(cancel)()
	}
	before := s.mem.changes()
	v, err := f(ask)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = fmt.Errorf("%w: it has stopped answering: %w", meta.ErrUnreachable, err)
	}
	switch {
	case err == nil:
		s.mem.put(k, v, a, before, func(ctx context.Context) { _, _ = recall(ctx, s, k, a, f) })
	case errors.Is(err, meta.ErrUnreachable) && ctx.Err() == nil:
		if have && allowed {
			return kept.(T), nil
		}
		if have {
			return v, fmt.Errorf("%w (cached answers are used for at most %v)", err, Alone)
		}
		if lacks != nil {
			return v, lacks
		}
	case errors.Is(err, errclass.NotFound):
		s.mem.drop(k)
		if meta.OnDetour(ctx) {
			s.mem.put(absent+k, err, a, before, nil)
		}
	}
	return v, err
}

// whileUp calls cancel some time after the database has stopped answering, because the
// network may silently lose a query or its answer. Call stop when the query has ended.
func (s *Store) whileUp(cancel func()) (stop func()) {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	var timer *time.Timer
	ended := make(chan struct{})
	unhook := context.AfterFunc(up, func() {
		timer = time.AfterFunc(askTime, cancel)
		close(ended)
	})
	return func() {
		if !unhook() {
			<-ended
			timer.Stop()
		}
	}
}

// absent is the prefix of the keys of "not found" answers.
const absent = "absent\x00"
