package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
)

// body returns the body of an event for a webhook. It depends only on the recorded event
// and on public_url, so that all attempts send the same bytes.
func (e *Engine) body(h *hook, ev *meta.Event) ([]byte, error) {
	out := api.Event{ID: ev.ID, Type: ev.Type, Timestamp: ev.Time, Server: e.cfg.PublicURL}
	switch {
	case ev.Snapshot != nil:
		s := ev.Snapshot
		data := api.EventSnapshot{
			Snapshot: s.ID(), Mirror: string(s.Mirror), Timestamp: s.Timestamp, Suites: []api.EventSuite{}, URL: e.url("archive", string(s.Mirror), meta.FormatTimestamp(s.Timestamp)),
		}
		for _, suite := range s.Suites {
			data.Suites = append(data.Suites, api.EventSuite{Suite: string(suite.Suite), Date: optional(suite.Date)})
		}
		out.Data = data
	case ev.Freeze != nil:
		f := ev.Freeze
		out.Data = api.EventFreeze{
			Name: f.Name, Date: f.Date, Manifest: f.Manifest.String(), Mirrors: f.Mirrors, Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes,
			Imported: f.Imported, URL: e.url("frozen", f.Name),
		}
	case ev.Channel != nil:
		c := ev.Channel
		out.Data = api.EventChannel{Channel: c.Channel, Freeze: string(c.Freeze), From: c.From, Moved: c.Moved, By: c.By, URL: e.url("channel", c.Channel)}
	case ev.Failure != nil:
		out.Data = api.EventFailure{Mirror: string(ev.Failure.Mirror), Error: remote.Scrub(ev.Failure.Error), LastSuccess: optional(ev.Failure.OK)}
	case ev.Stale != nil:
		out.Data = api.EventStale{Mirror: string(ev.Stale.Mirror), Suite: ev.Stale.Suite, Date: ev.Stale.Date, MaxAge: config.Duration(ev.Stale.MaxAge).String()}
	case ev.Type == api.TypeTest:
		out.Data = api.EventTest{Webhook: h.Name}
	default:
		return nil, fmt.Errorf("%w: event %s of the type %q", meta.ErrCorrupt, ev.ID, ev.Type)
	}
	return json.Marshal(out)
}

// url returns the URL of a directory of the public tree.
func (e *Engine) url(parts ...string) string {
	u := e.cfg.PublicURL
	for _, p := range parts {
		u += "/" + url.PathEscape(p)
	}
	return u + "/"
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
