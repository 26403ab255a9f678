package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

// disturbance is a fault of a cluster while a node works. During is called at a random
// point of the work, and returns after the fault has ended; it is nil for faults of the
// object store, which begin before the work. The work is then repeated.
type disturbance struct {
	name   string
	during func(context.Context, *clusterRound) error
	ops    string // operations of the object store that fail
	fault  s3test.Fault
	loses  bool // commits are lost
	// cuts are the services that a node is cut off from.
	cuts []int
	// before is called before the work begins, unless it is nil.
	before func(context.Context, *clusterRound) error
	// point returns a channel that is closed when the work reaches the given step, at
	// which it is to be disturbed; nil: a random time.
	point func(r *clusterRound, step int) <-chan struct{}
	steps func(steps) int // the number of steps
}

var disturbances = []disturbance{
	{name: "leader stalled", during: stallLeader},
	{name: "leader killed", during: killLeader},
	{name: "leader killed at a commit", steps: func(s steps) int { return s.commits }, point: atCommit, during: killLeader},
	{name: "leader killed at an upload", steps: func(s steps) int { return s.writes }, point: atUpload, during: killLeader},
	{name: "postmaster killed", during: stopDatabase(syscall.SIGKILL)},
	{name: "database stopped", during: stopDatabase(syscall.SIGQUIT)},
	{name: "failover", during: failOver, loses: true},
	{name: "5xx without effect", ops: "put part create complete get head list deletes", fault: s3test.Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown"}},
	{name: "5xx after effect", ops: "put part create complete get head list deletes", fault: s3test.Fault{Status: http.StatusInternalServerError, Code: "InternalError", After: true}},
	{name: "no answer", ops: "put part create complete get head list deletes", fault: s3test.Fault{Hang: true, HangTime: time.Second}},
	{name: "no answer after effect", ops: "put part create complete get head list deletes", fault: s3test.Fault{Hang: true, HangTime: time.Second, After: true}},
	{name: "409", ops: "put create complete", fault: s3test.Fault{Status: http.StatusConflict, Code: "ConditionalRequestConflict"}},
	{name: "upload cut", ops: "put part", fault: s3test.Fault{CutRequest: 40}},
	{name: "download cut", ops: "get", fault: s3test.Fault{Cut: 40}},
	{name: "download slow", ops: "get", fault: s3test.Fault{Pause: 200 * time.Millisecond}},
	{name: "wrong bytes", ops: "get", fault: s3test.Fault{Flip: true}},
	{name: "keys hidden", ops: "list uploads", fault: s3test.Fault{Hide: regexp.MustCompile(`.`)}},
}

// allDisturbances returns the disturbances of every cluster, and those of a cluster in a
// network.
func allDisturbances() []disturbance { return slices.Concat(disturbances, partitions) }

// disturbanceNames returns the names of the disturbances for the command line, without
// spaces.
func disturbanceNames() (names []string) {
	for _, d := range allDisturbances() {
		names = append(names, d.option())
	}
	return names
}

func (d disturbance) option() string { return strings.ReplaceAll(d.name, " ", "-") }

// chosen returns the disturbances named in a list; nil if the list is empty.
func chosen(list string) (ways []disturbance, err error) {
	if list == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		all := allDisturbances()
		i := slices.IndexFunc(all, func(d disturbance) bool { return d.option() == name })
		if i < 0 {
			return nil, fmt.Errorf("-disturb %s: no such disturbance (expected some of %s)", name, strings.Join(disturbanceNames(), ","))
		}
		ways = append(ways, all[i])
	}
	return ways, nil
}

// clusterRound is one disturbed piece of work.
type clusterRound struct {
	*cluster
	d             disturbance
	j             clusterJob
	leader, other *server
	real          bool                 // leases expire by themselves
	warm          map[*server][]string // paths that nodes have served and must continue to serve
	done          chan error           // outcome of the disturbed work
	hangUp        func()               // disconnects the client of that work
}

// clusterOptions choose how to disturb a cluster.
type clusterOptions struct {
	net  *network      // of the nodes; nil: this program's
	ways []disturbance // disturbances to choose from; nil: all that are possible here
	// first are disturbances to begin with.
	first []disturbance
	// hasty: do not wait until the work of a leader that is cut off fails.
	hasty bool
	// every is the number of rounds after which everything is checked, as at the end.
	// After each other round, only the work of that round is checked.
	every int
}

