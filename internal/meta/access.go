package meta

import (
	"context"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
)

// ErrRevoked means that a token was revoked.
var ErrRevoked = errclass.New(errclass.Conflict, "the token is revoked")

// Tokens stores who may use the control API over the network. It contains no secrets: a
// token is found by the SHA-256 of its secret.
type Tokens interface {
	// PutToken adds a token. It replaces a token of the same name that was revoked or had
	// expired when the new one was created, and otherwise returns ErrTaken. Adding a
	// token with equal contents again succeeds.
	PutToken(ctx context.Context, t *Token) error
	// TokenByHash returns a token by the SHA-256 of its secret, even if it was revoked or
	// has expired. ErrNotFound.
	TokenByHash(ctx context.Context, hash cas.Digest) (*Token, error)
	// Tokens returns all tokens by name.
	Tokens(ctx context.Context) ([]Token, error)
	// RevokeToken revokes a token. ErrNotFound; ErrRevoked if it was revoked before.
	RevokeToken(ctx context.Context, name string, at time.Time) error
	// UseToken records when a token was last used, if that is later than the recorded
	// time. ErrNotFound.
	UseToken(ctx context.Context, hash cas.Digest, at time.Time) error
}

// Token is one token.
type Token struct {
	Name    string     `json:"name"`
	Hash    cas.Digest `json:"hash"` // SHA-256 of the secret
	Role    string     `json:"role"`
	Mirrors []string   `json:"mirrors,omitempty"` // mirrors that it may change; empty: all
	Names   []string   `json:"names,omitempty"`   // patterns of the names that it may change; empty: all
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires,omitzero"` // zero: never
	Used    time.Time  `json:"used,omitzero"`    // zero: never
	Revoked time.Time  `json:"revoked,omitzero"` // zero: not revoked
}

// Over reports whether a token is revoked or has expired.
func (t *Token) Over(at time.Time) bool {
	return !t.Revoked.IsZero() || !t.Expires.IsZero() && !at.Before(t.Expires)
}

// CheckReplace returns ErrTaken unless the new token by may replace t.
func (t *Token) CheckReplace(by *Token) error {
	if t.Hash == by.Hash || t.Over(by.Created) {
		return nil
	}
	return fmt.Errorf("token %s: %w: revoke it first", t.Name, ErrTaken)
}

// Audit stores who changed what. Entries are only appended, and the oldest ones expire.
type Audit interface {
	// AppendAudit adds an entry with the next number. If the newest entry has the same
	// ID, AppendAudit adds nothing, so that it can be repeated. It also works on damaged
	// metadata.
	AppendAudit(ctx context.Context, e AuditEntry) error
	// AuditEntries returns at most limit entries with numbers above after that were made
	// at since or later, oldest first.
	AuditEntries(ctx context.Context, since time.Time, after int64, limit int) ([]AuditEntry, error)
	// TrimAudit removes at most limit entries that were made before a time, oldest first,
	// but never the newest entry. It returns how many.
	TrimAudit(ctx context.Context, before time.Time, limit int) (int, error)
}

// AuditEntry is one change, or an attempt that was refused or failed.
type AuditEntry struct {
	Number int64     `json:"-"`
	ID     string    `json:"id"` // random
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`  // "user 1000", "token ci"
	From   string    `json:"from"` // "socket", or an address
	Verb   string    `json:"verb"`
	What   string    `json:"what"`   // what was changed
	Result string    `json:"result"` // "ok", "failed", "refused"
	Detail string    `json:"detail,omitempty"`
}
