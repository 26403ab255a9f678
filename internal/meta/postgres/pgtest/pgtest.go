// Package pgtest starts a PostgreSQL server for tests, in a temporary directory and as a
// user other than root.
package pgtest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/needs"
)

// nobody is the user that runs the server if root runs the tests, because the server
// refuses to run as root.
const nobody = 65534

// Password is the password of the user snapd for connections by TCP.
const Password = "test password"

// Server is a running PostgreSQL that listens at a socket in Dir.
type Server struct {
	Dir       string // the directory of its data and its socket
	host      string // an address at which it is reached, too; "": none
	port      int    // of host and of the socket; 0: 5432
	bin       string
	log       *logBuffer
	cmd       *exec.Cmd
	ended     chan struct{}
	databases atomic.Int32
	clock     []string // the environment that makes its clock wrong
	commits   *Commits // that are counted, or nil
}

// Start starts a server that ends with the test. Without PostgreSQL the test is skipped,
// or fails if CI is set.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{bin: find()}
	if s.bin == "" {
		needs.Missing(t, "postgres is not installed")
	}
	s.makeDir(t)
	init := s.command("initdb", "-D", s.data(), "-A", "trust", "-U", "snapd", "--no-sync", "--locale=C", "-E", "UTF8")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.Run(t)
	t.Cleanup(func() { s.Stop(t, syscall.SIGQUIT) })
	return s
}

// makeDir makes the directory, in memory if possible.
func (s *Server) makeDir(t testing.TB) {
	t.Helper()
	var err error
	if s.Dir, err = os.MkdirTemp("/dev/shm", "snapd-pg"); err != nil {
		if s.Dir, err = os.MkdirTemp("", "snapd-pg"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.RemoveAll(s.Dir) })
	if os.Getuid() == 0 {
		if err := os.Chown(s.Dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
}

// find returns the directory of the newest PostgreSQL's programs; "" if none is installed.
func find() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	if len(dirs) > 0 {
		return dirs[0]
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p)
	}
	return ""
}

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// Offset sets the error of the server's clock from its next start on ("-10m"), with the
// library that faketime preloads. Without faketime the test is skipped, or fails if CI is
// set.
func (s *Server) Offset(t testing.TB, offset string) {
	t.Helper()
	if s.clock = nil; offset == "" {
		return
	}
	// faketime itself would remain the parent of the server, and get the signals meant
	// for the server. So take only its environment.
	out, err := exec.Command(needs.Program(t, "faketime"), "-f", "+0", "env").Output()
	if err != nil {
		t.Fatalf("faketime: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "LD_PRELOAD=") {
			s.clock = []string{strings.TrimSpace(line), "FAKETIME=" + offset}
			return
		}
	}
	needs.Missing(t, "faketime preloads no library")
}

// Run starts the server after Stop, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := s.run()
		if err == nil {
			return
		}
		// After a kill the lock file of the old server may still be there.
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (s *Server) run() error {
	log := &logBuffer{}
	log.count(s.commits)
	s.log = log
	s.cmd = s.command("postgres", "-D", s.data(), "-k", s.Dir, "-c", "listen_addresses="+s.host, "-c", "port="+strconv.Itoa(s.portNumber()), "-c", "fsync=off", "-c", "shared_buffers=64MB", "-c", "max_connections=200")
	s.cmd.Env = append(os.Environ(), s.clock...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // when the tests are killed
	s.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		// The signal is sent when the thread that started the server ends. Unlocked, it does
		// not end with this goroutine: it may have started other processes before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("postgres ended: %v\n%s", err, log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logBuffer is the log of the server.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	line []byte // the beginning of one
	all  []Transaction
	open map[string]int // the transaction of a session, by process
	last *string        // the statement that the next lines may continue

	commits *Commits // gets the statements instead; nil: they are kept here
}

// count makes the log pass statements to c instead of keeping them.
func (l *logBuffer) count(c *Commits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits = c
}

// logged matches the line of a statement, after the time.
var logged = regexp.MustCompile(`\[(\d+)\] LOG:  (?:execute [^:]+|statement): (.*)$`)

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() > 1<<20 {
		l.text.Reset()
	}
	for line := range bytes.Lines(p) {
		if l.line = append(l.line, line...); line[len(line)-1] == '\n' {
			switch m := logged.FindSubmatch(bytes.TrimRight(l.line, "\n")); {
			case l.commits != nil && m != nil:
				l.commits.statement(string(m[1]), string(m[2]))
			case l.commits != nil:
				l.commits.detail(l.line)
			case m != nil:
				l.last = l.statement(string(m[1]), string(m[2]))
			case l.line[0] != '\t':
				l.last = nil
			case l.last != nil:
				*l.last += " " + string(bytes.TrimSpace(l.line))
			}
			l.line = l.line[:0]
		}
	}
	return l.text.Write(p)
}

