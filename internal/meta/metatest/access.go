package metatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/meta"
)

// ci returns a token with all fields set.
func ci() *meta.Token {
	return &meta.Token{
		Name: "ci", Hash: digest("ci"), Role: "builder", Mirrors: []string{mirror}, Names: []string{"build-*"},
		Created: day, Expires: day.Add(24 * time.Hour),
	}
}

func putToken(ctx context.Context, s meta.Store) error { return s.PutToken(ctx, ci()) }

func auditEntry(id string, at time.Time) meta.AuditEntry {
	return meta.AuditEntry{ID: id, Time: at, Who: "token ci", From: "192.0.2.1", Verb: "freeze", What: "4.1", Result: "ok", Detail: "d"}
}

// testTokens checks the contract of meta.Tokens.
func testTokens(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	if all, err := s.Tokens(ctx); err != nil || len(all) > 0 {
		t.Errorf("empty: %v, %v", all, err)
	}
	for what, err := range map[string]error{
		"revoke": s.RevokeToken(ctx, "ci", day), "use": s.UseToken(ctx, digest("ci"), day),
	} {
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s of no token: %v", what, err)
		}
	}
	if _, err := s.TokenByHash(ctx, digest("ci")); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("no token: %v", err)
	}
	fail(s.PutToken(ctx, ci()))
	fail(s.PutToken(ctx, ci()))
	fail(s.PutToken(ctx, &meta.Token{Name: "admin", Hash: digest("admin"), Role: "admin", Created: day}))
	got, err := s.TokenByHash(ctx, digest("ci"))
	fail(err)
	if d := cmp.Diff(ci(), got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	all, err := s.Tokens(ctx)
	fail(err)
	if len(all) != 2 || all[0].Name != "admin" || all[1].Name != "ci" {
		t.Errorf("tokens: %+v", all)
	}
	// UseToken does not set an earlier time of use.
	for _, at := range []time.Time{day.Add(time.Hour), day} {
		fail(s.UseToken(ctx, digest("ci"), at))
	}
	if got, err = s.TokenByHash(ctx, digest("ci")); err != nil || !got.Used.Equal(day.Add(time.Hour)) {
		t.Errorf("used: %+v, %v", got, err)
	}
	// A name cannot be used again until its token has been revoked.
	next := &meta.Token{Name: "ci", Hash: digest("next"), Role: "reader", Created: day.Add(time.Hour)}
	if err := s.PutToken(ctx, next); !errors.Is(err, meta.ErrTaken) {
		t.Errorf("a second token of that name: %v", err)
	}
	fail(s.RevokeToken(ctx, "ci", day.Add(2*time.Hour)))
	if err := s.RevokeToken(ctx, "ci", day.Add(3*time.Hour)); !errors.Is(err, meta.ErrRevoked) {
		t.Errorf("revoked twice: %v", err)
	}
	if got, err = s.TokenByHash(ctx, digest("ci")); err != nil || !got.Revoked.Equal(day.Add(2*time.Hour)) {
		t.Errorf("revoked: %+v, %v", got, err)
	}
	fail(s.PutToken(ctx, next))
	if _, err := s.TokenByHash(ctx, digest("ci")); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the replaced token: %v", err)
	}
	if got, err = s.TokenByHash(ctx, digest("next")); err != nil || got.Role != "reader" {
		t.Errorf("its successor: %+v, %v", got, err)
	}
}

// testAudit checks the contract of meta.Audit.
func testAudit(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	ids := func(since time.Time, after int64, limit int) (out []string) {
		t.Helper()
		entries, err := s.AuditEntries(ctx, since, after, limit)
		fail(err)
		for i, e := range entries {
			if e.Number <= after || i > 0 && e.Number <= entries[i-1].Number {
				t.Errorf("entry %s has number %d", e.ID, e.Number)
			}
			out = append(out, e.ID)
		}
		return out
	}
	want := func(got []string, ids ...string) {
		t.Helper()
		if !slices.Equal(got, ids) {
			t.Errorf("%q, expected %q", got, ids)
		}
	}
	want(ids(time.Time{}, 0, 10))
	if n, err := s.TrimAudit(ctx, day, 10); err != nil || n != 0 {
		t.Errorf("trim nothing: %d, %v", n, err)
	}
	for i, id := range []string{"a", "b", "b", "c", "d"} {
		fail(s.AppendAudit(ctx, auditEntry(id, day.Add(time.Duration(i)*time.Hour))))
	}
	want(ids(time.Time{}, 0, 10), "a", "b", "c", "d")
	want(ids(day.Add(3*time.Hour), 0, 10), "c", "d")
	want(ids(time.Time{}, 0, 2), "a", "b")
	all, err := s.AuditEntries(ctx, time.Time{}, 0, 10)
	fail(err)
	want(ids(time.Time{}, all[1].Number, 10), "c", "d")
	first := auditEntry("a", day)
	first.Number = all[0].Number
	if d := cmp.Diff(first, all[0]); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for _, c := range []struct {
		before time.Time
		limit  int
		n      int
	}{{day.Add(90 * time.Minute), 1, 1}, {day.Add(90 * time.Minute), 10, 1}, {day.Add(24 * time.Hour), 10, 1}} {
		if n, err := s.TrimAudit(ctx, c.before, c.limit); err != nil || n != c.n {
			t.Errorf("trim before %s: %d, expected %d; %v", c.before, n, c.n, err)
		}
	}
	want(ids(time.Time{}, 0, 10), "d") // the newest entry is kept
	fail(s.AppendAudit(ctx, auditEntry("e", day)))
	want(ids(time.Time{}, all[3].Number, 10), "e")
	// With concurrent writers, no entry is lost.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := s.AppendAudit(ctx, auditEntry(fmt.Sprint("w", i), day)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := ids(time.Time{}, 0, 100); len(got) != 10 {
		t.Errorf("%q, expected 10 entries", got)
	}
}
