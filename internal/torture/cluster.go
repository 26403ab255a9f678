package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

// clusterResult counts the rounds of a cluster and the answers of its nodes.
type clusterResult struct {
	Rounds    map[string]int           // by disturbance
	Points    int                      // rounds disturbed at a chosen step
	Commits   int                      // commits under leases, all checked to be in the order of epochs
	Jobs      map[string]int           // rounds by job
	Failed    int                      // disturbed jobs that failed
	Fenced    int                      // stalled leaders whose work was refused after they continued
	Lost      int                      // failovers to a standby that lacked changes
	Exited    int                      // nodes that exited because the outcome of a commit was unknown
	Renamed   int                      // freezes repeated under another name, because the log had withdrawn theirs
	GaveUp    map[string]time.Duration // longest time until work failed whose leader was cut off
	Kept      int                      // repeated answers of nodes that were cut off
	Slowest   time.Duration            // the slowest of these answers
	Takeover  time.Duration            // the longest wait for a lease that expired by itself
	Hits      int64                    // faulty answers of the object store
	Served    int64                    // answers whose bytes were compared
	Cut       int64                    // answers that the client could recognize as incomplete
	Refused   int64                    // answers that the node cannot serve now
	Frozen    int                      // freezes verified with every byte
	Recorded  int                      // downloads through recordings
	Collected int64                    // blobs
}

func (r clusterResult) String() string {
	n := 0
	for _, k := range r.Rounds {
		n += k
	}
	return fmt.Sprintf("%d rounds (%v; %d at the chosen step; of %v): %d commits under leases, none out of the order of epochs; %d disturbed jobs failed, %d stalled leaders fenced, %d failovers lost commits, %d nodes exited, %d freezes under another name, takeover of a lease that expired by itself within %v, %d faulty answers of the object store; work of leaders that were cut off failed within %v, %d answers of nodes that were cut off, within %v; %d answers compared, %d cut, %d refused; %d downloads recorded, %d blobs collected, %d freezes verified with every byte",
		n, r.Rounds, r.Points, r.Jobs, r.Commits, r.Failed, r.Fenced, r.Lost, r.Exited, r.Renamed, r.Takeover.Round(100*time.Millisecond), r.Hits, r.GaveUp, r.Kept, r.Slowest.Round(time.Millisecond), r.Served, r.Cut, r.Refused, r.Recorded, r.Collected, r.Frozen)
}

// cluster is two nodes that sync, freeze and collect, and one that only serves. They
// share a PostgreSQL database with a streaming standby, and a bucket behind a proxy that
// makes it fail.
type cluster struct {
	tb      testing.TB
	u       *upstream
	db      *pgtest.Server
	standby *pgtest.Server
	url     string // of the database, on the primary or the standby
	srv     *s3test.Server
	all     []*server // the nodes that may lead, then the one that only serves
	rnd     *rand.Rand
	res     clusterResult
	commits *pgtest.Commits
	took    map[string]steps // of each undisturbed job
	n       int              // number of the piece of work, for names
	seed    uint64
	clusterOptions

	freezes   []string     // existing freezes
	withdrawn atomic.Int32 // names of freezes of this round
	expect    expected
}

// steps are the time, the commits under leases and the writes to the bucket of a job.
type steps struct {
	d               time.Duration
	commits, writes int
}

// serving returns the node that only serves.
func (c *cluster) serving() *server { return c.all[len(c.all)-1] }