// statement adds a statement and returns its place. The caller holds l.mu.
func (l *logBuffer) statement(process, text string) *string {
	i, inside := l.open[process]
	if !inside {
		i = len(l.all)
		l.all = append(l.all, nil)
	}
	l.all[i] = append(l.all[i], text)
	switch word, _, _ := strings.Cut(text, " "); word {
	case "begin":
		if l.open == nil {
			l.open = map[string]int{}
		}
		l.open[process] = i
	case "commit", "rollback":
		delete(l.open, process)
	}
	return &l.all[i][len(l.all[i])-1]
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Transaction is the statements of one transaction, with begin and commit, or a statement
// outside of one.
type Transaction []string

// Count returns the number of statements, except those of transactions that contain one
// of the texts.
func Count(all []Transaction, but ...string) (n int) {
	for _, t := range all {
		if !slices.ContainsFunc(t, func(sql string) bool {
			return slices.ContainsFunc(but, func(text string) bool { return strings.Contains(sql, text) })
		}) {
			n += len(t)
		}
	}
	return n
}

// Background contains texts that identify background transactions: those of an idle node
// that follows the others, the audit entry that each request adds, and renewals of
// leases, whose number depends on how long the leases are held.
var Background = []string{"from change", "into node", "from audit", "-- ping", "update lease set expires"}

// Statements makes the server log the statements of all new sessions of a database. The
// returned function returns the statements that began since it was last called.
func (s *Server) Statements(ctx context.Context, url string) (taken func() ([]Transaction, error), err error) {
	if err := logStatements(ctx, url, "all"); err != nil {
		return nil, err
	}
	n := 0
	return func() ([]Transaction, error) {
		n++
		return s.log.until(ctx, url, fmt.Sprintf("select 'taken %d'", n))
	}, nil
}

// until runs the statement mark, and returns the logged statements before it.
func (l *logBuffer) until(ctx context.Context, url, mark string) ([]Transaction, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, mark); err != nil {
		return nil, err
	}
	for {
		if before, ok := l.take(mark); ok {
			return before, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the log of the server has no %q: %w", mark, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// take removes the statement mark and all statements before it from the log, and returns
// those before it. It returns false if mark is not logged yet.
func (l *logBuffer) take(mark string) (before []Transaction, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.all, func(t Transaction) bool { return t[0] == mark })
	if i < 0 {
		return nil, false
	}
	before, l.all = l.all[:i], l.all[i+1:]
	for process, n := range l.open {
		if n > i {
			l.open[process] = n - i - 1
		} else {
			delete(l.open, process)
		}
	}
	return before, true
}

// Quiet ends the logging that Statements started, for new sessions.
func (s *Server) Quiet(ctx context.Context, url string) error {
	return logStatements(ctx, url, "none")
}

func logStatements(ctx context.Context, url, which string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, fmt.Sprintf("do $$ begin execute format('alter database %%I set log_statement = %%L', current_database(), '%s'); end $$", which))
	return err
}

// Stop sends the server a signal and waits for its end: SIGTERM (smart), SIGINT
// (fast), SIGQUIT (immediate) or SIGKILL.
func (s *Server) Stop(t testing.TB, sig syscall.Signal) {
	t.Helper()
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	<-s.ended
}

// Suspend suspends all processes of the server until resume is called: connections stay
// open, and nothing answers.
func (s *Server) Suspend(t testing.TB) (resume func()) {
	t.Helper()
	pids := append(one[[]int](t, s, "select array_agg(pid) from pg_stat_activity"), s.cmd.Process.Pid)
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // the session that asked for the pids has ended
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// URL returns the URL of a database.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://snapd@/%s?host=%s&port=%d", database, s.Dir, s.portNumber())
}

func (s *Server) portNumber() int { return cmp.Or(s.port, 5432) }

// Listen restarts the server so that it also listens for TCP at an address of this
// machine, and requires a password there. Port 0 selects a free port. Earlier URLs of
// its databases become invalid.
func (s *Server) Listen(t testing.TB, host string, port int) {
	t.Helper()
	if port == 0 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	s.admit(t, "host all all all scram-sha-256")
	Exec(t, s.URL("postgres"), "alter role snapd password '"+Password+"'")
	s.Stop(t, syscall.SIGINT)
	s.host, s.port = host, port
	s.Run(t)
}

// Remote returns the URL by which other machines reach a database, without a password. If
// several servers are listening, connections are to the one that accepts writes.
func Remote(url string, servers ...*Server) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, net.JoinHostPort(s.host, strconv.Itoa(s.port)))
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(url, "postgres://snapd@/"), "?")
	return "postgres://snapd@" + strings.Join(hosts, ",") + "/" + name + "?target_session_attrs=read-write"
}

