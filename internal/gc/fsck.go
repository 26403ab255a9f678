package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/store"
)

// Fsck checks metadata against itself, metadata against blobs and blobs against
// their digests. With Repair it quarantines what rotted and fetches it again by
// digest, from upstream or from another snapd.
func (c *Collector) Fsck(ctx context.Context, req *api.FsckRequest, client *fetch.Client, p *mirror.Progress) (*api.FsckResult, error) {
	if p == nil {
		p = &mirror.Progress{}
	}
	res := &api.FsckResult{Faults: []api.VerifyFault{}, Repaired: []string{}, Lost: []string{}}
	fault := func(object, format string, args ...any) {
		res.Faults = append(res.Faults, api.VerifyFault{Object: object, Message: fmt.Sprintf(format, args...)})
	}
	p.SetPhase("checking metadata")
	damage, err := c.st.Verify(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range damage {
		fault("metadata", "%v", f)
	}
	if err := c.st.View(ctx, func(tx *store.Tx) error {
		return tx.Check(func(format string, args ...any) { fault("metadata", format, args...) })
	}); err != nil {
		return nil, err
	}
	p.SetPhase("checking blobs")
	bad := map[cas.Digest]string{}
	err = c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		res.Blobs++
		res.Bytes += info.Size
		p.Files.Add(1)
		p.Bytes.Add(info.Size)
		if err := cas.Check(ctx, c.blobs, info.Digest); err != nil {
			if errors.Is(err, cas.ErrNotFound) {
				return nil // collected since the walk came by
			} else if !errors.Is(err, cas.ErrCorrupt) {
				return err
			}
			why := strings.TrimPrefix(err.Error(), "blob "+info.Digest.String()+": ")
			bad[info.Digest] = why
			return c.e.MarkRotten(ctx, info.Digest, "fsck", why)
		}
		if c.e.Rotten(info.Digest) != nil {
			// It could not be read once, and now every byte is right.
			return c.e.ClearRotten(ctx, info.Digest)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := c.suspectOrphans(ctx); err != nil {
		return nil, err
	}
	p.SetPhase("looking for missing blobs")
	var after cas.Digest
	for more := true; more; {
		var page []cas.Digest
		if err := c.st.View(ctx, func(tx *store.Tx) error {
			page = page[:0]
			after, more = tx.Blobs(after, 500, func(d cas.Digest, _ []store.Ref) { page = append(page, d) })
			return nil
		}); err != nil {
			return nil, err
		}
		for _, d := range page {
			if _, known := bad[d]; known {
				continue
			}
			missing, err := c.missing(ctx, d)
			if err != nil {
				return nil, err
			}
			if missing {
				bad[d] = "missing"
			}
		}
	}
	if err := c.unrepaired(ctx, bad); err != nil {
		return nil, err
	}
	order := make([]cas.Digest, 0, len(bad))
	for d := range bad {
		order = append(order, d)
	}
	slices.SortFunc(order, func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) })
	if req.Repair {
		p.SetPhase("repairing")
	}
	for _, d := range order {
		if !req.Repair {
			fault("blob "+d.String(), "%s; needed by %s", bad[d], c.neededBy(ctx, d))
			continue
		}
		if err := c.repair(ctx, d, bad[d] != "missing", req.From, client); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			res.Lost = append(res.Lost, d.String())
			fault("blob "+d.String(), "%s; needed by %s; cannot be repaired: %v", bad[d], c.neededBy(ctx, d), err)
			continue
		}
		res.Repaired = append(res.Repaired, d.String())
	}
	if len(res.Faults) > 0 {
		res.Exit = api.ExitVerify
	}
	return res, nil
}

// missing reports whether a blob is absent that must be present. A collection
// beside this may have removed the blob with its last reference, and other work
// may have written it again for a new one: the blob is missing only if it is
// absent after a reference was found to which it was promised.
func (c *Collector) missing(ctx context.Context, d cas.Digest) (bool, error) {
	absent := func() (bool, error) {
		_, err := c.blobs.Stat(ctx, d)
		if errors.Is(err, cas.ErrNotFound) {
			return true, nil
		}
		return false, err
	}
	if yes, err := absent(); err != nil || !yes {
		return false, err
	}
	var refs []store.Ref
	if err := c.st.View(ctx, func(tx *store.Tx) error { refs = tx.Refs(d, 0); return nil }); err != nil {
		return false, err
	}
	if needed, err := c.mustBeHere(ctx, refs); err != nil || !needed {
		return false, err
	}
	return absent()
}

