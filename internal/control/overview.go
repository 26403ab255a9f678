package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

const (
	overviewFreezes    = 20
	overviewRecordings = 10
	overviewKits       = 20
	overviewDays       = 30 // of snapshots
	// overviewWait is how long a page waits for a count of blobs.
	overviewWait = 50 * time.Millisecond
	// keyWarning is how long before its expiry a signing key is reported as a fault.
	keyWarning = 30 * 24 * time.Hour
)

// Overview describes the server for the public: it leaves out everything that only
// administrators should know. It reads no manifest of a freeze.
func (c *Control) Overview(ctx context.Context) (*api.Overview, error) {
	out := &api.Overview{Version: c.cfg.Version, Key: string(c.cfg.Signer.Fingerprint()), Faults: []string{}, Mirrors: []api.OverviewMirror{}, Recordings: []api.Recording{}}
	mirrors, err := c.Mirrors(ctx, nil)
	if err != nil {
		return nil, err
	}
	today := c.now().UTC().Truncate(24 * time.Hour)
	for _, m := range mirrors.Mirrors {
		line := api.OverviewMirror{MirrorStatus: m, Days: make([]int, overviewDays)}
		first := today.AddDate(0, 0, 1-overviewDays)
		if m.Latest != "" {
			times, err := c.cfg.Freezer.History.Times(ctx, meta.MirrorName(m.Name), first, time.Time{})
			if err != nil {
				return nil, err
			}
			for _, t := range times {
				if day := int(t.Sub(first) / (24 * time.Hour)); day < overviewDays {
					line.Days[day]++
				}
			}
		}
		out.Mirrors = append(out.Mirrors, line)
	}
	if out.Freezes, out.FreezeLen, err = c.FreezeLines(ctx, 0, overviewFreezes); err != nil {
		return nil, err
	}
	channels, err := c.Channels(ctx, nil)
	if err != nil {
		return nil, err
	}
	out.Channels = channels.Channels
	for i := range out.Channels {
		out.Channels[i].By = "" // who moved it is not public
	}
	if err := c.overviewRecordings(ctx, out); err != nil {
		return nil, err
	}
	kits, err := c.st.Kits(ctx)
	if err != nil {
		return nil, err
	}
	out.KitLen = len(kits)
	for _, k := range kits[:min(len(kits), overviewKits)] {
		out.Kits = append(out.Kits, api.PublishedKit{Path: k.Path, Size: k.Size, SHA256: k.Digest.String()})
	}
	nodes, err := c.Cluster(ctx)
	if errors.Is(err, meta.ErrUnreachable) {
		nodes = &Cluster{} // other parts may come from memory
	} else if err != nil {
		return nil, err
	}
	out.Nodes, out.Leases = nodes.Nodes, nodes.Leases
	if u, ok := c.RecentUsage(overviewWait); ok {
		for i := range out.Mirrors {
			u.project(&out.Mirrors[i].MirrorStatus)
		}
		out.Disk = c.disk(ctx, &u)
	}
	if out.Faults, err = c.faults(ctx, out); err != nil {
		return nil, err
	}
	out.Healthy = len(out.Faults) == 0
	return out, nil
}

