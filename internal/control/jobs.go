package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// ErrKeyReused means that an Idempotency-Key was used before, with another request.
var ErrKeyReused = errclass.New(errclass.Usage, "the Idempotency-Key was used with another request before")

// Limits on jobs, and on what is kept of ended ones.
const (
	jobsKept    = 500
	jobsTime    = 24 * time.Hour
	jobsBytes   = 64 << 20 // of results
	eventsKept  = 256      // of one job, the newest
	maxIdemKey  = 255      // in bytes
	keysPerJob  = 100      // of equal requests
	jobsRunning = 1000
	jobsOfOne   = 100 // running, of one caller
)

// Jobs runs work that outlives the request that asked for it.
type Jobs struct {
	now  func() time.Time
	base context.Context // ends the jobs
	wait *Running

	mu    sync.Mutex
	all   []*Job // by start
	byKey map[string]*Job
}

// NewJobs returns a Jobs. Its work is cancelled with base and counted by wait.
func NewJobs(base context.Context, wait *Running, now func() time.Time) *Jobs {
	return &Jobs{now: now, base: base, wait: wait, byKey: map[string]*Job{}}
}

// JobSpec says what a job does.
type JobSpec struct {
	By      *Caller
	Verb    string
	What    string
	Request any    // as decoded
	Key     string // Idempotency-Key; "": none
	Hidden  bool   // short work, found only by its Key
	Run     func(ctx context.Context, report func(api.Progress)) (any, error)
	Error   func(error) *api.Error
}

// Event is one event of a job.
type Event struct {
	N    int64
	Type string // api.EventProgress and so on
	Data json.RawMessage
}

// Job is one job. Its methods may be called at any time.
type Job struct {
	id     string
	spec   JobSpec
	digest cas.Digest // of the verb and the request
	cancel context.CancelFunc
	keys   int // of joined requests; protected by the lock of Jobs

	mu      sync.Mutex
	started time.Time
	ended   time.Time
	state   string
	waiting map[string]int // clients that asked for the job and have not left, by caller
	stopped bool           // it was cancelled, and may not have ended yet
	events  []Event
	next    int64
	at      api.Progress
	changed chan struct{} // closed at the next event
	result  any
	data    json.RawMessage // of result
	err     *api.Error
}

