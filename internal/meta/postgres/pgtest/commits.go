package pgtest

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Commits counts the commits of transactions under leases, in the order in which a server
// began them, and finds commits that follow a commit of a later epoch of the same lease.
// It reads the epochs of a transaction from the statement that locks its leases.
type Commits struct {
	mu     sync.Mutex
	n      int
	late   []string
	newest map[string]int64            // epochs, by lease
	open   map[string]map[string]int64 // the leases of a transaction, by process
	fences map[string]bool             // processes whose next parameters are those of a fence
	point  int                         // number of a commit
	reach  func()                      // called at that commit
}

// Commits has the server log all statements, and counts commits from now on.
func (s *Server) Commits(t testing.TB) *Commits {
	t.Helper()
	s.commits = &Commits{}
	s.commits.restart()
	s.log.count(s.commits)
	// Longer log lines would not be written in one piece.
	Exec(t, s.URL("postgres"), "alter system set log_statement = 'all'", "alter system set log_parameter_max_length = 200", "select pg_reload_conf()")
	return s.commits
}

// restart forgets epochs: a standby that takes over may lack the last ones.
func (c *Commits) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest, c.open, c.fences = map[string]int64{}, map[string]map[string]int64{}, map[string]bool{}
}

// Count returns the number of commits under leases, and describes those out of order.
func (c *Commits) Count() (n int, late []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n, c.late
}

// At calls f when the nth commit from now on begins. If f is nil, nothing is called.
func (c *Commits) At(n int, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.point, c.reach = c.n+n, f
}

var (
	// fencing matches the statement that locks a lease, and claim matches its parameters.
	fencing = regexp.MustCompile(`^select 1 from lease where name = .* for share$`)
	claim   = regexp.MustCompile(`\[(\d+)\] DETAIL:  [Pp]arameters: \$1 = '([^']*)', \$2 = '(\d+)'`)
)

// statement records the statement that a process begins.
func (c *Commits) statement(process, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fences[process] = fencing.MatchString(text)
	switch word, _, _ := strings.Cut(text, " "); word {
	case "begin", "rollback":
		delete(c.open, process)
	case "commit":
		c.commit(process)
	}
}

// commit records a commit. The caller holds c.mu.
func (c *Commits) commit(process string) {
	leases := c.open[process]
	if delete(c.open, process); len(leases) == 0 {
		return
	}
	c.n++
	for name, epoch := range leases {
		if c.newest[name] > epoch {
			c.late = append(c.late, fmt.Sprintf("commit under lease %s of epoch %d after epoch %d", name, epoch, c.newest[name]))
		}
	}
	if c.n == c.point && c.reach != nil {
		c.reach()
	}
}

// detail records the parameters of a fencing statement.
func (c *Commits) detail(line []byte) {
	if !bytes.Contains(line, []byte("DETAIL:")) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := claim.FindSubmatch(line)
	if m == nil || !c.fences[string(m[1])] {
		return
	}
	process, name := string(m[1]), string(m[2])
	epoch, err := strconv.ParseInt(string(m[3]), 10, 64)
	if err != nil {
		return
	}
	c.fences[process] = false
	if c.open[process] == nil {
		c.open[process] = map[string]int64{}
	}
	c.open[process][name] = epoch
	c.newest[name] = max(c.newest[name], epoch)
}
