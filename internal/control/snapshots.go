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
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/retention"
)

// List lists snapshots and freezes, newest first.
func (c *Control) List(ctx context.Context, req *api.ListRequest) (*api.SnapshotList, error) {
	out := &api.SnapshotList{Snapshots: []api.Snapshot{}, Frozen: []api.Frozen{}, Warnings: c.damageWarnings()}
	names, err := c.st.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	if req.Mirror != "" {
		if !slices.Contains(names, meta.MirrorName(req.Mirror)) {
			if _, err := c.catalog.Mirror(meta.MirrorName(req.Mirror)); err != nil {
				return nil, err
			}
		}
		names = []meta.MirrorName{meta.MirrorName(req.Mirror)}
	}
	users, err := c.st.Users(ctx)
	if err != nil {
		return nil, err
	}
	rule := retention.New(users, c.now())
	if !req.Frozen && len(req.Labels) == 0 {
		for _, n := range names {
			var serr error
			err := c.eachSnapshot(ctx, n, func(snap *meta.Snapshot) bool {
				one, err := c.Snapshot(ctx, snap, false)
				if errors.Is(err, meta.ErrNotFound) {
					return true // removed in the meantime
				}
				one.UsedBy = rule.UsedBy(snap)
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
	for _, f := range users.Freezes {
		if req.Mirror != "" && f.MirrorIndex(meta.MirrorName(req.Mirror)) < 0 {
			continue
		}
		one, err := c.cfg.Freezer.Describe(ctx, f.Name)
		if errors.Is(err, meta.ErrNotFound) {
			continue // removed in the meantime
		} else if err != nil {
			return nil, err
		}
		if hasLabels(one.Labels, req.Labels) {
			out.Frozen = append(out.Frozen, *one)
		}
	}
	slices.SortStableFunc(out.Frozen, func(a, b api.Frozen) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// hasLabels reports whether labels have all of want.
func hasLabels(labels, want map[string]string) bool {
	for k, v := range want {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Snapshot describes a snapshot; deep adds signers and files.
func (c *Control) Snapshot(ctx context.Context, snap *meta.Snapshot, deep bool) (*api.Snapshot, error) {
	out := &api.Snapshot{
		ID: snap.ID(), Mirror: string(snap.Mirror), Type: snap.Type, Timestamp: snap.Timestamp, FromURL: remote.Redact(snap.FromURL),
		URL: c.url("archive", string(snap.Mirror), meta.FormatTimestamp(snap.Timestamp)),
	}
	if retention.Pinned(snap, c.now()) {
		out.Pinned, out.Until = true, optional(*snap.Pinned)
	}
	var err error
	out.Suites, err = c.suites(ctx, snap, deep)
	return out, err
}

// Show describes a snapshot or freeze, or a package in it.
func (c *Control) Show(ctx context.Context, req *api.ShowRequest) (*api.ShowResult, error) {
	ref, _, err := c.catalog.ResolvePast(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	if req.Package != "" {
		p, err := c.showPackage(ctx, ref, req.Package)
		return &api.ShowResult{Package: p}, err
	}
	if ref.Frozen != nil {
		f, err := c.ShowFreeze(ctx, ref.Frozen, c.cfg.Freezer.Manifest(ref.Frozen.Name))
		if err != nil {
			return nil, err
		}
		return &api.ShowResult{Frozen: f}, nil
	}
	snap, err := c.Snapshot(ctx, ref.Snapshot, true)
	if err != nil {
		return nil, err
	}
	users, err := c.st.Users(ctx)
	if err != nil {
		return nil, err
	}
	snap.UsedBy = retention.New(users, c.now()).UsedBy(ref.Snapshot)
	return &api.ShowResult{Snapshot: snap}, nil
}

// ShowFreeze describes a freeze by its manifest, and by what was added to the freeze
// later.
func (c *Control) ShowFreeze(ctx context.Context, rec *meta.Frozen, m *client.Manifest) (*api.Frozen, error) {
	f, err := m.Describe(ctx)
	if err != nil {
		return nil, err
	}
	if f.Attestations, err = c.cfg.Freezer.Attestations(ctx, rec, false); err != nil {
		return nil, err
	}
	channels, err := c.st.Channels(ctx)
	if err != nil {
		return nil, err
	}
	for _, ch := range channels {
		if ch.Shows(meta.FreezeName(f.Name), c.now()) {
			f.Channels = append(f.Channels, ch.Name)
		}
	}
	return f, nil
}

// Pin protects a snapshot from expiry, until a time or forever.
func (c *Control) Pin(ctx context.Context, req *api.PinRequest) (*api.Snapshot, error) {
	snap, err := c.exact(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	var until time.Time
	if req.Until != nil {
		if until = req.Until.UTC().Truncate(time.Second); !until.After(c.now()) {
			return nil, fmt.Errorf("%w: --until %s is in the past", errclass.Usage, until.Format(time.RFC3339))
		}
	}
	if snap, err = c.st.Pin(ctx, snap.Mirror, snap.Timestamp, until); err != nil {
		return nil, err
	}
	return c.Snapshot(ctx, snap, true)
}

// Unpin removes a pin.
func (c *Control) Unpin(ctx context.Context, req *api.PinRequest) (*api.Snapshot, error) {
	snap, err := c.exact(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	if snap, err = c.st.Unpin(ctx, snap.Mirror, snap.Timestamp); err != nil {
		return nil, err
	}
	return c.Snapshot(ctx, snap, true)
}

// exact finds the snapshot that a reference names, for verbs that change it.
func (c *Control) exact(ctx context.Context, ref string) (*meta.Snapshot, error) {
	r, _, err := c.catalog.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Snapshot == nil {
		return nil, fmt.Errorf("%w: %s is a freeze, which stays until it is removed: expected MIRROR@TIMESTAMP", errclass.Usage, ref)
	}
	return r.Snapshot, nil
}

// byNewest orders snapshots for display: newest first, then by mirror.
func byNewest(a, b api.Snapshot) int {
	return cmp.Or(b.Timestamp.Compare(a.Timestamp), cmp.Compare(a.Mirror, b.Mirror))
}
