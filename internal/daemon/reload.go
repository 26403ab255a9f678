package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
)

// reloads holds the configuration in effect, which reloads change during a run.
type reloads struct {
	live atomic.Pointer[config.Config] // in effect; daemon.cfg is the one at the start

	mu    sync.Mutex // held during a reload
	notes atomic.Pointer[[]string]
}

// conditions returns the results of the last reload that Status shows.
func (d *daemon) conditions() (out []string) {
	if notes := d.reloads.notes.Load(); notes != nil {
		out = append(out, *notes...)
	}
	if d.blobsLost(context.Background()) {
		out = append(out, "every blob is lost: run 'snapctl fsck --repair', with --from if there is a backup or another snapd ("+pageBlobs+")")
	}
	return out
}

// blobsLost reports whether the metadata refers to blobs but the store has none.
func (d *daemon) blobsLost(ctx context.Context) bool {
	if !inDirectory(d.cfg) {
		return false
	}
	known, err := d.store.Identity(ctx)
	return err == nil && checkBlobs(d.cfg.DataDir, known.Empty) != nil
}

// Reload reads the configuration again and puts its mirrors, webhooks and limits into
// effect, with the keyrings, credentials and certificates that it names. If it returns an
// error, nothing has changed.
func (d *daemon) Reload(ctx context.Context) (*api.ReloadResult, error) {
	if d.o.Load == nil {
		return nil, fmt.Errorf("%w: this snapd was not started from a configuration file", errclass.Usage)
	}
	d.reloads.mu.Lock()
	defer d.reloads.mu.Unlock()
	res, err := d.reload(ctx)
	if err != nil {
		text := fmt.Sprintf("the configuration was not reloaded, and the earlier one stays in effect: %v", err)
		d.reloads.notes.Store(&[]string{text})
		return nil, err
	}
	var notes []string
	if len(res.Restart) > 0 {
		notes = append(notes, "the configuration file has changed, and these keys take effect at the next start: "+strings.Join(res.Restart, ", "))
	}
	d.reloads.notes.Store(&notes)
	d.log.Info("reloaded the configuration", "mirrors", len(d.reloads.live.Load().Mirrors), "added", res.Added, "changed", res.Changed, "removed", res.Removed, "restart", res.Restart)
	return res, nil
}

func (d *daemon) reload(ctx context.Context) (*api.ReloadResult, error) {
	next, err := d.o.Load()
	if err != nil {
		return nil, err
	}
	if err := Check(next); err != nil {
		return nil, err
	}
	if err := d.checkNames(ctx, next.Mirrors); err != nil {
		return nil, err
	}
	useCertificate := func() {}
	if d.cert != nil {
		if useCertificate, err = d.cert.read(); err != nil {
			return nil, err
		}
	}
	useWebhooks := func() {}
	if d.webhooks != nil {
		if useWebhooks, err = d.webhooks.Prepare(next.Webhooks); err != nil {
			return nil, err
		}
	}
	old := d.reloads.live.Load()
	live, restart := config.Reloaded(d.cfg, next)
	settings := acquire.Settings{Mirrors: live.Mirrors, Parallel: live.Fetch.Parallel, Reserve: int64(live.Store.Reserve)}
	// If there is an error, nothing is replaced. Syncs in progress continue as they
	// started.
	apply, err := d.acquirer.Prepare(settings)
	if err != nil {
		return nil, err
	}
	// No errors are returned from here on, because callers take an error to mean that
	// nothing changed.
	apply()
	useCertificate()
	useWebhooks()
	d.catalog.SetMirrors(live.Mirrors)
	d.client.SetLimits(live.Fetch.Parallel, int64(live.Fetch.RateLimit))
	d.collector.SetQuarantine(live.Store.QuarantineTime.D())
	d.srv.SetMaxConnections(live.Server.MaxConnections)
	d.reloads.live.Store(live)
	d.sched.reload()
	if d.webhooks != nil {
		// New webhooks get the events from here on.
		if err := d.webhooks.Start(ctx); err != nil {
			d.control.CheckFatal(err)
			d.log.Error("new webhooks are told of events only when the metadata answers again", "err", err)
		}
	}
	if d.store.Damage() == nil {
		// If this fails, the first addition of packages makes the snapshot.
		if err := d.engine.EnsureLocal(ctx); err != nil {
			d.control.CheckFatal(err)
			d.log.Error("local mirrors do not have a snapshot of their new configuration", "err", err)
		}
	}
	res := compare(old.Mirrors, live.Mirrors)
	res.Restart = append(res.Restart, restart...)
	return res, nil
}

// compare returns the names of mirrors that were added, changed or removed.
func compare(old, next []config.Mirror) *api.ReloadResult {
	res := &api.ReloadResult{Added: []string{}, Changed: []string{}, Removed: []string{}, Restart: []string{}}
	find := func(list []config.Mirror, name string) *config.Mirror {
		if i := slices.IndexFunc(list, func(m config.Mirror) bool { return m.Name == config.MirrorName(name) }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	for _, m := range next {
		switch was := find(old, string(m.Name)); {
		case was == nil:
			res.Added = append(res.Added, string(m.Name))
		case !sameMirror(was, &m):
			res.Changed = append(res.Changed, string(m.Name))
		}
	}
	for _, m := range old {
		if find(next, string(m.Name)) == nil {
			res.Removed = append(res.Removed, string(m.Name))
		}
	}
	return res
}
