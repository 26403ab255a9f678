package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/meta"
)

// ListChannels returns the channels as a directory.
func (c *Catalog) ListChannels(ctx context.Context) (Entry, error) {
	all, err := c.cfg.Meta.Channels(ctx)
	if err != nil {
		return Entry{}, err
	}
	d := &Dir{}
	for _, ch := range all {
		d.Names = append(d.Names, ch.Name+"/")
	}
	return Entry{Dir: d}, nil
}

// ChannelEntry finds <mirror>/<path> of a channel, which shows the freeze fr: the
// documents that were signed at its last move, or otherwise the files of the freeze. For
// meta.ChannelGrace after a move, clients that read an index before it still find the
// files of earlier freezes. The files of ClientConfigs are not included.
// meta.ErrNotFound.
func (c *Catalog) ChannelEntry(ctx context.Context, ch *meta.Channel, fr *meta.Frozen, p string) (Entry, error) {
	if p == "" {
		return c.channelTop(fr), nil
	}
	if p == KeyName {
		e, _, err := c.certificates(ctx, ch.KeyBlob)
		return e, err
	}
	for _, m := range fr.Mirrors {
		if p == certificatesPath(m.Mirror) && !m.Certificates.IsZero() {
			e, _, err := c.certificates(ctx, m.Certificates)
			return e, err
		}
	}
	if d, ok := ch.Document(p); ok {
		return Entry{File: blob(d.Digest, d.Size, d.ModTime, p), Name: p, Frozen: true}, nil
	}
	e, err := c.channelFile(ctx, ch, fr, p)
	if !errors.Is(err, meta.ErrNotFound) {
		return e, err
	}
	now := c.cfg.Now()
	for _, earlier := range ch.Earlier {
		if !earlier.Answered(now) {
			continue
		}
		before, ferr := c.cfg.Meta.Freeze(ctx, earlier.Freeze)
		if ferr != nil {
			return Entry{Frozen: true}, ferr
		}
		was, werr := c.channelFile(ctx, ch, before, p)
		if werr == nil && was.File != nil {
			was.Volatile = true // it is served only for a limited time
			undated := *was.File
			undated.Modified = Undated
			was.File = &undated
			return was, nil
		}
		if werr != nil && !errors.Is(werr, meta.ErrNotFound) {
			return Entry{Frozen: true}, werr
		}
	}
	return e, err
}

// channelTop lists the names directly below a channel.
func (c *Catalog) channelTop(fr *meta.Frozen) Entry {
	d := &Dir{Names: []string{KeyName}}
	for _, cc := range c.ClientConfigs(fr) {
		d.Names = append(d.Names, cc.Path)
	}
	for _, m := range fr.Mirrors {
		d.Names = append(d.Names, string(m.Mirror)+"/")
	}
	return Entry{Dir: d}
}

// channelFile finds a file or directory of a mirror of a freeze, except documents that
// are signed for the freeze alone.
func (c *Catalog) channelFile(ctx context.Context, ch *meta.Channel, fr *meta.Frozen, p string) (Entry, error) {
	name, rest, _ := strings.Cut(p, "/")
	i := fr.MirrorIndex(meta.MirrorName(name))
	if i < 0 {
		return Entry{}, fmt.Errorf("%s in channel %s: %w", name, ch.Name, meta.ErrNotFound)
	}
	m := &fr.Mirrors[i]
	f, err := c.cfg.Formats.Of(m.Type)
	if err != nil {
		return Entry{}, err
	}
	for _, s := range m.Suites {
		for _, docs := range f.RootDocs(s.Suite) {
			if slices.Contains(docs, rest) {
				return Entry{}, fmt.Errorf("%s in channel %s: %w", p, ch.Name, meta.ErrNotFound)
			}
		}
	}
	e, err := c.FrozenEntry(ctx, fr, p)
	if err != nil {
		return e, err
	}
	e.Immutable = false
	if e.File == nil {
		return e, nil
	}
	// Another freeze may have had another file at this path, newer or older: even a
	// package, if upstream replaced it without a new version, or an index that is requested
	// by another hash. Give the files of each move a new date, so that clients do not resume
	// a partial download of the other file (see Undated).
	moved := *e.File
	moved.Modified = ch.Moved
	e.File = &moved
	return e, nil
}
