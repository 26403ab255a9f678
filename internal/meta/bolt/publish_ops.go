package bolt

import (
	"context"
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// ClearTree implements meta.Publisher.
func (s *Store) ClearTree(ctx context.Context, name string) error {
	for {
		var more bool
		err := s.Update(ctx, "freeze clear", func(tx *Tx) (err error) {
			more, err = tx.ClearFrozenTree(name, treePage)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

// PutTree implements meta.Publisher.
func (s *Store) PutTree(ctx context.Context, name string, nodes []meta.Node) error {
	for page := range slices.Chunk(nodes, treePage) {
		err := s.Update(ctx, "freeze nodes", func(tx *Tx) error {
			if tx.b("frozen").Get([]byte(name)) != nil {
				return fmt.Errorf("frozen snapshot %s: %w", name, meta.ErrExists)
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
	return s.Update(ctx, "freeze", func(tx *Tx) error { return tx.PutFrozen(f) })
}

// RemoveFreeze implements meta.Publisher.
func (s *Store) RemoveFreeze(ctx context.Context, name string) error {
	if err := s.Update(ctx, "rm", func(tx *Tx) error { return tx.RemoveFrozen(name) }); err != nil {
		return err
	}
	return s.ClearTree(ctx, name)
}

// AddStatement implements meta.Publisher.
func (s *Store) AddStatement(ctx context.Context, st meta.StatementFiles) error {
	return s.Update(ctx, "statement", func(tx *Tx) error {
		f, err := tx.frozenIs(st.Freeze, st.Manifest)
		if err != nil {
			return err
		}
		var nodes []meta.Node
		for _, file := range st.Files {
			nodes = append(nodes, *statementNode(f, file))
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

// frozenIs reads the record of a freeze that has a manifest. ErrNotFound, ErrGone.
func (t *Tx) frozenIs(name string, manifest cas.Digest) (*meta.Frozen, error) {
	f, err := t.Frozen(name)
	if err != nil {
		return nil, err
	}
	if f.Manifest.SHA256 != manifest {
		return nil, fmt.Errorf("frozen snapshot %s with manifest %s: %w", name, manifest, meta.ErrGone)
	}
	return f, nil
}

// SetProvenanceSignature implements meta.Publisher.
func (s *Store) SetProvenanceSignature(ctx context.Context, name string, signed cas.Digest, signature repo.File) error {
	return s.Update(ctx, "sign provenance", func(tx *Tx) error {
		f, err := tx.Frozen(name)
		if err != nil || f.Prov.SHA256 != signed {
			return err
		}
		f.ProvSignature = signature
		return tx.replaceFrozen(f)
	})
}

// SetTreeListing implements meta.Publisher.
func (s *Store) SetTreeListing(ctx context.Context, name string, manifest cas.Digest, listing repo.File) error {
	return s.Update(ctx, "list tree", func(tx *Tx) error {
		f, err := tx.frozenIs(name, manifest)
		if err != nil || !f.Tree.SHA256.IsZero() {
			return err
		}
		f.Tree = listing
		return tx.replaceFrozen(f)
	})
}

// ReplaceKey implements meta.Publisher.
func (s *Store) ReplaceKey(ctx context.Context, name string, old, renewed cas.Digest) error {
	return s.Update(ctx, "renew", func(tx *Tx) error {
		f, err := tx.Frozen(name)
		if err != nil || f.KeyBlob != old {
			return err
		}
		if err := tx.DropRef(old, meta.OwnerFrozen, name); err != nil {
			return err
		}
		f.KeyBlob = renewed
		return tx.replaceFrozen(f)
	})
}
