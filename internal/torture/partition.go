package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// partitions are the disturbances that need a network: they cut a node off from services.
var partitions = []disturbance{
	{name: "leader without PostgreSQL", cuts: []int{hostDatabase, hostStandby}, before: warm, during: partitionLeader},
	{name: "leader without S3", cuts: []int{hostBucket}, before: warm, during: partitionLeader},
	{name: "leader without upstream", cuts: []int{hostUpstream}, during: partitionLeader},
	{name: "leader without both", cuts: []int{hostDatabase, hostStandby, hostBucket}, before: warm, during: partitionLeader},
	{name: "node without PostgreSQL", cuts: []int{hostDatabase, hostStandby}, before: isolate, during: partitionNode},
	{name: "node without S3", cuts: []int{hostBucket}, before: isolate, during: partitionNode},
	{name: "node without both", cuts: []int{hostDatabase, hostStandby, hostBucket}, before: isolate, during: partitionNode},
}

// caughtUp is longer than a node takes to learn of changes.
const caughtUp = 1500 * time.Millisecond

// warm requests everything from the nodes, which must serve it from then on.
func warm(ctx context.Context, r *clusterRound) error {
	pause(ctx, caughtUp)
	r.warm = map[*server][]string{}
	for _, s := range []*server{r.leader, r.serving()} {
		for _, path := range r.expect.list() {
			ok, err := r.get(ctx, s, path)
			if err != nil {
				return err
			}
			if ok {
				r.warm[s] = append(r.warm[s], path)
			}
		}
	}
	return nil
}

// isolate cuts off the node that only serves, after it has served everything.
func isolate(ctx context.Context, r *clusterRound) error {
	if err := warm(ctx, r); err != nil {
		return err
	}
	return r.net.cut(r.serving().ns, r.rnd.IntN(2) == 0, r.d.cuts...)
}

// partitionLeader cuts the leader off from services. If it cannot reach the database,
// another node takes over.
func partitionLeader(ctx context.Context, r *clusterRound) error {
	if err := r.net.cut(r.leader.ns, r.rnd.IntN(2) == 0, r.d.cuts...); err != nil {
		return err
	}
	defer r.net.mend()
	from := time.Now()
	patient := r.rnd.IntN(4) == 0 && !r.hasty
	pause(ctx, time.Duration(r.rnd.IntN(2000))*time.Millisecond)
	if slices.Contains(r.d.cuts, hostDatabase) {
		if err := r.takeOver(ctx); err != nil {
			return err
		}
	}
	if err := r.keepsServing(ctx, r.leader); err != nil {
		return err
	}
	if !patient {
		r.net.mend()
	}
	failed := r.res.Failed
	if err := r.finish(ctx); err != nil {
		return err
	}
	if patient && r.res.Failed > failed {
		r.res.GaveUp[r.d.name] = max(r.res.GaveUp[r.d.name], time.Since(from).Round(100*time.Millisecond))
	}
	if patient && !slices.Contains(r.d.cuts, hostDatabase) {
		if err := r.takeOver(ctx); err != nil {
			return err
		}
	}
	return nil
}

// partitionNode does the work while the node that only serves is cut off, and checks that
// the node still serves what it served before.
func partitionNode(ctx context.Context, r *clusterRound) error {
	defer r.net.mend()
	if err := r.keepsServing(ctx, r.serving()); err != nil {
		return err
	}
	if err := r.finish(ctx); err != nil {
		return err
	}
	if err := r.keepsServing(ctx, r.serving()); err != nil {
		return err
	}
	if slices.Contains(r.d.cuts, hostDatabase) {
		if err := eventually(ctx, 30*time.Second, func() error {
			body, err := httpGet(ctx, "http://"+r.serving().listen+"/readyz")
			if err == nil && string(body) == "ok\n" {
				err = errors.New("the node does not say in /readyz that it cannot reach the database")
			}
			return err
		}); err != nil {
			return err
		}
	}
	if r.hasty {
		return nil
	}
	return r.refuses(ctx, r.serving())
}

// refuses checks that a node that is cut off answers soon even if it does not have the
// file: it requests an index that no client asks for.
func (r *clusterRound) refuses(ctx context.Context, s *server) error {
	if err := r.emptyCache(); err != nil {
		return err
	}
	i := slices.IndexFunc(r.warm[s], func(p string) bool {
		return strings.HasPrefix(p, "/archive/debian/") && strings.HasSuffix(p, "/InRelease")
	})
	if i < 0 {
		return nil
	}
	path := strings.TrimSuffix(r.warm[s][i], "InRelease") + "main/source/Sources.xz"
	from := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err := httpGet(ctx, "http://"+s.listen+path)
	if refused := new(statusError); errors.As(err, &refused) {
		r.res.GaveUp["a request"] = max(r.res.GaveUp["a request"], time.Since(from).Round(100*time.Millisecond))
		if refused.status == http.StatusServiceUnavailable {
			return nil
		}
	}
	if err != nil {
		err = fmt.Errorf("a node that is cut off, after %v: %w", time.Since(from), err)
	}
	return err
}

// keepsServing checks that a node that is cut off serves what it served before, and tells
// load balancers that it is ready.
func (r *clusterRound) keepsServing(ctx context.Context, s *server) error {
	if _, err := httpGet(ctx, "http://"+s.listen+"/readyz"); err != nil {
		return err
	}
	for _, path := range r.warm[s] {
		from := time.Now()
		ok, err := r.get(ctx, s, path)
		if err == nil && !ok && ctx.Err() == nil {
			took := time.Since(from)
			_, err = httpGet(ctx, "http://"+s.listen+path)
			if err == nil {
				err = errors.New("served later")
			}
			err = fmt.Errorf("%s is not served any more by %s (after %v): %w", path, s.listen, took, err)
		}
		if err != nil {
			return err
		}
		r.res.Slowest = max(r.res.Slowest, time.Since(from))
		r.res.Kept++
	}
	return nil
}

// forPartition returns the jobs that a partition can disturb.
func forPartition(d disturbance, jobs []clusterJob) []clusterJob {
	if slices.Contains(d.cuts, hostUpstream) {
		return jobs[:1]
	}
	if strings.HasPrefix(d.name, "node") {
		return slices.DeleteFunc(slices.Clone(jobs), func(j clusterJob) bool { return j.name == "record" }) // this job uses the node that is cut off
	}
	return jobs
}