// Start runs a job, or joins one: the job with its key, or a running job for an equal
// request. It returns ErrKeyReused if the key belongs to another request, and errStopping
// after Running.Wait was called.
func (j *Jobs) Start(spec JobSpec) (job *Job, joined bool, err error) {
	data, err := json.Marshal(spec.Request)
	if err != nil {
		return nil, false, err
	}
	if len(spec.Key) > maxIdemKey {
		return nil, false, fmt.Errorf("%w: an Idempotency-Key of %d bytes: expected at most %d", errclass.Usage, len(spec.Key), maxIdemKey)
	}
	digest := cas.Sum(append([]byte(spec.Verb+"\x00"), data...))
	key := ""
	if spec.Key != "" {
		key = spec.By.Who + "\x00" + spec.Key
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.forget()
	if old := j.byKey[key]; key != "" && old != nil {
		if old.digest != digest {
			return nil, false, ErrKeyReused
		}
		_ = old.join(spec.By, true)
		return old, true, nil
	}
	running, own := 0, 0
	for _, old := range j.all {
		if !old.running() {
			continue
		}
		if old.spec.By.Who == spec.By.Who {
			own++
		}
		if running++; old.digest == digest && !spec.Hidden && !old.spec.Hidden && old.join(spec.By, false) {
			if key != "" && old.keys < keysPerJob {
				j.byKey[key] = old
				old.keys++
			}
			return old, true, nil
		}
	}
	if own >= jobsOfOne {
		return nil, false, fmt.Errorf("%w: %d jobs of %s are running", errBusy, own, spec.By.Who)
	}
	if running >= jobsRunning {
		return nil, false, fmt.Errorf("%w: %d jobs are running", errBusy, running)
	}
	ctx, cancel := context.WithCancel(j.base)
	run := spec.Run
	spec.Request, spec.Run = nil, nil // the job is kept, its request need not be
	job = &Job{id: rand.Text(), spec: spec, digest: digest, cancel: cancel, started: j.now().UTC(), state: api.JobRunning, waiting: map[string]int{spec.By.Who: 1}, changed: make(chan struct{})}
	if !j.wait.Go(func() {
		defer cancel()
		res, err := run(ctx, job.progress)
		job.end(res, err, ctx.Err() != nil, j.now().UTC())
	}) {
		cancel()
		return nil, false, errStopping
	}
	j.all = append(j.all, job)
	if key != "" {
		j.byKey[key] = job
	}
	return job, false, nil
}

// Start returns these errors instead of a job.
var (
	errBusy     = errclass.New(errclass.Transient, "too much work at once")
	errStopping = errclass.New(errclass.Transient, "snapd is stopping")
)

// forget drops jobs that ended long ago. If too many are left, it drops the oldest jobs
// of the caller with the most, so that one caller's jobs do not displace another's.
func (j *Jobs) forget() {
	type share struct{ jobs, bytes int }
	of := map[string]*share{}
	var all share
	var ended []*Job // oldest start first
	gone := map[*Job]bool{}
	for _, job := range j.all {
		job.mu.Lock()
		over, at := job.state != api.JobRunning, job.ended
		job.mu.Unlock() // what has ended changes no more
		switch {
		case !over:
			continue
		case j.now().Sub(at) > jobsTime:
			gone[job] = true
			continue
		}
		ended = append(ended, job)
		who := job.spec.By.Who
		if of[who] == nil {
			of[who] = &share{}
		}
		of[who].jobs++
		of[who].bytes += len(job.data)
		all.jobs++
		all.bytes += len(job.data)
	}
	// drop forgets the oldest ended job of the caller who has the most jobs or bytes.
	drop := func(most func(a, b *share) int) {
		who := ""
		for w, s := range of {
			if c := -1; who != "" {
				if c = most(s, of[who]); c < 0 || c == 0 && w > who {
					continue
				}
			}
			who = w
		}
		i := slices.IndexFunc(ended, func(job *Job) bool { return job.spec.By.Who == who })
		job := ended[i]
		ended = slices.Delete(ended, i, i+1)
		gone[job] = true
		for _, s := range []*share{of[who], &all} {
			s.jobs--
			s.bytes -= len(job.data)
		}
	}
	for all.bytes > jobsBytes {
		drop(func(a, b *share) int { return cmp.Compare(a.bytes, b.bytes) })
	}
	for all.jobs > jobsKept {
		drop(func(a, b *share) int { return cmp.Compare(a.jobs, b.jobs) })
	}
	if len(gone) == 0 {
		return
	}
	j.all = slices.DeleteFunc(j.all, func(job *Job) bool { return gone[job] })
	for key, job := range j.byKey {
		if gone[job] {
			delete(j.byKey, key)
		}
	}
}

// Find returns a job, or meta.ErrNotFound.
func (j *Jobs) Find(id string) (*Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range j.all {
		if job.id == id && !job.spec.Hidden {
			return job, nil
		}
	}
	return nil, fmt.Errorf("job %s: %w (jobs are forgotten when snapd stops, or a day after their end)", id, meta.ErrNotFound)
}

// List returns all jobs, newest first, as a caller may see them.
func (j *Jobs) List(by *Caller, _ *api.Empty) (*api.JobList, error) {
	j.mu.Lock()
	all := slices.Clone(j.all)
	j.mu.Unlock()
	out := &api.JobList{Jobs: []api.Job{}}
	for _, job := range all {
		if !job.spec.Hidden {
			out.Jobs = append(out.Jobs, *job.View(by, false))
		}
	}
	slices.SortStableFunc(out.Jobs, func(a, b api.Job) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// Show returns one job with its result.
func (j *Jobs) Show(by *Caller, req *api.JobRef) (*api.Job, error) {
	job, err := j.Find(req.ID)
	if err != nil {
		return nil, err
	}
	return job.View(by, true), nil
}

// Cancel withdraws the caller from a job, and cancels the job if no one else waits for
// it. An administrator cancels it for everybody, unless the request sets Leave. A job
// that has ended is left as it is.
func (j *Jobs) Cancel(by *Caller, req *api.JobRef) (*api.Job, error) {
	job, err := j.Find(req.ID)
	if err != nil {
		return nil, err
	}
	if !job.stop(by, req.Leave) {
		return nil, fmt.Errorf("%w: job %s belongs to others: only the callers who asked for it and the role %s may cancel it", ErrForbidden, req.ID, api.RoleAdmin)
	}
	return job.View(by, false), nil
}

// TouchCancel returns what the cancellation of a job changes. Leaving a job changes
// nothing: if that ends the job, the job has its own entry in the audit list.
func (j *Jobs) TouchCancel(_ context.Context, req *api.JobRef) (*Touch, error) {
	if req.Leave {
		return nil, nil
	}
	job, err := j.Find(req.ID)
	if err != nil {
		return nil, err
	}
	return &Touch{What: "job " + req.ID + ": " + job.spec.Verb + " " + job.spec.What}, nil
}

func (job *Job) running() bool {
	job.mu.Lock()
	defer job.mu.Unlock()
	return job.state == api.JobRunning
}

// join adds a client, and reports whether it did: a cancelled job takes no new clients.
// again says that this caller repeats a request; it is counted only once.
func (job *Job) join(by *Caller, again bool) bool {
	job.mu.Lock()
	defer job.mu.Unlock()
	if job.stopped {
		return false
	}
	if !again || job.waiting[by.Who] == 0 {
		job.waiting[by.Who]++
	}
	return true
}

// stop removes a client that leaves, or all clients of the caller, and cancels the job if
// no client is left. It reports whether the caller may do this.
func (job *Job) stop(by *Caller, leave bool) bool {
	job.mu.Lock()
	defer job.mu.Unlock()
	switch n := job.waiting[by.Who]; {
	case leave && n > 1:
		job.waiting[by.Who]--
		return true
	case leave && n == 0:
		return true
	case !leave && Has(by.Role, api.RoleAdmin):
		clear(job.waiting)
	case n == 0:
		return by.Who == job.spec.By.Who // a caller that left before may repeat this
	default:
		delete(job.waiting, by.Who)
	}
	if len(job.waiting) == 0 {
		job.stopped = true
		job.cancel()
	}
	return true
}

// add records an event; the caller holds mu.
func (job *Job) add(typ string, data json.RawMessage) {
	job.next++
	job.events = append(job.events, Event{job.next, typ, data})
	if len(job.events) > eventsKept {
		job.events = slices.Delete(job.events, 0, len(job.events)-eventsKept)
	}
	close(job.changed)
	job.changed = make(chan struct{})
}

func (job *Job) progress(p api.Progress) {
	data, err := json.Marshal(p)
	job.mu.Lock()
	defer job.mu.Unlock()
	if err != nil || job.state != api.JobRunning {
		return
	}
	job.at = p
	job.add(api.EventProgress, data)
}

// end records the outcome.
func (job *Job) end(res any, err error, cancelled bool, at time.Time) {
	var data json.RawMessage
	if err == nil {
		if data, err = json.Marshal(res); err != nil {
			err = fmt.Errorf("encode the result of %s: %w", job.spec.Verb, err)
		}
	}
	var e *api.Error
	typ := api.EventResult
	if err != nil {
		e, typ = job.spec.Error(err), api.EventError
		if cancelled && e.Code == api.CodeInterrupted {
			e.Message = job.spec.Verb + ": " + job.why()
		}
		if data, err = json.Marshal(e.Problem()); err != nil {
			e = &api.Error{Code: api.CodeInternal, Message: err.Error(), Exit: api.ExitFailed}
			data, _ = json.Marshal(e.Problem())
		}
	}
	job.mu.Lock()
	defer job.mu.Unlock()
	job.ended, job.result, job.data, job.err = at, res, data, e
	switch {
	case e == nil && Failure(res, nil) != nil:
		job.state = api.JobFailed // the result says why
	case e == nil:
		job.state = api.JobDone
	case cancelled && e.Code == api.CodeInterrupted:
		job.state = api.JobCancelled
	default:
		job.state = api.JobFailed
	}
	job.add(typ, data)
}

// why returns the reason why a job ended early.
func (job *Job) why() string {
	job.mu.Lock()
	defer job.mu.Unlock()
	if job.stopped {
		return "the job was cancelled"
	}
	return "snapd stopped"
}

// ID is the name of the job.
func (job *Job) ID() string { return job.id }

// Result waits for the end of the job.
func (job *Job) Result(ctx context.Context) (any, *api.Error, error) {
	for {
		job.mu.Lock()
		res, e, over, changed := job.result, job.err, job.state != api.JobRunning, job.changed
		job.mu.Unlock()
		if over {
			return res, e, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// Events returns the events after number after, whether the job has ended, and a channel
// that is closed at the next event.
func (job *Job) Events(after int64) (events []Event, over bool, changed <-chan struct{}) {
	job.mu.Lock()
	defer job.mu.Unlock()
	for i, e := range job.events {
		if e.N > after {
			return slices.Clone(job.events[i:]), job.state != api.JobRunning, job.changed
		}
	}
	return nil, job.state != api.JobRunning, job.changed
}

// View returns the job as a caller sees it: only administrators see who else asked for
// the work, and from where.
func (job *Job) View(by *Caller, result bool) *api.Job {
	job.mu.Lock()
	defer job.mu.Unlock()
	out := &api.Job{
		ID: job.id, Verb: job.spec.Verb, What: job.spec.What, State: job.state, Started: job.started, Ended: optional(job.ended), Error: job.err,
		Ending: job.stopped && job.state == api.JobRunning,
	}
	if by.Who == job.spec.By.Who || Has(by.Role, api.RoleAdmin) {
		out.Who, out.From = job.spec.By.Who, job.spec.By.From
	}
	if job.at != (api.Progress{}) {
		at := job.at
		out.Progress = &at
	}
	if result && job.err == nil {
		out.Result = job.data
	}
	return out
}