// admit adds a line at the beginning of pg_hba.conf.
func (s *Server) admit(t testing.TB, line string) {
	t.Helper()
	hba := filepath.Join(s.data(), "pg_hba.conf")
	old, err := os.ReadFile(hba)
	if err == nil {
		err = os.WriteFile(hba, append([]byte(line+"\n"), old...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Exec runs statements in a database.
func Exec(t testing.TB, url string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// expire ends the sessions whose client has sent nothing for a while within a
// transaction, because a stalled client locks the rows of its leases. Then it ends all
// leases.
const expire = `do $$ begin
	set local lock_timeout = '300ms';
	perform pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
		and wait_event in ('ClientRead', 'ClientWrite') and state_change < clock_timestamp() - interval '200 ms';
	update lease set expires = clock_timestamp() - interval '1 s' where holder <> '';
end $$`

// Expire makes all leases expire now, as if time had passed. It also ends the
// transactions of stalled clients, which the server otherwise ends a little later. The
// holders are not told, and continue until they write.
func Expire(ctx context.Context, url string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for try := 0; ; try++ {
		if _, err = c.Exec(ctx, expire); err == nil || try == 20 {
			return err
		}
	}
}

// Database makes an empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	Exec(t, s.URL("postgres"), "create database "+name)
	return s.URL(name)
}

// User creates a user with a password and a database that the user owns, and returns the
// database's URL without the password.
func (s *Server) User(t testing.TB, name, password string) string {
	t.Helper()
	s.admit(t, "local all "+name+" scram-sha-256")
	Exec(t, s.URL("postgres"), fmt.Sprintf("create role %s login password '%s'", name, password), fmt.Sprintf("create database %s owner %s", name, name), "select pg_reload_conf()")
	return fmt.Sprintf("postgres://%s@/%s?host=%s&port=%d", name, name, s.Dir, s.portNumber())
}

// Empty deletes the rows of all tables in a database except schema_version.
func (s *Server) Empty(t testing.TB, url string) {
	t.Helper()
	Exec(t, url, `do $$ declare names text; begin
		select string_agg(quote_ident(relname), ', ') into names from pg_class
			where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace and relname <> 'schema_version';
		if names is not null then execute 'truncate ' || names || ' restart identity'; end if;
	end $$`)
}
