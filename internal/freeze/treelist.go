package freeze

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// maxTreeList bounds the listing of a frozen tree, in bytes: more than a million
// files.
const maxTreeList = 512 << 20

// putTreeList adds the listing of a frozen tree to the batch and names it in the
// record.
func putTreeList(ctx context.Context, batch cas.Batch, f *meta.Frozen, nodes []meta.Node) error {
	listed := slices.DeleteFunc(slices.Clone(nodes), func(n meta.Node) bool { return strings.HasPrefix(n.Path, statementDir+"/") })
	slices.SortFunc(listed, func(a, b meta.Node) int { return cmp.Compare(a.Path, b.Path) })
	data, err := meta.EncodeTree(f, listed)
	if err != nil {
		return err
	}
	info, err := cas.PutBatch(ctx, batch, data, time.Time{})
	if err != nil {
		return err
	}
	f.Tree = repo.File{Path: meta.TreePath, Size: info.Size, SHA256: info.Digest}
	return nil
}

// ListTrees makes the listings of frozen snapshots that an earlier version of
// snapd published without one, and returns how many.
func (z *Freezer) ListTrees(ctx context.Context) (int, error) {
	var all []*meta.Frozen
	if err := z.st.View(ctx, func(tx *bolt.Tx) (err error) { all, err = tx.Frozens(); return err }); err != nil {
		return 0, err
	}
	n := 0
	for _, f := range all {
		if !f.Tree.SHA256.IsZero() {
			continue
		}
		if err := z.listTree(ctx, f); err != nil {
			return n, fmt.Errorf("list the tree of %s: %w", f.Name, err)
		}
		n++
	}
	return n, nil
}

func (z *Freezer) listTree(ctx context.Context, f *meta.Frozen) error {
	var nodes []meta.Node
	if err := z.st.View(ctx, func(tx *bolt.Tx) error { nodes = tx.Nodes(f.Name, "", "", 0); return nil }); err != nil {
		return err
	}
	batch := z.blobs.NewBatch()
	defer batch.Discard()
	if err := putTreeList(ctx, batch, f, nodes); err != nil {
		return err
	}
	if err := z.e.Flush(ctx, batch); err != nil {
		return err
	}
	return z.st.Update(ctx, "list tree", func(tx *bolt.Tx) error {
		now, err := tx.Frozen(f.Name)
		if err != nil {
			return err
		}
		now.Tree = f.Tree
		return tx.UpdateFrozen(now)
	})
}

// verifyTree compares the tree that is served with what was published: the
// proof of the manifest does not look at most of it.
func (z *Freezer) verifyTree(ctx context.Context, f *meta.Frozen) (faults []api.VerifyFault, err error) {
	data, err := cas.ReadAll(ctx, z.blobs, f.Tree.SHA256, maxTreeList)
	if err != nil {
		return []api.VerifyFault{{Object: "tree listing", Expected: f.Tree.SHA256.String(), Message: err.Error()}}, ctx.Err()
	}
	_, listed, err := meta.DecodeTree(data)
	if err != nil {
		return []api.VerifyFault{{Object: "tree listing", Message: err.Error()}}, nil
	}
	// With the statements that the freeze has by now.
	wrong, err := z.st.TreeFaults(ctx, f.Name, listed)
	if err != nil {
		return nil, err
	}
	for _, w := range wrong {
		flt := api.VerifyFault{Object: w.Path, Message: "file of the served tree (snapctl fsck --repair)"}
		if w.Want != nil {
			flt.Expected = w.Want.Digest.String()
		} else {
			flt.Expected = "no such file"
		}
		if w.Have != nil {
			flt.Found = w.Have.Digest.String()
		} else {
			flt.Found = "no such file"
		}
		faults = append(faults, flt)
	}
	return faults, nil
}
