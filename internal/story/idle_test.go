package story

import (
	"context"
	"testing"
	"time"

	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A sync in which nothing changed costs two statements, one that takes the lease and reads
// the newest state and one that notes the outcome and releases the lease, and no request
// to the bucket.
func TestIdleSync(t *testing.T) {
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	c := newCluster(t, config)
	taken, err := c.db.Statements(context.Background(), c.database)
	if err != nil {
		t.Fatal(err)
	}
	one := c.add("")
	one.Ctl("sync")
	one.Ctl("sync")
	for range 3 {
		taken()
		c.srv.Counts()
		one.Ctl("sync")
		all := taken()
		if n := pgtest.Count(all, pgtest.Background...); n != 2 {
			t.Errorf("%d statements, expected 2: %q", n, all)
		}
		if counts := c.srv.Counts(); len(counts) > 0 {
			t.Errorf("requests to the bucket: %v", counts)
		}
	}
}
