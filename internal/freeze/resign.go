package freeze

import (
	"context"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
)

// Resigned gives a signed document of a snapshot's suite as this server signs
// it again, without its expiry. ok is false when path is no such document.
func (z *Freezer) Resigned(ctx context.Context, snap *meta.Snapshot, path string) (data []byte, modified time.Time, ok bool, err error) {
	f, err := z.e.Format(snap.Type)
	if err != nil {
		return nil, time.Time{}, false, err
	}
	for _, e := range snap.Suites {
		named := false
		for _, set := range f.RootDocs(e.Suite) {
			for _, p := range set {
				named = named || p == path
			}
		}
		if !named {
			continue
		}
		root, _, _, err := z.e.Root(ctx, snap.Mirror, snap.Type, e.Suite, e.Gen)
		if err != nil {
			return nil, time.Time{}, false, err
		}
		docs, err := f.Resign(root, z.cfg.Signer)
		if err != nil {
			return nil, time.Time{}, false, err
		}
		for _, d := range docs {
			if d.Path == path {
				return d.Data, root.Date, true, nil
			}
		}
	}
	return nil, time.Time{}, false, nil
}

// Detail completes what an api.Frozen says by what only the manifest knows.
func (z *Freezer) Detail(ctx context.Context, f *meta.Frozen, out *api.Frozen) error {
	full, err := z.Describe(ctx, f.Name)
	if err != nil {
		return err
	}
	*out = *full
	return nil
}

// EachFrozen calls emit for each package of a frozen snapshot.
func (z *Freezer) EachFrozen(ctx context.Context, f *meta.Frozen, emit func(api.Package) error) error {
	list, err := z.Packages(ctx, f.Name)
	if err != nil {
		return err
	}
	for _, p := range list.Packages {
		if err := emit(p); err != nil {
			return err
		}
	}
	return nil
}
