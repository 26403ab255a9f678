package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// Mirrors describes the configured mirrors. With an error it returns those before
// the one that it is about.
func (c *Control) Mirrors(ctx context.Context, _ *api.Empty) (*api.MirrorList, error) {
	out := &api.MirrorList{Mirrors: []api.MirrorStatus{}}
	for _, m := range c.e.Mirrors() {
		st, err := c.mirrorStatus(ctx, m)
		if err != nil {
			return out, err
		}
		out.Mirrors = append(out.Mirrors, st)
	}
	return out, nil
}

func (c *Control) mirrorStatus(ctx context.Context, m config.Mirror) (api.MirrorStatus, error) {
	out := api.MirrorStatus{Name: m.Name, Type: m.Type, NextSync: optional(c.cfg.NextSync(m.Name))}
	c.mu.Lock()
	out.Syncing = c.syncing[m.Name] > 0
	c.mu.Unlock()
	err := c.view(ctx, func(tx *bolt.Tx) error {
		check := tx.LastCheck(m.Name)
		out.Checked, out.Succeeded, out.Error = optional(check.Checked), optional(check.OK), remote.Scrub(check.Error)
		last, err := tx.Latest(m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		out.Latest = last.ID()
		out.Warnings = nil
		for _, e := range last.Suites {
			g, err := tx.Generation(m.Name, e.Suite, e.Gen)
			if err != nil {
				return err
			}
			for _, w := range g.Warnings {
				out.Warnings = append(out.Warnings, fmt.Sprintf("suite %s: %s", e.Suite, w))
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	err = c.eachSnapshot(ctx, m.Name, func(*meta.Snapshot) bool { out.Snapshots++; return true })
	return out, err
}

// eachSnapshot calls f for a mirror's snapshots, newest first, outside of
// transactions, until it returns false.
func (c *Control) eachSnapshot(ctx context.Context, name string, f func(*meta.Snapshot) bool) error {
	var before time.Time
	for {
		var page []*meta.Snapshot
		err := c.view(ctx, func(tx *bolt.Tx) (err error) {
			page, err = tx.Snapshots(name, before, 500)
			return err
		})
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

// Mirror describes one mirror and its newest state.
func (c *Control) Mirror(ctx context.Context, req *api.MirrorRef) (*api.MirrorDetail, error) {
	m, err := c.e.Mirror(req.Mirror)
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
		snap, err := c.e.ResolveSnapshot(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		out.Suites, err = c.suites(ctx, snap, true)
		return out, err
	}
	f, err := c.e.Format(m.Type)
	if err != nil {
		return nil, err
	}
	names, err := f.Suites(m)
	for _, n := range names {
		out.Suites = append(out.Suites, api.SuiteDetail{Suite: string(n)})
	}
	return out, err
}

// suites describes the suites of a snapshot; deep adds signers and files.
func (c *Control) suites(ctx context.Context, snap *meta.Snapshot, deep bool) ([]api.SuiteDetail, error) {
	out := []api.SuiteDetail{}
	for _, e := range snap.Suites {
		d := api.SuiteDetail{Suite: string(e.Suite), Date: optional(e.Date)}
		var g *meta.Generation
		err := c.view(ctx, func(tx *bolt.Tx) (err error) {
			g, err = tx.Generation(snap.Mirror, e.Suite, e.Gen)
			return err
		})
		if err != nil {
			return nil, err
		}
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
		d.Signers = append(d.Signers, api.Signer(k))
	}
	for _, doc := range g.Docs {
		d.Documents = append(d.Documents, apiFile(doc.File))
	}
	for _, gr := range g.Groups {
		d.Indices = append(d.Indices, api.File{Path: gr.Form.Path, Size: gr.Form.Size, SHA256: gr.Form.SHA256.String()})
	}
}

func apiFile(f repo.File) api.File {
	return api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()}
}
