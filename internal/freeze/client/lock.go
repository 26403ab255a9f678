package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/lockfile"
	"example.org/snapd/internal/meta"
)

// lock writes the lock file of a snapshot or a freeze. For a channel, it writes that of
// the freeze that the channel shows now.
func (c *Client) lock(ctx context.Context, req *api.SourcesRequest, r catalog.Ref) (*api.SourcesResult, error) {
	if req.KeysDir != "" {
		return nil, fmt.Errorf("%w: --format %s refers to no keys: leave out --keys-dir", freeze.ErrUsage, req.Format)
	}
	l := &locker{c: c, format: lockfile.Format(req.Format), w: &sourcesWriter{c: c, req: req, res: &api.SourcesResult{}}, at: make(map[string]int)}
	l.d = &lockfile.Document{Ref: r.String(), Container: req.Container}
	var err error
	if r.Snapshot != nil {
		err = l.snapshot(ctx, r.Snapshot)
	} else {
		l.d.Ref = string(r.Frozen.Name)
		err = l.freeze(ctx, r.Frozen)
	}
	if err != nil {
		return nil, err
	}
	if err := l.wanted(); err != nil {
		return nil, err
	}
	text, err := lockfile.Write(l.d, l.format)
	if errors.Is(err, lockfile.ErrInvalid) {
		return nil, fmt.Errorf("%w: %w", freeze.ErrUsage, err)
	}
	if err != nil {
		return nil, err
	}
	l.w.texts = append(l.w.texts, text)
	if l.format == lockfile.ReproEnv && req.Container == "" {
		l.w.note("the lock file names no container: repro-env needs the image in which it installs the packages (--container IMAGE@sha256:DIGEST)")
	}
	return l.w.result()
}

// locker collects the packages of a lock file.
type locker struct {
	c      *Client
	format lockfile.Format
	d      *lockfile.Document
	w      *sourcesWriter // for notes and errors
	at     map[string]int // repositories, by mirror
}

// repository adds a repository, unless the request is for another mirror, or the format
// cannot contain packages of this type.
func (l *locker) repository(mirror meta.MirrorName, typ, id, url string, suites []meta.FrozenSuite) error {
	l.w.has = append(l.w.has, string(mirror))
	eco := buildlist.Ecosystem(typ)
	if l.w.req.Mirror != "" && meta.MirrorName(l.w.req.Mirror) != mirror || !l.format.Holds(eco) {
		return nil
	}
	f, err := l.c.cfg.Formats.Of(typ)
	if err != nil {
		return err
	}
	r := lockfile.Repository{ID: id, Mirror: string(mirror), Ecosystem: eco, URL: url}
	some := func(archs []string) []string {
		return slices.DeleteFunc(slices.Clone(archs), func(a string) bool { return a == f.AnyArch() || a == f.SourceArch() || a == "" })
	}
	for _, s := range suites {
		archs := some(s.Archs)
		r.Suites = append(r.Suites, lockfile.Suite{Name: string(s.Suite), Components: s.Components, Archs: archs})
		r.Archs = append(r.Archs, archs...)
	}
	if m, err := l.c.cat.Mirror(mirror); err == nil && len(r.Archs) == 0 {
		r.Archs = some(m.Architectures)
	}
	slices.Sort(r.Archs)
	r.Archs = slices.Compact(r.Archs)
	l.at[string(mirror)] = len(l.d.Repositories)
	l.d.Repositories = append(l.d.Repositories, r)
	return nil
}

// add adds a package of a mirror that has a repository.
func (l *locker) add(p api.Package) error {
	i, ok := l.at[p.Mirror]
	if !ok {
		return nil
	}
	r := &l.d.Repositories[i]
	f, err := l.c.cfg.Formats.Of(string(r.Ecosystem))
	if err != nil {
		return err
	}
	source := p.Arch == f.SourceArch()
	if source && r.Ecosystem == buildlist.Deb {
		return nil // lock files of debs list the packages to install
	}
	r.Packages = append(r.Packages, lockfile.Package{
		Name: p.Name, Version: p.Version, Arch: p.Arch, Source: source, Suites: p.Suites, Path: p.Path, Size: p.Size, SHA256: p.SHA256,
		SourceName: p.Source, SourceVersion: p.SourceVersion,
	})
	return nil
}

