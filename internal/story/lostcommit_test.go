package story

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// PostgreSQL fails over to a standby that lacks the last commits, among them a snapshot
// and a freeze that all nodes have served. Upstream has moved on meanwhile. What is made
// next gets the numbers of what was lost, and the nodes serve it, not what they remember.
func TestLostCommit(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a, config := upstream(t)
	published := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	version := 0
	publish := func() {
		if version++; version > 1 {
			a.Default().Remove("app", fmt.Sprint(version-1))
		}
		a.Add(debtest.Package{Name: "app", Version: fmt.Sprint(version)})
		a.Publish(published.Add(time.Duration(version) * time.Hour))
	}
	publish()
	c := newCluster(t, config)
	standby := c.db.Standby(t, "")
	c.config = strings.Replace(c.config, fmt.Sprintf("%q", c.database), fmt.Sprintf("%q", pgtest.Either(c.database, standby)), 1)
	one, two := c.add(""), c.add("")
	c.add("role = \"serve\"\n")
	one.Ctl("sync")
	one.Ctl("freeze", "4.1", "--all")

	standby.CatchUp(t, c.db)
	standby.Detach(t)
	publish()
	one.Ctl("sync")
	one.Ctl("freeze", "5.0", "--all")
	for _, s := range c.nodes {
		s.installs("5.0", "app", "2")
		if code, _ := get(t, "http://"+s.Addr+"/archive/debian/latest/dists/stable/main/binary-amd64/Packages.xz"); code != http.StatusOK {
			t.Errorf("latest: %d", code)
		}
	}
	c.db.Stop(t, syscall.SIGQUIT)
	standby.Promote(t)
	publish()
	for _, s := range []*server{two, one} {
		eventually(t, "a sync after the failover", func() bool {
			_, err := s.Try("sync")
			return err == nil
		})
	}
	for _, s := range c.nodes {
		eventually(t, "all nodes serve the newest snapshot", func() bool {
			_, body := get(t, "http://"+s.Addr+"/archive/debian/latest/dists/stable/InRelease")
			return body == string(a.Get("dists/stable/InRelease"))
		})
		code, body := get(t, "http://"+s.Addr+"/archive/debian/latest/dists/stable/main/binary-amd64/Packages.xz")
		if want := string(a.Get("dists/stable/main/binary-amd64/Packages.xz")); code != http.StatusOK || body != want {
			t.Errorf("%s serves an index that is not the newest: %d, %d bytes", s.Addr, code, len(body))
		}
	}
	two.Ctl("freeze", "6.0", "--all")
	for _, s := range c.nodes {
		s.installs("4.1", "app", "1")
		s.installs("6.0", "app", "3")
	}
	for _, name := range []string{"4.1", "6.0"} {
		one.Ctl("verify", name, "--deep")
	}
	one.Ctl("log", "verify")
	two.Ctl("fsck")
	var st api.Status
	one.JSON(&st, "status")
	if !slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.Contains(w, "the database lost commits") }) {
		t.Errorf("status does not say that commits were lost: %q", st.Warnings)
	}
}
