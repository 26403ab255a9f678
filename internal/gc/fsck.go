package gc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Fsck checks metadata against itself, metadata against blobs and blobs against
// their digests. With Repair it quarantines what rotted and fetches it again by
// digest, from upstream or from another snapd.
func (c *Collector) Fsck(ctx context.Context, req *api.FsckRequest, client *fetch.Client, p *acquire.Progress) (*api.FsckResult, error) {
	if p == nil {
		p = &acquire.Progress{}
	}
	res := &api.FsckResult{Faults: []api.VerifyFault{}, Repaired: []string{}, Lost: []string{}}
	p.SetPhase("checking metadata")
	if err := c.fsckMetadata(ctx, req.Repair, res); err != nil {
		return nil, err
	}
	p.SetPhase("checking blobs")
	bad, err := c.corruptBlobs(ctx, res, p)
	if err != nil {
		return nil, err
	}
	if c.st.Damage() == nil {
		if res.Unknown, err = c.addOrphans(ctx); err != nil {
			return nil, err
		}
	}
	p.SetPhase("looking for missing blobs")
	err = errors.Join(c.missingBlobs(ctx, bad), c.unrepaired(ctx, bad))
	if err != nil && !(errors.Is(err, meta.ErrCorrupt) && c.st.Damage() != nil) {
		return nil, err
	}
	if req.Repair {
		p.SetPhase("repairing")
	}
	for _, d := range slices.SortedFunc(maps.Keys(bad), func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) }) {
		if !req.Repair {
			addFault(res, "blob "+d.String(), "%s; needed by %s", bad[d], c.neededBy(ctx, d))
			continue
		}
		if err := c.repair(ctx, d, bad[d] != "missing", req.From, client); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			res.Lost = append(res.Lost, d.String())
			addFault(res, "blob "+d.String(), "%s; needed by %s; cannot be repaired: %v", bad[d], c.neededBy(ctx, d), err)
			continue
		}
		res.Repaired = append(res.Repaired, d.String())
	}
	if len(res.Faults) > 0 {
		res.Exit = api.ExitVerify
	}
	return res, nil
}

// corruptBlobs reads every blob and says what is wrong with those that do not
// have their digest.
func (c *Collector) corruptBlobs(ctx context.Context, res *api.FsckResult, p *acquire.Progress) (map[cas.Digest]string, error) {
	bad := map[cas.Digest]string{}
	err := c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
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
			return c.e.MarkCorrupt(ctx, info.Digest, "fsck", why)
		}
		if c.e.Corrupt(info.Digest) != nil {
			// It could not be read once, and now every byte is right.
			return c.e.ClearCorrupt(ctx, info.Digest)
		}
		return nil
	})
	return bad, err
}

// missingBlobs adds blobs that the metadata says are here and that are not.
func (c *Collector) missingBlobs(ctx context.Context, bad map[cas.Digest]string) error {
	var after cas.Digest
	for more := true; more; {
		page, next, left, err := c.st.PromisedBlobs(ctx, after, 500)
		if err != nil {
			return err
		}
		after, more = next, left
		for _, d := range page {
			if _, known := bad[d]; known {
				continue
			}
			missing, err := c.missing(ctx, d)
			if err != nil {
				return err
			}
			if missing {
				bad[d] = "missing"
			}
		}
	}
	return nil
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
	if promised, err := c.st.Promised(ctx, d); err != nil || !promised {
		return false, err
	}
	return absent()
}

func addFault(res *api.FsckResult, object, format string, args ...any) {
	res.Faults = append(res.Faults, api.VerifyFault{Object: object, Message: fmt.Sprintf(format, args...)})
}

// fsckMetadata checks the metadata's pages, checksums and sums, its entries
// against each other, and each frozen tree against its listing. With repair it
// rebuilds what can be rebuilt first; what is left is reported.
func (c *Collector) fsckMetadata(ctx context.Context, repair bool, res *api.FsckResult) error {
	faults, err := c.metadataFaults(ctx)
	if err != nil {
		return err
	}
	if len(faults) > 0 && repair {
		changed, err := c.rebuild(ctx)
		if err != nil {
			return err
		}
		res.Repaired = append(res.Repaired, changed...)
		if faults, err = c.metadataFaults(ctx); err != nil {
			return err
		}
	}
	res.Faults = append(res.Faults, faults...)
	return nil
}

