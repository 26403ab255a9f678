package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	past "example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// PackageHistory returns the versions of a binary or source package over time, newest
// first: at most limit, from a position on. If no snapshot has any, the error is
// meta.ErrNotFound.
func (c *Control) PackageHistory(ctx context.Context, name string, source bool, from, limit int) (*api.PackageHistory, error) {
	lines, what := c.cfg.Freezer.History.Lines, "package"
	if source {
		lines, what = c.cfg.Freezer.History.SourceLines, "source package"
	}
	all, err := lines(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s %s: %w in any mirror", what, name, meta.ErrNotFound)
	}
	out := &api.PackageHistory{Name: name, Source: source, Count: len(all), Versions: []api.VersionLine{}}
	for _, l := range all {
		for _, r := range l.Ranges {
			if out.First.IsZero() || r.First.Before(out.First) {
				out.First = r.First
			}
			if r.Last.After(out.Last) {
				out.Last = r.Last
			}
		}
	}
	from = min(max(from, 0), len(all))
	page := all[from:min(from+limit, len(all))]
	if from+len(page) < len(all) {
		out.Next = from + len(page)
	}
	holders, err := c.holders(ctx, name, source, page)
	if err != nil {
		return nil, err
	}
	channels, err := c.st.Channels(ctx)
	if err != nil {
		return nil, err
	}
	now := c.now()
	for _, l := range page {
		v := api.VersionLine{Mirror: string(l.Mirror), Version: l.Version, Archs: l.Archs, Suites: l.Suites, Seen: []api.Seen{}, Freezes: sortedSet(holders[mirrorVersion{l.Mirror, l.Version}]), Channels: []string{}}
		if source {
			v.Binaries = l.Names
		}
		for _, r := range l.Ranges {
			v.Seen = append(v.Seen, api.Seen{First: r.First, Last: r.Last})
		}
		for _, ch := range channels {
			if slices.ContainsFunc(v.Freezes, func(f string) bool { return ch.Shows(meta.FreezeName(f), now) }) {
				v.Channels = append(v.Channels, ch.Name)
			}
		}
		out.Versions = append(out.Versions, v)
	}
	return out, nil
}

type mirrorVersion struct {
	mirror  meta.MirrorName
	version string
}

// holders returns which freezes contain versions of a package, or anything built from
// versions of a source package.
func (c *Control) holders(ctx context.Context, name string, source bool, lines []past.Line) (map[mirrorVersion][]string, error) {
	frozen, err := c.st.Freezes(ctx)
	if err != nil {
		return nil, err
	}
	names, shown := map[string][]string{}, map[mirrorVersion]bool{}
	for _, l := range lines {
		shown[mirrorVersion{l.Mirror, l.Version}] = true
		names[string(l.Mirror)] = append(names[string(l.Mirror)], name)
		if source {
			names[string(l.Mirror)] = append(names[string(l.Mirror)], l.Names...)
		}
	}
	out := map[mirrorVersion][]string{}
	for mirror, list := range names {
		whole := wholeStates(frozen, meta.MirrorName(mirror))
		lists, err := c.st.Versions(ctx, meta.MirrorName(mirror), sortedSet(list))
		if err != nil {
			return nil, err
		}
		for _, versions := range lists {
			for i := range versions {
				v := &versions[i]
				k := mirrorVersion{meta.MirrorName(mirror), versionFor(v.Fact, name, source)}
				if !shown[k] {
					continue
				}
				out[k] = append(out[k], v.Frozen...)
				for _, w := range whole {
					if slices.ContainsFunc(v.Presences, func(p meta.Presence) bool { return p.In(w.state) }) {
						out[k] = append(out[k], w.freeze)
					}
				}
			}
		}
	}
	return out, nil
}

// versionFor returns the version of a package under which its history shows a stanza, or
// "" if the stanza is about another package.
func versionFor(f *meta.Fact, name string, source bool) string {
	switch {
	case !source && (f.Kind == repo.KindSource || f.Name != name):
		return ""
	case !source || f.Kind == repo.KindSource && f.Name == name:
		return f.Version
	}
	for _, s := range f.Sources {
		if s.Name == name {
			return s.Version
		}
	}
	return ""
}

// wholeState is a state of a mirror that a freeze contains as a whole.
type wholeState struct {
	freeze string
	state  *meta.Snapshot
}

func wholeStates(frozen []*meta.Frozen, mirror meta.MirrorName) (out []wholeState) {
	for _, f := range frozen {
		if i := f.MirrorIndex(mirror); i >= 0 && f.Mirrors[i].Whole {
			for _, state := range f.Mirrors[i].States() {
				out = append(out, wholeState{string(f.Name), state})
			}
		}
	}
	return out
}

// FreezeBefore returns the name of the newest freeze that was made before another from
// the same mirrors, or "" if no freeze is older.
func (c *Control) FreezeBefore(ctx context.Context, of *meta.Frozen) (string, error) {
	frozen, err := c.st.Freezes(ctx)
	if err != nil {
		return "", err
	}
	order := func(a, b *meta.Frozen) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(string(a.Name), string(b.Name)))
	}
	var before *meta.Frozen
	for _, f := range frozen {
		same := slices.EqualFunc(f.Mirrors, of.Mirrors, func(a, b meta.FrozenMirror) bool { return a.Mirror == b.Mirror })
		if same && order(f, of) < 0 && (before == nil || order(f, before) > 0) {
			before = f
		}
	}
	if before == nil {
		return "", nil
	}
	return string(before.Name), nil
}
