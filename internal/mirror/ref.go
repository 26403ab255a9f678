package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

var (
	// ErrRef means that a text is not a reference, a timestamp or a name.
	ErrRef = errors.New("not a reference")
	// ErrNoSnapshot means that mirrors which are needed have no snapshot yet.
	ErrNoSnapshot = errors.New("mirrors without a snapshot")
	// ErrNameTaken means that a name cannot be given to a freeze or recording.
	ErrNameTaken = errors.New("name is taken")
)

// Latest is the word for the newest snapshot of a mirror.
const Latest = "latest"

// Ref is what a reference names: exactly one of the two is set.
type Ref struct {
	Snapshot *meta.Snapshot
	Frozen   *meta.Frozen
}

// String is the canonical id: "debian@20261122T160000Z" or "4.1".
func (r Ref) String() string {
	if r.Snapshot != nil {
		return r.Snapshot.ID()
	}
	return r.Frozen.Name
}

// instantForms are the accepted forms of a timestamp, all of ISO 8601. A form
// without a zone is UTC; one without a time is 00:00:00Z of that day.
var instantForms = []string{
	meta.TimestampFormat, time.RFC3339, "20060102T150405Z0700", "20060102T150405", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00",
	"2006-01-02T15:04", "20060102T1504Z0700", "20060102T1504", "2006-01-02", "20060102",
}

// ParseTimestamp reads an ISO 8601 timestamp, basic or extended, to the UTC second.
// A plain date is the beginning of that day, 00:00:00Z. ErrRef.
func ParseTimestamp(s string) (time.Time, error) {
	if len(s) <= 40 {
		for _, form := range instantForms {
			if t, err := time.Parse(form, s); err == nil && t.Year() >= 1970 {
				return t.UTC().Truncate(time.Second), nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%w: timestamp %q: expected a form like 20261122T160000Z or 2026-11-22", ErrRef, clip(s))
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

// ResolveRef finds what a reference names: a frozen snapshot by its name, a
// snapshot by MIRROR@TIMESTAMP or MIRROR@latest. A timestamp names the newest
// snapshot at or before it. ErrRef, ErrUnknown, store.ErrNotFound, and
// store.ErrGone when the timestamp falls where snapshots were removed.
func (e *Engine) ResolveRef(ctx context.Context, ref string) (Ref, error) {
	if strings.Contains(ref, "@") {
		s, err := e.ResolveSnapshot(ctx, ref)
		return Ref{Snapshot: s}, err
	}
	if !config.NameRE.MatchString(ref) {
		return Ref{}, fmt.Errorf("%w: %q: expected NAME, MIRROR@TIMESTAMP or MIRROR@latest", ErrRef, clip(ref))
	}
	var f *meta.Frozen
	err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
		f, err = tx.Frozen(ref)
		if errors.Is(err, meta.ErrNotFound) && (e.hasMirror(ref) || slices.Contains(tx.Mirrors(), ref)) {
			return fmt.Errorf("%w: %s is a mirror: expected a frozen snapshot, or %s@latest", ErrRef, ref, ref)
		}
		return err
	})
	return Ref{Frozen: f}, err
}

// ResolveSnapshot finds the snapshot that MIRROR@TIMESTAMP, MIRROR@latest or
// MIRROR alone (the newest) names, with ResolveRef's errors.
func (e *Engine) ResolveSnapshot(ctx context.Context, ref string) (*meta.Snapshot, error) {
	name, at, dated := strings.Cut(ref, "@")
	if !config.NameRE.MatchString(name) {
		return nil, fmt.Errorf("%w: %q: expected MIRROR@TIMESTAMP or MIRROR@latest", ErrRef, clip(ref))
	}
	var t time.Time
	if dated && at != Latest {
		var err error
		if t, err = ParseTimestamp(at); err != nil {
			return nil, err
		}
	}
	var snap *meta.Snapshot
	err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
		if t.IsZero() {
			snap, err = tx.Latest(name)
		} else {
			snap, err = tx.At(name, t)
		}
		return err
	})
	if errors.Is(err, meta.ErrNotFound) && !e.hasMirror(name) {
		known := false
		if verr := e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
			known = slices.Contains(tx.Mirrors(), name)
			return nil
		}); verr != nil {
			return nil, verr
		}
		if !known {
			_, err = e.Mirror(name)
		}
	}
	return snap, err
}

