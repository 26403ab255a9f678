package story

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// cluster is a database, a bucket behind a proxy that makes it fail, and nodes that
// share them.
type cluster struct {
	t      *testing.T
	db     *pgtest.Server
	srv    *s3test.Server
	bucket string
	nodes  []*server
	config string // configuration of a node

	database string // URL
}

// newCluster starts the database and the bucket of a cluster, without nodes.
func newCluster(t *testing.T, config string) *cluster {
	t.Helper()
	c := &cluster{t: t, db: pgtest.Start(t), srv: s3test.Start(t)}
	c.bucket, c.database = c.srv.Bucket(t), c.db.Database(t)
	c.config = strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\nmetadata = %q\nblobs = %q\ncredentials_file = %q\ncache = \"64MiB\"\n",
		c.database, c.srv.Location(c.bucket, "snapd"), s3test.CredentialsFile(t)), 1)
	return c
}

// keyFiles lists the files that each node that signs must have.
var keyFiles = []string{"signing-key.asc", "log-key"}

// add starts a node with the keys of the first one. more is added to its [store] section.
func (c *cluster) add(more string) *server {
	c.t.Helper()
	s := elsewhere(c.t, strings.Replace(c.config, "[store]\n", "[store]\n"+more, 1))
	if len(c.nodes) > 0 {
		c.copyKeys(s)
	}
	c.nodes = append(c.nodes, s)
	s.begin()
	return s
}