func (l *locker) snapshot(ctx context.Context, snap *meta.Snapshot) error {
	gens, err := l.c.meta.Generations(ctx, snap)
	if err != nil {
		return err
	}
	l.w.warnOfBases(snap, gens)
	f, err := l.c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return err
	}
	var suites []meta.FrozenSuite
	for _, g := range gens {
		suites = append(suites, freeze.ClientSuite(g, f.SourceArch()))
	}
	at := meta.FormatTimestamp(snap.Timestamp)
	if err := l.repository(snap.Mirror, snap.Type, "snapd-"+string(snap.Mirror)+"-"+at, l.c.cfg.PublicURL+"/archive/"+string(snap.Mirror)+"/"+at, suites); err != nil {
		return err
	}
	if len(l.d.Repositories) == 0 {
		return nil
	}
	return l.c.eachOfSnapshot(ctx, snap, nil, "", func(p api.Package, _ bool) error { return l.add(p) })
}

func (l *locker) freeze(ctx context.Context, f *meta.Frozen) error {
	for i := range f.Mirrors {
		m := &f.Mirrors[i]
		if err := l.repository(m.Mirror, m.Type, "snapd-"+string(f.Name)+"-"+string(m.Mirror), l.c.cfg.PublicURL+"/frozen/"+string(f.Name)+"/"+string(m.Mirror), m.Suites); err != nil {
			return err
		}
	}
	if len(l.d.Repositories) == 0 {
		return nil
	}
	return l.c.EachPackage(ctx, f.Name, nil, l.add)
}

// wanted refuses a lock file without packages.
func (l *locker) wanted() error {
	if len(l.d.Repositories) == 0 {
		if m := l.w.req.Mirror; m != "" && !slices.Contains(l.w.has, m) {
			_, err := l.w.result() // returns an error that says so
			return err
		}
		return fmt.Errorf("%w: --format %s does not apply to any mirror of %s (rpms-lock is for rpm, sha256sums for both, the other lock files are for deb)", freeze.ErrUsage, l.format, l.w.req.Ref)
	}
	if slices.ContainsFunc(l.d.Repositories, func(r lockfile.Repository) bool { return len(r.Packages) > 0 }) {
		return nil
	}
	return fmt.Errorf("%w: %s has no packages to lock", freeze.ErrUsage, l.w.req.Ref)
}

// sourcesFormats are the values of --format.
func sourcesFormats() []string {
	out := []string{"deb822", "list", "repo", "mmdebstrap"}
	for _, f := range lockfile.Formats() {
		out = append(out, string(f))
	}
	return out
}

// checkFormat refuses a format that sources does not write, and options that only lock
// files have.
func checkFormat(req *api.SourcesRequest) error {
	lock := lockfile.Format(req.Format).Known()
	all := sourcesFormats()
	switch {
	case req.Format != "" && !slices.Contains(all, req.Format):
		last := len(all) - 1
		return fmt.Errorf("%w: --format %q: expected %s or %s", freeze.ErrUsage, req.Format, strings.Join(all[:last], ", "), all[last])
	case req.For != nil && lock:
		return fmt.Errorf("%w: --format %s is for a snapshot or a freeze: freeze the packages of %s first", freeze.ErrUsage, req.Format, req.For.Name)
	case req.Container != "" && req.Format != string(lockfile.ReproEnv):
		return fmt.Errorf("%w: --container needs --format %s", freeze.ErrUsage, lockfile.ReproEnv)
	case strings.ContainsFunc(req.Container, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return fmt.Errorf("%w: --container %q: expected the name of an image", freeze.ErrUsage, req.Container)
	}
	return nil
}
