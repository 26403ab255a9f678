package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// List lists snapshots and frozen snapshots, newest first.
func (c *Control) List(ctx context.Context, req *api.ListRequest) (*api.SnapshotList, error) {
	out := &api.SnapshotList{Snapshots: []api.Snapshot{}, Frozen: []api.Frozen{}}
	var names []string
	if err := c.view(ctx, func(tx *bolt.Tx) error { names = tx.Mirrors(); return nil }); err != nil {
		return nil, err
	}
	if req.Mirror != "" {
		if !slices.Contains(names, req.Mirror) {
			if _, err := c.e.Mirror(req.Mirror); err != nil {
				return nil, err
			}
		}
		names = []string{req.Mirror}
	}
	frozen, recordings, err := c.users(ctx)
	if err != nil {
		return nil, err
	}
	if !req.Frozen {
		for _, n := range names {
			var serr error
			err := c.eachSnapshot(ctx, n, func(snap *meta.Snapshot) bool {
				one, err := c.Snapshot(ctx, snap, false)
				one.UsedBy = usedBy(snap, frozen, recordings)
				out.Snapshots = append(out.Snapshots, *one)
				serr = err
				return err == nil
			})
			if err := errors.Join(err, serr); err != nil {
				return nil, err
			}
		}
		slices.SortStableFunc(out.Snapshots, byNewest)
	}
	for _, f := range frozen {
		if req.Mirror != "" && f.MirrorIndex(req.Mirror) < 0 {
			continue
		}
		one, err := c.cfg.Freezer.Describe(ctx, f.Name)
		if err != nil {
			return nil, err
		}
		out.Frozen = append(out.Frozen, *one)
	}
	slices.SortStableFunc(out.Frozen, func(a, b api.Frozen) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// users are the frozen snapshots and recordings, which rest on snapshots.
func (c *Control) users(ctx context.Context) (frozen []*meta.Frozen, recordings []*meta.Recording, err error) {
	err = c.view(ctx, func(tx *bolt.Tx) (err error) {
		if frozen, err = tx.Frozens(); err != nil {
			return err
		}
		recordings, err = tx.Recordings()
		return err
	})
	return frozen, recordings, err
}

func usedBy(snap *meta.Snapshot, frozen []*meta.Frozen, recordings []*meta.Recording) []string {
	var out []string
	for _, f := range frozen {
		if slices.ContainsFunc(f.Mirrors, func(m meta.FrozenMirror) bool { return m.Mirror == snap.Mirror && m.Timestamp.Equal(snap.Timestamp) }) {
			out = append(out, "frozen snapshot "+f.Name)
		}
	}
	for _, r := range recordings {
		if shows(r, snap) {
			out = append(out, "recording "+r.Name)
		}
	}
	return out
}

func shows(r *meta.Recording, snap *meta.Snapshot) bool {
	return slices.ContainsFunc(r.Pins, func(p meta.RecordingPin) bool { return p.Mirror == snap.Mirror && p.Timestamp.Equal(snap.Timestamp) })
}

// Snapshot describes a snapshot; deep adds signers and files.
func (c *Control) Snapshot(ctx context.Context, snap *meta.Snapshot, deep bool) (*api.Snapshot, error) {
	out := &api.Snapshot{
		ID: snap.ID(), Mirror: snap.Mirror, Type: snap.Type, Timestamp: snap.Timestamp, FromURL: remote.Redact(snap.FromURL),
		URL: c.url("archive", snap.Mirror, meta.FormatTimestamp(snap.Timestamp)),
	}
	if snap.Pinned != nil {
		out.Pinned, out.Until = true, optional(*snap.Pinned)
	}
	var err error
	out.Suites, err = c.suites(ctx, snap, deep)
	return out, err
}

// Show describes a snapshot or frozen snapshot.
func (c *Control) Show(ctx context.Context, req *api.RefRequest) (*api.ShowResult, error) {
	ref, _, err := c.e.ResolvePast(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	if ref.Frozen != nil {
		f, err := c.cfg.Freezer.Describe(ctx, ref.Frozen.Name)
		if err != nil {
			return nil, err
		}
		return &api.ShowResult{Frozen: f}, nil
	}
	snap, err := c.Snapshot(ctx, ref.Snapshot, true)
	if err != nil {
		return nil, err
	}
	frozen, recordings, err := c.users(ctx)
	if err != nil {
		return nil, err
	}
	snap.UsedBy = usedBy(ref.Snapshot, frozen, recordings)
	return &api.ShowResult{Snapshot: snap}, nil
}

// Pin keeps a snapshot, until a time or for ever.
func (c *Control) Pin(ctx context.Context, req *api.PinRequest) (*api.Snapshot, error) {
	snap, err := c.exact(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	var until time.Time
	if req.Until != nil {
		if until = req.Until.UTC().Truncate(time.Second); !until.After(c.now()) {
			return nil, fmt.Errorf("%w: --until %s lies in the past", errclass.Usage, until.Format(time.RFC3339))
		}
	}
	return c.repin(ctx, snap, func(tx *bolt.Tx) error { return tx.Pin(snap.Mirror, snap.Timestamp, until) })
}

// Unpin ends a pin.
func (c *Control) Unpin(ctx context.Context, req *api.PinRequest) (*api.Snapshot, error) {
	snap, err := c.exact(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	return c.repin(ctx, snap, func(tx *bolt.Tx) error { return tx.Unpin(snap.Mirror, snap.Timestamp) })
}

func (c *Control) repin(ctx context.Context, snap *meta.Snapshot, f func(*bolt.Tx) error) (*api.Snapshot, error) {
	if err := c.st.Update(ctx, "pin", f); err != nil {
		return nil, err
	}
	var now *meta.Snapshot
	err := c.view(ctx, func(tx *bolt.Tx) (err error) {
		now, err = tx.Snapshot(snap.Mirror, snap.Timestamp)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.Snapshot(ctx, now, true)
}

// exact finds the snapshot that a reference names, for verbs that change it.
func (c *Control) exact(ctx context.Context, ref string) (*meta.Snapshot, error) {
	r, _, err := c.e.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Snapshot == nil {
		return nil, fmt.Errorf("%w: %s is a frozen snapshot, which stays until it is removed: expected MIRROR@TIMESTAMP", errclass.Usage, ref)
	}
	return r.Snapshot, nil
}

// byNewest orders snapshots for people: newest first, then by mirror.
func byNewest(a, b api.Snapshot) int {
	return cmp.Or(b.Timestamp.Compare(a.Timestamp), cmp.Compare(a.Mirror, b.Mirror))
}
