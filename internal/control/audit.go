package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
)

// Limits on an entry's texts and on a page of entries.
const (
	maxAuditText = 1024
	auditPage    = 1000
	auditTrim    = 1000 // entries that one transaction removes
)

// Changes of one caller that were refused or did not begin get an entry each:
// refusedBurst at once, then one every refusedEvery. Further ones are only counted in the
// detail of the next entry, so that a caller without permissions cannot bury the real
// changes.
const (
	refusedBurst = 20
	refusedEvery = 10 * time.Minute
)

// refusals limits the entries for refused changes.
type refusals struct {
	mu sync.Mutex
	of map[string]*refusal // by caller; at most one for each token
}

type refusal struct {
	limit *rate.Limiter
	left  int // refusals since the last entry
}

// entry reports whether to write an entry for a refusal of a caller. left is the number
// of earlier refusals without an entry.
func (r *refusals) entry(who string, now time.Time) (left int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]*refusal{}
	}
	one := r.of[who]
	if one == nil {
		one = &refusal{limit: rate.NewLimiter(rate.Every(refusedEvery), refusedBurst)}
		r.of[who] = one
	}
	if !one.limit.AllowN(now, 1) {
		one.left++
		return 0, false
	}
	left, one.left = one.left, 0
	return left, true
}

// auditTime bounds how long an entry may take to be written.
const auditTime = 30 * time.Second

// Failure returns err, or an error that describes a result that is only partly a success.
func Failure(res any, err error) error {
	if err != nil {
		return err
	}
	exit := 0
	switch r := res.(type) {
	case *api.SyncResult:
		var all []string
		for _, m := range r.Mirrors {
			if m.Error != nil {
				all = append(all, m.Mirror+": "+m.Error.Message)
			}
		}
		if len(all) > 0 {
			return errors.New(strings.Join(all, "; "))
		}
	case *api.FsckResult:
		exit = r.Exit
	case *api.BackupResult:
		exit = r.Exit
	}
	if exit != 0 {
		return fmt.Errorf("not complete: exit code %d", exit)
	}
	return nil
}

// Audited records a change that was made or failed: one line of the log, and one entry of
// the audit list. If the entry cannot be written, this is logged as an error: the log
// line is then the only record.
func (c *Control) Audited(ctx context.Context, by *Caller, verb string, t *Touch, err error) {
	c.audited(ctx, by, verb, t, err, errors.Is(err, ErrForbidden))
}

// NotBegun records a change that was refused or could not begin, like Audited, unless the
// caller had too many of them.
func (c *Control) NotBegun(ctx context.Context, by *Caller, verb string, t *Touch, err error) {
	c.audited(ctx, by, verb, t, err, true)
}

func (c *Control) audited(ctx context.Context, by *Caller, verb string, t *Touch, err error, limited bool) {
	e := meta.AuditEntry{
		ID: rand.Text(), Time: c.now().UTC().Truncate(time.Millisecond), Who: by.Who, From: by.From, Verb: verb, What: t.What, Result: api.AuditOK,
	}
	if err != nil {
		e.Result, e.Detail = api.AuditFailed, remote.Scrub(err.Error())
		switch {
		case errors.Is(err, ErrForbidden):
			e.Result = api.AuditRefused
		case errors.Is(err, context.Canceled):
			e.Detail = "it was cancelled, its client went away, or snapd stopped: " + e.Detail
		}
	}
	for _, s := range []*string{&e.What, &e.Detail} {
		*s = remote.Scrub(excerpt.Clip(*s, maxAuditText))
	}
	c.log.Info("audit", "who", e.Who, "from", e.From, "verb", e.Verb, "what", e.What, "result", e.Result, "detail", e.Detail)
	if limited {
		left, ok := c.refusals.entry(e.Who, e.Time)
		if !ok {
			return
		}
		if left > 0 {
			e.Detail += fmt.Sprintf(" (%d more did not begin since the last entry: the log has them)", left)
		}
	}
	// The change was made or refused even if the client has disconnected.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	if err := c.st.AppendAudit(ctx, e); err != nil {
		c.log.Error("an entry of the audit list could not be written", "who", e.Who, "from", e.From, "verb", e.Verb, "what", e.What, "result", e.Result, "err", err)
		c.CheckFatal(err)
	}
}

// Audit returns a page of the audit list.
func (c *Control) Audit(ctx context.Context, req *api.AuditRequest) (*api.AuditList, error) {
	var since time.Time
	if req.Since != nil {
		since = *req.Since
	}
	if req.After < 0 {
		return nil, errclass.Usage
	}
	entries, err := c.st.AuditEntries(ctx, since, req.After, auditPage)
	if err != nil {
		return nil, err
	}
	out := &api.AuditList{Entries: []api.AuditEntry{}, More: len(entries) == auditPage}
	for _, e := range entries {
		out.Entries = append(out.Entries, api.AuditEntry{
			Number: e.Number, Time: e.Time, Who: e.Who, From: e.From, Verb: e.Verb, What: e.What, Result: e.Result, Detail: e.Detail,
		})
	}
	return out, nil
}

// TrimAudit removes entries of the audit list that are older than the configured age.
func (c *Control) TrimAudit(ctx context.Context) error {
	keep := c.cfg.Conf.Audit.Keep.D()
	if keep == 0 {
		return nil
	}
	for {
		n, err := c.st.TrimAudit(ctx, c.now().Add(-keep), auditTrim)
		if err != nil || n < auditTrim {
			return err
		}
	}
}