// unrepaired adds what an earlier repair took away and could not get: it stays
// damaged until it comes, also where it need not be here. Of what nothing needs
// any more the mark is taken back.
func (c *Collector) unrepaired(ctx context.Context, bad map[cas.Digest]string) error {
	var marked []store.Rotten
	if err := c.st.View(ctx, func(tx *store.Tx) (err error) { marked, err = tx.Rottens(); return err }); err != nil {
		return err
	}
	for _, r := range marked {
		if _, known := bad[r.Digest]; known {
			continue
		}
		if _, err := c.blobs.Stat(ctx, r.Digest); err == nil {
			continue // damaged since it was looked at
		} else if !errors.Is(err, cas.ErrNotFound) {
			return err
		}
		needed := false
		if err := c.st.View(ctx, func(tx *store.Tx) error { needed = tx.Needed(r.Digest); return nil }); err != nil {
			return err
		}
		if needed {
			bad[r.Digest] = "missing"
		} else if err := c.e.ClearRotten(ctx, r.Digest); err != nil {
			return err
		}
	}
	return nil
}

// suspectOrphans finds blobs that nothing refers to: what was cut short between
// a blob and its reference.
func (c *Collector) suspectOrphans(ctx context.Context) error {
	var page []cas.Digest
	flush := func() error {
		if len(page) == 0 {
			return nil
		}
		now := c.cfg.Now()
		err := c.st.Update(ctx, "fsck orphans", func(tx *store.Tx) error {
			for _, d := range page {
				if len(tx.Refs(d, 1)) == 0 {
					if err := tx.Suspect(d, now); err != nil {
						return err
					}
				}
			}
			return nil
		})
		page = page[:0]
		return err
	}
	err := c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		page = append(page, info.Digest)
		if len(page) >= 2000 {
			return flush()
		}
		return nil
	})
	return errors.Join(err, flush())
}

// mustBeHere tells blobs that were promised from packages that nobody asked for.
func (c *Collector) mustBeHere(ctx context.Context, refs []store.Ref) (needed bool, err error) {
	for _, r := range refs {
		if r.Kind != store.OwnerPackage {
			return true, nil
		}
	}
	err = c.st.View(ctx, func(tx *store.Tx) error {
		for _, r := range refs {
			ok, err := tx.PackagePromised(r)
			if err != nil || ok {
				needed = ok
				return err
			}
		}
		return nil
	})
	return needed, err
}

