package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/meta"
)

// Latest stands for the newest snapshot of a mirror.
const Latest = "latest"

// Ref is a resolved reference: a snapshot or a freeze.
type Ref struct {
	Snapshot *meta.Snapshot
	Frozen   *meta.Frozen
	// Channel is the channel that was named and shows Frozen; nil otherwise.
	Channel *meta.Channel
}

// String returns the canonical ID: "debian@20261122T160000Z" or "4.1".
func (r Ref) String() string {
	if r.Snapshot != nil {
		return r.Snapshot.ID()
	}
	return string(r.Frozen.Name)
}

// timestampLayouts are the accepted forms of a timestamp, all from ISO 8601. A
// form without a zone is UTC; one without a time is 00:00:00Z of that day.
var timestampLayouts = []string{
	meta.TimestampFormat, time.RFC3339, "20060102T150405Z0700", "20060102T150405", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00",
	"2006-01-02T15:04", "20060102T1504Z0700", "20060102T1504", "2006-01-02", "20060102",
}

// ParseTimestamp parses an ISO 8601 timestamp, basic or extended, to a UTC second. A
// plain date is the start of that day, 00:00:00Z. ErrRef.
func ParseTimestamp(s string) (time.Time, error) {
	if len(s) <= 40 {
		for _, layout := range timestampLayouts {
			if t, err := time.Parse(layout, s); err == nil && t.Year() >= 1970 {
				return t.UTC().Truncate(time.Second), nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%w: timestamp %q: expected a form like 20261122T160000Z or 2026-11-22", ErrRef, excerpt.Of(s))
}

// ResolveRef resolves a reference: the name of a freeze, the name of a channel for the
// freeze that it shows, or MIRROR@TIMESTAMP or MIRROR@latest for a snapshot. A timestamp
// selects the newest snapshot at or before it. ErrRef, config.ErrUnknownMirror,
// meta.ErrNotFound; meta.ErrGone if the snapshot at that timestamp was removed.
func (c *Catalog) ResolveRef(ctx context.Context, ref string) (Ref, error) {
	if strings.Contains(ref, "@") {
		s, err := c.ResolveSnapshot(ctx, ref)
		return Ref{Snapshot: s}, err
	}
	if !config.ValidName(ref) {
		return Ref{}, fmt.Errorf("%w: %q: expected NAME, MIRROR@TIMESTAMP or MIRROR@latest", ErrRef, excerpt.Of(ref))
	}
	f, err := c.cfg.Meta.Freeze(ctx, meta.FreezeName(ref))
	if errors.Is(err, meta.ErrNotFound) && !errors.Is(err, meta.ErrGone) {
		r, cerr := c.ResolveChannel(ctx, ref)
		if cerr == nil || errors.Is(cerr, meta.ErrGone) || !errors.Is(cerr, meta.ErrNotFound) {
			return r, cerr
		}
		if known, kerr := c.knownMirror(ctx, ref); kerr != nil {
			return Ref{}, kerr
		} else if known {
			err = fmt.Errorf("%w: %s is a mirror: expected a freeze, or %s@latest", ErrRef, ref, ref)
		}
	}
	return Ref{Frozen: f}, err
}

// knownMirror reports whether a mirror is configured or has snapshots.
func (c *Catalog) knownMirror(ctx context.Context, name string) (bool, error) {
	if c.configured(meta.MirrorName(name)) {
		return true, nil
	}
	mirrors, err := c.cfg.Meta.Mirrors(ctx)
	return slices.Contains(mirrors, meta.MirrorName(name)), err
}

// ResolveSnapshot resolves MIRROR@TIMESTAMP, MIRROR@latest or MIRROR (the newest
// snapshot), with the errors of ResolveRef.
func (c *Catalog) ResolveSnapshot(ctx context.Context, ref string) (snap *meta.Snapshot, err error) {
	name, at, dated := strings.Cut(ref, "@")
	if !config.ValidName(name) {
		return nil, fmt.Errorf("%w: %q: expected MIRROR@TIMESTAMP or MIRROR@latest", ErrRef, excerpt.Of(ref))
	}
	if dated && at != Latest {
		var t time.Time
		if t, err = ParseTimestamp(at); err != nil {
			return nil, err
		}
		snap, err = c.cfg.Meta.SnapshotAt(ctx, meta.MirrorName(name), t)
	} else {
		snap, err = c.cfg.Meta.Latest(ctx, meta.MirrorName(name))
	}
	if errors.Is(err, meta.ErrNotFound) {
		if known, kerr := c.knownMirror(ctx, name); kerr != nil {
			return nil, kerr
		} else if !known {
			_, err = c.Mirror(meta.MirrorName(name))
		}
	}
	return snap, err
}

// ResolvePast is ResolveRef for references from users. For a time in the future it
// returns ErrRef. For a time after the newest snapshot it returns that snapshot and a
// notice, because upstream may have changed in between.
func (c *Catalog) ResolvePast(ctx context.Context, ref string) (r Ref, notice string, err error) {
	r, err = c.ResolveRef(ctx, ref)
	name, at, dated := strings.Cut(ref, "@")
	if err != nil || !dated || at == Latest {
		return r, "", err
	}
	t, err := ParseTimestamp(at)
	if err != nil {
		return r, "", err
	}
	states, err := c.cfg.Meta.MirrorStates(ctx, []meta.MirrorName{meta.MirrorName(name)})
	if err != nil {
		return r, "", err
	}
	newest := states[0].Latest
	if newest == nil {
		return r, "", fmt.Errorf("mirror %s has no snapshot: %w", name, meta.ErrNotFound)
	}
	if !t.After(newest.Timestamp) {
		return r, "", nil
	}
	if now := c.cfg.Now(); t.After(now) {
		return r, "", fmt.Errorf("%w: %s: %s is in the future, the system clock is at %s; expected a past time, or %s@%s",
			ErrRef, excerpt.Of(ref), meta.FormatTimestamp(t), meta.FormatTimestamp(now), name, Latest)
	}
	notice = fmt.Sprintf("%s@%s is after the newest snapshot; using %s", name, meta.FormatTimestamp(t), newest.ID())
	if ok := states[0].Check.OK; !ok.IsZero() {
		notice += fmt.Sprintf(" (upstream was last checked at %s)", ok.UTC().Format("2006-01-02T15:04:05Z"))
	}
	return r, notice, nil
}

// LatestOfAll returns the newest snapshot of every configured mirror. ErrNoSnapshot, with
// their names, if mirrors have no snapshot: they would silently be missing from a freeze
// or recording.
func (c *Catalog) LatestOfAll(ctx context.Context) (out []*meta.Snapshot, err error) {
	mirrors := c.Mirrors()
	if len(mirrors) == 0 {
		return nil, fmt.Errorf("%w: none is configured", config.ErrUnknownMirror)
	}
	names := make([]meta.MirrorName, len(mirrors))
	for i, m := range mirrors {
		names[i] = m.Name
	}
	states, err := c.cfg.Meta.MirrorStates(ctx, names)
	if err != nil {
		return nil, err
	}
	var without []string
	for _, s := range states {
		if s.Latest != nil {
			out = append(out, s.Latest)
			continue
		}
		why := "never synced"
		if s.Check.Error != "" {
			why = "the last sync failed: " + s.Check.Error
		}
		without = append(without, fmt.Sprintf("%s (%s)", s.Mirror, why))
	}
	if len(without) > 0 {
		err = fmt.Errorf("%w: %s", ErrNoSnapshot, strings.Join(without, "; "))
	}
	return out, err
}

// ResolveChannel returns a channel with the freeze that it shows. meta.ErrNotFound,
// meta.ErrGone.
func (c *Catalog) ResolveChannel(ctx context.Context, name string) (Ref, error) {
	for {
		ch, err := c.cfg.Meta.Channel(ctx, name)
		if err != nil {
			return Ref{}, err
		}
		f, err := c.cfg.Meta.Freeze(ctx, ch.Freeze)
		if !errors.Is(err, meta.ErrNotFound) {
			return Ref{Frozen: f, Channel: ch}, err
		}
		// The channel was moved, and the freeze removed, between the two queries.
		now, again := c.cfg.Meta.Channel(ctx, name)
		if again != nil {
			return Ref{}, again
		}
		if now.Moved.Equal(ch.Moved) {
			return Ref{}, fmt.Errorf("%w: channel %s: %w", meta.ErrCorrupt, name, err)
		}
	}
}

// CheckName checks that a freeze, channel or recording may have a name: the name must
// have the documented form, and be neither a mirror nor "latest". ErrRef, ErrNameTaken.
func (c *Catalog) CheckName(ctx context.Context, name string) error {
	switch {
	case !config.ValidName(name):
		return fmt.Errorf("%w: name %q: expected letters, digits and .+~_- (at most 100, the first a letter or digit)", ErrRef, excerpt.Of(name))
	case name == Latest:
		return fmt.Errorf("%w: %q stands for the newest snapshot of a mirror", ErrNameTaken, name)
	case c.configured(meta.MirrorName(name)):
		return fmt.Errorf("%w: %q is a mirror", ErrNameTaken, name)
	}
	known, err := c.knownMirror(ctx, name)
	if err == nil && known {
		err = fmt.Errorf("%w: %q is a mirror that has snapshots", ErrNameTaken, name)
	}
	return err
}