func (c *Collector) metadataFaults(ctx context.Context) (faults []api.VerifyFault, err error) {
	fault := func(format string, args ...any) {
		faults = append(faults, api.VerifyFault{Object: "metadata", Message: fmt.Sprintf(format, args...)})
	}
	damage, err := c.st.Verify(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		fault("%v", d)
	}
	torn, terr := c.st.Torn(ctx)
	if torn != "" {
		fault("%s", torn)
	}
	contradictions, cerr := c.st.Contradictions(ctx)
	for _, text := range contradictions {
		fault("%s", text)
	}
	frozen, ferr := c.st.Freezes(ctx)
	err = errors.Join(terr, cerr, ferr)
	if errors.Is(err, meta.ErrCorrupt) && len(damage) > 0 {
		return faults, nil // reported above
	} else if err != nil {
		return nil, err
	}
	for _, f := range frozen {
		wrong, err := c.treeFaults(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, text := range wrong {
			fault("frozen snapshot %s: %s", f.Name, text)
		}
	}
	return faults, nil
}

// treeFaults compares the tree of a freeze with its listing. A freeze that is
// removed meanwhile, or made anew under its name, has no faults.
func (c *Collector) treeFaults(ctx context.Context, f *meta.Frozen) (wrong []string, err error) {
	_, listed, err := c.treeList(ctx, f.Tree.SHA256)
	if err != nil {
		wrong = append(wrong, fmt.Sprintf("tree listing: %v", err))
	} else if faults, err := c.st.TreeFaults(ctx, f.Name, listed); err != nil {
		wrong = append(wrong, fmt.Sprintf("tree: %v", err))
	} else {
		for _, w := range faults {
			wrong = append(wrong, w.Path+" is not served as it was published")
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(wrong) == 0 {
		return nil, nil
	}
	switch now, err := c.st.Freeze(ctx, f.Name); {
	case errors.Is(err, meta.ErrNotFound):
		return nil, nil
	case err == nil && (now.Tree != f.Tree || !now.Created.Equal(f.Created)):
		return nil, nil
	}
	return wrong, nil
}

// maxTreeList bounds the listing of a frozen tree, in bytes.
const maxTreeList = 512 << 20

func (c *Collector) treeList(ctx context.Context, d cas.Digest) (*meta.Frozen, []meta.Node, error) {
	data, err := cas.ReadAll(ctx, c.blobs, d, maxTreeList)
	if err != nil {
		return nil, nil, err
	}
	return meta.DecodeTree(data)
}

// rebuild makes metadata anew out of other metadata and of blobs.
func (c *Collector) rebuild(ctx context.Context) (changed []string, err error) {
	r := meta.Repairs{
		Tree: c.treeList,
		Listing: func(ctx context.Context, candidates []cas.Digest) (cas.Digest, *meta.Frozen, bool) {
			for _, d := range candidates {
				if f, _, err := c.treeList(ctx, d); err == nil {
					return d, f, true
				}
			}
			return cas.Digest{}, nil, false
		},
	}
	r.Types = map[string]string{}
	for _, m := range c.e.Mirrors() {
		r.Types[m.Name] = m.Type
	}
	if r.Aliases, err = c.aliases(ctx); err != nil {
		return nil, err
	}
	changed, err = c.st.Rebuild(ctx, r)
	c.e.Changed()
	return changed, err
}

// aliases computes the SHA-1 of every blob.
func (c *Collector) aliases(ctx context.Context) (out []meta.Alias, err error) {
	if c.st.AliasesComplete(ctx) == nil {
		return nil, nil
	}
	err = c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		sums, err := cas.SumAll(ctx, c.blobs, info.Digest)
		if errors.Is(err, cas.ErrCorrupt) || errors.Is(err, cas.ErrNotFound) {
			return nil // reported later
		} else if err != nil {
			return err
		}
		out = append(out,
			meta.Alias{Algo: meta.AliasSHA1, Other: sums.SHA1[:], SHA256: info.Digest},
			meta.Alias{Algo: meta.AliasSHA512, Other: []byte(hex.EncodeToString(sums.SHA512[:])), SHA256: info.Digest})
		return nil
	})
	return out, err
}

// unrepaired adds what an earlier repair took away and could not get: it stays
// damaged until it comes, also where it need not be here. Of what nothing needs
// any more the mark is taken back.
func (c *Collector) unrepaired(ctx context.Context, bad map[cas.Digest]string) error {
	marked, err := c.st.CorruptBlobs(ctx)
	if err != nil {
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
		needed, err := c.st.Needed(ctx, r.Digest)
		if err != nil {
			return err
		}
		if needed {
			bad[r.Digest] = "missing"
		} else if err := c.e.ClearCorrupt(ctx, r.Digest); err != nil {
			return err
		}
	}
	return nil
}

// addOrphans makes candidates of blobs that nothing refers to: work that was
// cut short between a blob and its reference leaves them behind. Blobs from
// before the time since which the metadata knows everything are kept: metadata
// that was lost may have referred to them. It counts those.
func (c *Collector) addOrphans(ctx context.Context) (unknown int, err error) {
	var page []cas.Info
	flush := func() error {
		n, err := c.st.AddOrphans(ctx, page, c.cfg.Now())
		unknown += n
		page = page[:0]
		return err
	}
	err = c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		page = append(page, info)
		if len(page) >= 2000 {
			return flush()
		}
		return nil
	})
	err = errors.Join(err, flush())
	return unknown, err
}

