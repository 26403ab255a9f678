package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Publisher publishes freezes that were built or imported. It is safe for concurrent
// use.
type Publisher struct {
	meta interface {
		meta.Publisher
		freeze.Records
	}
	keeper  Keeper
	changed func()

	mu    sync.Mutex
	names map[string]bool // being made
}

func newPublisher(m Metadata, k Keeper, changed func()) *Publisher {
	return &Publisher{meta: m, keeper: k, changed: changed, names: map[string]bool{}}
}

// Begin reserves a name for a freeze or an import, until end is called.
// freeze.ErrBusy.
func (p *Publisher) Begin(name string) (end func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] {
		return nil, fmt.Errorf("frozen snapshot %s %w", name, freeze.ErrBusy)
	}
	p.names[name] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.names, name)
	}, nil
}

// Making reports whether a freeze or an import of that name is under way: its tree
// belongs to no frozen snapshot yet.
func (p *Publisher) Making(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[name]
}

// Exists reports whether a freeze with this manifest is published.
// freeze.ErrExists where the name has another one.
func (p *Publisher) Exists(ctx context.Context, name string, manifest cas.Digest) (bool, error) {
	f, err := p.meta.Freeze(ctx, name)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case f.Manifest.SHA256 != manifest:
		return false, fmt.Errorf("frozen snapshot %s: %w: its manifest is %s, this one would be %s", name, freeze.ErrExists, f.Manifest.SHA256, manifest)
	}
	return true, nil
}

// Publish publishes a freeze (invariant 1): its blobs become durable, then come the
// tree with its references, a look whether each blob is here, and the record. The
// batch has its new blobs, and is made to hold the others.
func (p *Publisher) Publish(ctx context.Context, batch cas.Batch, f *meta.Frozen, nodes []meta.Node) error {
	var err error
	if f.Tree, err = putListing(ctx, batch, f, nodes); err != nil {
		return err
	}
	if err := p.keeper.Flush(ctx, batch); err != nil {
		return err
	}
	if err := p.meta.ClearTree(ctx, f.Name); err != nil {
		return err
	}
	// If we stop here, the nodes belong to no freeze; the next one of the name clears
	// them, and so does a collection.
	if err := p.meta.PutTree(ctx, f.Name, nodes); err != nil {
		return err
	}
	// What is held stays; what a collection removed before it was held comes back from
	// the quarantine. A freeze that lacks a blob is not published.
	for _, n := range nodes {
		if err := p.keeper.Hold(ctx, batch, n.Digest); err != nil {
			return fmt.Errorf("%s of %s: %w", n.Path, f.Name, err)
		}
	}
	for _, d := range f.Blobs() {
		if err := p.keeper.Hold(ctx, batch, d); err != nil {
			return fmt.Errorf("frozen snapshot %s: %w", f.Name, err)
		}
	}
	if err := p.meta.Publish(ctx, f); err != nil {
		return err
	}
	p.changed()
	return nil
}

// putListing adds the listing of a frozen tree to the batch.
func putListing(ctx context.Context, batch cas.Batch, f *meta.Frozen, nodes []meta.Node) (repo.File, error) {
	listed := slices.DeleteFunc(slices.Clone(nodes), func(n meta.Node) bool { return strings.HasPrefix(n.Path, freeze.StatementDir+"/") })
	slices.SortFunc(listed, func(a, b meta.Node) int { return cmp.Compare(a.Path, b.Path) })
	data, err := meta.EncodeTree(f, listed)
	if err != nil {
		return repo.File{}, err
	}
	info, err := cas.PutBatch(ctx, batch, data, time.Time{})
	return repo.File{Path: meta.TreePath, Size: info.Size, SHA256: info.Digest}, err
}
