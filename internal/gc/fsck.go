package gc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
)

// Kinds of faults, for the summary.
const (
	kindMissing       = "missing blob"
	kindDamaged       = "damaged blob"
	kindMetadata      = "damaged metadata"
	kindContradiction = "contradiction in the metadata"
	kindTree          = "file of a freeze"
)

// Fsck checks metadata against itself, metadata against blobs and blobs against their
// digests. With Repair it quarantines corrupt blobs and stores them again by their
// digests: from known contents, from req.From, or from upstream.
func (c *Collector) Fsck(ctx context.Context, req *api.FsckRequest, client *fetch.Client, p *acquire.Progress) (*api.FsckResult, error) {
	if p == nil {
		p = &acquire.Progress{}
	}
	src, err := openSource(req.From, client)
	if err != nil {
		return nil, err
	}
	defer src.close()
	res := &api.FsckResult{Faults: []api.VerifyFault{}, Repaired: []string{}, Lost: []string{}}
	p.SetPhase("checking metadata")
	faults, err := c.fsckMetadata(ctx, req.Repair, res)
	if err != nil {
		return nil, err
	}
	if err := c.fsckLog(ctx, req.Repair, res); err != nil {
		return nil, err
	}
	bad, err := c.readBlobs(ctx, res, p)
	if err != nil {
		return nil, err
	}
	for {
		p.SetPhase("looking for missing blobs")
		err = errors.Join(c.missingBlobs(ctx, bad), c.unrepaired(ctx, bad))
		if err != nil && !(errors.Is(err, meta.ErrCorrupt) && c.st.Damage() != nil) {
			return nil, err
		}
		if !req.Repair {
			break
		}
		p.SetPhase("repairing")
		n, err := c.repairBlobs(ctx, bad, src, res)
		if err != nil {
			return nil, err
		}
		if n == 0 || len(faults) == 0 {
			break
		}
		// Metadata is also rebuilt from blobs, and rebuilt metadata may need more blobs.
		if faults, err = c.fsckMetadata(ctx, true, res); err != nil {
			return nil, err
		}
	}
	res.Faults = append(res.Faults, faults...)
	for _, d := range sorted(bad) {
		b := bad[d]
		switch {
		case b.repaired:
			continue
		case b.err == nil:
			addFault(res, b.kind(), d, "%s; needed by %s", b.why, c.neededBy(ctx, d))
		default:
			res.Lost = append(res.Lost, d.String())
			addFault(res, b.kind(), d, "%s; needed by %s; cannot be repaired: %v", b.why, c.neededBy(ctx, d), b.err)
		}
	}
	if len(res.Faults) > 0 {
		res.Exit = api.ExitVerify
	}
	return res, nil
}

// readBlobs reads every blob, and makes unreferenced blobs collection candidates.
func (c *Collector) readBlobs(ctx context.Context, res *api.FsckResult, p *acquire.Progress) (map[cas.Digest]*badBlob, error) {
	p.SetPhase("counting blobs")
	var files, size int64
	if err := c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		files, size = files+1, size+info.Size
		return nil
	}); err != nil {
		return nil, err
	}
	p.FilesTotal.Store(files)
	p.BytesTotal.Store(size)
	p.SetPhase("checking blobs")
	bad, err := c.corruptBlobs(ctx, res, p)
	if err == nil && c.st.Damage() == nil {
		res.Unknown, err = c.addOrphans(ctx)
	}
	return bad, err
}

// fsckLog checks the tiles of the transparency log.
func (c *Collector) fsckLog(ctx context.Context, repair bool, res *api.FsckResult) error {
	if c.cfg.TLog == nil {
		return nil
	}
	faults, repaired, err := c.cfg.TLog.Fsck(ctx, repair)
	if errors.Is(err, meta.ErrCorrupt) {
		faults, err = append(faults, err.Error()), nil
	}
	for _, text := range faults {
		res.Faults = append(res.Faults, api.VerifyFault{Object: "transparency log", Message: text})
	}
	res.Repaired = append(res.Repaired, repaired...)
	return err
}

