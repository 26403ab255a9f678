package story

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// kill kills snapd with SIGKILL.
func (s *server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Error(err)
	}
	_ = s.cmd.Wait()
	s.cmd = nil
}

// interrupt runs snapctl at a node until ctx ends, and calls f during the node's first
// upload, which is not answered. It returns snapctl's error.
func (c *cluster) interrupt(ctx context.Context, s *server, f func(), args ...string) error {
	c.t.Helper()
	bin, err := build()
	if err != nil {
		c.t.Fatal(err)
	}
	var once sync.Once
	uploading := make(chan bool)
	c.srv.Decide(func(op, _ string) *s3test.Fault {
		if op != "put" {
			return nil
		}
		once.Do(func() { close(uploading) })
		return &s3test.Fault{Hang: true, HangTime: 2 * time.Second}
	})
	ended := make(chan error, 1)
	go func() {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "snapctl"), append([]string{"--socket", filepath.Join(s.Dir, "data/snapd.sock")}, args...)...)
		ended <- cmd.Run()
	}()
	select {
	case <-uploading:
	case err := <-ended:
		c.t.Fatalf("snapctl %v uploaded nothing: %v", args, err)
	}
	f()
	c.srv.Decide(nil)
	return <-ended
}

// A leader is killed in the middle of a sync, and PostgreSQL in the middle of a freeze.
// Nothing is lost: what was served stays served, and another node does the work, in the
// first case as soon as the dead leader's lease has expired.
func TestTakeover(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a, config := upstream(t)
	published := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	a.Add(debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(2 << 20)}},
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.Publish(published)
	c := newCluster(t, config+"download = \"all\"\n")
	one, two := c.add(""), c.add("")
	one.Ctl("sync")
	one.Ctl("freeze", "4.1", "--all")
	frozen := "/frozen/4.1/debian/dists/stable/InRelease"
	latest := "/archive/debian/latest/dists/stable/InRelease"
	_, before := get(t, "http://"+two.Addr+latest)
	code, want := get(t, "http://"+two.Addr+frozen)
	if code != http.StatusOK {
		t.Fatalf("%s: %d", frozen, code)
	}
	same := func(path, want string) {
		t.Helper()
		if code, body := get(t, "http://"+two.Addr+path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d, with other bytes than before: %v", path, code, body != want)
		}
	}

	a.Default().Remove("app", "1")
	a.Add(debtest.Package{Name: "app", Version: "2"})
	a.Publish(published.Add(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.interrupt(ctx, one, func() { one.kill(); cancel() }, "sync"); err == nil {
		t.Error("a sync of a killed node succeeded")
	}
	killed := time.Now()
	same(frozen, want)
	same(latest, before)
	if _, err := two.Try("sync"); err == nil || !strings.Contains(err.Error(), "sync/debian") {
		t.Errorf("a sync before the lease has expired: %v", err)
	}
	eventually(t, "the other node syncs", func() bool {
		_, err := two.Try("sync")
		return err == nil
	})
	// The lease is for 15 s; a busy machine needs more for the sync.
	if took := time.Since(killed); took > 30*time.Second {
		t.Errorf("the other node took over after %v", took)
	}
	same(latest, string(a.Get("dists/stable/InRelease")))
	// What the node knew of 4.1 it has dropped if it read that 4.1 was new only after it
	// had served it.
	same(frozen, want)
	one.begin()

	down := func() { c.db.Stop(t, syscall.SIGKILL) }
	if err := c.interrupt(t.Context(), one, down, "freeze", "5.0", "--all"); err == nil {
		t.Error("a freeze without the database succeeded")
	}
	same(frozen, want)
	c.db.Run(t)
	if err := pgtest.Expire(t.Context(), c.database); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other node freezes", func() bool {
		_, err := two.Try("freeze", "5.0", "--all")
		return err == nil
	})
	two.proveAll("4.1", "5.0")
	two.Ctl("log", "verify")
	one.installs("4.1", "app", "1")
	one.installs("5.0", "app", "2")
}
