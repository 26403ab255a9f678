package control

import (
	"context"
	"fmt"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
)

// Remove removes a snapshot or a freeze.
func (c *Control) Remove(ctx context.Context, req *api.RefRequest) (*api.RemoveResult, error) {
	ref, err := c.catalog.ResolveRef(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	defer c.catalog.Changed()
	if ref.Channel != nil {
		return nil, fmt.Errorf("%w: %s is a channel, which shows %s: expected a freeze, or snapctl channel rm", errclass.Usage, req.Ref, ref.Frozen.Name)
	}
	if ref.Frozen != nil {
		name := ref.Frozen.Name
		if err := c.st.RemoveFreeze(ctx, name, c.now()); err != nil {
			return nil, err
		}
		// If the process is killed here, the next freeze with that name or the next garbage
		// collection clears the tree.
		err := c.st.ClearOrphanTree(ctx, name, func() bool { return c.cfg.Freezer.Making(string(name)) })
		return &api.RemoveResult{Removed: string(name)}, err
	}
	snap := ref.Snapshot
	if at := req.Ref[strings.IndexByte(req.Ref, '@')+1:]; at != catalog.Latest {
		// A snapshot to remove must be named exactly, not by a later timestamp.
		if t, err := catalog.ParseTimestamp(at); err != nil || !t.Equal(snap.Timestamp) {
			return nil, fmt.Errorf("%w: no snapshot is exactly %s; the one before is %s", errclass.Usage, req.Ref, snap.ID())
		}
	}
	_, unconfigured := c.catalog.Mirror(snap.Mirror)
	if err := c.st.RemoveSnapshot(ctx, snap.Mirror, snap.Timestamp, unconfigured == nil, c.now()); err != nil {
		return nil, err
	}
	return &api.RemoveResult{Removed: snap.ID()}, nil
}