// clusters does rounds of disturbed work in a cluster. After each round the work is
// repeated and must succeed, fsck must find no fault, every byte of every freeze must
// verify, and all that the nodes served, even during the disturbance, must have been
// right.
func clusters(ctx context.Context, tb testing.TB, binary string, seed uint64, rounds int, o clusterOptions) (clusterResult, error) {
	c, err := newCluster(ctx, tb, binary, seed, o.net)
	if err != nil {
		return clusterResult{}, err
	}
	c.clusterOptions = o
	for i := 1; i <= rounds && ctx.Err() == nil; i++ {
		c.n++
		err := c.round(ctx, i, i == rounds || i%max(o.every, 1) == 0)
		if n, late := c.commits.Count(); len(late) > 0 {
			err = errors.Join(err, fmt.Errorf("%d of %d commits are out of the order of epochs: %v", len(late), n, late[:min(len(late), 10)]))
		} else {
			c.res.Commits = n
		}
		if err != nil {
			return c.res, fmt.Errorf("round %d (seed %d): %w\n%s", i, seed, err, c.logs())
		}
	}
	for _, s := range c.all {
		if err := s.stop(); err != nil {
			return c.res, err
		}
	}
	return c.res, ctx.Err()
}

// logs returns the ends of the nodes' logs.
func (c *cluster) logs() string {
	var b strings.Builder
	for i, s := range c.all {
		fmt.Fprintf(&b, "node %d (%s):\n%s\n", i, s.listen, s.log.tail())
	}
	return b.String()
}

// round disturbs one piece of work, and then checks its result, or everything. Leaders
// are stalled and killed in more than half of the rounds.
func (c *cluster) round(ctx context.Context, i int, whole bool) error {
	ways := c.ways
	if ways == nil {
		if ways = disturbances; c.net != nil {
			ways = allDisturbances()
		}
		if c.rnd.IntN(2) == 0 {
			ways = ways[:4]
		}
	}
	d := ways[c.rnd.IntN(len(ways))]
	if i <= len(c.first) {
		d = c.first[i-1]
	}
	r := &clusterRound{cluster: c, d: d, leader: c.all[0], other: c.all[1], done: make(chan error, 1)}
	jobs := clusterJobs
	switch ops := strings.Fields(r.d.ops); {
	case r.d.cuts != nil:
		jobs = forPartition(r.d, jobs)
	case r.d.loses:
		// In reality, quarantine and collection are hours apart, and so are a collection's
		// deletions from its commits. Here they are not.
		jobs = clusterJobs[:len(clusterJobs)-1]
	case r.d.point != nil:
		jobs = slices.DeleteFunc(slices.Clone(jobs), func(j clusterJob) bool { return r.d.steps(c.took[j.name]) == 0 })
	case slices.Contains(ops, "get") || r.d.ops == "":
	case slices.Contains(ops, "put"):
		jobs = clusterJobs[:uploading]
	default:
		jobs = clusterJobs[len(clusterJobs)-1:]
	}
	r.j = jobs[c.rnd.IntN(len(jobs))]
	if c.rnd.IntN(2) == 0 {
		r.leader, r.other = r.other, r.leader
	}
	r.real = c.rnd.IntN(40) == 0
	c.withdrawn.Store(0)
	if err := r.j.prepare(ctx, c); err != nil {
		return fmt.Errorf("prepare %s: %w", r.j.name, err)
	}
	if err := r.disturb(ctx); err != nil {
		return fmt.Errorf("%s of %s: %w", r.d.name, r.j.name, err)
	}
	if err := r.prove(ctx, whole); err != nil {
		return fmt.Errorf("after %s of %s: %w", r.d.name, r.j.name, err)
	}
	c.res.Rounds[r.d.name]++
	c.res.Jobs[r.j.name]++
	return nil
}

