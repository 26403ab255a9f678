package follow_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/follow"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/repo"
)

// clock is a clock that tests can set ahead.
type clock struct{ ahead time.Duration }

func (c *clock) now() time.Time { return time.Now().Add(c.ahead) }

// open opens the database at url as a node.
func open(t *testing.T, url string, c *clock) *follow.Store {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Options{URL: url, Connections: 4})
	if err != nil {
		t.Fatal(err)
	}
	s := follow.New(db, follow.Options{Now: c.now})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func seal(t *testing.T, s meta.Store, at time.Time) *meta.Snapshot {
	t.Helper()
	st, err := s.NewStage(t.Context(), "debian", "stable")
	if err != nil {
		t.Fatal(err)
	}
	doc := meta.Doc{File: repo.File{Path: "dists/stable/InRelease", Size: 3, SHA256: cas.Sum([]byte(at.String()))}}
	snap, err := s.Seal(t.Context(), &meta.Sealing{
		Snapshot:    meta.Snapshot{Mirror: "debian", Type: "deb", Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: st.Gen()}}},
		Generations: []meta.Generation{{Mirror: "debian", Suite: "stable", Gen: st.Gen(), Docs: []meta.Doc{doc}}},
		Listings:    [][]repo.File{nil},
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// A node sees what another node publishes. Without the database, it repeats its answers
// to earlier queries for an hour, and never returns "not found". Long because each step
// depends on the one before.
func TestFollow(t *testing.T) {
	ctx := t.Context()
	srv := pgtest.Start(t)
	url := srv.Database(t)
	one, c := open(t, url, &clock{}), &clock{}
	two := open(t, url, c)
	at := time.Now().UTC().Truncate(time.Second)
	first := seal(t, one, at)
	if !two.Poll(ctx) || two.Poll(ctx) {
		t.Error("expected one change")
	}
	if got, err := two.Latest(ctx, "debian"); err != nil || got.ID() != first.ID() {
		t.Fatalf("latest: %v, %v", got, err)
	}
	second := seal(t, one, at.Add(time.Hour))
	exact := func() error { _, err := two.Snapshot(ctx, "debian", first.Timestamp); return err }
	if err := exact(); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Freeze(ctx, "4.1"); !errors.Is(err, meta.ErrNotFound) {
		t.Fatal(err)
	}
	if n, err := two.LogNamed(ctx, []string{"absent"}); err != nil || n[0] != -1 {
		t.Fatalf("an entry of the log that does not exist: %d, %v", n, err)
	}
	two.Poll(ctx)

	srv.Stop(t, syscall.SIGKILL)
	// First before the node has noticed that the database is down, and then after.
	for range 2 {
		if err := exact(); err != nil {
			t.Errorf("a query that was asked before: %v", err)
		}
		// Its cached answer was dropped, because there is a newer snapshot.
		if got, err := two.Latest(ctx, "debian"); !errors.Is(err, meta.ErrUnreachable) {
			t.Errorf("latest: %v, %v, expected ErrUnreachable", got, err)
		}
		if _, err := two.Freeze(ctx, "4.1"); !errors.Is(err, meta.ErrUnreachable) {
			t.Errorf("a freeze that did not exist: %v, expected ErrUnreachable", err)
		}
		if n, err := two.LogNamed(ctx, []string{"absent"}); !errors.Is(err, meta.ErrUnreachable) {
			t.Errorf("an entry of the log that did not exist: %d, %v, expected ErrUnreachable", n, err)
		}
		two.Poll(ctx)
	}
	current := func() error { _, err := two.Snapshot(meta.Current(ctx), "debian", first.Timestamp); return err }
	if err := current(); !errors.Is(err, meta.ErrUnreachable) {
		t.Errorf("a query that only the database may answer: %v", err)
	}
	if st := two.State(); st.Down.IsZero() || st.Err == nil {
		t.Errorf("state %+v", st)
	}
	c.ahead = follow.Alone + time.Minute
	if err := exact(); !errors.Is(err, meta.ErrUnreachable) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("after an hour: %v", err)
	}
	c.ahead = 0
	srv.Run(t)
	for !two.State().Down.IsZero() && ctx.Err() == nil {
		_ = current() // on a busy machine, the first answer takes a while
	}
	if got, err := two.Latest(ctx, "debian"); err != nil || got.ID() != second.ID() || !two.State().Down.IsZero() {
		t.Errorf("latest: %v, %v, %+v", got, err, two.State())
	}

	// State contains the difference between the clocks.
	c.ahead = 5 * time.Minute
	two.Poll(ctx)
	if skew := two.State().Skew; skew < 4*time.Minute || skew > 6*time.Minute {
		t.Errorf("skew %v, expected 5 minutes", skew)
	}
}