// newCluster starts a cluster, with its nodes in a network if there is one, and does each
// job once, undisturbed.
func newCluster(ctx context.Context, tb testing.TB, binary string, seed uint64, n *network) (*cluster, error) {
	c := &cluster{
		tb: tb, u: newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour)), db: pgtest.Start(tb), srv: s3test.Start(tb),
		rnd: rand.New(rand.NewPCG(seed, 7)), took: map[string]steps{}, seed: seed, clusterOptions: clusterOptions{net: n}, res: clusterResult{Rounds: map[string]int{}, Jobs: map[string]int{}, GaveUp: map[string]time.Duration{}},
	}
	store, err := c.stores()
	if err != nil {
		return nil, err
	}
	for i, role := range []string{"all", "all", "serve"} {
		dir := fastDir(tb)
		data := filepath.Join(dir, "data")
		var ns *namespace
		if n != nil {
			ns = n.nodes[i]
		}
		s, err := newServerIn(ns, binary, dir, data, c.u.mirrors(0), store+fmt.Sprintf("role = %q\n", role))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			if err := copyKeys(c.all[0].data, data); err != nil {
				return nil, err
			}
		}
		tb.Cleanup(func() { s.wake(); s.kill() })
		if err := s.start(ctx); err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
		c.all = append(c.all, s)
	}
	for _, j := range clusterJobs {
		c.n++
		if err := j.prepare(ctx, c); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", j.name, err)
		}
		start := time.Now()
		before, _ := c.commits.Count()
		c.srv.Counts()
		// On a busy machine, a lease may not be renewed in time.
		if err := eventually(ctx, 5*time.Minute, func() error { return j.do(ctx, c, c.all[0]) }); err != nil {
			return nil, fmt.Errorf("%s, undisturbed: %w", j.name, err)
		}
		took := steps{d: time.Since(start)}
		took.commits, _ = c.commits.Count()
		took.commits -= before
		counts := c.srv.Counts()
		for _, op := range writing {
			took.writes += counts[op]
		}
		c.took[j.name] = took
		if err := j.settle(ctx, c); err != nil {
			return nil, fmt.Errorf("after %s, undisturbed: %w", j.name, err)
		}
	}
	return c, nil
}

// stores starts the shared database and bucket, and returns the nodes' configuration of
// them.
func (c *cluster) stores() (string, error) {
	standby := ""
	if c.net != nil {
		standby = c.net.host(hostStandby)
		port, err := freePort(c.net.host(hostDatabase), standby)
		if err != nil {
			return "", err
		}
		c.db.Listen(c.tb, c.net.host(hostDatabase), port)
		c.srv.Listen(c.tb, c.net.host(hostBucket))
		c.u.listen(c.tb, c.net.host(hostUpstream))
	}
	url := c.db.Database(c.tb)
	c.commits = c.db.Commits(c.tb)
	c.standby = c.db.Standby(c.tb, standby)
	c.url = pgtest.Either(url, c.standby)
	metadata, password := c.url, ""
	if c.net != nil {
		metadata = pgtest.Remote(url, c.db, c.standby)
		file := filepath.Join(c.tb.TempDir(), "password")
		if err := os.WriteFile(file, []byte(pgtest.Password+"\n"), 0o600); err != nil {
			return "", err
		}
		password = fmt.Sprintf("password_file = %q\n", file)
	}
	return password + fmt.Sprintf("metadata = %q\nblobs = %q\ncredentials_file = %q\ncache = \"64MiB\"\nreserve = \"1MiB\"\nquarantine_time = \"1s\"\ngc_interval = \"\"\nscrub_interval = \"\"\n",
		metadata, c.srv.Location(c.srv.Bucket(c.tb), "snapd"), s3test.CredentialsFile(c.tb)), nil
}

// copyKeys copies the keys that every signing node needs.
func copyKeys(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"signing-key.asc", "log-key"} {
		key, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), key, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// die kills the process, and does not wait for its end.
func (s *server) die() { _ = s.cmd.Process.Kill() }

// stall stops the process without its noticing; wake lets it continue.
func (s *server) stall() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

func (s *server) wake() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// clusterJob is work to disturb.
type clusterJob struct {
	name    string
	prepare func(context.Context, *cluster) error          // runs undisturbed
	do      func(context.Context, *cluster, *server) error // can be repeated, on any node that may lead
	settle  func(context.Context, *cluster) error          // checks the result, and expects it from now on
}

var clusterJobs = []clusterJob{
	{"sync", prepareSync, doSync, settleSync},
	{"freeze", nothing, doFreeze(packageNames[:3]), settleFreeze},
	{"freeze all", nothing, doFreeze(nil), settleFreeze},
	{"record", nothing, doRecord, settleRecord},
	{"gc", prepareGC, doGC, nothing},
}

// uploading is the number of the first jobs, which upload blobs. The last one lists keys.
const uploading = 3

func nothing(context.Context, *cluster) error { return nil }

func prepareSync(_ context.Context, c *cluster) error {
	c.u.upgrade(packageNames[c.rnd.IntN(len(packageNames))], packageNames[c.rnd.IntN(len(packageNames))])
	return nil
}

func doSync(ctx context.Context, c *cluster, s *server) error {
	_, err := s.sync(ctx, "debian", "lazy")
	return err
}

