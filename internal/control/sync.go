package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
)

// Results of a sync.
const (
	SyncNew       = "new"
	SyncUnchanged = "unchanged"
	SyncFailed    = "failed"
	SyncRefused   = "refused" // upstream failed a security check
)

// SyncResults lists all results of a sync.
var SyncResults = []string{SyncNew, SyncUnchanged, SyncFailed, SyncRefused}

// SyncEvent describes the end of a sync.
type SyncEvent struct {
	Mirror meta.MirrorName
	Result string
	Bytes  int64 // downloaded for a new snapshot
	Took   time.Duration
}

// OnSync registers f to be called at the end of each sync.
func (c *Control) OnSync(f func(SyncEvent)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onSync = append(slices.Clip(c.onSync), f)
}

// Syncing returns the number of syncs of a mirror that are running or waiting, and the
// number of bytes that they have downloaded.
func (c *Control) Syncing(mirror meta.MirrorName) (n int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.syncing[mirror] {
		n++
		bytes += p.Bytes.Load()
	}
	return n, bytes
}

// Sync syncs one mirror, and reports the end of the sync to the functions registered with
// OnSync.
func (c *Control) Sync(ctx context.Context, name config.MirrorName, o mirror.SyncOptions) (*mirror.SyncResult, error) {
	if o.Progress == nil {
		o.Progress = &acquire.Progress{}
	}
	c.mu.Lock()
	c.syncing[name] = append(c.syncing[name], o.Progress)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.syncing[name] = slices.DeleteFunc(slices.Clone(c.syncing[name]), func(p *acquire.Progress) bool { return p == o.Progress })
		c.mu.Unlock()
	}()
	start := c.now()
	res, err := c.cfg.Engine.Sync(ctx, name, o)
	c.CheckFatal(err)
	if o.DryRun {
		return res, err
	}
	if _, uerr := c.catalog.Mirror(name); uerr != nil {
		return res, err // do not report an unknown mirror
	}
	ev := SyncEvent{Mirror: name, Result: SyncUnchanged, Took: c.now().Sub(start)}
	switch {
	case errors.Is(err, errclass.Security):
		ev.Result = SyncRefused
	case err != nil:
		ev.Result = SyncFailed
	case res.New:
		ev.Result, ev.Bytes = SyncNew, res.Bytes
	}
	c.mu.Lock()
	listeners := c.onSync
	c.mu.Unlock()
	for _, f := range listeners {
		f(ev)
	}
	return res, err
}

// SyncAll syncs the mirrors that the request names, or all that have an upstream. If one
// fails, the others are synced nevertheless, and the result contains the error.
func (c *Control) SyncAll(ctx context.Context, req *api.SyncRequest, report func(api.Progress)) (*api.SyncResult, error) {
	names := slices.Compact(slices.Sorted(slices.Values(req.Mirrors)))
	if len(names) == 0 {
		for _, m := range c.catalog.Mirrors() {
			if !m.Local {
				names = append(names, string(m.Name))
			}
		}
	}
	o := mirror.SyncOptions{FromURL: remote.NewURL(req.FromURL), ByHand: true, AcceptClock: req.AcceptClock, AcceptRollback: req.AcceptRollback, DryRun: req.DryRun}
	switch {
	case req.DryRun && req.NoWait:
		return nil, fmt.Errorf("%w: a dry run must be waited for", errclass.Usage)
	case len(names) == 0:
		return nil, fmt.Errorf("%w: no mirror with an upstream is configured", errclass.Usage)
	case req.FromURL != "" && req.As == nil, req.FromURL == "" && req.As != nil:
		return nil, fmt.Errorf("%w: --from-url and --as must be used together: the URL of the older state, and its timestamp", errclass.Usage)
	case req.FromURL != "" && o.FromURL.CheckSource() != nil:
		return nil, fmt.Errorf("%w: --from-url %w", errclass.Usage, o.FromURL.CheckSource())
	case req.AcceptRollback && (len(req.Mirrors) != 1 || req.FromURL != ""):
		return nil, fmt.Errorf("%w: --accept-rollback requires exactly one mirror and cannot be used with --from-url", errclass.Usage)
	case req.FromURL != "" && len(names) != 1:
		return nil, fmt.Errorf("%w: --from-url requires exactly one mirror, found %d", errclass.Usage, len(names))
	case req.As != nil:
		o.As = *req.As
	}
	for _, n := range names {
		m, err := c.catalog.Mirror(meta.MirrorName(n))
		if err != nil {
			return nil, err
		}
		if m.Local {
			return nil, fmt.Errorf("sync %s: %w", n, mirror.ErrLocal)
		}
	}
	out := &api.SyncResult{DryRun: req.DryRun, Mirrors: make([]api.MirrorSync, len(names))}
	if req.NoWait {
		for i, n := range names {
			out.Mirrors[i] = api.MirrorSync{Mirror: n, Started: true}
			c.background(func(ctx context.Context) {
				if _, err := c.Sync(ctx, meta.MirrorName(n), o); err != nil && ctx.Err() == nil {
					c.log.Error("sync failed", "repo", n, "err", err)
				}
			})
		}
		return out, nil
	}
	var mu sync.Mutex
	failed := 0
	eg := errgroup.Group{}
	for i, n := range names {
		eg.Go(func() error {
			one := c.syncOne(ctx, meta.MirrorName(n), o, report)
			mu.Lock()
			defer mu.Unlock()
			out.Mirrors[i] = one
			if one.Error != nil {
				failed++
				out.Exit = max(out.Exit, one.Error.Exit)
			}
			return nil
		})
	}
	_ = eg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	switch {
	case failed == 0:
	case out.Exit == api.ExitVerify:
	case failed < len(names):
		out.Exit = api.ExitPartial
	default:
		out.Exit = api.ExitFailed
	}
	return out, nil
}

// waiting is the phase of a sync that has not started.
const waiting = "waiting"

// syncProgress returns the progress of a sync. While the sync waits for another one of
// the same mirror, such as a scheduled one, it returns the progress of that one and says
// so.
func (c *Control) syncProgress(name config.MirrorName, own *acquire.Progress) api.Progress {
	p := progressOf(string(name), own)
	if p.Phase != waiting {
		return p
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := c.syncing[name]; len(all) > 0 && all[0] != own {
		p = progressOf(string(name), all[0])
		p.Phase = strings.TrimSuffix("sync already running: "+p.Phase, ": ")
	}
	return p
}

// syncOne syncs one mirror and reports its progress.
func (c *Control) syncOne(ctx context.Context, name config.MirrorName, o mirror.SyncOptions, report func(api.Progress)) api.MirrorSync {
	o.Progress = &acquire.Progress{}
	o.Progress.SetPhase(waiting)
	end := watch(ctx, string(name), func() api.Progress { return c.syncProgress(name, o.Progress) }, report)
	res, err := c.Sync(ctx, name, o)
	end()
	out := api.MirrorSync{Mirror: string(name)}
	if err != nil {
		out.Error = c.Error("sync", err)
		return out
	}
	out.New, out.Files, out.Bytes, out.Changed, out.Warnings = res.New, res.Files, res.Bytes, res.Stanzas, res.Warnings
	if res.Snapshot != nil {
		out.Snapshot = res.Snapshot.ID()
	}
	for _, s := range res.Changed {
		out.Suites = append(out.Suites, string(s))
	}
	return out
}
