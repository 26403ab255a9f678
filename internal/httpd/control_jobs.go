package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// jobPath is where jobs are, below apiPrefix.
const jobPath = "jobs/"

// heartbeat is the longest time without a byte in a stream of events, so that
// proxies keep the connection.
const heartbeat = 15 * time.Second

// job starts the job of a request, or joins a running one. It answers with the job if the
// work is long, otherwise with the result.
func (x *exchange) job(req any, touch *control.Touch) {
	s, by, name, rt := x.a.s, x.by, x.name, x.rt
	spec := control.JobSpec{
		By: by, Verb: name, Request: x.asked, Key: x.r.Header.Get("Idempotency-Key"), Hidden: !rt.long,
		Run: func(ctx context.Context, report func(api.Progress)) (any, error) {
			ctx = control.WithCaller(context.WithValue(ctx, callerKey{}, by), by.Who)
			if rt.touch != nil {
				ctx = meta.Current(ctx)
			}
			res, err := s.call(ctx, name, func(ctx context.Context) (any, error) { return rt.run(ctx, req, report) })
			if touch != nil {
				s.control.Audited(ctx, by, name, touch, control.Failure(res, err))
			}
			return res, err
		},
		Error: func(err error) *api.Error { return s.control.Error(name, err) },
	}
	switch {
	case touch != nil:
		spec.What = touch.What
	case rt.task != nil:
		spec.What = rt.task(req)
	}
	job, joined, err := s.jobs.Start(spec)
	if err != nil {
		x.notBegun(touch, err)
		x.fail(err)
		return
	}
	if !rt.long {
		res, e, err := job.Result(x.r.Context())
		if e != nil {
			err = e
		}
		x.reply(res, err)
		return
	}
	x.accepted(job, joined)
}

// accepted answers with a job.
func (x *exchange) accepted(job *control.Job, joined bool) {
	view := job.View(x.by, false)
	view.Joined = joined
	data, err := json.Marshal(view)
	if err != nil {
		x.fail(err)
		return
	}
	x.w.Header().Set("Location", apiPrefix+jobPath+job.ID())
	x.write(http.StatusAccepted, "application/json", data)
}

// jobResource answers for jobs/ID and jobs/ID/events.
func (x *exchange) jobResource(id string) {
	id, events := strings.CutSuffix(id, "/events")
	job, err := x.a.s.jobs.Find(id)
	if err != nil {
		x.fail(err)
		return
	}
	if !events {
		data, err := json.Marshal(job.View(x.by, true))
		if err != nil {
			x.fail(err)
			return
		}
		x.write(http.StatusOK, "application/json", data)
		return
	}
	after := int64(0)
	if last := x.r.Header.Get("Last-Event-ID"); last != "" {
		if after, err = strconv.ParseInt(last, 10, 64); err != nil || after < 0 {
			x.fail(fmt.Errorf("%w: Last-Event-ID %q: expected the number of an event", errclass.Usage, last))
			return
		}
	}
	x.w.Header().Set("Content-Type", api.EventsType)
	x.w.Header().Set("X-Accel-Buffering", "no") // nginx
	x.w.WriteHeader(http.StatusOK)
	x.follow(job, after)
}

// follow sends the events of a job until its end.
func (x *exchange) follow(job *control.Job, after int64) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		events, over, changed := job.Events(after)
		for _, e := range events {
			after = e.N
			if !x.emit("id: %d\nevent: %s\ndata: %s\n\n", e.N, e.Type, e.Data) {
				return
			}
		}
		if over || x.rc.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
			if !x.emit(":\n\n") {
				return
			}
		case <-x.r.Context().Done():
			return
		}
	}
}

func (x *exchange) emit(format string, args ...any) bool {
	writeSoon(x.rc, 0)
	_, err := fmt.Fprintf(x.w, format, args...)
	return err == nil
}

// byCaller adapts a verb that needs to know the caller to the table of routes.
func byCaller[Req, Res any](f func(*control.Caller, *Req) (*Res, error)) func(context.Context, *Req) (*Res, error) {
	return func(ctx context.Context, req *Req) (*Res, error) {
		return f(ctx.Value(callerKey{}).(*control.Caller), req)
	}
}

// callerKey is the key of the caller in the context of a call.
type callerKey struct{}