func (c *Collector) neededBy(ctx context.Context, d cas.Digest) string {
	var out []string
	_ = c.st.View(ctx, func(tx *store.Tx) error {
		for _, r := range tx.Refs(d, 4) {
			out = append(out, tx.Describe(r))
		}
		return nil
	})
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

// repair brings a blob back. A rotten copy goes to the quarantine first, so
// that nothing serves it meanwhile.
func (c *Collector) repair(ctx context.Context, d cas.Digest, rotten bool, from string, client *fetch.Client) error {
	if rotten {
		removed, err := c.blobs.RemoveCorrupt(ctx, d)
		if err == nil && !removed {
			return c.e.ClearRotten(ctx, d) // a good copy has been stored since
		} else if err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	needed := false
	if err := c.st.View(ctx, func(tx *store.Tx) error { needed = tx.Needed(d); return nil }); err != nil {
		return err
	}
	if !needed {
		return c.e.ClearRotten(ctx, d)
	}
	var errs []error
	if err := c.blobs.Restore(ctx, d); err == nil {
		return c.e.ClearRotten(ctx, d)
	}
	if from != "" {
		if err := c.fetchFrom(ctx, d, from, client); err == nil {
			return c.e.ClearRotten(ctx, d)
		} else {
			errs = append(errs, err)
		}
	}
	wants, err := c.wants(ctx, d)
	if err != nil {
		return err
	}
	for _, w := range wants {
		if _, err := c.e.Fetch(ctx, w); err == nil {
			return c.e.ClearRotten(ctx, d)
		} else {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return errors.New("upstream never had it; name another snapd with --from")
	}
	return errors.Join(errs...)
}

func (c *Collector) fetchFrom(ctx context.Context, d cas.Digest, from string, client *fetch.Client) error {
	base := remote.NewURL(from)
	if base.Host() == "" || base.HasUser() {
		return fmt.Errorf("%q: expected the URL of another snapd, without a user name", base)
	}
	batch := c.blobs.NewBatch()
	defer batch.Discard()
	w, err := batch.Create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	res, err := client.Get(ctx, fetch.Request{
		URLs: []remote.URL{base.Join("by-hash/SHA256/" + d.String())}, Size: -1, MaxSize: 64 << 30,
		Want: fetch.Digests{SHA256: d}, Dest: w,
	})
	if err != nil {
		return err
	}
	if _, err := w.Commit(d, -1, res.LastModified); err != nil {
		return err
	}
	return c.e.Flush(ctx, batch)
}

// wants lists where upstream might still have a blob.
func (c *Collector) wants(ctx context.Context, d cas.Digest) (out []mirror.Want, err error) {
	err = c.st.View(ctx, func(tx *store.Tx) error {
		facts, err := tx.ByDigest(d)
		if err != nil {
			return err
		}
		for _, f := range facts {
			mir, err := tx.MirrorOf(f.PID)
			if err != nil {
				return err
			}
			for _, file := range f.Files {
				if file.SHA256 == d {
					out = append(out, mirror.Want{Mirror: mir, Record: &f.Record, Listed: repo.Listed{Path: file.Path, Size: file.Size, SHA256: d}})
				}
			}
		}
		for _, l := range tx.Listings(d) {
			w := mirror.Want{Mirror: l.Mirror, Listed: repo.Listed{Path: l.Path, Size: l.Size, SHA256: d}}
			if m, err := c.e.Mirror(l.Mirror); err == nil {
				if f, err := c.e.Format(m.Type); err == nil {
					if n := f.HashName(l.Path, d); n != "" {
						w.Listed.Alternates = []string{n}
					}
				}
			}
			out = append(out, w)
		}
		return nil
	})
	return out, err
}

// A scrub that is killed reads at most so much again.
const (
	saveBlobs = 1000
	saveBytes = 1 << 30
)

// Scrub reads every blob once at a bounded rate (bytes a second), going on
// where the last one was stopped, and marks what rotted.
func (c *Collector) Scrub(ctx context.Context, bytesPerSecond int64) (blobs int, damaged int, err error) {
	limit := rate.NewLimiter(rate.Limit(max(bytesPerSecond, 1)), 1<<20)
	if bytesPerSecond <= 0 {
		limit = rate.NewLimiter(rate.Inf, 1<<20)
	}
	var after cas.Digest
	err = c.st.View(ctx, func(tx *store.Tx) error {
		if s := tx.Meta("scrub.at"); s != "" {
			after, _ = cas.ParseDigest(s)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	save := func(d cas.Digest) error {
		return c.st.Update(context.WithoutCancel(ctx), "scrub", func(tx *store.Tx) error {
			if d.IsZero() {
				if err := tx.SetMeta("scrub.done", c.cfg.Now().UTC().Format(time.RFC3339)); err != nil {
					return err
				}
				return tx.SetMeta("scrub.at", "")
			}
			return tx.SetMeta("scrub.at", d.String())
		})
	}
	last := after
	n, size := 0, int64(0) // since its place was written down
	err = c.blobs.Walk(ctx, after, func(info cas.Info) error {
		for left := info.Size; left > 0; left -= 1 << 20 {
			if err := limit.WaitN(ctx, int(min(left, 1<<20))); err != nil {
				return err
			}
		}
		err := cas.Check(ctx, c.blobs, info.Digest)
		if errors.Is(err, cas.ErrCorrupt) {
			damaged++
			err = c.e.MarkRotten(ctx, info.Digest, "scrub", strings.TrimPrefix(err.Error(), "blob "+info.Digest.String()+": "))
		} else if errors.Is(err, cas.ErrNotFound) {
			err = nil
		} else if err == nil && c.e.Rotten(info.Digest) != nil {
			err = c.e.ClearRotten(ctx, info.Digest) // it could not be read once
		}
		if err != nil {
			return err
		}
		blobs++
		last = info.Digest
		if n, size = n+1, size+info.Size; n >= saveBlobs || size >= saveBytes {
			n, size = 0, 0
			return save(last)
		}
		return nil
	})
	if err != nil {
		return blobs, damaged, errors.Join(err, save(last))
	}
	// A removal that a power cut took back leaves a blob that nobody suspects.
	if err := c.suspectOrphans(ctx); err != nil {
		return blobs, damaged, err
	}
	return blobs, damaged, save(cas.Digest{})
}