// A node caches answers about a new snapshot even if it is queried before it has read
// about the snapshot in the feed.
func TestAheadOfTheFeed(t *testing.T) {
	ctx := t.Context()
	srv := pgtest.Start(t)
	url := srv.Database(t)
	one, two := open(t, url, &clock{}), open(t, url, &clock{})
	at := time.Now().UTC().Truncate(time.Second)
	first, second := seal(t, one, at), seal(t, one, at.Add(time.Hour))
	ask := func() {
		t.Helper()
		if got, err := two.Latest(ctx, "debian"); err != nil || got.ID() != second.ID() {
			t.Errorf("latest: %v, %v, expected %s", got, err, second.ID())
		}
		if got, err := two.NextSnapshot(ctx, "debian", first.Timestamp); err != nil || got.ID() != second.ID() {
			t.Errorf("after the first: %v, %v, expected %s", got, err, second.ID())
		}
	}
	ask()
	two.Poll(ctx)
	srv.Stop(t, syscall.SIGKILL)
	ask()
}

// A node keeps an answer about an object that it gave just before it read in the feed
// that the object was published. It caches "not found" only for callers that then try
// another query.
func TestOutageAfterChange(t *testing.T) {
	ctx := t.Context()
	srv := pgtest.Start(t)
	url := srv.Database(t)
	one, two := open(t, url, &clock{}), open(t, url, &clock{})
	snap := seal(t, one, time.Now().UTC().Truncate(time.Second))
	detour := meta.Detour(ctx)
	ask := func() error {
		_, err := two.Snapshot(ctx, "debian", snap.Timestamp)
		_, gerr := two.Generations(ctx, snap)
		return errors.Join(err, gerr)
	}
	tree := func(ctx context.Context) error { _, err := two.TreeFile(ctx, "4.1", "debian/file"); return err }
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if err := tree(detour); !errors.Is(err, meta.ErrNotFound) {
		t.Fatal(err)
	}
	if !two.Poll(ctx) {
		t.Fatal("expected a change")
	}
	srv.Stop(t, syscall.SIGKILL)
	for range 2 {
		if err := ask(); err != nil {
			t.Errorf("asked before the change was read: %v", err)
		}
		if err := tree(detour); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("a file that did not exist, on a detour: %v", err)
		}
		if err := tree(ctx); !errors.Is(err, meta.ErrUnreachable) {
			t.Errorf("a file that did not exist: %v", err)
		}
		two.Poll(ctx)
	}
}

// If the network silently loses a query or its answer, the query ends soon after the node
// has noticed that the database does not answer.
func TestSilence(t *testing.T) {
	ctx := t.Context()
	srv := pgtest.Start(t)
	s := open(t, srv.Database(t), &clock{})
	ask := func() error { _, err := s.Freeze(ctx, "4.1"); return err }
	if err := ask(); !errors.Is(err, meta.ErrNotFound) {
		t.Fatal(err)
	}
	resume := srv.Suspend(t)
	t.Cleanup(resume)
	asked := make(chan error, 1)
	go func() { asked <- ask() }()
	time.Sleep(100 * time.Millisecond) // until it is on its way
	s.Poll(ctx)
	if s.State().Down.IsZero() {
		t.Error("the node does not notice")
	}
	select {
	case err := <-asked:
		if !errors.Is(err, meta.ErrUnreachable) {
			t.Errorf("a query without an answer: %v", err)
		}
	case <-time.After(12 * time.Second):
		t.Error("a query without an answer does not end")
	}
	resume()
	for !s.State().Down.IsZero() && ctx.Err() == nil {
		s.Poll(ctx)
	}
	if err := ask(); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the database answers again: %v", err)
	}
}

