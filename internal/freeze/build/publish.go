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

// Publisher publishes freezes that were built or imported. It is safe for
// concurrent use.
type Publisher struct {
	meta interface {
		meta.Publisher
		meta.Leases
		freeze.Records
		Channel(ctx context.Context, name string) (*meta.Channel, error)
	}
	keeper  Keeper
	node    string // for leases
	changed func()

	mu    sync.Mutex
	names map[string]bool // names in progress
}

func newPublisher(m Metadata, k Keeper, node string, changed func()) *Publisher {
	return &Publisher{meta: m, keeper: k, node: node, changed: changed, names: map[string]bool{}}
}

// Alone runs work, a freeze or an import of a name, under a lease of the name, so that no
// other runs here or on a node that shares the metadata. freeze.ErrBusy if another one is
// running.
func (p *Publisher) Alone(ctx context.Context, name string, work func(context.Context) error) error {
	if !p.begin(name) {
		return fmt.Errorf("freeze %s %w", name, freeze.ErrBusy)
	}
	defer p.end(name)
	return p.lead(ctx, meta.LeaseFreeze+name, "freeze "+name, work)
}

// lead runs work under a lease. freeze.ErrBusy if another command keeps the lease.
func (p *Publisher) lead(ctx context.Context, lease, what string, work func(context.Context) error) error {
	began := false
	for try := 0; ; try++ {
		err := meta.Lead(ctx, p.meta, lease, p.node, func(ctx context.Context) error {
			began = true
			return work(ctx)
		})
		if began || !errors.Is(err, meta.ErrLeased) {
			return err
		}
		if try == leaseTries {
			return fmt.Errorf("%s %w: %w", what, freeze.ErrBusy, err)
		}
		pause := time.NewTimer(leasePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// The number of attempts to get a lease, and the pause between them. A collection that
// clears the tree of an earlier freeze of the name holds it only for moments, and so does
// a move of a channel.
const (
	leaseTries = 20
	leasePause = 100 * time.Millisecond
)

func (p *Publisher) begin(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] {
		return false
	}
	p.names[name] = true
	return true
}

func (p *Publisher) end(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.names, name)
}

// Making reports whether a freeze or an import of this name is in progress here, so
// that its tree does not belong to a freeze yet.
func (p *Publisher) Making(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[name]
}

// Exists reports whether a freeze with this manifest is published. freeze.ErrExists if
// the name has another manifest, or had another one before the freeze was removed;
// meta.ErrTaken if it is the name of a channel.
func (p *Publisher) Exists(ctx context.Context, name string, manifest cas.Digest) (bool, error) {
	f, err := p.meta.Freeze(ctx, meta.FreezeName(name))
	if removed, ok := errors.AsType[*meta.RemovedError](err); ok && removed.Manifest != manifest {
		return false, fmt.Errorf("%w (this one would be %s)", removed.Taken(), manifest)
	}
	switch {
	case errors.Is(err, meta.ErrNotFound):
		_, err := p.meta.Channel(ctx, name)
		return false, meta.Vacant(err, (&meta.Channel{Name: name}).NameTaken("freeze"))
	case err != nil:
		return false, err
	case f.Manifest.SHA256 != manifest:
		return false, fmt.Errorf("freeze %s: %w: its manifest is %s, this one would be %s", name, freeze.ErrExists, f.Manifest.SHA256, manifest)
	}
	return true, nil
}

// Publish publishes a freeze (invariant 1). First its blobs become durable, then the tree
// with its references is stored, then each blob is checked to be stored, and then the
// record follows. The batch contains the new blobs of the freeze, and Publish makes it
// hold the others.
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
	// If the process stops here, the nodes do not belong to any freeze. The next freeze
	// of this name removes them, or a collection.
	if err := p.meta.PutTree(ctx, f.Name, nodes); err != nil {
		return err
	}
	// Held blobs are not collected. Blobs that were collected before are restored from
	// the quarantine. A freeze that lacks a blob is not published.
	for _, n := range nodes {
		if err := p.keeper.Hold(ctx, batch, n.Digest); err != nil {
			return fmt.Errorf("%s of %s: %w", n.Path, f.Name, err)
		}
	}
	for _, d := range f.Blobs() {
		if err := p.keeper.Hold(ctx, batch, d); err != nil {
			return fmt.Errorf("freeze %s: %w", f.Name, err)
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
