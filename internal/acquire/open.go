package acquire

import (
	"context"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// File is a file of a mirror that may not be stored yet.
type File struct {
	Mirror meta.MirrorName
	Listed repo.Listed  // Path and Alternates are relative to the mirror
	Record *repo.Record // of a package file, for the check of its format
	From   remote.URL   // another base URL, for a state that was imported into history
}

// Open opens a blob, or downloads it if it is not stored. Clients that request the same
// file share a download. Readers of an in-flight download get its bytes as they arrive,
// but the last HoldBack bytes only when the file is verified. fetch.ErrNotFound if
// upstream no longer has the file.
func (a *Acquirer) Open(ctx context.Context, f File) (io.ReadSeekCloser, int64, error) {
	if !f.Listed.SHA256.IsZero() {
		if err := a.Corrupt(f.Listed.SHA256); err != nil {
			return nil, 0, err
		}
		b, err := a.cfg.Blobs.Open(ctx, f.Listed.SHA256)
		if err == nil {
			if f.Record != nil {
				a.demand.stored.Add(1)
			}
			return b, b.Info().Size, nil
		}
		if !errors.Is(err, cas.ErrNotFound) {
			return nil, 0, err
		}
	}
	d, err := a.join(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	size, done, err := d.begun(ctx)
	switch {
	case err != nil:
		return nil, 0, err
	case !done:
		return newFollower(ctx, a.cfg.Blobs, d, size), size, nil
	}
	b, err := a.cfg.Blobs.Open(ctx, d.info.Digest)
	if err != nil {
		return nil, 0, err
	}
	return b, b.Info().Size, nil
}

// Fetch makes sure that a file is stored durably, and describes it. fetch.ErrNotFound if
// upstream no longer has it.
func (a *Acquirer) Fetch(ctx context.Context, f File) (cas.Info, error) {
	if !f.Listed.SHA256.IsZero() {
		if info, err := a.cfg.Blobs.Stat(ctx, f.Listed.SHA256); err == nil {
			return info, nil
		}
	}
	d, err := a.join(ctx, f)
	if err != nil {
		return cas.Info{}, err
	}
	return d.result(ctx)
}

// join finds the in-flight download of a file, or starts it.
func (a *Acquirer) join(ctx context.Context, f File) (*download, error) {
	u, err := a.upstream(f.Mirror)
	if err != nil {
		return nil, fmt.Errorf("%s is not stored: %w", f.Listed.Path, err)
	}
	key := f.Listed.SHA256
	if key.IsZero() {
		key = cas.Sum([]byte(string(f.Mirror) + "\x00" + f.Listed.Path + "\x00" + f.Listed.SHA512))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.inFlight[key]; d != nil {
		a.demand.joined.Add(1)
		return d, nil
	}
	if err := a.ctx.Err(); err != nil {
		return nil, err // Close waits, or has waited
	}
	if err := a.CheckSpace(ctx); err != nil {
		return nil, err
	}
	d := newDownload(f.Listed.Size)
	a.inFlight[key] = d
	a.background.Go(func() {
		info, err := a.fetchOne(a.ctx, u, f, d)
		a.mu.Lock()
		delete(a.inFlight, key)
		a.mu.Unlock()
		if err != nil {
			a.demand.failed.Add(1)
		} else {
			a.demand.fetched.Add(1)
		}
		d.end(info, err)
		if err != nil && a.ctx.Err() == nil {
			a.cfg.Log.Warn("fetch on demand", "repo", u.Name, "path", f.Listed.Path, "err", err)
		}
	})
	return d, nil
}

// fetchOne acquires a file for the followers of a download. It is durable on return.
func (a *Acquirer) fetchOne(ctx context.Context, u *upstream, f File, d *download) (cas.Info, error) {
	p, err := a.placesOf(ctx, u, f)
	if err != nil {
		return cas.Info{}, err
	}
	batch := a.cfg.Blobs.NewBatch()
	defer batch.Discard()
	got, err := a.run(ctx, &transfer{upstream: u, listed: f.Listed, record: f.Record, places: p, batch: batch, download: d})
	if err != nil {
		return cas.Info{}, fmt.Errorf("%s of %s: %w", f.Listed.Path, u.Name, err)
	}
	return got.Info, a.Keep(ctx, batch, []Acquired{got})
}
