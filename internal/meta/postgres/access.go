package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// putToken writes a token, and replaces one with the same name.
func (t *tx) putToken(ctx context.Context, tok *meta.Token) error {
	return t.putDoc(ctx, tok, "insert into token (name, hash, doc) values ($1, $2, $3) on conflict (name) do update set hash = excluded.hash, doc = excluded.doc", tok.Name, tok.Hash[:])
}

// PutToken implements meta.Tokens.
func (s *Store) PutToken(ctx context.Context, tok *meta.Token) error {
	return s.write(ctx, "token", func(t *tx) error {
		if err := t.lockName(ctx, "/token"); err != nil {
			return err
		}
		var old meta.Token
		err := t.doc(ctx, &old, "select doc from token where name = $1", tok.Name)
		if err == nil {
			err = old.CheckReplace(tok)
		} else if errors.Is(err, meta.ErrNotFound) {
			err = nil
		}
		if err != nil {
			return err
		}
		return t.putToken(ctx, tok)
	})
}

// TokenByHash implements meta.Tokens.
func (s *Store) TokenByHash(ctx context.Context, hash cas.Digest) (*meta.Token, error) {
	return ask(ctx, s, func(t *tx) (*meta.Token, error) {
		tok := new(meta.Token)
		if err := t.doc(ctx, tok, "select doc from token where hash = $1", hash[:]); err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		return tok, nil
	})
}

// Tokens implements meta.Tokens.
func (s *Store) Tokens(ctx context.Context) ([]meta.Token, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Token, error) {
		return values(docs[meta.Token](ctx, t, "select doc from token order by name"))
	})
}

// RevokeToken implements meta.Tokens.
func (s *Store) RevokeToken(ctx context.Context, name string, at time.Time) error {
	return s.write(ctx, "revoke token", func(t *tx) error {
		if err := t.lockName(ctx, "/token"); err != nil {
			return err
		}
		var tok meta.Token
		if err := t.doc(ctx, &tok, "select doc from token where name = $1", name); err != nil {
			return fmt.Errorf("token %s: %w", name, err)
		}
		if !tok.Revoked.IsZero() {
			return fmt.Errorf("token %s: %w", name, meta.ErrRevoked)
		}
		tok.Revoked = at
		return t.putToken(ctx, &tok)
	})
}

// UseToken implements meta.Tokens.
func (s *Store) UseToken(ctx context.Context, hash cas.Digest, at time.Time) error {
	return s.write(ctx, "use token", func(t *tx) error {
		if err := t.lockName(ctx, "/token"); err != nil {
			return err
		}
		var tok meta.Token
		if err := t.doc(ctx, &tok, "select doc from token where hash = $1", hash[:]); err != nil {
			return fmt.Errorf("token: %w", err)
		}
		if !at.After(tok.Used) {
			return nil
		}
		tok.Used = at
		return t.putToken(ctx, &tok)
	})
}

// appendAudit adds an entry unless the newest one has its ID. Of entries that are added
// at the same time only one gets the next number.
const appendAudit = `with newest as (select n, id from audit order by n desc limit 1)
	insert into audit (n, at, id, doc) select coalesce((select n from newest), 0) + 1, $1, $2, $3
	where not exists (select from newest where id = $2)`

// AppendAudit implements meta.Audit.
func (s *Store) AppendAudit(ctx context.Context, e meta.AuditEntry) error {
	return s.write(ctx, "audit", func(t *tx) error {
		if err := t.lockName(ctx, "/audit"); err != nil {
			return err
		}
		return t.putDoc(ctx, &e, appendAudit, e.Time, e.ID)
	})
}

// AuditEntries implements meta.Audit.
func (s *Store) AuditEntries(ctx context.Context, since time.Time, after int64, limit int) ([]meta.AuditEntry, error) {
	return ask(ctx, s, func(t *tx) (out []meta.AuditEntry, err error) {
		var n int64
		var data []byte
		err = t.each(ctx, []any{&n, &data}, func() error {
			e := meta.AuditEntry{Number: n}
			err := undoc(data, &e)
			out = append(out, e)
			return err
		}, "select n, doc from audit where n > $1 and at >= $2 order by n limit $3", after, since, limit)
		return out, err
	})
}

// TrimAudit implements meta.Audit.
func (s *Store) TrimAudit(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.write(ctx, "trim audit", func(t *tx) error {
		if err := t.lockName(ctx, "/audit"); err != nil {
			return err
		}
		// Up to the oldest entry to keep: the first that is young enough, or the newest.
		gone, err := t.exec(ctx, `delete from audit where n in (
			select n from audit where n < coalesce((select min(n) from audit where at >= $1), (select max(n) from audit))
			order by n limit $2)`, before, limit)
		n = int(gone)
		return err
	})
	return n, err
}
