// Package retention decides which snapshots, freezes and recordings may be removed.
// Removals by users, collections and listings all use this one rule.
package retention

import (
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
)

// Rule decides as of one time, with the freezes and recordings of that time.
type Rule struct {
	now  time.Time
	used map[string][]string // by the id of a snapshot: what depends on it
}

// New returns the rule for the time now.
func New(users *meta.Users, now time.Time) *Rule {
	r := &Rule{now: now, used: map[string][]string{}}
	for _, f := range users.Freezes {
		for i := range f.Mirrors {
			m := &f.Mirrors[i]
			for _, at := range m.Snapshots() {
				r.use(m.Mirror, at, "freeze "+string(f.Name))
			}
		}
	}
	for _, rec := range users.Recordings {
		for _, p := range rec.Pins {
			r.use(p.Mirror, p.Timestamp, "recording "+rec.Name)
		}
	}
	return r
}

func (r *Rule) use(mirror meta.MirrorName, at time.Time, by string) {
	id := (&meta.Snapshot{Mirror: mirror, Timestamp: at}).ID()
	r.used[id] = append(r.used[id], by)
}

// UsedBy names the freezes and recordings that depend on a snapshot.
func (r *Rule) UsedBy(s *meta.Snapshot) []string { return r.used[s.ID()] }

// Pinned reports whether a snapshot is pinned at a time.
func Pinned(s *meta.Snapshot, now time.Time) bool {
	return s.Pinned != nil && (s.Pinned.IsZero() || s.Pinned.After(now))
}

// Snapshot returns meta.ErrInUse, with the reason, if a snapshot must be kept. newest is
// the newest snapshot of its mirror, which is kept because `latest` never goes back. It
// is nil for a mirror that is no longer configured, all of whose snapshots may be
// removed.
func (r *Rule) Snapshot(s, newest *meta.Snapshot) error {
	used := r.UsedBy(s)
	switch {
	case Pinned(s, r.now):
		return inUse(s, "it is pinned")
	case len(used) > 0:
		return inUse(s, "used by "+used[0])
	case newest != nil && newest.Timestamp.Equal(s.Timestamp):
		return inUse(s, "it is the newest of its mirror")
	}
	return nil
}

func inUse(s *meta.Snapshot, why string) error {
	return fmt.Errorf("snapshot %s: %w: %s", s.ID(), meta.ErrInUse, why)
}

// Freeze returns meta.ErrInUse, with the name of the channel, if a freeze must be kept: a
// channel shows it, or still serves it to clients that read the channel's index before a
// move.
func Freeze(name meta.FreezeName, channels []*meta.Channel, now time.Time) error {
	for _, c := range channels {
		if c.Freeze == name {
			return fmt.Errorf("freeze %s: %w: channel %s shows it", name, meta.ErrInUse, c.Name)
		}
		for _, e := range c.Earlier {
			if e.Freeze == name && e.Answered(now) {
				return fmt.Errorf("freeze %s: %w: channel %s showed it until %s, and answers for it until %s", name, meta.ErrInUse, c.Name,
					e.Until.UTC().Format(time.RFC3339), e.Until.Add(meta.ChannelGrace).UTC().Format(time.RFC3339))
			}
		}
	}
	return nil
}

// Recording returns meta.ErrInUse while a recording is running, because a build downloads
// through it.
func Recording(r *meta.Recording) error {
	if r.Stopped.IsZero() {
		return fmt.Errorf("recording %s: %w: it is running", r.Name, meta.ErrInUse)
	}
	return nil
}

// Expired reports whether a collection removes a snapshot.
func (r *Rule) Expired(s *meta.Snapshot, k meta.Keep, newest *meta.Snapshot) bool {
	return !s.Timestamp.After(k.Before) && r.Snapshot(s, newest) == nil
}