// neededBy describes what refers to a blob.
func (c *Collector) neededBy(ctx context.Context, d cas.Digest) string {
	words, err := c.st.ReferencesInWords(ctx, d, 4)
	if err != nil {
		return "unknown: " + err.Error()
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// repair brings a blob back. A corrupt copy goes to the quarantine first, so
// that nothing serves it meanwhile.
func (c *Collector) repair(ctx context.Context, d cas.Digest, corrupt bool, from string, client *fetch.Client) error {
	if corrupt {
		removed, err := c.blobs.RemoveCorrupt(ctx, d)
		if err == nil && !removed {
			return c.e.ClearCorrupt(ctx, d) // a good copy has been stored since
		} else if err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	if needed, err := c.st.Needed(ctx, d); err != nil {
		return err
	} else if !needed {
		return c.e.ClearCorrupt(ctx, d)
	}
	var errs []error
	if err := c.blobs.Restore(ctx, d); err == nil {
		return c.e.ClearCorrupt(ctx, d)
	}
	if from != "" {
		if err := c.fetchFrom(ctx, d, from, client); err == nil {
			return c.e.ClearCorrupt(ctx, d)
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
			return c.e.ClearCorrupt(ctx, d)
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
func (c *Collector) wants(ctx context.Context, d cas.Digest) (out []acquire.File, err error) {
	owners, err := c.st.OwnersOf(ctx, []cas.Digest{d})
	if err != nil {
		return nil, err
	}
	for _, o := range owners[0] {
		for _, file := range o.Fact.Files {
			if file.SHA256 == d {
				out = append(out, acquire.File{Mirror: o.Mirror, Record: &o.Fact.Record, Listed: repo.Listed{Path: file.Path, Size: file.Size, SHA256: d}})
			}
		}
	}
	listed, err := c.st.ListedAs(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, l := range listed {
		w := acquire.File{Mirror: l.Mirror, Listed: repo.Listed{Path: l.Path, Size: l.Size, SHA256: d}}
		if m, err := c.e.Mirror(l.Mirror); err == nil {
			if f, err := c.e.Format(m.Type); err == nil {
				if n := f.HashName(l.Path, d); n != "" {
					w.Listed.Alternates = []string{n}
				}
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// A scrub that is killed reads at most so much again.
const (
	saveBlobs = 1000
	saveBytes = 1 << 30
)

// Scrub reads every blob once at a bounded rate (bytes a second), going on
// where the last one was stopped, and marks what is corrupt.
func (c *Collector) Scrub(ctx context.Context, bytesPerSecond int64) (blobs int, damaged int, err error) {
	limit := rate.NewLimiter(rate.Limit(max(bytesPerSecond, 1)), 1<<20)
	if bytesPerSecond <= 0 {
		limit = rate.NewLimiter(rate.Inf, 1<<20)
	}
	at, err := c.st.Note(ctx, "scrub.at")
	if err != nil {
		return 0, 0, err
	}
	var after cas.Digest // zero where the last scrub came to its end
	if at != "" {
		if after, err = cas.ParseDigest(at); err != nil {
			return 0, 0, fmt.Errorf("place of the last scrub: %w", err)
		}
	}
	save := func(d cas.Digest) error {
		ctx := context.WithoutCancel(ctx)
		if !d.IsZero() {
			return c.st.SetNote(ctx, "scrub.at", d.String())
		}
		if err := c.st.SetNote(ctx, "scrub.done", c.cfg.Now().UTC().Format(time.RFC3339)); err != nil {
			return err
		}
		return c.st.SetNote(ctx, "scrub.at", "")
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
			err = c.e.MarkCorrupt(ctx, info.Digest, "scrub", strings.TrimPrefix(err.Error(), "blob "+info.Digest.String()+": "))
		} else if errors.Is(err, cas.ErrNotFound) {
			err = nil
		} else if err == nil && c.e.Corrupt(info.Digest) != nil {
			err = c.e.ClearCorrupt(ctx, info.Digest) // it could not be read once
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
	if _, err := c.addOrphans(ctx); err != nil {
		return blobs, damaged, err
	}
	return blobs, damaged, save(cas.Digest{})
}