// settleSync checks that all nodes serve upstream's current state, and expects its
// packages from now on. Packages of the mirror that downloads on demand are first
// downloaded in a later round.
func settleSync(ctx context.Context, c *cluster) error {
	want := c.u.Get("dists/stable/InRelease")
	for _, s := range c.all {
		for _, m := range []string{"debian", "lazy"} {
			url := "http://" + s.listen + "/archive/" + m + "/latest/dists/stable/InRelease"
			if err := eventually(ctx, 30*time.Second, func() error {
				body, err := httpGet(ctx, url)
				if err == nil && string(body) != string(want) {
					err = errors.New("not upstream's current state")
				}
				return err
			}); err != nil {
				return fmt.Errorf("%s: %w", url, err)
			}
		}
	}
	var list api.SnapshotList
	if err := c.all[0].call(ctx, "list", api.ListRequest{}, &list); err != nil {
		return err
	}
	newest := map[string]string{}
	for _, s := range list.Snapshots {
		mirror, at, _ := strings.Cut(s.ID, "@")
		newest[mirror] = max(newest[mirror], at)
	}
	c.expect.forget("/archive/")
	for mirror, at := range newest {
		base := "/archive/" + mirror + "/" + at + "/"
		for _, p := range []string{"dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz"} {
			c.expect.add(base+p, c.u.Get(p))
		}
		for _, name := range packageNames {
			p := c.u.Default().PathOf(name)
			c.expect.add(base+p, c.u.Get(p))
		}
	}
	return nil
}

// freezeName is the name of the freeze of this round, which changes if the log withdraws
// the name.
func (c *cluster) freezeName() string {
	return fmt.Sprintf("f%d", c.n) + strings.Repeat("x", int(c.withdrawn.Load()))
}

// doFreeze makes the freeze of this round.
func doFreeze(packages []string) func(context.Context, *cluster, *server) error {
	return func(ctx context.Context, c *cluster, s *server) error {
		name := c.freezeName()
		err := s.call(ctx, "freeze", api.FreezeRequest{Name: name, Mirrors: []string{"debian"}, Packages: packages}, nil)
		e := new(api.Error)
		if errors.As(err, &e) && e.Code == api.CodeExists && s.call(ctx, "show", api.ShowRequest{Ref: name}, nil) == nil {
			return nil // the interrupted attempt was complete
		}
		return err
	}
}

// settleFreeze expects the files of the new freeze from now on.
func settleFreeze(ctx context.Context, c *cluster) error {
	name := c.freezeName()
	c.freezes = append(c.freezes, name)
	base := "/frozen/" + name + "/"
	for _, p := range []string{"manifest.json", "debian/dists/stable/InRelease", "debian/dists/stable/main/binary-amd64/Packages.xz"} {
		body, err := httpGet(ctx, "http://"+c.all[0].listen+base+p)
		if err != nil {
			return err
		}
		c.expect.add(base+p, body)
	}
	p := c.u.Default().PathOf(packageNames[0])
	c.expect.add(base+"debian/"+p, c.u.Get(p))
	return nil
}

func (c *cluster) recordingName() string { return fmt.Sprintf("r%d", c.n) }

// doRecord starts a recording, downloads packages through it from the node that only
// serves, and stops it.
func doRecord(ctx context.Context, c *cluster, s *server) error {
	name := c.recordingName()
	err := s.call(ctx, "record/start", api.RecordStart{Name: name}, nil)
	e := new(api.Error)
	if err != nil && !(errors.As(err, &e) && e.Code == api.CodeExists) {
		return err
	}
	var rec api.Recording
	if err := s.call(ctx, "record/show", api.RecordRef{Name: name}, &rec); err != nil {
		return err
	}
	if rec.Stopped != nil {
		return nil
	}
	for _, pkg := range packageNames[:3] {
		p := c.u.Default().PathOf(pkg)
		body, err := httpGet(ctx, "http://"+c.serving().listen+"/record/"+name+"/lazy/"+p)
		if err != nil {
			return err
		}
		if string(body) != string(c.u.Get(p)) {
			return c.wrong("/record/" + name + "/lazy/" + p)
		}
	}
	return s.call(ctx, "record/stop", api.RecordRef{Name: name}, nil)
}

// settleRecord checks that each complete download was recorded, and removes the
// recording.
func settleRecord(ctx context.Context, c *cluster) error {
	s, ref := c.all[0], api.RecordRef{Name: c.recordingName()}
	var rec api.Recording
	if err := s.call(ctx, "record/show", ref, &rec); err != nil {
		return err
	}
	c.res.Recorded += len(rec.Entries)
	for _, pkg := range packageNames[:3] {
		p := c.u.Default().PathOf(pkg)
		want := fmt.Sprintf("%x", sha256.Sum256(c.u.Get(p)))
		if !slices.ContainsFunc(rec.Entries, func(e api.RecordEntry) bool { return e.Path == p && e.SHA256 == want }) {
			return fmt.Errorf("recording %s lacks %s: %+v", ref.Name, p, rec.Entries)
		}
	}
	return s.call(ctx, "record/rm", ref, nil)
}