// corruptBlobs reads every blob, and returns those that do not have their digest, with
// the reason.
func (c *Collector) corruptBlobs(ctx context.Context, res *api.FsckResult, p *acquire.Progress) (map[cas.Digest]*badBlob, error) {
	bad := map[cas.Digest]*badBlob{}
	err := c.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		res.Blobs++
		res.Bytes += info.Size
		p.Files.Add(1)
		p.Bytes.Add(info.Size)
		if err := cas.Check(ctx, c.blobs, info.Digest); err != nil {
			if errors.Is(err, cas.ErrNotFound) {
				return nil // removed since the walk listed it
			} else if !errors.Is(err, cas.ErrCorrupt) {
				return err
			}
			why := strings.TrimPrefix(err.Error(), "blob "+info.Digest.String()+": ")
			bad[info.Digest] = &badBlob{why: why}
			return c.acquirer.MarkCorrupt(ctx, info.Digest, "fsck", why)
		}
		if c.acquirer.Corrupt(info.Digest) != nil {
			// An earlier read failed, but now the bytes are right.
			return c.acquirer.ClearCorrupt(ctx, info.Digest)
		}
		return nil
	})
	return bad, err
}

// missingBlobs adds blobs that must be stored according to the metadata but are absent.
func (c *Collector) missingBlobs(ctx context.Context, bad map[cas.Digest]*badBlob) error {
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
				bad[d] = &badBlob{missing: true, why: "missing"}
			}
		}
	}
	return nil
}

// missing reports whether a blob that must be stored is absent. A concurrent collection
// may have removed it with its last reference, and other work may have stored it again
// for a new one. It is missing only if it is absent after a reference was found that
// requires it.
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

func addFault(res *api.FsckResult, kind string, d cas.Digest, format string, args ...any) {
	res.Faults = append(res.Faults, api.VerifyFault{Kind: kind, Object: "blob " + d.String(), Message: fmt.Sprintf(format, args...)})
}

// fsckMetadata checks the metadata's pages, checksums and sums, its entries
// against each other, and each frozen tree against its listing. With repair it
// rebuilds what can be rebuilt first. It returns the faults that are left.
func (c *Collector) fsckMetadata(ctx context.Context, repair bool, res *api.FsckResult) ([]api.VerifyFault, error) {
	faults, err := c.metadataFaults(ctx)
	if err != nil || len(faults) == 0 || !repair {
		return faults, err
	}
	changed, failed, err := c.rebuild(ctx)
	if err != nil {
		return nil, err
	}
	res.Repaired = append(res.Repaired, changed...)
	res.NotRebuilt = failed
	return c.metadataFaults(ctx)
}

func (c *Collector) metadataFaults(ctx context.Context) (faults []api.VerifyFault, err error) {
	fault := func(kind, format string, args ...any) {
		faults = append(faults, api.VerifyFault{Kind: kind, Object: "metadata", Message: fmt.Sprintf(format, args...)})
	}
	damage, err := c.st.Verify(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		fault(kindMetadata, "%v", d)
	}
	torn, terr := c.st.Torn(ctx)
	if torn != "" {
		fault(kindMetadata, "%s", torn)
	}
	contradictions, cerr := c.st.Contradictions(ctx)
	for _, text := range contradictions {
		fault(kindContradiction, "%s", text)
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
			fault(kindTree, "freeze %s: %s", f.Name, text)
		}
	}
	return faults, nil
}

