package catalog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// MaxNames bounds the names of a directory.
const MaxNames = 20_000

// Entry is what a path of the served tree stands for: one of File, Dir and Redirect
// is set. Where none is, the path stands for nothing.
type Entry struct {
	File *Found
	Name string // of File, for its content type
	Dir  *Dir
	// Redirect is the path to ask for instead, relative to the same tree.
	Redirect string
	// Immutable: the path stands for this for ever.
	Immutable bool
	// Frozen: a freeze promised the file, also where an error is returned with it.
	// Anything but "try again" is a fault of this server then.
	Frozen bool
	// Certificates: the file has OpenPGP certificates, whatever its name.
	Certificates bool
	// Volatile: what the path stands for may change without a new epoch.
	Volatile bool
}

// Dir is a directory of the served tree. Names of directories end in a slash.
type Dir struct {
	Names []string
	More  bool // there are others
}

func blob(d cas.Digest, size int64, modified time.Time, p string) *Found {
	f := &Found{Size: size, Digest: d, Modified: modified}
	f.Want.Listed = repo.Listed{Path: p, Size: size, SHA256: d}
	return f
}

// ArchiveEntry finds <mirror>/<timestamp>/<path>. meta.ErrNotFound; meta.ErrGone
// where that snapshot was removed; ErrRef where the timestamp is none.
func (c *Catalog) ArchiveEntry(ctx context.Context, p string) (Entry, error) {
	name, rest, _ := strings.Cut(p, "/")
	if name == "" {
		return c.listMirrors(ctx)
	}
	at, p, slash := strings.Cut(rest, "/")
	if at == "" {
		return c.listTimestamps(ctx, name)
	}
	if at == Latest {
		if err := c.cfg.Meta.Damage(); err != nil {
			// A newer snapshot may have been lost, and older bytes would be a rollback.
			return Entry{}, err
		}
		snap, err := c.cfg.Meta.Latest(ctx, name)
		if err != nil {
			return Entry{}, err
		}
		return c.snapshotEntry(ctx, snap, p, true)
	}
	t, err := ParseTimestamp(at)
	if err != nil {
		return Entry{}, err
	}
	// The newest at or before; removed ones answer 410, never another.
	snap, err := c.cfg.Meta.SnapshotAt(ctx, name, t)
	if err != nil {
		return Entry{}, err
	}
	if exact := meta.FormatTimestamp(snap.Timestamp); exact != at {
		to := name + "/" + exact
		if slash {
			to += "/" + p
		}
		return Entry{Redirect: to}, nil
	}
	return c.snapshotEntry(ctx, snap, p, false)
}

// snapshotEntry finds a path of a snapshot.
func (c *Catalog) snapshotEntry(ctx context.Context, snap *meta.Snapshot, p string, latest bool) (Entry, error) {
	if p != "" && !strings.HasSuffix(p, "/") {
		f, err := c.Lookup(ctx, snap, p, latest)
		if err == nil {
			return Entry{File: f, Name: p, Immutable: !latest}, nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return Entry{}, err
		}
	}
	names, more, err := c.Dir(ctx, snap, strings.TrimSuffix(p, "/"), MaxNames)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Dir: &Dir{names, more}, Immutable: !latest}, nil
}

func (c *Catalog) listMirrors(ctx context.Context) (Entry, error) {
	mirrors, err := c.cfg.Meta.Mirrors(ctx)
	if err != nil {
		return Entry{}, err
	}
	d := &Dir{}
	for _, m := range mirrors {
		d.Names = append(d.Names, m+"/")
	}
	return Entry{Dir: d}, nil
}

func (c *Catalog) listTimestamps(ctx context.Context, mirror string) (Entry, error) {
	const pageSize = 500
	d := &Dir{Names: []string{Latest + "/"}}
	var before time.Time
	for {
		page, err := c.cfg.Meta.SnapshotsBefore(ctx, mirror, before, pageSize)
		if err != nil {
			return Entry{}, err
		}
		for _, snap := range page {
			d.Names = append(d.Names, meta.FormatTimestamp(snap.Timestamp)+"/")
			before = snap.Timestamp
		}
		if len(d.Names) == 1 {
			return Entry{}, fmt.Errorf("mirror %s: %w", mirror, meta.ErrNotFound)
		}
		if d.More = len(page) == pageSize; !d.More || len(d.Names) >= MaxNames {
			return Entry{Dir: d}, nil
		}
	}
}

// DigestEntry finds a stored blob by its SHA-256 or SHA-1 in hexadecimal digits;
// other texts stand for nothing.
func (c *Catalog) DigestEntry(ctx context.Context, hx string) (Entry, error) {
	raw, err := hex.DecodeString(hx)
	switch {
	case err == nil && len(raw) == 20:
		d, err := c.cfg.Meta.Alias(ctx, meta.AliasSHA1, raw)
		if err != nil {
			return Entry{}, err
		}
		return c.blobEntry(ctx, d)
	case err == nil && len(raw) == len(cas.Digest{}):
		return c.blobEntry(ctx, cas.Digest(raw))
	}
	return Entry{}, nil
}

// ByHashEntry finds a stored blob by SHA256/<hex>.
func (c *Catalog) ByHashEntry(ctx context.Context, p string) (Entry, error) {
	hx, ok := strings.CutPrefix(p, "SHA256/")
	if !ok {
		return Entry{}, nil
	}
	d, err := cas.ParseDigest(hx)
	if err != nil {
		return Entry{}, nil
	}
	return c.blobEntry(ctx, d)
}

func (c *Catalog) blobEntry(ctx context.Context, d cas.Digest) (Entry, error) {
	info, err := c.cfg.Blobs.Stat(ctx, d)
	if err != nil {
		return Entry{}, err
	}
	// A collection may delete the blob, which begins no epoch.
	return Entry{File: blob(d, info.Size, info.ModTime, d.String()), Name: d.String(), Volatile: true}, nil
}

// KitEntry finds a published kit or upgrade description, or a directory of them.
func (c *Catalog) KitEntry(ctx context.Context, p string) (Entry, error) {
	if p == "" || strings.HasSuffix(p, "/") {
		return c.kitDir(ctx, p)
	}
	k, err := c.cfg.Meta.Kit(ctx, p)
	if err != nil {
		return Entry{}, err
	}
	info, err := c.cfg.Blobs.Stat(ctx, k.Digest)
	if err != nil {
		return Entry{Frozen: true}, err
	}
	name := path.Base(k.Path)
	return Entry{File: blob(k.Digest, k.Size, info.ModTime, name), Name: name}, nil
}

func (c *Catalog) kitDir(ctx context.Context, dir string) (Entry, error) {
	kits, err := c.cfg.Meta.Kits(ctx)
	if err != nil {
		return Entry{}, err
	}
	d := &Dir{}
	for _, k := range kits {
		name, ok := strings.CutPrefix(k.Path, dir)
		if !ok {
			continue
		}
		// Kits are in the order of their paths.
		if name = firstName(name); !slices.Contains(d.Names[max(0, len(d.Names)-1):], name) {
			d.Names = append(d.Names, name)
		}
	}
	if dir != "" && len(d.Names) == 0 {
		return Entry{}, nil
	}
	return Entry{Dir: d}, nil
}

// firstName is the first name of a path, with its slash where it is a directory.
func firstName(p string) string {
	if i := strings.IndexByte(p, '/'); i >= 0 {
		return p[:i+1]
	}
	return p
}