// overviewRecordings adds the recordings that run, and the newest of the others.
func (c *Control) overviewRecordings(ctx context.Context, out *api.Overview) error {
	recs, err := c.st.Recordings(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(recs, func(a, b *meta.Recording) int {
		switch {
		case a.Stopped.IsZero() != b.Stopped.IsZero():
			if a.Stopped.IsZero() {
				return -1
			}
			return 1
		default:
			return b.Started.Compare(a.Started)
		}
	})
	recs = recs[:min(len(recs), overviewRecordings)]
	names := make([]string, len(recs))
	for i, r := range recs {
		names[i] = r.Name
	}
	totals, err := c.st.RecordingTotals(ctx, names)
	if err != nil {
		return err
	}
	for i, r := range recs {
		v := c.recordingOutline(r)
		v.Files, v.Bytes = totals[i].Files, totals[i].Bytes
		out.Recordings = append(out.Recordings, *v)
	}
	return nil
}

// disk describes the use of the blob store by a count; nil if the free space is not
// known.
func (c *Control) disk(ctx context.Context, u *Usage) *api.Disk {
	free, err := c.blobs().Free(ctx)
	if err != nil {
		return nil
	}
	return &api.Disk{Free: free, Reserve: c.acquirer.Reserve(), Blobs: u.Blobs, BlobBytes: u.BlobBytes, IndexBytes: u.IndexBytes, ImageBytes: u.ImageBytes, KitBytes: u.KitBytes, MetaBytes: u.Meta.Used, Growth: u.growth()}
}

// faults returns what is wrong with the server, one line for each fault.
func (c *Control) faults(ctx context.Context, o *api.Overview) ([]string, error) {
	out := []string{}
	for _, m := range o.Mirrors {
		if m.Error != "" {
			out = append(out, "the last sync of mirror "+m.Name+" failed")
		}
		for _, a := range m.Ages {
			if a.Stale {
				out = append(out, fmt.Sprintf("mirror %s: suite %s is older than %s", m.Name, a.Suite, m.MaxAge))
			}
		}
	}
	if d := o.Disk; d != nil && d.Free < d.Reserve {
		out = append(out, "free space is below the reserve: syncs and recordings are stopped")
	}
	corrupt, err := c.st.CorruptBlobs(ctx)
	if err != nil {
		return nil, err
	}
	if len(corrupt) > 0 {
		out = append(out, countOf(len(corrupt), "blob is", "blobs are")+" damaged")
	}
	if c.cfg.BlobsLost(ctx) {
		out = append(out, "every blob is lost")
	}
	if c.st.Damage() != nil {
		out = append(out, "the metadata is damaged and read-only")
	}
	if e := c.cfg.Signer.Expiry(); !e.IsZero() && e.Before(c.now().Add(keyWarning)) {
		out = append(out, "the signing key "+c.expires(e))
	}
	if log, err := c.LogStatus(ctx, &api.LogRequest{}); err == nil {
		out = append(out, logWarnings(log)...)
	}
	for _, n := range o.Nodes {
		if !n.Up {
			out = append(out, "node "+n.Name+" does not answer")
		}
	}
	return out, nil
}

// FreezeLines lists at most limit freezes, newest first, from a position on. all is the
// number of freezes.
func (c *Control) FreezeLines(ctx context.Context, from, limit int) (lines []api.FreezeLine, all int, err error) {
	freezes, err := c.st.Freezes(ctx)
	if err != nil {
		return nil, 0, err
	}
	slices.SortStableFunc(freezes, func(a, b *meta.Frozen) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Name, b.Name))
	})
	lines, all = []api.FreezeLine{}, len(freezes)
	freezes = freezes[min(max(from, 0), all):]
	for _, f := range freezes[:min(limit, len(freezes))] {
		line := api.FreezeLine{Name: string(f.Name), Date: f.Date, Created: f.Created, Mirrors: map[string]string{}, Packages: f.Packages, Sources: f.Sources}
		for _, m := range f.Mirrors {
			line.Mirrors[string(m.Mirror)] = freeze.Exact
			if m.Whole {
				line.Mirrors[string(m.Mirror)] = freeze.Whole
			}
		}
		_, err := c.blobs().Stat(ctx, f.Manifest.SHA256)
		line.Damaged = err != nil || c.acquirer.Corrupt(f.Manifest.SHA256) != nil
		l, _, err := c.cfg.Freezer.Labels(ctx, f)
		line.Damaged = line.Damaged || err != nil
		line.Labels, line.Description = l.Labels, l.Description
		lines = append(lines, line)
	}
	return lines, all, nil
}
