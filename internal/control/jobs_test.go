package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
)

// work is a job that ends when it is told to.
type work struct {
	started chan struct{}
	finish  chan error
}

func newWork() *work { return &work{make(chan struct{}, 8), make(chan error, 8)} }

func (w *work) spec(who, key string, req any) JobSpec {
	return JobSpec{
		By: &Caller{Who: who, Role: api.RoleReleaser}, Verb: "freeze", What: "4.1", Request: req, Key: key,
		Error: func(err error) *api.Error { e, _ := Error(err); return e },
		Run: func(ctx context.Context, report func(api.Progress)) (any, error) {
			report(api.Progress{Phase: "fetch"})
			w.started <- struct{}{}
			select {
			case err := <-w.finish:
				return "done", err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
}

func newJobs(t *testing.T, now func() time.Time) *Jobs {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running Running
	t.Cleanup(func() { cancel(); running.Wait() })
	return NewJobs(ctx, &running, now)
}

func mustStart(t *testing.T, j *Jobs, s JobSpec) (*Job, bool) {
	t.Helper()
	job, joined, err := j.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	return job, joined
}

// A request joins a running job for an equal request. It joins neither another job nor
// one that has ended.
func TestJobsJoin(t *testing.T) {
	j := newJobs(t, time.Now)
	w := newWork()
	a, _ := mustStart(t, j, w.spec("ci", "", "4.1"))
	<-w.started
	if b, joined := mustStart(t, j, w.spec("other", "", "4.1")); b != a || !joined {
		t.Error("an equal request did not join")
	}
	if b, joined := mustStart(t, j, w.spec("ci", "", "4.2")); b == a || joined {
		t.Error("another request joined")
	}
	<-w.started
	w.finish <- nil
	w.finish <- nil
	if res, e, err := a.Result(t.Context()); res != "done" || e != nil || err != nil {
		t.Errorf("%v, %v, %v", res, e, err)
	}
	if b, joined := mustStart(t, j, w.spec("ci", "", "4.1")); b == a || joined {
		t.Error("a request joined a job that has ended")
	}
	list, err := j.List(&Caller{Who: "ci"}, nil)
	if err != nil || len(list.Jobs) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
}

// The same Idempotency-Key finds the same job, even after it has ended. The key is
// refused for another request, and another caller may use it for another job.
func TestJobsKey(t *testing.T) {
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	j := newJobs(t, func() time.Time { return at })
	w := newWork()
	w.finish <- nil
	a, _ := mustStart(t, j, w.spec("ci", "k", "4.1"))
	if _, _, err := a.Result(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, joined := mustStart(t, j, w.spec("ci", "k", "4.1")); b != a || !joined {
		t.Error("the key did not find its job")
	}
	if _, _, err := j.Start(w.spec("ci", "k", "4.2")); !errors.Is(err, ErrKeyReused) {
		t.Errorf("the key of another request: %v", err)
	}
	w.finish <- nil
	b, joined := mustStart(t, j, w.spec("other", "k", "4.1"))
	if b == a || joined {
		t.Error("another caller's key found the job")
	}
	if _, _, err := b.Result(t.Context()); err != nil {
		t.Fatal(err)
	}
	at = at.Add(jobsTime + time.Second) // forgotten
	w.finish <- nil
	if b, joined := mustStart(t, j, w.spec("ci", "k", "4.1")); b == a || joined {
		t.Error("a job was not forgotten")
	}
}

// One caller can neither occupy all jobs nor use an endless number of keys, and requests
// are not kept.
func TestJobsBounds(t *testing.T) {
	j := newJobs(t, time.Now)
	w := newWork()
	job, _ := mustStart(t, j, w.spec("ci", "", "0"))
	for n := range keysPerJob + 10 {
		mustStart(t, j, w.spec("ci", fmt.Sprint("key ", n), "0"))
	}
	if len(j.byKey) != keysPerJob {
		t.Errorf("%d keys are kept, expected %d", len(j.byKey), keysPerJob)
	}
	for n := 1; n < jobsOfOne; n++ {
		mustStart(t, j, w.spec("ci", "", fmt.Sprint(n)))
	}
	if _, _, err := j.Start(w.spec("ci", "", "more")); !errors.Is(err, errBusy) {
		t.Errorf("too many jobs of one caller: %v", err)
	}
	mustStart(t, j, w.spec("other", "", "more"))
	if job.spec.Request != nil || job.spec.Run != nil {
		t.Error("the request of a job is kept")
	}
	go func() {
		for range jobsOfOne + 1 {
			w.finish <- nil
		}
	}()
	for range jobsOfOne + 1 {
		<-w.started
	}
}

// Events are numbered, and a client gets those that it has not seen.
func TestJobsEvents(t *testing.T) {
	j := newJobs(t, time.Now)
	w := newWork()
	a, _ := mustStart(t, j, w.spec("ci", "", "4.1"))
	<-w.started
	events, over, changed := a.Events(0)
	if len(events) != 1 || events[0].N != 1 || events[0].Type != api.EventProgress || over {
		t.Errorf("%+v, over %v", events, over)
	}
	w.finish <- fmt.Errorf("recording x: %w", meta.ErrNotFound)
	<-changed
	if _, e, err := a.Result(t.Context()); e == nil || e.Code != api.CodeNotFound || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	events, over, _ = a.Events(1)
	if len(events) != 1 || events[0].N != 2 || events[0].Type != api.EventError || !over {
		t.Errorf("%+v, over %v", events, over)
	}
	if v := a.View(&Caller{Who: "ci"}, true); v.State != api.JobFailed || v.Ended == nil || v.Progress.Phase != "fetch" {
		t.Errorf("%+v", v)
	}
}

// Only the owner and administrators can cancel a job. A client that leaves does not
// cancel it while others wait.
func TestJobsCancel(t *testing.T) {
	j := newJobs(t, time.Now)
	w := newWork()
	a, _ := mustStart(t, j, w.spec("ci", "", "4.1"))
	mustStart(t, j, w.spec("ci", "", "4.1"))
	<-w.started
	owner, other, admin := &Caller{Who: "ci", Role: api.RoleBuilder}, &Caller{Who: "other", Role: api.RoleReleaser}, &Caller{Who: "root", Role: api.RoleAdmin}
	if _, err := j.Cancel(other, &api.JobRef{ID: a.ID()}); !errors.Is(err, ErrForbidden) || strings.Contains(err.Error(), "ci") {
		t.Errorf("by another: %v", err)
	}
	if v, err := j.Cancel(other, &api.JobRef{ID: a.ID(), Leave: true}); err != nil || v.State != api.JobRunning {
		t.Errorf("another leaves: %+v, %v", v, err)
	}
	if v, err := j.Cancel(owner, &api.JobRef{ID: a.ID(), Leave: true}); err != nil || v.State != api.JobRunning {
		t.Errorf("one of two left: %+v, %v", v, err)
	}
	if _, err := j.Cancel(admin, &api.JobRef{ID: a.ID()}); err != nil {
		t.Error(err)
	}
	// No request joins a cancelled job, even before it has ended.
	if b, joined := mustStart(t, j, w.spec("ci", "", "4.1")); b == a || joined {
		t.Error("a request joined a cancelled job")
	}
	if _, e, err := a.Result(t.Context()); e == nil || e.Code != api.CodeInterrupted || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	if v := a.View(owner, false); v.State != api.JobCancelled {
		t.Errorf("%+v", v)
	}
	if _, err := j.Cancel(admin, &api.JobRef{ID: "x"}); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("an unknown job: %v", err)
	}
}

// One of several who asked for the same work ends it only for itself.
func TestJobsCancelJoined(t *testing.T) {
	j := newJobs(t, time.Now)
	w := newWork()
	a, _ := mustStart(t, j, w.spec("ci", "", "4.1"))
	mustStart(t, j, w.spec("other", "", "4.1"))
	<-w.started
	owner, other := &Caller{Who: "ci", Role: api.RoleReleaser}, &Caller{Who: "other", Role: api.RoleReleaser}
	for range 2 { // once more changes nothing
		if v, err := j.Cancel(owner, &api.JobRef{ID: a.ID()}); err != nil || v.State != api.JobRunning || v.Ending {
			t.Fatalf("cancelled by its owner: %+v, %v", v, err)
		}
	}
	again := w.spec("other", "k", "4.1")
	mustStart(t, j, again)
	mustStart(t, j, again) // the same client, whose connection was lost
	for range 2 {
		if _, err := j.Cancel(other, &api.JobRef{ID: a.ID(), Leave: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, e, err := a.Result(t.Context()); e == nil || e.Code != api.CodeInterrupted || err != nil {
		t.Errorf("after all left: %v, %v", e, err)
	}
}

// Who asked for work, and from where, is shown to them and to administrators.
func TestJobsView(t *testing.T) {
	j := newJobs(t, time.Now)
	w := newWork()
	spec := w.spec("ci", "", "4.1")
	spec.By.From = "192.0.2.1"
	a, _ := mustStart(t, j, spec)
	w.finish <- nil
	if _, _, err := a.Result(t.Context()); err != nil {
		t.Fatal(err)
	}
	for who, role := range map[string]string{"ci": api.RoleReader, "root": api.RoleAdmin, "other": api.RoleReleaser} {
		by := &Caller{Who: who, Role: role}
		list, err := j.List(by, nil)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := j.Show(by, &api.JobRef{ID: a.ID()})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []*api.Job{&list.Jobs[0], shown} {
			if seen := v.Who == "ci" && v.From == "192.0.2.1"; seen != (who != "other") || !seen && v.Who+v.From != "" {
				t.Errorf("%s sees %q from %q", who, v.Who, v.From)
			}
		}
	}
}

// The results of one caller do not make way for those of another, however many.
func TestJobsEviction(t *testing.T) {
	j := newJobs(t, time.Now)
	run := func(who, what string, size int, err error) *Job {
		t.Helper()
		job, _ := mustStart(t, j, JobSpec{
			By: &Caller{Who: who, Role: api.RoleReader}, Verb: "verify", Request: what,
			Error: func(err error) *api.Error { e, _ := Error(err); return e },
			Run:   func(context.Context, func(api.Progress)) (any, error) { return strings.Repeat("x", size), err },
		})
		if _, _, err := job.Result(t.Context()); err != nil {
			t.Fatal(err)
		}
		return job
	}
	mine := run("ci", "4.1", 1, nil)
	for n := range jobsKept + 50 {
		run("other", fmt.Sprint(n), 0, meta.ErrNotFound)
	}
	for n := range 4 {
		run("large", fmt.Sprint(n), jobsBytes/2, nil)
	}
	last := run("other", "last", 0, nil)
	for _, job := range []*Job{mine, last} {
		if _, err := j.Find(job.ID()); err != nil {
			t.Errorf("%s: %v", job.spec.By.Who, err)
		}
	}
	if len(j.all) > jobsKept+1 {
		t.Errorf("%d jobs are kept", len(j.all))
	}
}

// No job begins once the last ones are waited for, and a request that comes at that
// moment harms nothing.
func TestJobsStop(t *testing.T) {
	for range 2000 {
		ctx, stop := context.WithCancel(t.Context())
		var running Running
		j := NewJobs(ctx, &running, time.Now)
		start := func(req any) error {
			spec := newWork().spec("ci", "", req)
			spec.Run = func(ctx context.Context, _ func(api.Progress)) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			_, _, err := j.Start(spec)
			return err
		}
		if err := start("first"); err != nil {
			t.Fatal(err)
		}
		stop()
		late := make(chan error)
		go func() {
			for i := 0; ; i++ {
				if err := start(i); !errors.Is(err, errBusy) && err != nil {
					late <- err
					return
				}
			}
		}()
		running.Wait()
		if err := <-late; !errors.Is(err, errStopping) {
			t.Fatalf("a job after the stop: %v, expected errStopping", err)
		}
	}
}