// ResolvePast is ResolveRef for what a user names. The snapshot of a time that has
// not come is not known yet: ErrRef. The notice says that the time is after the
// newest snapshot, which stands for it: more may have happened upstream until then
// than was taken.
func (e *Engine) ResolvePast(ctx context.Context, ref string) (r Ref, notice string, err error) {
	r, err = e.ResolveRef(ctx, ref)
	name, at, dated := strings.Cut(ref, "@")
	if err != nil || !dated || at == Latest {
		return r, "", err
	}
	t, err := ParseTimestamp(at)
	if err != nil {
		return r, "", err
	}
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		newest, err := tx.Latest(name)
		if err != nil || !t.After(newest.Timestamp) {
			return err
		}
		if now := e.cfg.Now(); t.After(now) {
			return fmt.Errorf("%w: %s: %s is later than the system clock, which is at %s; expected a time that has passed, or %s@%s",
				ErrRef, clip(ref), meta.FormatTimestamp(t), meta.FormatTimestamp(now), name, Latest)
		}
		notice = fmt.Sprintf("%s@%s is after the newest snapshot, which is taken: %s", name, meta.FormatTimestamp(t), newest.ID())
		if c := tx.LastCheck(name); !c.OK.IsZero() {
			notice += fmt.Sprintf(" (upstream was last checked at %s)", stamp(c.OK))
		}
		return nil
	})
	return r, notice, err
}

// LatestOfAll returns the newest snapshot of every configured mirror. One that has
// none would be missing from a freeze or a recording without anybody having said
// so: ErrNoSnapshot names each.
func (e *Engine) LatestOfAll(ctx context.Context) (out []*meta.Snapshot, err error) {
	if len(e.cfg.Mirrors) == 0 {
		return nil, fmt.Errorf("%w: none is configured", ErrUnknown)
	}
	var without []string
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		out, without = nil, nil
		for _, m := range e.cfg.Mirrors {
			snap, err := tx.Latest(m.Name)
			switch {
			case errors.Is(err, meta.ErrNotFound):
				why := "never synced"
				if last := tx.LastCheck(m.Name); last.Error != "" {
					why = "the last sync failed: " + last.Error
				}
				without = append(without, fmt.Sprintf("%s (%s)", m.Name, why))
			case err != nil:
				return err
			default:
				out = append(out, snap)
			}
		}
		return nil
	})
	if err == nil && len(without) > 0 {
		err = fmt.Errorf("%w: %s", ErrNoSnapshot, strings.Join(without, "; "))
	}
	return out, err
}

func (e *Engine) hasMirror(name string) bool {
	_, ok := e.mirrors[name]
	return ok
}

// CheckName says whether a freeze or a recording may have a name: of the
// documented form, not a mirror's, not "latest". ErrRef, ErrNameTaken.
func (e *Engine) CheckName(ctx context.Context, name string) error {
	switch {
	case !config.NameRE.MatchString(name):
		return fmt.Errorf("%w: name %q: expected letters, digits and .+~_- (at most 100, the first a letter or digit)", ErrRef, clip(name))
	case name == Latest:
		return fmt.Errorf("%w: %q stands for the newest snapshot of a mirror", ErrNameTaken, name)
	case e.hasMirror(name):
		return fmt.Errorf("%w: %q is a mirror", ErrNameTaken, name)
	}
	return e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		if slices.Contains(tx.Mirrors(), name) {
			return fmt.Errorf("%w: %q is a mirror that has snapshots", ErrNameTaken, name)
		}
		return nil
	})
}

// Epoch numbers the states of what is published: it grows after each change of
// which snapshots, frozen snapshots or bytes are served. What was looked up in
// one epoch holds until the next.
func (e *Engine) Epoch() uint64 { return e.epoch.Load() }

// Changed begins a new epoch: call it after a commit that publishes or removes
// something. Sync does so by itself.
func (e *Engine) Changed() { e.epoch.Add(1) }