// disturb does the work of the round with its disturbance, while clients read, and
// repeats it.
func (r *clusterRound) disturb(ctx context.Context) error {
	readers, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	if err := r.emptyCache(); err != nil {
		return err
	}
	if r.d.before != nil {
		if err := r.d.before(ctx, r); err != nil {
			return err
		}
	}
	r.fail()
	for i, s := range []*server{r.serving(), r.other} {
		wg.Go(func() { r.read(readers, stop, s, r.n+i) })
	}
	from := time.Now()
	var point <-chan struct{}
	if r.d.point != nil {
		point = r.d.point(r, 1+r.rnd.IntN(r.d.steps(r.cluster.took[r.j.name])))
	}
	work, hangUp := context.WithCancel(ctx)
	defer hangUp()
	r.hangUp = hangUp
	go func() { r.done <- r.j.do(work, r.cluster, r.leader) }()
	var err error
	if r.d.during != nil {
		switch {
		case point != nil:
			r.await(ctx, point)
		case r.d.cuts != nil && r.rnd.IntN(3) == 0: // at once
		default:
			pause(ctx, time.Duration(r.rnd.Int64N(int64(r.cluster.took[r.j.name].d*11/10))))
		}
		err = r.d.during(ctx, r)
	} else {
		err = r.finish(ctx)
		if rest := 300*time.Millisecond - time.Since(from); err == nil && rest > 0 {
			pause(ctx, rest) // let the readers meet the fault, too
		}
		r.srv.Decide(nil)
	}
	if err == nil {
		err = r.repeat(ctx, r.other)
	}
	stop(nil)
	wg.Wait()
	if cause := context.Cause(readers); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// await waits for a point of the work. The work may end before it, or need fewer steps
// than when undisturbed.
func (r *clusterRound) await(ctx context.Context, point <-chan struct{}) {
	defer r.srv.Decide(nil)
	defer r.commits.At(0, nil)
	select {
	case <-point:
		r.res.Points++
	case err := <-r.done:
		r.done <- err
	case <-ctx.Done():
	case <-time.After(10*r.cluster.took[r.j.name].d + 5*time.Second):
	}
}

// atCommit kills the leader when it begins one of its commits.
func atCommit(r *clusterRound, n int) <-chan struct{} {
	point := make(chan struct{})
	r.commits.At(n, func() {
		r.leader.die()
		close(point)
	})
	return point
}

// atUpload kills the leader before it writes something to the bucket.
func atUpload(r *clusterRound, n int) <-chan struct{} {
	point := make(chan struct{})
	r.srv.Decide(func(op, _ string) *s3test.Fault {
		if !slices.Contains(writing, op) {
			return nil
		}
		if n--; n != 0 {
			return nil
		}
		r.leader.die()
		close(point)
		return &s3test.Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown"}
	})
	return point
}

// writing are the operations of the object store that write blobs.
var writing = []string{"put", "part", "create", "complete"}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// fail makes the object store answer every third request wrongly, if the disturbance asks
// for that.
func (r *clusterRound) fail() {
	if r.d.ops == "" {
		return
	}
	ops := strings.Fields(r.d.ops)
	n := r.rnd.IntN(3)
	r.srv.Decide(func(op, _ string) *s3test.Fault {
		if !slices.Contains(ops, op) {
			return nil
		}
		if n++; n%3 != 0 {
			return nil
		}
		atomic.AddInt64(&r.res.Hits, 1)
		f := r.d.fault
		return &f
	})
}

// emptyCache deletes the copies on the node that only serves, so that it reads from the
// bucket.
func (r *clusterRound) emptyCache() error {
	dirs, err := filepath.Glob(filepath.Join(r.serving().data, "cache", "??"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// read requests the expected paths from a node, until ctx ends or an answer is wrong.
func (r *clusterRound) read(ctx context.Context, stop context.CancelCauseFunc, s *server, from int) {
	paths := r.expect.list()
	for i := from; ctx.Err() == nil && len(paths) > 0; i++ {
		if _, err := r.get(ctx, s, paths[i*7%len(paths)]); err != nil && ctx.Err() == nil {
			stop(err)
			return
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// finish waits for the end of the disturbed work, which may fail.
func (r *clusterRound) finish(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Minute):
		return errors.New("the disturbed work did not end")
	case err := <-r.done:
		if errors.Is(err, errWrong) {
			return err
		}
		if err != nil {
			r.res.Failed++
		}
		return nil
	}
}

// stallLeader stops the leader until its leases have expired and another node has done
// its work, and then lets it continue.
func stallLeader(ctx context.Context, r *clusterRound) error {
	if err := r.leader.stall(); err != nil {
		return err
	}
	defer r.leader.wake()
	if err := r.takeOver(ctx); err != nil {
		return err
	}
	r.leader.wake()
	failed := r.res.Failed
	if err := r.finish(ctx); err != nil {
		return err
	}
	r.res.Fenced += r.res.Failed - failed
	return nil
}

// killLeader kills the leader, lets another node take over, and starts the leader again.
func killLeader(ctx context.Context, r *clusterRound) error {
	r.leader.kill()
	r.hangUp() // the client would try to reconnect for half a minute
	if err := r.finish(ctx); err != nil {
		return err
	}
	if err := r.takeOver(ctx); err != nil {
		return err
	}
	return r.leader.start(ctx)
}

// takeOver makes the other node do the work after the leader has stopped.
func (r *clusterRound) takeOver(ctx context.Context) error {
	start := time.Now()
	if !r.real {
		// The other node finds a lease that has expired, or waits for it.
		if err := pgtest.Expire(ctx, r.url); err != nil {
			return err
		}
	}
	if err := r.repeat(ctx, r.other); err != nil {
		return fmt.Errorf("take over on the other node: %w", err)
	}
	if r.real {
		r.res.Takeover = max(r.res.Takeover, time.Since(start))
	}
	return nil
}

// stopDatabase ends PostgreSQL with a signal and starts it again.
func stopDatabase(sig syscall.Signal) func(context.Context, *clusterRound) error {
	return func(ctx context.Context, r *clusterRound) error {
		r.db.Stop(r.tb, sig)
		pause(ctx, time.Duration(r.rnd.IntN(1000))*time.Millisecond)
		r.db.Run(r.tb)
		if err := r.finish(ctx); err != nil {
			return err
		}
		// A node answers from memory until it notices that the database is back.
		for _, s := range r.all {
			if err := eventually(ctx, 30*time.Second, func() error {
				body, err := httpGet(ctx, "http://"+s.listen+"/readyz")
				if err == nil && string(body) != "ok\n" {
					err = fmt.Errorf("not ready: %s", body)
				}
				return err
			}); err != nil && s.alive() {
				return err
			}
		}
		return nil
	}
}

// failOver makes the standby the primary. It lacks the commits since a random point of
// the work, which may be complete before the primary ends.
func failOver(ctx context.Context, r *clusterRound) error {
	r.standby.CatchUp(r.tb, r.db)
	r.standby.Detach(r.tb)
	finish := r.finish
	if r.rnd.IntN(2) == 0 {
		if err := r.finish(ctx); err != nil {
			return err
		}
		finish = func(context.Context) error { return nil }
	} else {
		pause(ctx, time.Duration(r.rnd.Int64N(int64(r.cluster.took[r.j.name].d))))
	}
	before := pgtest.Changes(r.tb, r.url)
	r.db.Stop(r.tb, syscall.SIGQUIT)
	r.standby.Promote(r.tb)
	r.db, r.standby = r.standby, r.db
	if pgtest.Changes(r.tb, r.url) < before {
		r.res.Lost++
	}
	if err := finish(ctx); err != nil {
		return err
	}
	r.standby.Follow(r.tb, r.db)
	return nil
}

// repeat does the work of the round on a node until it succeeds. A lease may still have
// to expire.
func (r *clusterRound) repeat(ctx context.Context, s *server) error {
	if err := r.revive(ctx); err != nil {
		return err
	}
	return eventually(ctx, 3*time.Minute, func() error {
		err := r.j.do(ctx, r.cluster, s)
		e := new(api.Error)
		switch {
		case err == nil:
			return nil
		case errors.As(err, &e) && (e.Code == api.CodeGone || e.Code == api.CodeExists) && strings.HasPrefix(r.j.name, "freeze"):
			r.withdrawn.Add(1)
			r.res.Renamed++
		case !r.real:
			if eerr := pgtest.Expire(ctx, r.url); eerr != nil {
				err = errors.Join(err, eerr)
			}
		}
		return err
	})
}

// revive restarts the nodes that exited because they did not learn the outcome of a
// commit.
func (r *clusterRound) revive(ctx context.Context) error {
	for i, s := range r.all {
		if s.cmd == nil || s.alive() {
			continue
		}
		if tail := s.log.tail(); !strings.Contains(tail, "unknown") {
			return fmt.Errorf("node %d exited: %v", i, s.cmd.ProcessState)
		}
		r.res.Exited++
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("node %d exited and does not start again: %w", i, err)
		}
	}
	return nil
}

// prove checks the work of a round, or everything.
func (r *clusterRound) prove(ctx context.Context, whole bool) error {
	if err := r.revive(ctx); err != nil {
		return err
	}
	for _, s := range r.all[:2] {
		if err := r.repeat(ctx, s); err != nil {
			return fmt.Errorf("repeat: %w", err)
		}
	}
	if err := r.j.settle(ctx, r.cluster); err != nil {
		return err
	}
	if !whole {
		return nil
	}
	// On a busy machine, the database may not answer in time.
	frozen, fault := 0, error(nil)
	if err := eventually(ctx, time.Minute, func() (err error) {
		frozen, err = r.leader.proveAll(ctx)
		if err != nil && !strings.Contains(err.Error(), meta.ErrUnreachable.Error()) {
			fault, err = err, nil
		}
		return err
	}); err != nil || fault != nil {
		return errors.Join(err, fault)
	}
	r.res.Frozen += frozen
	if frozen < len(r.freezes) {
		return fmt.Errorf("%d freezes, expected %v", frozen, r.freezes)
	}
	// Packages that are downloaded on demand are left for the next round.
	for _, path := range r.expect.list() {
		if strings.HasPrefix(path, "/archive/lazy/") && strings.Contains(path, "/pool/") {
			continue
		}
		for _, s := range r.all {
			if err := eventually(ctx, 30*time.Second, func() error {
				ok, err := r.get(ctx, s, path)
				if err == nil && !ok {
					err = fmt.Errorf("%s is not served by %s", path, s.listen)
				}
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
