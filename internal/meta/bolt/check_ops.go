package bolt

import (
	"context"
	"fmt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// Contradictions implements meta.Checker.
func (s *Store) Contradictions(ctx context.Context) (found []string, err error) {
	err = s.view(ctx, func(tx *txn) error {
		found = nil
		return tx.Check(func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) })
	})
	return found, err
}

// PromisedBlobs implements meta.Checker.
func (s *Store) PromisedBlobs(ctx context.Context, after cas.Digest, limit int) (promised []cas.Digest, next cas.Digest, more bool, err error) {
	err = s.view(ctx, func(tx *txn) error {
		promised = nil
		p, err := tx.promises()
		if err != nil {
			return err
		}
		var failed error
		next, more = tx.Blobs(after, limit, func(d cas.Digest, refs []meta.Ref) {
			yes, err := p.Blob(refs)
			if err != nil && failed == nil {
				failed = err
			}
			if yes {
				promised = append(promised, d)
			}
		})
		return failed
	})
	return promised, next, more, err
}

// Promised implements meta.Checker.
func (s *Store) Promised(ctx context.Context, d cas.Digest) (yes bool, err error) {
	err = s.view(ctx, func(tx *txn) error {
		p, err := tx.promises()
		if err == nil {
			yes, err = p.Blob(tx.Refs(d, 0))
		}
		return err
	})
	return yes, err
}

// Needed implements meta.Checker.
func (s *Store) Needed(ctx context.Context, d cas.Digest) (yes bool, err error) {
	err = s.view(ctx, func(tx *txn) error { yes = tx.Needed(d); return nil })
	return yes, err
}

// ReferencesInWords implements meta.Checker.
func (s *Store) ReferencesInWords(ctx context.Context, d cas.Digest, limit int) (words []string, err error) {
	err = s.view(ctx, func(tx *txn) error {
		words = nil
		for _, r := range tx.Refs(d, limit) {
			words = append(words, tx.Describe(r))
		}
		return nil
	})
	return words, err
}

// ListedAs implements meta.Checker.
func (s *Store) ListedAs(ctx context.Context, d cas.Digest) (listed []meta.ListedIn, err error) {
	err = s.view(ctx, func(tx *txn) error { listed = tx.Listings(d); return nil })
	return listed, err
}

// AliasesComplete implements meta.Checker.
func (s *Store) AliasesComplete(ctx context.Context) error {
	return s.view(ctx, func(tx *txn) error { return tx.complete("alias") })
}
