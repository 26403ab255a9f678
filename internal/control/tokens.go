package control

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// tokenPrefix begins each secret, so that scanners for leaked secrets can recognize it.
const tokenPrefix = "snapd_"

// secretBytes is the number of random bytes of a secret.
const secretBytes = 32

// useEvery is the precision with which the last use of a token is recorded.
const useEvery = time.Minute

// maxScopes bounds the mirrors and the patterns of a token.
const maxScopes = 100

// CreateToken creates a token. Only the answer contains its secret; the server stores a
// hash.
func (c *Control) CreateToken(ctx context.Context, req *api.TokenCreate) (*api.NewToken, error) {
	now := c.now().UTC().Truncate(time.Second)
	switch {
	case !config.ValidName(req.Name):
		return nil, fmt.Errorf("%w: name of a token %q: expected letters, digits and .+~_- (at most 100)", errclass.Usage, req.Name)
	case !slices.Contains(api.Roles(), req.Role):
		return nil, fmt.Errorf("%w: role %q: expected one of %s", errclass.Usage, req.Role, strings.Join(api.Roles(), ", "))
	case req.Expires != nil && !req.Expires.After(now):
		return nil, fmt.Errorf("%w: a token that expires at %s: expected a time in the future", errclass.Usage, req.Expires.UTC().Format(time.RFC3339))
	case len(req.Mirrors) > maxScopes || len(req.Names) > maxScopes:
		return nil, fmt.Errorf("%w: at most %d mirrors and %d patterns of names", errclass.Usage, maxScopes, maxScopes)
	}
	for _, m := range req.Mirrors {
		if _, err := c.catalog.Mirror(meta.MirrorName(m)); err != nil {
			return nil, err
		}
	}
	for _, n := range req.Names {
		if _, err := path.Match(n, ""); err != nil || n == "" || len(n) > 1024 {
			return nil, fmt.Errorf("%w: pattern of names %q: expected a glob such as build-*", errclass.Usage, n)
		}
	}
	var raw [secretBytes]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, err
	}
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(raw[:])
	t := &meta.Token{
		Name: req.Name, Hash: cas.Sum([]byte(secret)), Role: req.Role, Mirrors: req.Mirrors, Names: req.Names, Created: now,
	}
	if req.Expires != nil {
		t.Expires = req.Expires.UTC()
	}
	if err := c.st.PutToken(ctx, t); err != nil {
		return nil, err
	}
	return &api.NewToken{Token: c.tokenView(t), Secret: secret}, nil
}

// tokenView is a token as clients see it.
func (c *Control) tokenView(t *meta.Token) api.Token {
	out := api.Token{
		Name: t.Name, Role: t.Role, Mirrors: t.Mirrors, Names: t.Names, Created: t.Created,
		Expires: optional(t.Expires), Used: optional(t.Used), Revoked: optional(t.Revoked), State: "valid",
	}
	switch {
	case out.Revoked != nil:
		out.State = "revoked"
	case t.Over(c.now()):
		out.State = "expired"
	}
	return out
}

// ListTokens lists all tokens, without secrets.
func (c *Control) ListTokens(ctx context.Context, _ *api.Empty) (*api.TokenList, error) {
	all, err := c.st.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	out := &api.TokenList{Tokens: []api.Token{}}
	for i := range all {
		out.Tokens = append(out.Tokens, c.tokenView(&all[i]))
	}
	return out, nil
}

// RevokeToken revokes a token at once.
func (c *Control) RevokeToken(ctx context.Context, req *api.TokenRef) (*api.RemoveResult, error) {
	if err := c.st.RevokeToken(ctx, req.Name, c.now().UTC().Truncate(time.Second)); err != nil {
		return nil, err
	}
	return &api.RemoveResult{Removed: req.Name}, nil
}

// Authenticate returns the caller that a secret belongs to, or ErrToken.
func (c *Control) Authenticate(ctx context.Context, secret, from string) (*Caller, error) {
	hash := cas.Sum([]byte(secret))
	t, err := c.st.TokenByHash(ctx, hash)
	now := c.now()
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return nil, fmt.Errorf("%w: this server has no such token", ErrToken)
	case err != nil:
		return nil, err
	case !t.Revoked.IsZero():
		return nil, fmt.Errorf("%w: token %s was revoked on %s", ErrToken, t.Name, t.Revoked.UTC().Format(time.RFC3339))
	case t.Over(now):
		return nil, fmt.Errorf("%w: token %s expired on %s", ErrToken, t.Name, t.Expires.UTC().Format(time.RFC3339))
	}
	if c.uses.due(hash, now) {
		if err := c.st.UseToken(ctx, hash, now.UTC().Truncate(time.Minute)); err != nil {
			// A token works even if its use cannot be recorded.
			c.log.Warn("the use of a token could not be recorded", "token", t.Name, "err", err)
		}
	}
	return &Caller{Who: "token " + t.Name, From: from, Role: t.Role, Mirrors: t.Mirrors, Names: t.Names}, nil
}

// uses remembers when the uses of tokens were last recorded.
type uses struct {
	mu   sync.Mutex
	last map[cas.Digest]time.Time
}

// due reports whether a use must be recorded now.
func (u *uses) due(hash cas.Digest, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.last[hash]; ok && now.Sub(last) < useEvery && !now.Before(last) {
		return false
	}
	if u.last == nil || len(u.last) > 10_000 {
		u.last = map[cas.Digest]time.Time{}
	}
	u.last[hash] = now
	return true
}
