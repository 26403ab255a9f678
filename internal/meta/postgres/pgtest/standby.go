package pgtest

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby starts a server that replicates s and ends with the test. If s listens at an
// address, the standby listens at host with the same port.
func (s *Server) Standby(t testing.TB, host string) *Server {
	t.Helper()
	b := &Server{bin: s.bin, commits: s.commits, host: host, port: s.port}
	b.makeDir(t)
	t.Cleanup(func() {
		if b.cmd != nil {
			b.Stop(t, syscall.SIGQUIT)
		}
	})
	b.Follow(t, s)
	return b
}

// Follow replaces the data of a stopped server by a copy of another server's data, and
// starts it as a standby of that server.
func (s *Server) Follow(t testing.TB, primary *Server) {
	t.Helper()
	if err := os.RemoveAll(s.data()); err != nil {
		t.Fatal(err)
	}
	if out, err := s.command("pg_basebackup", "-D", s.data(), "-h", primary.Dir, "-p", strconv.Itoa(primary.portNumber()), "-U", "snapd", "-R", "-X", "stream", "-c", "fast", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	s.Run(t)
}

// CatchUp waits until a standby has received everything that its primary has committed.
func (s *Server) CatchUp(t testing.TB, primary *Server) {
	t.Helper()
	lsn := one[string](t, primary, "select pg_current_wal_lsn()::text")
	for deadline := time.Now().Add(time.Minute); !one[bool](t, s, "select pg_last_wal_replay_lsn() >= '"+lsn+"'::pg_lsn"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the standby does not catch up")
		}
	}
}

// Detach ends the replication to a standby, which then lacks later commits of its
// primary.
func (s *Server) Detach(t testing.TB) {
	t.Helper()
	Exec(t, s.URL("postgres"), "alter system set primary_conninfo = ''", "select pg_reload_conf()")
	for deadline := time.Now().Add(time.Minute); one[bool](t, s, "select exists (select from pg_stat_wal_receiver)"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the standby goes on streaming")
		}
	}
}

// Promote makes a standby a primary.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	if !one[bool](t, s, "select pg_promote(true, 60)") {
		t.Fatal("the standby cannot be promoted")
	}
	if s.commits != nil {
		s.commits.restart()
	}
}

// Changes returns the number of the last change of a database.
func Changes(t testing.TB, url string) int64 {
	t.Helper()
	return value[int64](t, url, "select coalesce(max(seq), 0) from change")
}

// one returns the only value of a query.
func one[T any](t testing.TB, s *Server, sql string) T {
	t.Helper()
	return value[T](t, s.URL("postgres"), sql)
}

func value[T any](t testing.TB, url, sql string) (v T) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if err := c.QueryRow(ctx, sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// Either returns the URL of a database on a primary and its standby: clients connect to
// the one that accepts writes.
func Either(url string, standby *Server) string {
	return strings.Replace(url, "?host=", "?target_session_attrs=read-write&host="+standby.Dir+",", 1)
}
