package control

import (
	"context"
	"fmt"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta/bolt"
)

// clearPage bounds the files of a frozen tree that one transaction drops.
const clearPage = 1000

// Remove removes a snapshot or a frozen snapshot.
func (c *Control) Remove(ctx context.Context, req *api.RefRequest) (*api.RemoveResult, error) {
	ref, err := c.e.ResolveRef(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	if ref.Frozen != nil {
		name := ref.Frozen.Name
		if err := c.publish(ctx, "rm", func(tx *bolt.Tx) error { return tx.RemoveFrozen(name) }); err != nil {
			return nil, err
		}
		// If we stop here, the next freeze of that name or the next collection
		// clears the tree, which nothing shows any more.
		for more := true; more; {
			err := c.st.Update(ctx, "rm", func(tx *bolt.Tx) (err error) {
				// A freeze is being made from before its first file: one of this name
				// that begins after this question finds the tree cleared.
				if c.cfg.Freezer.Making(name) {
					more = false
					return nil
				}
				more, err = tx.ClearFrozenTree(name, clearPage)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return &api.RemoveResult{Removed: name}, nil
	}
	snap := ref.Snapshot
	if at := req.Ref[strings.IndexByte(req.Ref, '@')+1:]; at != catalog.Latest {
		// What is removed must be named exactly, not by what comes before it.
		if t, err := catalog.ParseTimestamp(at); err != nil || !t.Equal(snap.Timestamp) {
			return nil, fmt.Errorf("%w: no snapshot is exactly %s; the one before is %s", errclass.Usage, req.Ref, snap.ID())
		}
	}
	err = c.publish(ctx, "rm", func(tx *bolt.Tx) error {
		now, err := tx.Snapshot(snap.Mirror, snap.Timestamp)
		if err != nil {
			return err
		}
		if now.Pinned != nil && (now.Pinned.IsZero() || now.Pinned.After(c.now())) {
			return fmt.Errorf("snapshot %s: %w: it is pinned", snap.ID(), ErrInUse)
		}
		recs, err := tx.Recordings()
		if err != nil {
			return err
		}
		for _, r := range recs {
			if shows(r, snap) {
				return fmt.Errorf("snapshot %s: %w: recording %s shows it", snap.ID(), ErrInUse, r.Name)
			}
		}
		if last, err := tx.Latest(snap.Mirror); err != nil {
			return err
		} else if _, cerr := c.e.Mirror(snap.Mirror); cerr == nil && last.Timestamp.Equal(snap.Timestamp) {
			// `latest` never goes back.
			return fmt.Errorf("snapshot %s: %w: it is the newest of its mirror", snap.ID(), ErrInUse)
		}
		return tx.RemoveSnapshot(snap.Mirror, snap.Timestamp)
	})
	if err != nil {
		return nil, err
	}
	return &api.RemoveResult{Removed: snap.ID()}, nil
}
