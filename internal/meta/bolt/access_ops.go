package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// tokenBucket holds tokens by name, and their names by hash. auditBucket holds the
// entries of the audit list by number.
const (
	tokenBucket = "token"
	auditBucket = "audit"
)

const tokenNamePrefix = "name"

func tokenKey(name string) key         { return key(tokenNamePrefix).raw([]byte(name)) }
func tokenHashKey(hash cas.Digest) key { return key("hash").raw(hash[:]) }

// PutToken implements meta.Tokens.
func (s *Store) PutToken(ctx context.Context, t *meta.Token) error {
	return s.update(ctx, "token", func(tx *txn) error {
		b := tx.b(tokenBucket)
		var old meta.Token
		switch err := getJSON(b, tokenKey(t.Name), &old); {
		case err == nil:
			if err := old.CheckReplace(t); err != nil {
				return err
			}
			if err := b.Delete(tokenHashKey(old.Hash)); err != nil {
				return err
			}
		case !errors.Is(err, meta.ErrNotFound):
			return err
		}
		if err := b.Put(tokenHashKey(t.Hash), []byte(t.Name)); err != nil {
			return err
		}
		return putJSON(b, tokenKey(t.Name), t)
	})
}

// TokenByHash implements meta.Tokens.
func (s *Store) TokenByHash(ctx context.Context, hash cas.Digest) (*meta.Token, error) {
	t := new(meta.Token)
	err := s.view(ctx, func(tx *txn) error {
		b := tx.b(tokenBucket)
		name := b.Get(tokenHashKey(hash))
		if name == nil {
			return fmt.Errorf("token: %w", meta.ErrNotFound)
		}
		return getJSON(b, tokenKey(string(name)), t)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Tokens implements meta.Tokens.
func (s *Store) Tokens(ctx context.Context) (out []meta.Token, err error) {
	err = s.view(ctx, func(tx *txn) error {
		out = nil
		b := tx.b(tokenBucket)
		c := b.Cursor()
		prefix := []byte(tokenNamePrefix)
		for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			var t meta.Token
			if err := getJSON(b, k, &t); err != nil {
				return err
			}
			out = append(out, t)
		}
		return nil
	})
	return out, err
}

// RevokeToken implements meta.Tokens.
func (s *Store) RevokeToken(ctx context.Context, name string, at time.Time) error {
	return s.update(ctx, "revoke token", func(tx *txn) error {
		b := tx.b(tokenBucket)
		var t meta.Token
		if err := getJSON(b, tokenKey(name), &t); err != nil {
			return fmt.Errorf("token %s: %w", name, err)
		}
		if !t.Revoked.IsZero() {
			return fmt.Errorf("token %s: %w", name, meta.ErrRevoked)
		}
		t.Revoked = at
		return putJSON(b, tokenKey(name), &t)
	})
}

// UseToken implements meta.Tokens.
func (s *Store) UseToken(ctx context.Context, hash cas.Digest, at time.Time) error {
	return s.update(ctx, "use token", func(tx *txn) error {
		b := tx.b(tokenBucket)
		name := b.Get(tokenHashKey(hash))
		if name == nil {
			return fmt.Errorf("token: %w", meta.ErrNotFound)
		}
		var t meta.Token
		k := tokenKey(string(name))
		if err := getJSON(b, k, &t); err != nil {
			return err
		}
		if !at.After(t.Used) {
			return nil
		}
		t.Used = at
		return putJSON(b, k, &t)
	})
}

// AppendAudit implements meta.Audit.
func (s *Store) AppendAudit(ctx context.Context, e meta.AuditEntry) error {
	return s.updateDamaged(ctx, "audit", func(tx *txn) error {
		b := tx.b(auditBucket)
		n := uint64(1)
		if k, _ := b.Cursor().Last(); k != nil {
			n = be64(k) + 1
			var newest meta.AuditEntry
			if err := getJSON(b, k, &newest); err == nil && newest.ID == e.ID {
				return nil
			}
		}
		return putJSON(b, key(nil).u64(n), &e)
	})
}

// AuditEntries implements meta.Audit.
func (s *Store) AuditEntries(ctx context.Context, since time.Time, after int64, limit int) (out []meta.AuditEntry, err error) {
	err = s.view(ctx, func(tx *txn) error {
		out = nil
		b := tx.b(auditBucket)
		c := b.Cursor()
		for k, _ := c.Seek(key(nil).u64(uint64(after) + 1)); k != nil && len(out) < limit; k, _ = c.Next() {
			e := meta.AuditEntry{Number: int64(be64(k))}
			if err := getJSON(b, k, &e); err != nil {
				return err
			}
			if !e.Time.Before(since) {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// TrimAudit implements meta.Audit.
func (s *Store) TrimAudit(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.update(ctx, "trim audit", func(tx *txn) error {
		n = 0
		b := tx.b(auditBucket)
		c := b.Cursor()
		var old [][]byte
		newest, _ := c.Last()
		newest = clone(newest)
		for k, _ := c.First(); k != nil && len(old) < limit && string(k) != string(newest); k, _ = c.Next() {
			var e meta.AuditEntry
			if err := getJSON(b, k, &e); err != nil {
				return err
			}
			if !e.Time.Before(before) {
				break
			}
			old = append(old, clone(k))
		}
		for _, k := range old {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		n = len(old)
		return nil
	})
	return n, err
}
