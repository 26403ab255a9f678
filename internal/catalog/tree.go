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

// MaxNames limits the names in a directory.
const MaxNames = 20_000

// Entry is the object at a path of the served tree. At most one of File, Dir and Redirect
// is set. If none is set, the path does not exist.
type Entry struct {
	File *Found
	Name string // of File, for its content type
	Dir  *Dir
	// Redirect is the path to use instead, relative to the same tree.
	Redirect string
	// Immutable means that the object at the path never changes.
	Immutable bool
	// Frozen means that a freeze promises the file, even if an error is returned with it.
	// Then any error except "try again" is a fault of this server.
	Frozen bool
	// Certificates means that the file contains OpenPGP certificates, whatever its name.
	Certificates bool
	// Volatile means that the object at the path may change within an epoch.
	Volatile bool
}

// Dir is a directory of the served tree. Names of directories end in a slash.
type Dir struct {
	Names []string
	More  bool // some names are left out
}

func blob(d cas.Digest, size int64, modified time.Time, p string) *Found {
	f := &Found{Size: size, Digest: d, Modified: modified}
	f.Want.Listed = repo.Listed{Path: p, Size: size, SHA256: d}
	return f
}

// now is the name of the newest timestamp in the machine interface of
// snapshot.debian.org.
const now = "now"

// ArchiveEntry finds <archive>/<timestamp>/<path>. The archive is a mirror, or a name
// that MirrorOf knows. meta.ErrNotFound; meta.ErrGone if that snapshot was removed;
// ErrRef if the timestamp is invalid.
func (c *Catalog) ArchiveEntry(ctx context.Context, p string) (Entry, error) {
	archive, rest, _ := strings.Cut(p, "/")
	if archive == "" {
		return c.listMirrors(ctx)
	}
	name := c.MirrorOf(archive)
	at, p, slash := strings.Cut(rest, "/")
	if at == "" {
		return c.listTimestamps(ctx, name)
	}
	if at == Latest {
		if err := c.cfg.Meta.Damage(); err != nil {
			// A newer snapshot may have been lost, and serving an older one would
			// be a rollback.
			return Entry{}, err
		}
		snap, err := c.cfg.Meta.Latest(ctx, name)
		if err != nil {
			return Entry{}, err
		}
		return c.snapshotEntry(ctx, snap, p, true)
	}
	snap, err := c.archivedAt(ctx, name, at)
	if err != nil {
		return Entry{}, err
	}
	if exact := meta.FormatTimestamp(snap.Timestamp); exact != at {
		to := archive + "/" + exact
		if slash {
			to += "/" + p
		}
		return Entry{Redirect: to}, nil
	}
	return c.snapshotEntry(ctx, snap, p, false)
}

// archivedAt finds the newest snapshot at or before a timestamp. If that snapshot was
// removed, it returns ErrGone and never another snapshot.
func (c *Catalog) archivedAt(ctx context.Context, mirror meta.MirrorName, at string) (*meta.Snapshot, error) {
	if at == now {
		return c.cfg.Meta.Latest(ctx, mirror)
	}
	t, err := ParseTimestamp(at)
	if err != nil {
		return nil, err
	}
	return c.cfg.Meta.SnapshotAt(ctx, mirror, t)
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
		d.Names = append(d.Names, string(m)+"/")
		if archive := c.ArchiveOf(m); meta.MirrorName(archive) != m {
			d.Names = append(d.Names, archive+"/")
		}
	}
	slices.Sort(d.Names)
	return Entry{Dir: d}, nil
}

func (c *Catalog) listTimestamps(ctx context.Context, mirror meta.MirrorName) (Entry, error) {
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

// DigestEntry finds a stored blob, or a package file of a snapshot, by HASH[/NAME]: its
// SHA-256 or SHA-1 in hexadecimal, and a name for clients. cas.ErrNotFound, or
// meta.ErrNotFound for a SHA-1. For other strings it returns an empty Entry.
func (c *Catalog) DigestEntry(ctx context.Context, p string) (Entry, error) {
	hx, name, _ := strings.Cut(p, "/")
	raw, err := hex.DecodeString(hx)
	if err != nil || strings.Contains(name, "/") {
		return Entry{}, nil
	}
	var d cas.Digest
	switch len(raw) {
	case 20:
		if d, err = c.cfg.Meta.Alias(ctx, meta.AliasSHA1, raw); err != nil {
			return Entry{}, err
		}
	case len(d):
		d = cas.Digest(raw)
	default:
		return Entry{}, nil
	}
	e, err := c.blobEntry(ctx, d)
	if errors.Is(err, cas.ErrNotFound) {
		e, err = c.fileEntry(ctx, d, err)
	}
	if name != "" {
		e.Name = name
	}
	return e, err
}

// fileEntry finds a package file that is not stored, in the newest snapshot that contains
// it. It returns absent if no snapshot of a configured mirror does.
func (c *Catalog) fileEntry(ctx context.Context, d cas.Digest, absent error) (Entry, error) {
	owners, err := c.cfg.Meta.OwnersOf(ctx, []cas.Digest{d})
	if err != nil {
		return Entry{}, err
	}
	for _, o := range owners[0] {
		if !c.configured(o.Mirror) {
			continue
		}
		newest, err := c.cfg.Meta.NewestWith(ctx, o.Mirror, [][]meta.PID{{o.PID}})
		if err != nil {
			return Entry{}, err
		}
		i := slices.IndexFunc(o.Files, func(f repo.File) bool { return f.SHA256 == d })
		if i < 0 || newest[0] == nil {
			continue
		}
		f := &finder{Catalog: c, snap: newest[0]}
		file := o.Files[i]
		found := &Found{Size: file.Size, Digest: d, Package: o.Fact}
		found.Want = f.want(repo.Listed{Path: file.Path, Size: file.Size, SHA256: d})
		found.Want.Record = &o.Record
		return Entry{File: found, Name: path.Base(file.Path), Volatile: true}, nil
	}
	return Entry{}, absent
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
	// A collection may delete the blob without starting a new epoch.
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
		// Kits are sorted by path.
		if name = firstName(name); !slices.Contains(d.Names[max(0, len(d.Names)-1):], name) {
			d.Names = append(d.Names, name)
		}
	}
	if dir != "" && len(d.Names) == 0 {
		return Entry{}, nil
	}
	return Entry{Dir: d}, nil
}

// firstName returns the first name of a path, with its slash if it is a
// directory.
func firstName(p string) string {
	if i := strings.IndexByte(p, '/'); i >= 0 {
		return p[:i+1]
	}
	return p
}
