package bolt

import "context"

// Tx is a transaction, which only the tests of this package open.
type Tx = txn

// View runs f in a read transaction.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error { return s.view(ctx, f) }

// Update runs f in a write transaction.
func (s *Store) Update(ctx context.Context, op string, f func(*Tx) error) error {
	return s.update(ctx, op, f)
}
