package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Mirrors describes the configured mirrors. If one fails, it returns the error and the
// mirrors before it.
func (c *Control) Mirrors(ctx context.Context, _ *api.Empty) (*api.MirrorList, error) {
	out := &api.MirrorList{Mirrors: []api.MirrorStatus{}}
	for _, m := range c.catalog.Mirrors() {
		st, err := c.mirrorStatus(ctx, m)
		if err != nil {
			return out, err
		}
		out.Mirrors = append(out.Mirrors, st)
	}
	return out, nil
}

// Reload reads the configuration file again, and applies its mirrors and limits. If it
// returns an error, nothing has changed.
func (c *Control) Reload(ctx context.Context, _ *api.Empty) (*api.ReloadResult, error) {
	if c.cfg.Reload == nil {
		return nil, fmt.Errorf("%w: this snapd was not started from a configuration file", errclass.Usage)
	}
	return c.cfg.Reload(ctx)
}

func (c *Control) mirrorStatus(ctx context.Context, m config.Mirror) (api.MirrorStatus, error) {
	out := api.MirrorStatus{Name: string(m.Name), Type: m.Type, NextSync: optional(c.cfg.NextSync(m.Name)), MaxAge: m.MaxAge.String()}
	c.mu.Lock()
	out.Syncing = len(c.syncing[m.Name]) > 0
	c.mu.Unlock()
	head, err := c.st.Head(ctx, m.Name)
	if err != nil {
		return out, err
	}
	out.Checked, out.Succeeded, out.Error = optional(head.Check.Checked), optional(head.Check.OK), remote.Scrub(head.Check.Error)
	if head.Snapshot == nil {
		return out, nil
	}
	out.Latest = head.Snapshot.ID()
	for _, e := range head.Snapshot.Suites {
		age := c.age(m, e)
		out.Ages, out.Stale = append(out.Ages, age), out.Stale || age.Stale
		for _, w := range head.Generations[e.Suite].Warnings {
			out.Warnings = append(out.Warnings, fmt.Sprintf("suite %s: %s", e.Suite, w))
		}
	}
	times, err := c.cfg.Freezer.History.Times(ctx, m.Name, time.Time{}, time.Time{})
	if errors.Is(err, meta.ErrNotFound) { // removed meanwhile
		err = nil
	}
	out.Snapshots = len(times)
	return out, err
}

// age returns the age of upstream's state of a suite.
func (c *Control) age(m config.Mirror, e meta.SnapshotSuite) api.SuiteAge {
	out := api.SuiteAge{Suite: string(e.Suite), Date: optional(e.Date)}
	if out.Date != nil {
		age := max(0, c.now().Sub(e.Date))
		out.Age, out.Stale = int64(age.Seconds()), m.MaxAge > 0 && age > m.MaxAge.D()
	}
	return out
}

// eachSnapshot calls f for a mirror's snapshots, newest first and outside transactions,
// until it returns false.
func (c *Control) eachSnapshot(ctx context.Context, name config.MirrorName, f func(*meta.Snapshot) bool) error {
	var before time.Time
	for {
		page, err := c.st.SnapshotsBefore(ctx, name, before, 500)
		if err != nil {
			return err
		}
		for _, snap := range page {
			if !f(snap) {
				return nil
			}
			before = snap.Timestamp
		}
		if len(page) < 500 {
			return nil
		}
	}
}

// Mirror describes one mirror, its newest state, and its stored files.
func (c *Control) Mirror(ctx context.Context, req *api.MirrorRef) (*api.MirrorDetail, error) {
	return c.MirrorWithin(ctx, req, storedWait)
}

// MirrorWithin is like Mirror, but waits at most this long for a count of the stored
// files.
func (c *Control) MirrorWithin(ctx context.Context, req *api.MirrorRef, wait time.Duration) (*api.MirrorDetail, error) {
	out, err := c.mirrorDetail(ctx, req)
	if err == nil {
		out.Stored = c.storedFiles(ctx, meta.MirrorName(out.Name), wait)
	}
	return out, err
}

func (c *Control) mirrorDetail(ctx context.Context, req *api.MirrorRef) (*api.MirrorDetail, error) {
	m, err := c.catalog.Mirror(meta.MirrorName(req.Mirror))
	if err != nil {
		return nil, err
	}
	st, err := c.mirrorStatus(ctx, m)
	if err != nil {
		return nil, err
	}
	out := &api.MirrorDetail{
		MirrorStatus: st, URLs: []string{}, Components: m.Components, Architectures: m.Architectures, Download: m.Download,
		Interval: m.Interval.String(), Keep: m.Keep.String(), Sources: m.Sources, Keyring: m.Keyring,
	}
	for _, u := range append(m.ConfiguredURLs(), m.Metalink, m.Mirrorlist) {
		if !u.IsZero() {
			out.URLs = append(out.URLs, u.String())
		}
	}
	if st.Latest != "" {
		snap, err := c.catalog.ResolveSnapshot(ctx, string(m.Name))
		if err != nil {
			return nil, err
		}
		out.Suites, err = c.suites(ctx, snap, true)
		return out, err
	}
	names, err := c.catalog.Suites(m)
	for _, n := range names {
		out.Suites = append(out.Suites, api.SuiteDetail{Suite: string(n)})
	}
	return out, err
}

// suites describes the suites of a snapshot; deep adds signers and files.
func (c *Control) suites(ctx context.Context, snap *meta.Snapshot, deep bool) ([]api.SuiteDetail, error) {
	out := []api.SuiteDetail{}
	gens, err := c.st.Generations(ctx, snap)
	if err != nil {
		return nil, err
	}
	for i, e := range snap.Suites {
		g, d := gens[i], api.SuiteDetail{Suite: string(e.Suite), Date: optional(e.Date)}
		if d.Packages, d.Sources = g.Packages, g.Sources; deep {
			describeGeneration(&d, g)
		}
		out = append(out, d)
	}
	return out, nil
}

func describeGeneration(d *api.SuiteDetail, g *meta.Generation) {
	d.Undated, d.ValidUntil, d.Trust, d.Packages, d.Sources = g.Undated, optional(g.ValidUntil), string(g.Trust), g.Packages, g.Sources
	for _, k := range g.Signers {
		d.Signers = append(d.Signers, api.Signer{Fingerprint: string(k.Fingerprint), UserID: k.UserID, SignedAt: k.SignedAt})
	}
	for _, doc := range g.Docs {
		d.Documents = append(d.Documents, apiFile(doc.File))
	}
	for _, gr := range g.Groups {
		d.Indices = append(d.Indices, api.File{Path: gr.Variant.Path, Size: gr.Variant.Size, SHA256: gr.Variant.SHA256.String()})
	}
}

func apiFile(f repo.File) api.File {
	return api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()}
}
