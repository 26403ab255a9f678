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
	c := newCluster(t, config)
	taken, err := c.db.Statements(context.Background(), c.database)
	if err != nil {
		t.Fatal(err)
	}
	one := c.add("")
	one.Ctl("sync")
	var counts []int
	for _, packages := range []int{10, 300} {
		publish(packages)
		taken()
		one.Ctl("sync")
		counts = append(counts, pgtest.Count(taken(), pgtest.Background...))
	}
	if counts[1] > counts[0]+30 {
		t.Errorf("%d statements for 10 new packages, %d for 300", counts[0], counts[1])
	}
}
