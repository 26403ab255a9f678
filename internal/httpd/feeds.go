package httpd

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
)

// feedEntries bounds the entries of a feed.
const feedEntries = 50

const atomType = "application/atom+xml; charset=utf-8"

// Feeds are in the Atom format (RFC 4287). The identifier of an entry is a public URL,
// which never refers to anything else.
type feed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string      `xml:"id"`
	Title   string      `xml:"title"`
	Updated string      `xml:"updated"`
	Author  string      `xml:"author>name"`
	Links   []feedLink  `xml:"link"`
	Entries []feedEntry `xml:"entry"`
}

type feedLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type feedEntry struct {
	ID      string   `xml:"id"`
	Title   string   `xml:"title"`
	Updated string   `xml:"updated"`
	Link    feedLink `xml:"link"`
	Summary string   `xml:"summary"`

	at time.Time
}

// entry is an entry about a page of this server.
func (p *pages) entry(at time.Time, page, fragment, title, summary string) feedEntry {
	href := p.s.cfg.Conf.Server.PublicURL + page
	id := href
	if fragment != "" {
		id += "#" + fragment
	}
	return feedEntry{ID: id, Title: title, Updated: at.UTC().Format(time.RFC3339), Link: feedLink{Rel: "alternate", Type: "text/html", Href: href}, Summary: summary, at: at}
}

// feed serves the entries that f lists.
func (p *pages) feed(title string, f func(context.Context, *http.Request) ([]feedEntry, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := rw.(*response)
		ctx, cancel := context.WithTimeout(r.Context(), pageTime)
		defer cancel()
		entries, err := within(ctx, p.slots, func() ([]feedEntry, error) { return f(ctx, r) })
		if err != nil {
			p.s.fail(w, r, err, false)
			return
		}
		slices.SortStableFunc(entries, func(a, b feedEntry) int { return b.at.Compare(a.at) })
		entries = entries[:min(len(entries), feedEntries)]
		base := p.s.cfg.Conf.Server.PublicURL
		self := base + (&url.URL{Path: r.URL.Path, RawQuery: r.URL.RawQuery}).String()
		out := feed{ID: self, Title: title, Author: "snapd", Entries: entries, Links: []feedLink{
			{Rel: "self", Type: "application/atom+xml", Href: self}, {Rel: "alternate", Type: "text/html", Href: base + "/"},
		}}
		updated := time.Time{}
		if len(entries) > 0 {
			updated = entries[0].at
		} else if p.s.cfg.Signer != nil {
			updated = p.s.cfg.Signer.CreatedAt() // Atom requires a time
		}
		out.Updated = updated.UTC().Format(time.RFC3339)
		data, err := xml.MarshalIndent(&out, "", " ")
		if err != nil {
			p.s.fail(w, r, err, false)
			return
		}
		p.s.serve(w, r, newBytes(append([]byte(xml.Header), append(data, '\n')...), atomType, time.Time{}), nil)
	}
}

// routeFeeds adds the feeds to the pages.
func (p *pages) routeFeeds(m *mux.Router) {
	m.HandleFunc("/feed/snapshots.atom", p.feed("Snapshots", p.snapshotFeed))
	m.HandleFunc("/feed/freezes.atom", p.feed("Freezes", p.freezeFeed))
	m.HandleFunc("/feed/channels.atom", p.feed("Moves of channels", p.channelFeed))
}

// snapshotFeed lists the newest snapshots: of all mirrors, or of ?mirror=M.
func (p *pages) snapshotFeed(ctx context.Context, r *http.Request) (out []feedEntry, err error) {
	mirrors, err := p.s.meta.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	if only := r.URL.Query().Get("mirror"); only != "" {
		if !slices.Contains(mirrors, meta.MirrorName(only)) {
			if _, err := p.s.catalog.Mirror(meta.MirrorName(only)); err != nil || !config.ValidName(only) {
				return nil, fmt.Errorf("mirror %s: %w", clipText(only), meta.ErrNotFound)
			}
		}
		mirrors = []meta.MirrorName{meta.MirrorName(only)}
	}
	for _, m := range mirrors {
		snaps, err := p.s.meta.SnapshotsBefore(ctx, m, time.Time{}, feedEntries)
		if err != nil {
			return nil, err
		}
		for _, s := range snaps {
			var suites []string
			for _, e := range s.Suites {
				suites = append(suites, string(e.Suite)+" of "+when(e.Date))
			}
			out = append(out, p.entry(s.Timestamp, "/snapshot/"+url.PathEscape(s.ID()), "", s.ID(), strings.Join(suites, ", ")))
		}
	}
	return out, nil
}

func (p *pages) freezeFeed(ctx context.Context, _ *http.Request) (out []feedEntry, err error) {
	lines, _, err := p.s.control.FreezeLines(ctx, 0, feedEntries)
	for _, l := range lines {
		out = append(out, p.entry(l.Created, "/freeze/"+url.PathEscape(l.Name), "", l.Name, fmt.Sprintf("%d packages and %d source packages, of %s", l.Packages, l.Sources, when(l.Date))))
	}
	return out, err
}

// channelFeed lists the latest moves of the channels. It leaves out who moved them, which
// is not public.
func (p *pages) channelFeed(ctx context.Context, _ *http.Request) (out []feedEntry, err error) {
	channels, err := p.s.control.Channels(ctx, &api.Empty{})
	if err != nil {
		return nil, err
	}
	for _, ch := range channels.Channels {
		moves, err := p.s.meta.ChannelMoves(ctx, ch.Name, time.Time{}, feedEntries)
		if err != nil {
			return nil, err
		}
		for _, m := range moves {
			title, summary := ch.Name+" shows "+string(m.Freeze), "It showed "+m.From+" before."
			if m.Freeze == "" {
				title = ch.Name + " was removed"
			}
			if m.From == "" {
				summary = "It showed nothing before."
			}
			out = append(out, p.entry(m.Moved, "/channel/"+url.PathEscape(ch.Name), meta.FormatTimestamp(m.Moved), title, summary))
		}
	}
	return out, nil
}