// copyKeys gives a node that was not started yet the keys of the first one.
func (c *cluster) copyKeys(s *server) {
	c.t.Helper()
	data := filepath.Join(s.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		c.t.Fatal(err)
	}
	for _, name := range keyFiles {
		key, err := os.ReadFile(filepath.Join(c.nodes[0].Dir, "data", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(data, name), key, 0o600)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// eventually waits until f returns true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// Two nodes that sync and a third that only serves share a database and a bucket. All
// three serve what any of them publishes. The third needs no keys and changes nothing.
// Without the database or the bucket it still serves what it served before, and reports
// the failure. Long because each step depends on the one before.
func TestCluster(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a, config := upstream(t)
	published := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	a.Add(debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(2 << 20)}},
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.Publish(published)
	c := newCluster(t, config)
	one := c.add("")
	two := c.add("")
	three := c.add("role = \"serve\"\n")
	one.Ctl("sync")
	two.Ctl("freeze", "4.1", "--package", "app", "--with-deps", "--no-sources")
	for _, s := range c.nodes {
		s.installs("4.1", "app", "1")
	}
	one.proveAll("4.1")
	for _, path := range []string{"/key.asc", "/log.vkey", "/log.vkey.asc", "/frozen/4.1/manifest.json", "/frozen/4.1/manifest.json.asc", "/log/checkpoint"} {
		code, want := get(t, "http://"+one.Addr+path)
		if got, body := get(t, "http://"+three.Addr+path); code != http.StatusOK || got != code || body != want {
			t.Errorf("%s: %d at the first node; %d with other bytes at the third", path, code, got)
		}
	}
	for _, verb := range [][]string{{"sync"}, {"freeze", "5.0", "--all"}, {"gc"}, {"rm", "4.1", "--yes"}, {"record", "start", "x"}, {"fsck"}} {
		if _, err := three.Try(verb...); code(err) != api.ExitUsage || !strings.Contains(err.Error(), "this node only serves") {
			t.Errorf("%v at a node that serves: %v", verb, err)
		}
	}
	three.Ctl("verify", "4.1", "--deep")

	// The third node downloads missing packages, and they are added to a recording that
	// the first node started.
	one.Ctl("record", "start", "build")
	a.Default().Remove("app", "1")
	a.Add(debtest.Package{Name: "app", Version: "2"}, debtest.Package{Name: "late", Version: "1"})
	a.Publish(published.Add(time.Hour))
	two.Ctl("sync")
	latest := "/archive/debian/latest/"
	eventually(t, "the third node serves the new snapshot", func() bool {
		_, body := get(t, "http://"+three.Addr+latest+"dists/stable/InRelease")
		_, want := get(t, "http://"+two.Addr+latest+"dists/stable/InRelease")
		return body == want
	})
	late := latest + a.Default().PathOf("late")
	if code, _ := get(t, "http://"+three.Addr+late); code != http.StatusOK {
		t.Errorf("a package on demand: %d", code)
	}
	three.installs("build", "app", "1")
	var rec api.Recording
	two.JSON(&rec, "record", "show", "build")
	if len(rec.Entries) != 2 {
		t.Errorf("recorded %+v, expected app and lib", rec.Entries)
	}
	var st api.Status
	eventually(t, "status has three nodes", func() bool {
		st = api.Status{}
		three.JSON(&st, "status")
		return len(st.Nodes) == 3
	})
	for _, n := range st.Nodes {
		if !n.Up || n.Lag > 30 || n.CacheSize != 64<<20 || n.Key != st.Key.Fingerprint || (n.Role == "serve") != (n.Name == st.Node) {
			t.Errorf("status of %+v", n)
		}
	}
	if out := three.Ctl("status"); !strings.Contains(out, "NODE") || !strings.Contains(out, "this one") {
		t.Errorf("status:\n%s", out)
	}
	_, lib := get(t, "http://"+one.Addr+"/frozen/4.1/debian/"+a.Default().PathOf("lib"))
	c.alone(three, late, fmt.Sprintf("%x", sha256.Sum256([]byte(lib))))
}

// alone disconnects a node from the bucket, and then from the database, and checks that it
// still serves the path served. other is the digest of a blob whose local copy is removed.
func (c *cluster) alone(s *server, served, other string) {
	t := c.t
	t.Helper()
	at := "http://" + s.Addr
	frozen := "/frozen/4.1/debian/dists/stable/"
	expect := func(path string, want int) {
		t.Helper()
		if code, body := get(t, at+path); code != want {
			t.Errorf("%s: %d, expected %d: %.200s", path, code, want, body)
		}
	}
	says := func(path string, words ...string) {
		t.Helper()
		code, body := get(t, at+path)
		for _, w := range words {
			if code != http.StatusOK || !strings.Contains(body, w) {
				t.Errorf("%s: %d, no %q in %s", path, code, w, body)
			}
		}
	}
	expect(frozen+"InRelease", http.StatusOK)
	says("/metrics", "snapd_database_up 1", "snapd_blob_store_up 1")
	c.srv.Decide(func(string, string) *s3test.Fault {
		return &s3test.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
	})
	expect(served, http.StatusOK)
	expect("/frozen/4.1/debian/dists/stable/main/source/Sources.xz", http.StatusNotFound)
	if err := os.RemoveAll(filepath.Join(s.Dir, "data/cache/"+other[:2])); err != nil {
		t.Fatal(err)
	}
	expect("/by-hash/SHA256/"+other, http.StatusServiceUnavailable)
	says("/readyz", "ok\n", "the object store has not answered since")
	says("/metrics", "snapd_blob_store_up 0")
	c.srv.Decide(nil)
	eventually(t, "the object store answers", func() bool {
		_, body := get(t, at+"/readyz")
		return body == "ok\n"
	})

	sources := s.Ctl("sources", "4.1")
	c.db.Stop(t, syscall.SIGKILL)
	expect(frozen+"InRelease", http.StatusOK)
	expect(served, http.StatusOK)
	expect(frozen+"Absent", http.StatusServiceUnavailable)
	expect("/record/build/debian/dists/stable/InRelease", http.StatusServiceUnavailable)
	eventually(t, "the node notices", func() bool {
		_, body := get(t, at+"/readyz")
		return strings.Contains(body, "the database has not answered since")
	})
	says("/metrics", "snapd_database_up 0")
	// apt can install what it installed before.
	apt := debtest.NewApt(t, sources)
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "app")
	c.db.Run(t)
	eventually(t, "the database answers", func() bool {
		_, body := get(t, at+"/readyz")
		return body == "ok\n"
	})
	expect(frozen+"Absent", http.StatusNotFound)
}