// After a standby without the last commits has taken over, latest does not go back, and
// the remaining snapshots are served. It makes no difference whether another commit
// follows before the node polls, with a new number or with that of a lost one.
func TestLostCommits(t *testing.T) {
	ctx := t.Context()
	srv := pgtest.Start(t)
	for name, next := range map[string]int{"nothing follows": 0, "one follows by the number of the lost one": 2, "one follows by a larger number": 34} {
		t.Run(name, func(t *testing.T) {
			url := srv.Database(t)
			one := open(t, url, &clock{})
			two := open(t, url, &clock{})
			at := time.Now().UTC().Truncate(time.Second)
			first := seal(t, one, at)
			seal(t, one, at.Add(time.Hour))
			two.Poll(ctx)
			if _, err := two.Latest(ctx, "debian"); err != nil {
				t.Fatal(err)
			}
			pgtest.Exec(t, url, "delete from snapshot where at > (select min(at) from snapshot)", "delete from change where seq > 1",
				fmt.Sprintf("alter sequence change_seq_seq restart with %d", max(next, 2)))
			if next > 0 {
				pgtest.Exec(t, url, "insert into change (what, name) values ('kit', 'k')")
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			var told []string
			two.Run(ended, func(lost bool) { told = append(told, fmt.Sprint(lost, " ", two.State().Seq)) }, nil)
			if !two.Poll(ctx) || two.Poll(ctx) || two.State().Lost != 1 {
				t.Errorf("expected one change and one loss: %+v", two.State())
			}
			// Cached answers of lost commits are not used while the feed is read again.
			if want := []string{"true 0", fmt.Sprint("false ", two.State().Seq)}; !slices.Equal(told, want) {
				t.Errorf("told %q, expected %q", told, want)
			}
			if got, err := two.Latest(ctx, "debian"); !errors.Is(err, meta.ErrUnreachable) {
				t.Errorf("latest went back: %v, %v", got, err)
			}
			if _, err := two.Snapshot(ctx, "debian", first.Timestamp); err != nil {
				t.Error(err)
			}
			third := seal(t, one, at.Add(2*time.Hour))
			two.Poll(ctx)
			if got, err := two.Latest(ctx, "debian"); err != nil || got.ID() != third.ID() || two.State().Lost != 1 {
				t.Errorf("latest: %v, %v, %+v", got, err, two.State())
			}
		})
	}
}

// The last change that a node can have read is kept, however old it is. Otherwise the
// node would conclude that commits were lost.
func TestOldChanges(t *testing.T) {
	ctx := t.Context()
	url := pgtest.Start(t).Database(t)
	one, two := open(t, url, &clock{}), open(t, url, &clock{})
	at := time.Now().UTC().Truncate(time.Second)
	seal(t, one, at)
	seal(t, one, at.Add(time.Hour))
	pgtest.Exec(t, url, "update change set at = at - interval '48 hours'")
	two.Poll(ctx)
	third := seal(t, one, at.Add(2*time.Hour))
	if err := one.NoteNode(ctx, meta.NodeState{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	if p, err := one.Changes(ctx, 0, 10); err != nil || p.First != 2 || p.Last != 3 {
		t.Errorf("changes from %d to %d, expected 2 to 3, %v", p.First, p.Last, err)
	}
	two.Poll(ctx)
	if got, err := two.Latest(ctx, "debian"); err != nil || got.ID() != third.ID() || two.State().Lost != 0 {
		t.Errorf("latest: %v, %v, %+v", got, err, two.State())
	}
}

// Nodes returns the last state that each node has reported.
func TestNodes(t *testing.T) {
	srv := pgtest.Start(t)
	url := srv.Database(t)
	one, two := open(t, url, &clock{}), open(t, url, &clock{})
	for _, s := range []struct {
		*follow.Store
		name  string
		cache int64
	}{{one, "b", 1}, {two, "a", 2}, {one, "b", 3}} {
		if err := s.NoteNode(t.Context(), meta.NodeState{Name: s.name, Role: "serve", Cache: s.cache}); err != nil {
			t.Fatal(err)
		}
	}
	nodes, now, err := two.Nodes(t.Context())
	if err != nil || len(nodes) != 2 || nodes[0].Name != "a" || nodes[1].Cache != 3 || now.Sub(nodes[1].Seen) > time.Minute {
		t.Errorf("%+v at %v, %v", nodes, now, err)
	}
}