// keptFreezes is the number of freezes that a collection leaves.
const keptFreezes = 3

// prepareGC removes all but a few freezes, and all snapshots that may be removed, and
// makes the unreferenced blobs old enough to be collected.
func prepareGC(ctx context.Context, c *cluster) error {
	s := c.all[c.rnd.IntN(2)]
	for len(c.freezes) > keptFreezes {
		name := c.freezes[0]
		c.expect.forget("/frozen/" + name + "/")
		if err := s.call(ctx, "rm", api.RefRequest{Ref: name}, nil); err != nil && !gone(err) {
			return fmt.Errorf("rm %s: %w", name, err)
		}
		c.freezes = c.freezes[1:]
	}
	var list api.SnapshotList
	if err := s.call(ctx, "list", api.ListRequest{}, &list); err != nil {
		return err
	}
	newest := map[string]string{}
	for _, snap := range list.Snapshots {
		mirror, at, _ := strings.Cut(snap.ID, "@")
		newest[mirror] = max(newest[mirror], at)
	}
	for _, snap := range list.Snapshots {
		if mirror, at, _ := strings.Cut(snap.ID, "@"); at != newest[mirror] {
			// Some are in use.
			_ = s.call(ctx, "rm", api.RefRequest{Ref: snap.ID}, nil)
		}
	}
	pgtest.Exec(c.tb, c.url, "update blob set since = since - 172800 where since is not null")
	return nil
}

func doGC(ctx context.Context, c *cluster, s *server) error {
	var res api.GCResult
	err := s.call(ctx, "gc", api.GCRequest{}, &res)
	atomic.AddInt64(&c.res.Collected, int64(res.Blobs))
	return err
}

// expected is what the nodes must serve: paths with the digests of their bytes.
type expected struct {
	mu    sync.Mutex
	files map[string][32]byte
	paths []string
}

func (e *expected) add(path string, body []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.files == nil {
		e.files = map[string][32]byte{}
	}
	if _, ok := e.files[path]; !ok {
		e.paths = append(e.paths, path)
	}
	e.files[path] = sha256.Sum256(body)
}

// forget removes the paths below a prefix.
func (e *expected) forget(prefix string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.paths = slices.DeleteFunc(e.paths, func(p string) bool { return strings.HasPrefix(p, prefix) })
	for p := range e.files {
		if strings.HasPrefix(p, prefix) {
			delete(e.files, p)
		}
	}
}

// list returns the paths, in the order in which they were added.
func (e *expected) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.paths)
}

func (e *expected) digest(path string) ([32]byte, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, ok := e.files[path]
	return d, ok
}

// errWrong means that a client received bytes that it must not receive.
var errWrong = errors.New("wrong bytes served")

func (c *cluster) wrong(what string) error { return fmt.Errorf("%w: %s", errWrong, what) }

// get requests a path from a node and compares the bytes. If the answer is wrong, it
// returns an error. If the node answers that it cannot serve now, or the answer is
// visibly cut off, this is only counted, and ok is false.
func (c *cluster) get(ctx context.Context, s *server, path string) (ok bool, err error) {
	want, ok := c.expect.digest(path)
	if !ok {
		return false, nil
	}
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, "http://"+s.listen+path, nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil {
			return false, nil
		}
		atomic.AddInt64(&c.res.Refused, 1)
		return false, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case ctx.Err() != nil:
		return false, nil
	case err != nil:
		atomic.AddInt64(&c.res.Cut, 1)
		return false, nil
	case resp.StatusCode >= 500:
		atomic.AddInt64(&c.res.Refused, 1)
		return false, nil
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("%s: %s: %s: %s", s.listen, path, resp.Status, body[:min(len(body), 200)])
	case sha256.Sum256(body) != want:
		return false, c.wrong(fmt.Sprintf("%s: %s: %d bytes", s.listen, path, len(body)))
	}
	atomic.AddInt64(&c.res.Served, 1)
	return true, nil
}

// eventually calls f until it returns nil, for at most limit.
func eventually(ctx context.Context, limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := f()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
