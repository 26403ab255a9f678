package plan

import (
	"context"
	"fmt"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// planRecording takes the packages that the build of a recording downloaded.
func (p *Planner) planRecording(ctx context.Context, pl *Plan) error {
	name := pl.Request.Recording
	rec, err := p.meta.Recording(ctx, name)
	if err != nil {
		return err
	}
	if rec.Stopped.IsZero() {
		return fmt.Errorf("recording %s %w", name, freeze.ErrRunning)
	}
	for _, pin := range rec.Pins {
		snap, err := p.meta.Snapshot(ctx, pin.Mirror, pin.Timestamp)
		if err != nil {
			return err
		}
		pl.use(snap)
	}
	entries, err := p.meta.RecordingEntries(ctx, name)
	if err != nil {
		return err
	}
	r := pl.report()
	for page := range slices.Chunk(entries, pageSize) {
		hits, err := p.fetched(ctx, pl, page)
		if err != nil {
			return err
		}
		for i, e := range page {
			entry := api.ReportEntry{Manifest: "recording " + name, Entry: e.Path, State: "resolved", By: "hash"}
			switch {
			case pl.Mirror(e.Mirror) == nil:
				continue
			case hits[i].Fact == nil:
				entry.State = "missing"
				r.Missing++
				pl.Missing = append(pl.Missing, freeze.Missing{Name: e.Path})
			case hits[i].File.SHA256 != e.SHA256:
				return fmt.Errorf("%w: %s was downloaded with SHA-256 %s, but the pinned snapshot has %s", freeze.ErrTwoContents, e.Path, e.SHA256, hits[i].File.SHA256)
			default:
				pick := &Pick{Entry: hits[i].Entry, From: pl.Mirror(e.Mirror).States[0]}
				pl.add(pick)
				entry.Places = []api.Package{pick.describe()}
				r.Resolved++
			}
			r.Entries = append(r.Entries, entry)
		}
	}
	return nil
}

// fetched returns the packages with the files of a page of a recording.
func (p *Planner) fetched(ctx context.Context, pl *Plan, page []meta.RecordEntry) ([]meta.PathEntry, error) {
	hits := make([]meta.PathEntry, len(page))
	for _, m := range pl.Mirrors {
		var at []int
		var paths []string
		for i, e := range page {
			if e.Mirror == m.Name {
				at, paths = append(at, i), append(paths, e.Path)
			}
		}
		if len(paths) == 0 {
			continue
		}
		found, err := p.meta.PackagesByPath(ctx, m.States[0], paths)
		if err != nil {
			return nil, err
		}
		for i, hit := range found {
			hits[at[i]] = hit
		}
	}
	return hits, nil
}
