package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/cache"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/meta"
)

// Regenerated indices may take 1/madeShare of the size of the cache.
const madeShare = 8

// openBlobs opens the blob store that the configuration names. On top of it are the
// indices that can be regenerated.
func openBlobs(ctx context.Context, cfg *config.Config, st meta.Store, o Options) (cas.Store, error) {
	blobs, err := openStored(ctx, cfg, st, o)
	if err != nil {
		return nil, err
	}
	s, err := indices.Open(indices.Options{
		Blobs: blobs, Meta: st, Dir: filepath.Join(cfg.DataDir, "indices"), Size: int64(cfg.Store.Cache) / madeShare, Log: o.Log, Now: o.Now,
	})
	if err != nil {
		return nil, errors.Join(err, blobs.Close())
	}
	return s, nil
}

// openStored opens a directory of blobs, or a bucket with local copies.
func openStored(ctx context.Context, cfg *config.Config, st meta.Store, o Options) (cas.Store, error) {
	if inDirectory(cfg) {
		found := sync.OnceFunc(func() {
			if err := blobsFound(cfg.DataDir); err != nil {
				o.Log.Error("the next start may go on without blobs", "err", err)
			}
		})
		return casdir.Open(cfg.DataDir, casdir.Options{Now: o.Now, Stored: found, Latency: o.blobLatency()})
	}
	// Uploads pass their files to the cache, which is opened on top of the store.
	var copies *cache.Store
	remote, err := openRemote(ctx, cfg, st, o, func(f *spool.File) { copies.Adopt(f) })
	if err != nil {
		return nil, err
	}
	if copies, err = cache.Open(cache.Options{Remote: remote, Dir: filepath.Join(cfg.DataDir, "cache"), Size: int64(cfg.Store.Cache) / madeShare * (madeShare - 1), Log: o.Log, Now: o.Now}); err != nil {
		return nil, errors.Join(err, remote.Close())
	}
	if err := checkBucket(ctx, cfg, st); err != nil {
		return nil, errors.Join(err, copies.Close())
	}
	return copies, nil
}

// objectsOf returns the index of objects in metadata.
func objectsOf(cfg *config.Config, st meta.Store) (objects.Index, error) {
	index, ok := st.(interface{ Objects() objects.Index })
	if !ok {
		return nil, fmt.Errorf("%s: %w: the metadata has no index of objects", cfg.Store.Blobs, errclass.Usage)
	}
	return index.Objects(), nil
}

// openRemote opens the bucket. keep may take the files of stored blobs.
func openRemote(ctx context.Context, cfg *config.Config, st meta.Store, o Options, keep func(*spool.File)) (*s3.Store, error) {
	index, err := objectsOf(cfg, st)
	if err != nil {
		return nil, err
	}
	l, err := location.Parse(cfg.Store.Blobs)
	if err != nil {
		return nil, err
	}
	known, err := st.Identity(ctx)
	if err != nil {
		return nil, err
	}
	return s3.Open(ctx, s3.Options{
		Location: l, CredentialsFile: cfg.Store.CredentialsFile, Index: index, Installation: known.ID,
		Spool: filepath.Join(cfg.DataDir, "incoming"), Keep: keep, Log: o.Log, Now: o.Now, Latency: o.blobLatency(),
	})
}

// checkBucket returns ErrLost if the metadata refers to blobs but the bucket has none of
// them: they are still in a directory.
func checkBucket(ctx context.Context, cfg *config.Config, st meta.Store) error {
	known, err := st.Identity(ctx)
	if err != nil || known.Empty {
		return err
	}
	index, err := objectsOf(cfg, st)
	if err != nil {
		return err
	}
	some, err := index.List(ctx, cas.Digest{}, 1)
	if err == nil && len(some) == 0 {
		where := cfg.DataDir
		if cfg.Store.Postgres() != "" {
			where = "PostgreSQL"
		}
		err = fmt.Errorf("%w: the metadata in %s refers to blobs, but none of them was stored in %s", ErrLost, where, cfg.Store.Blobs)
	}
	return err
}

// inDirectory reports whether the blobs are in the data directory.
func inDirectory(cfg *config.Config) bool {
	return cfg.Store.Blobs == config.DirBlobs || cfg.Store.Blobs == ""
}
