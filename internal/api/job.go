package api

import (
	"encoding/json"
	"time"
)

// States of a Job.
const (
	JobRunning   = "running"
	JobDone      = "done"
	JobFailed    = "failed"
	JobCancelled = "cancelled"
)

// Job is long work. It continues when the client that asked for it disconnects.
type Job struct {
	ID       string          `json:"id"`
	Verb     string          `json:"verb"`
	What     string          `json:"what,omitempty"`
	Who      string          `json:"who,omitempty"` // only for the caller's jobs and for the role admin
	From     string          `json:"from,omitempty"`
	State    string          `json:"state"`
	Started  time.Time       `json:"started"`
	Ended    *time.Time      `json:"ended,omitempty"`
	Progress *Progress       `json:"progress,omitempty"` // the newest
	Ending   bool            `json:"ending,omitempty"`   // cancelled, but not ended yet
	Joined   bool            `json:"joined,omitempty"`   // this is the job of an equal request that was running
	Result   json.RawMessage `json:"result,omitempty"`   // only in jobs/show
	Error    *Error          `json:"error,omitempty"`
}

// JobList is `snapctl jobs`, newest first. Finished jobs are forgotten after a day,
// or when snapd stops.
type JobList struct {
	Jobs []Job `json:"jobs"`
}

// JobRef names a job.
type JobRef struct {
	ID string `json:"id"`
	// Leave cancels the job only if nobody else waits for its result.
	Leave bool `json:"leave,omitempty"`
}

// Events of a job, in the format of server-sent events. Each has a number as its "id". A
// client that lost its connection sends the last number as Last-Event-ID.
const (
	EventsType    = "text/event-stream"
	EventProgress = "progress" // data is a Progress
	EventResult   = "result"   // data is the result; the last event
	EventError    = "error"    // data is ProblemDetails; the last event
)