// treeFaults compares the tree of a freeze with its listing. A freeze that is removed in
// the meantime, or made again under its name, has no faults.
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
	// A node that cannot follow the changes may still have a freeze in its cache that
	// another node has removed. It does not cache trees.
	if _, err := c.st.TreeFaults(ctx, f.Name, nil); errors.Is(err, meta.ErrGone) {
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

// maxTreeList limits the listing of a frozen tree, in bytes.
const maxTreeList = 512 << 20

func (c *Collector) treeList(ctx context.Context, d cas.Digest) (*meta.Frozen, []meta.Node, error) {
	data, err := cas.ReadAll(ctx, c.blobs, d, maxTreeList)
	if err != nil {
		return nil, nil, err
	}
	return meta.DecodeTree(data)
}

// rebuild recreates metadata from other metadata and from blobs.
func (c *Collector) rebuild(ctx context.Context) (changed, failed []string, err error) {
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
	for _, m := range c.catalog.Mirrors() {
		r.Types[string(m.Name)] = m.Type
	}
	if r.Aliases, err = c.aliases(ctx); err != nil {
		return nil, nil, err
	}
	changed, failed, err = c.st.Rebuild(ctx, r)
	c.catalog.Changed()
	return changed, failed, err
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

// unrepaired adds blobs that an earlier repair removed and could not store again. They
// stay missing until they are stored, even if they are not required. It clears the mark
// of blobs that are no longer needed.
func (c *Collector) unrepaired(ctx context.Context, bad map[cas.Digest]*badBlob) error {
	marked, err := c.st.CorruptBlobs(ctx)
	if err != nil {
		return err
	}
	for _, r := range marked {
		if _, known := bad[r.Digest]; known {
			continue
		}
		if _, err := c.blobs.Stat(ctx, r.Digest); err == nil {
			continue // damaged since it was checked
		} else if !errors.Is(err, cas.ErrNotFound) {
			return err
		}
		needed, err := c.st.Needed(ctx, r.Digest)
		if err != nil {
			return err
		}
		if needed {
			bad[r.Digest] = &badBlob{missing: true, why: "missing"}
		} else if err := c.acquirer.ClearCorrupt(ctx, r.Digest); err != nil {
			return err
		}
	}
	return nil
}

// addOrphans makes unreferenced blobs collection candidates, which interrupted work
// leaves behind. It keeps and counts blobs that are older than the metadata's records,
// because lost metadata may have referred to them.
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

// neededBy describes the references to a blob.
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

// Limits of what a scrub reads again after it was killed.
const (
	saveBlobs = 1000
	saveBytes = 1 << 30
)

// Scrub reads every blob once, at a limited rate in bytes per second, continues where the
// last scrub stopped, and marks corrupt blobs.
func (c *Collector) Scrub(ctx context.Context, bytesPerSecond int64) (blobs int, damaged int, err error) {
	limit := rate.NewLimiter(rate.Limit(max(bytesPerSecond, 1)), 1<<20)
	if bytesPerSecond <= 0 {
		limit = rate.NewLimiter(rate.Inf, 1<<20)
	}
	at, err := c.st.Note(ctx, "scrub.at")
	if err != nil {
		return 0, 0, err
	}
	var after cas.Digest // zero if the last scrub was complete
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
	n, size := 0, int64(0) // since the position was last stored
	err = c.blobs.Walk(ctx, after, func(info cas.Info) error {
		for left := info.Size; left > 0; left -= 1 << 20 {
			if err := limit.WaitN(ctx, int(min(left, 1<<20))); err != nil {
				return err
			}
		}
		err := cas.Check(ctx, c.blobs, info.Digest)
		if errors.Is(err, cas.ErrCorrupt) {
			damaged++
			err = c.acquirer.MarkCorrupt(ctx, info.Digest, "scrub", strings.TrimPrefix(err.Error(), "blob "+info.Digest.String()+": "))
		} else if errors.Is(err, cas.ErrNotFound) {
			err = nil
		} else if err == nil && c.acquirer.Corrupt(info.Digest) != nil {
			err = c.acquirer.ClearCorrupt(ctx, info.Digest) // an earlier read failed
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
	// If a power cut undid a removal, the blob is left without being a candidate.
	if _, err := c.addOrphans(ctx); err != nil {
		return blobs, damaged, err
	}
	return blobs, damaged, save(cas.Digest{})
}
