package story

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A sync in which nothing changed costs two statements, one that takes the lease and reads
// the newest state and one that notes the outcome and releases the lease, and no request
// to the bucket. What the node does from time to time, on a busy machine perhaps during a
// sync, is not part of the sync: it is enough that one of them costs no more.
func TestIdleSync(t *testing.T) {
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	c := newCluster(t, idle(config))
	taken, err := c.db.Statements(context.Background(), c.database)
	if err != nil {
		t.Fatal(err)
	}
	one := c.add("")
	one.Ctl("sync")
	one.Ctl("sync")
	var seen []string
	for range 10 {
		take(t, taken)
		c.srv.Counts()
		one.Ctl("sync")
		all, requests := take(t, taken), c.srv.Counts()
		n := pgtest.Count(all, pgtest.Background...)
		if n < 2 {
			t.Fatalf("%d statements, expected 2: %q", n, all)
		}
		if n == 2 && len(requests) == 0 {
			return
		}
		seen = append(seen, fmt.Sprintf("%d statements, requests to the bucket %v: %q", n, requests, all))
	}
	t.Errorf("expected 2 statements and no requests in one of them:\n%s", strings.Join(seen, "\n"))
}

// idle is a configuration in which a node does no other work a minute after its start.
func idle(config string) string {
	return strings.Replace(config, "[store]\n", "[store]\ngc_interval = \"\"\nscrub_interval = \"\"\n", 1)
}

// take returns the statements that began since it was last called.
func take(t *testing.T, taken func() ([]pgtest.Transaction, error)) []pgtest.Transaction {
	t.Helper()
	all, err := taken()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The statements of a sync that downloads packages do not grow with their number.
func TestSyncStatements(t *testing.T) {
	a, config := upstream(t)
	config = strings.Replace(config, "sources = true", "sources = true\ndownload = \"all\"", 1)
	published := time.Now().UTC().Add(-5 * time.Hour).Truncate(time.Second)
	n := 0
	publish := func(packages int) {
		for range packages {
			n++
			a.Add(debtest.Package{Name: fmt.Sprintf("app%d", n), Version: "1"})
		}
		published = published.Add(time.Minute)
		a.Publish(published)
	}
	publish(1)
	c := newCluster(t, idle(config))
	taken, err := c.db.Statements(context.Background(), c.database)
	if err != nil {
		t.Fatal(err)
	}
	one := c.add("")
	one.Ctl("sync")
	var counts []int
	for _, packages := range []int{10, 300} {
		publish(packages)
		take(t, taken)
		one.Ctl("sync")
		counts = append(counts, pgtest.Count(take(t, taken), pgtest.Background...))
	}
	if counts[1] > counts[0]+30 {
		t.Errorf("%d statements for 10 new packages, %d for 300", counts[0], counts[1])
	}
}
