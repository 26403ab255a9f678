package bolt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/retention"
)

// ClearTree implements meta.Publisher.
func (s *Store) ClearTree(ctx context.Context, name meta.FreezeName) error {
	for {
		var more bool
		err := s.update(ctx, "freeze clear", func(tx *txn) (err error) {
			more, err = tx.ClearFrozenTree(name, treePage)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

// PutTree implements meta.Publisher.
func (s *Store) PutTree(ctx context.Context, name meta.FreezeName, nodes []meta.Node) error {
	for page := range slices.Chunk(nodes, treePage) {
		err := s.update(ctx, "freeze nodes", func(tx *txn) error {
			if tx.b("frozen").Get([]byte(name)) != nil {
				return fmt.Errorf("freeze %s: %w", name, meta.ErrExists)
			}
			return tx.PutNodes(name, page)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Publish implements meta.Publisher.
func (s *Store) Publish(ctx context.Context, f *meta.Frozen) error {
	return s.update(ctx, "freeze", func(tx *txn) error { return tx.PutFrozen(f) })
}

// RemoveFreeze implements meta.Publisher.
func (s *Store) RemoveFreeze(ctx context.Context, name meta.FreezeName, at time.Time) error {
	return s.update(ctx, "rm", func(tx *txn) error {
		f, err := tx.Frozen(name)
		if err != nil {
			return err
		}
		channels, err := tx.channels()
		if err != nil {
			return err
		}
		if err := retention.Freeze(name, channels, at); err != nil {
			return err
		}
		if err := tx.RemoveFrozen(name); err != nil {
			return err
		}
		return tx.putTombstone(&meta.Tombstone{Name: string(name), Manifest: f.Manifest.SHA256, Removed: at.UTC().Truncate(time.Second)})
	})
}

// PutKits implements meta.Publisher.
func (s *Store) PutKits(ctx context.Context, kits []meta.Kit) error {
	return s.update(ctx, "kit", func(tx *txn) error {
		for _, k := range kits {
			if err := tx.PutKit(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddStatement implements meta.Publisher.
func (s *Store) AddStatement(ctx context.Context, st meta.StatementFiles) error {
	return s.update(ctx, "statement", func(tx *txn) error {
		f, err := tx.frozenIs(st.Freeze, st.Manifest)
		if err != nil {
			return err
		}
		var nodes []meta.Node
		for _, file := range st.Files {
			nodes = append(nodes, f.StatementNode(file))
			if !slices.Contains(f.Statements, file) {
				f.Statements = append(f.Statements, file)
			}
		}
		if err := tx.PutNodes(f.Name, nodes); err != nil {
			return err
		}
		if st.Image != nil {
			if err := tx.PutImage(st.Image); err != nil {
				return err
			}
		}
		return tx.replaceFrozen(f)
	})
}

// RemoveStatement implements meta.Publisher.
func (s *Store) RemoveStatement(ctx context.Context, name meta.FreezeName, manifest cas.Digest, file repo.File) error {
	return s.update(ctx, "remove statement", func(tx *txn) error {
		f, err := tx.frozenIs(name, manifest)
		if err != nil {
			return err
		}
		if err := f.WithoutStatement(file); err != nil {
			return err
		}
		if err := tx.b("ftree").Delete(key(nil).str(string(name)).raw([]byte(file.Path))); err != nil {
			return err
		}
		// Another file of the freeze may have the same bytes.
		held := slices.Contains(f.Blobs(), file.SHA256) || slices.ContainsFunc(tx.Nodes(name, "", "", 0), func(n meta.Node) bool { return n.Digest == file.SHA256 })
		if !held {
			if err := tx.DropRef(file.SHA256, meta.OwnerFrozen, string(name)); err != nil {
				return err
			}
		}
		return tx.replaceFrozen(f)
	})
}

// frozenIs reads the record of a freeze with a certain manifest. ErrNotFound, ErrGone.
func (t *txn) frozenIs(name meta.FreezeName, manifest cas.Digest) (*meta.Frozen, error) {
	f, err := t.Frozen(name)
	if err != nil {
		return nil, err
	}
	if f.Manifest.SHA256 != manifest {
		return nil, fmt.Errorf("freeze %s with manifest %s: %w", name, manifest, meta.ErrGone)
	}
	return f, nil
}

// SetProvenanceSignature implements meta.Publisher.
func (s *Store) SetProvenanceSignature(ctx context.Context, name meta.FreezeName, signed cas.Digest, signature repo.File) error {
	return s.update(ctx, "sign provenance", func(tx *txn) error {
		f, err := tx.Frozen(name)
		if err != nil || f.Prov.SHA256 != signed {
			return err
		}
		f.ProvSignature = signature
		return tx.replaceFrozen(f)
	})
}

// SetTreeListing implements meta.Publisher.
func (s *Store) SetTreeListing(ctx context.Context, name meta.FreezeName, manifest cas.Digest, listing repo.File) error {
	return s.update(ctx, "list tree", func(tx *txn) error {
		f, err := tx.frozenIs(name, manifest)
		if err != nil || !f.Tree.SHA256.IsZero() {
			return err
		}
		f.Tree = listing
		return tx.replaceFrozen(f)
	})
}

// ReplaceKey implements meta.Publisher.
func (s *Store) ReplaceKey(ctx context.Context, name meta.FreezeName, old, renewed cas.Digest) error {
	return s.update(ctx, "renew", func(tx *txn) error {
		f, err := tx.Frozen(name)
		if err != nil || f.KeyBlob != old {
			return err
		}
		if err := tx.DropRef(old, meta.OwnerFrozen, string(name)); err != nil {
			return err
		}
		f.KeyBlob = renewed
		return tx.replaceFrozen(f)
	})
}
