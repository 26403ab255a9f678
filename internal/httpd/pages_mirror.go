package httpd

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
)

// countWait is how long a page waits until the stored files are counted.
const countWait = 50 * time.Millisecond

func (p *pages) index(ctx context.Context, _ *http.Request, _ map[string]string) (page, error) {
	o, err := p.s.control.Overview(ctx)
	if err != nil {
		return page{}, err
	}
	return page{"index.html", "Overview", map[string]any{"Overview": o}, o}, nil
}

// freezes lists all freezes.
func (p *pages) freezes(ctx context.Context, r *http.Request, _ map[string]string) (page, error) {
	from, err := position(r.URL.Query())
	if err != nil {
		return page{}, err
	}
	lines, all, err := p.s.control.FreezeLines(ctx, from, pageFreezes)
	if err != nil {
		return page{}, err
	}
	next := 0
	if from+len(lines) < all && len(lines) > 0 {
		next = from + len(lines)
	}
	return page{"freezes.html", "Freezes", map[string]any{"Freezes": lines, "All": all, "Next": next},
		&api.FreezesPage{Freezes: lines, Count: all, Next: next}}, nil
}

// snapshotRow is a row in a table of snapshots.
type snapshotRow struct {
	api.Snapshot
	Files  string
	Before string // ID of the previous snapshot
}

func filesOf(snap *meta.Snapshot) string {
	return "/archive/" + url.PathEscape(string(snap.Mirror)) + "/" + meta.FormatTimestamp(snap.Timestamp) + "/"
}

func (p *pages) mirror(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	name := vars["mirror"]
	detail, err := p.s.control.MirrorWithin(ctx, &api.MirrorRef{Mirror: name}, countWait)
	if errors.Is(err, config.ErrUnknownMirror) {
		// The mirror is no longer configured, but its history is stored.
		detail = &api.MirrorDetail{MirrorStatus: api.MirrorStatus{Name: name}}
		var last *meta.Snapshot
		if last, err = p.s.meta.Latest(ctx, meta.MirrorName(name)); err == nil {
			detail.Type, detail.Latest = last.Type, last.ID()
		}
	}
	if err != nil {
		return page{}, err
	}
	asked, err := parseSpan(r.URL.Query())
	if err != nil {
		return page{}, err
	}
	snaps, err := p.s.meta.SnapshotsBefore(ctx, meta.MirrorName(name), asked.to, pageSnapshots+1)
	if err != nil {
		return page{}, err
	}
	data := map[string]any{"Mirror": detail, "Calendar": nil, "Span": asked.query}
	var rows []snapshotRow
	for i, snap := range snaps[:min(len(snaps), pageSnapshots)] {
		if snap.Timestamp.Before(asked.from) {
			break
		}
		one, err := p.s.control.Snapshot(ctx, snap, false)
		if err != nil {
			return page{}, err
		}
		row := snapshotRow{Snapshot: *one, Files: filesOf(snap)}
		if i+1 < len(snaps) {
			row.Before = snaps[i+1].ID()
		}
		rows = append(rows, row)
	}
	older := ""
	if len(snaps) > pageSnapshots && !snaps[pageSnapshots].Timestamp.Before(asked.from) {
		older = meta.FormatTimestamp(snaps[pageSnapshots-1].Timestamp)
	}
	data["Snapshots"], data["Older"] = rows, older
	if detail.Latest != "" {
		if data["Calendar"], err = p.calendar(ctx, meta.MirrorName(name), asked, rows); err != nil {
			return page{}, err
		}
	}
	detail.Keyring = nil // paths on the server are not public
	out := &api.MirrorPage{Mirror: detail, Snapshots: []api.Snapshot{}, Older: older}
	for _, r := range rows {
		out.Snapshots = append(out.Snapshots, r.Snapshot)
	}
	return page{"mirror.html", name, data, out}, nil
}

// calendar returns the calendar of a mirror: of the requested month, or else of the month
// of the newest snapshot in rows.
func (p *pages) calendar(ctx context.Context, mirror meta.MirrorName, asked span, rows []snapshotRow) (*calendar, error) {
	times, err := p.s.history.Times(ctx, mirror, time.Time{}, time.Time{})
	if err != nil {
		return nil, err
	}
	at := asked.from
	if at.IsZero() && len(rows) > 0 {
		at = rows[0].Timestamp
	} else if at.IsZero() && len(times) > 0 {
		at = times[len(times)-1]
	}
	return newCalendar(times, time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)), nil
}
