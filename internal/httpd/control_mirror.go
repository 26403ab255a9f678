package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// verbs are the ones that need the engine alone.
func (s *Server) verbs() map[string]Verb {
	return map[string]Verb{
		"status":       Handle(s.status),
		"mirror/list":  Handle(s.mirrorList),
		"mirror/show":  Handle(s.mirrorShow),
		"sync":         Handle(s.sync),
		"list":         Handle(s.list),
		"show":         Handle(s.show),
		"packages":     Handle(s.packages),
		"find":         Handle(s.find),
		"pin":          Handle(s.pin),
		"unpin":        Handle(s.unpin),
		"rm":           Handle(s.remove),
		"record/start": Handle(s.recordStart),
		"record/stop":  Handle(s.recordStop),
		"record/show":  Handle(s.recordShow),
		"record/list":  Handle(s.recordList),
		"record/rm":    Handle(s.recordRemove),
		"key/show":     Handle(s.keyShow),
		"kit/publish":  Handle(s.kitPublish),
	}
}

// countOf is a number with its noun.
func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (s *Server) status(ctx context.Context, _ api.Empty, _ func(api.Progress)) (api.Status, error) {
	// Damaged metadata is a warning here: what can be read is shown.
	damaged := func(err error) error {
		if errors.Is(err, meta.ErrCorrupt) || s.e.Store().Damage() != nil {
			return nil
		}
		return err
	}
	u, err := s.countUsage(ctx)
	if damaged(err) != nil {
		return api.Status{}, err
	}
	c := s.cfg.Conf
	out := api.Status{
		Version: s.cfg.Version, Listen: c.Server.Listen, PublicURL: c.Server.PublicURL, DataDir: c.DataDir,
		Key: s.keyInfo(), Reserve: int64(c.Store.Reserve),
		Blobs: u.blobs, BlobBytes: u.blobBytes, IndexBytes: u.indexBytes, MetaBytes: u.meta.Used, MetaData: u.meta.Data,
		Damaged: []string{}, Quarantined: u.quarantined, Warnings: append([]string{}, s.cfg.Warnings...), Mirrors: []api.MirrorStatus{},
	}
	out.Key.Armored = ""
	if s.cfg.Free != nil {
		if out.Free, err = s.cfg.Free(); err != nil {
			return out, err
		}
		if out.Free < out.Reserve {
			out.Warnings = append(out.Warnings, fmt.Sprintf("free space is below the reserve: %d bytes free, %d reserved; syncs and recordings are stopped", out.Free, out.Reserve))
		}
	}
	if w := s.expires(s.cfg.Signer.Expiry()); w != "" {
		out.Warnings = append(out.Warnings, "the signing key "+w+" (snapctl key renew)")
	}
	if made := s.cfg.Signer.CreatedAt(); made.After(s.now()) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the signing key was made at %s, later than the system clock: clients refuse what it signs until then", made.UTC().Format(time.RFC3339)))
	}
	var frozen []*meta.Frozen
	err = s.view(ctx, func(tx *bolt.Tx) error {
		rotten, err := tx.CorruptBlobs()
		if err != nil {
			return err
		}
		for _, r := range rotten {
			out.Damaged = append(out.Damaged, r.Digest.String())
		}
		if frozen, err = tx.Frozens(); err != nil {
			return err
		}
		out.Frozen = len(frozen)
		recs, err := tx.Recordings()
		out.Recordings = len(recs)
		return err
	})
	if damaged(err) != nil {
		return out, err
	}
	if len(out.Damaged) > 0 {
		out.Warnings = append(out.Warnings, countOf(len(out.Damaged), "blob is", "blobs are")+" damaged (snapctl fsck --repair)")
	}
	out.Warnings = append(out.Warnings, s.expiringKeys(ctx, frozen)...)
	ml, err := s.mirrorList(ctx, api.Empty{}, nil)
	out.Mirrors = ml.Mirrors
	for _, m := range ml.Mirrors {
		out.Snapshots += m.Snapshots
	}
	if d := s.e.Store().Damage(); d != nil {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the metadata is damaged and read-only, and nothing is collected (snapctl fsck --repair): %v", d))
	}
	return out, damaged(err)
}

// expires says when a key ceases to be good, or nothing when it never does.
func (s *Server) expires(e time.Time) string {
	switch {
	case e.IsZero():
		return ""
	case e.After(s.now()):
		return fmt.Sprintf("expires on %s: apt refuses what it signed from then on", e.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("expired on %s: apt refuses what it signed", e.UTC().Format(time.DateOnly))
}

// expiringKeys warns of earlier signing keys, and keys of imported freezes, that
// expire: the frozen snapshots that they signed are kept with them.
func (s *Server) expiringKeys(ctx context.Context, frozen []*meta.Frozen) []string {
	signed := map[cas.Digest][]string{}
	var keys []cas.Digest
	for _, f := range frozen {
		if f.Key == s.cfg.Signer.Fingerprint() {
			continue // it is served as it is now
		}
		if signed[f.KeyBlob] == nil {
			keys = append(keys, f.KeyBlob)
		}
		signed[f.KeyBlob] = append(signed[f.KeyBlob], f.Name)
	}
	var out []string
	for _, d := range keys {
		data, err := cas.ReadAll(ctx, s.blobs(), d, 1<<20)
		if err != nil {
			continue // fsck tells
		}
		ring, err := sign.ParseKeyring(data)
		if err != nil {
			continue
		}
		for _, k := range ring.Keys() {
			w := s.expires(k.Expires)
			if w == "" {
				continue
			}
			of := signed[d][0]
			if n := len(signed[d]) - 1; n > 0 {
				of += " and " + countOf(n, "more frozen snapshot", "more frozen snapshots")
			}
			out = append(out, fmt.Sprintf("key %s, which signed %s, %s", k.Fingerprint, of, w))
		}
	}
	return out
}

func (s *Server) mirrorList(ctx context.Context, _ api.Empty, _ func(api.Progress)) (api.MirrorList, error) {
	out := api.MirrorList{Mirrors: []api.MirrorStatus{}}
	for _, m := range s.e.Mirrors() {
		st, err := s.mirrorStatus(ctx, m)
		if err != nil {
			return out, err
		}
		out.Mirrors = append(out.Mirrors, st)
	}
	return out, nil
}

func (s *Server) mirrorStatus(ctx context.Context, m config.Mirror) (api.MirrorStatus, error) {
	out := api.MirrorStatus{Name: m.Name, Type: m.Type, NextSync: optional(s.cfg.NextSync(m.Name))}
	s.mu.Lock()
	out.Syncing = s.syncing[m.Name] > 0
	s.mu.Unlock()
	err := s.view(ctx, func(tx *bolt.Tx) error {
		c := tx.LastCheck(m.Name)
		out.Checked, out.Succeeded, out.Error = optional(c.Checked), optional(c.OK), remote.Scrub(c.Error)
		last, err := tx.Latest(m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		out.Latest = last.ID()
		for _, e := range last.Suites {
			g, err := tx.Generation(m.Name, e.Suite, e.Gen)
			if err != nil {
				return err
			}
			for _, w := range g.Warnings {
				out.Warnings = append(out.Warnings, fmt.Sprintf("suite %s: %s", e.Suite, w))
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	err = s.eachSnapshot(ctx, m.Name, func(*meta.Snapshot) bool { out.Snapshots++; return true })
	return out, err
}

// eachSnapshot calls f for a mirror's snapshots, newest first, outside of
// transactions, until it returns false.
func (s *Server) eachSnapshot(ctx context.Context, name string, f func(*meta.Snapshot) bool) error {
	var before time.Time
	for {
		var page []*meta.Snapshot
		err := s.view(ctx, func(tx *bolt.Tx) (err error) {
			page, err = tx.Snapshots(name, before, 500)
			return err
		})
		if err != nil {
			return err
		}
		for _, snap := range page {
			if !f(snap) {
				return nil
			}
			before = snap.Timestamp
		}
		if len(page) < 500 {
			return nil
		}
	}
}

func (s *Server) mirrorShow(ctx context.Context, req api.MirrorRef, _ func(api.Progress)) (api.MirrorDetail, error) {
	m, err := s.e.Mirror(req.Mirror)
	if err != nil {
		return api.MirrorDetail{}, err
	}
	st, err := s.mirrorStatus(ctx, m)
	if err != nil {
		return api.MirrorDetail{}, err
	}
	out := api.MirrorDetail{
		MirrorStatus: st, URLs: []string{}, Components: m.Components, Architectures: m.Architectures, Download: m.Download,
		Interval: m.Interval.String(), Keep: m.Keep.String(), Sources: m.Sources, Keyring: m.Keyring,
	}
	for _, u := range append(m.BaseURLs(), m.Metalink, m.Mirrorlist) {
		if !u.IsZero() {
			out.URLs = append(out.URLs, u.String())
		}
	}
	if st.Latest != "" {
		snap, err := s.e.ResolveSnapshot(ctx, m.Name)
		if err != nil {
			return out, err
		}
		out.Suites, err = s.suites(ctx, snap, true)
		return out, err
	}
	f, err := s.e.Format(m.Type)
	if err != nil {
		return out, err
	}
	names, err := f.Suites(m)
	for _, n := range names {
		out.Suites = append(out.Suites, api.SuiteDetail{Suite: string(n)})
	}
	return out, err
}

// suites describes the suites of a snapshot; deep adds signers and files.
func (s *Server) suites(ctx context.Context, snap *meta.Snapshot, deep bool) ([]api.SuiteDetail, error) {
	out := []api.SuiteDetail{}
	for _, e := range snap.Suites {
		d := api.SuiteDetail{Suite: string(e.Suite), Date: optional(e.Date)}
		var g *meta.Generation
		err := s.view(ctx, func(tx *bolt.Tx) (err error) {
			g, err = tx.Generation(snap.Mirror, e.Suite, e.Gen)
			return err
		})
		if err != nil {
			return nil, err
		}
		if d.Packages, d.Sources = g.Packages, g.Sources; deep {
			describeGeneration(&d, g)
		}
		out = append(out, d)
	}
	return out, nil
}

func describeGeneration(d *api.SuiteDetail, g *meta.Generation) {
	d.Undated, d.ValidUntil, d.Trust, d.Packages, d.Sources = g.Undated, optional(g.ValidUntil), string(g.Trust), g.Packages, g.Sources
	for _, k := range g.Signers {
		d.Signers = append(d.Signers, api.Signer(k))
	}
	for _, doc := range g.Docs {
		d.Documents = append(d.Documents, apiFile(doc.File))
	}
	for _, gr := range g.Groups {
		d.Indices = append(d.Indices, api.File{Path: gr.Form.Path, Size: gr.Form.Size, SHA256: gr.Form.SHA256.String()})
	}
}

func apiFile(f repo.File) api.File {
	return api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()}
}

// Sync takes the state of one mirror's upstream and counts how it went.
func (s *Server) Sync(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.SyncResult, error) {
	s.mu.Lock()
	s.syncing[name]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.syncing[name]--
		s.mu.Unlock()
	}()
	start := s.now()
	res, err := s.e.Sync(ctx, name, o)
	s.checkFatal(err)
	if _, uerr := s.e.Mirror(name); uerr != nil {
		return res, err // an unknown name makes no metric
	}
	s.metrics.syncTime.WithLabelValues(name).Observe(s.now().Sub(start).Seconds())
	outcome := "unchanged"
	switch {
	case err != nil:
		outcome = "failed"
		if o, _ := s.classify(err); o.exit == api.ExitVerify {
			outcome = "refused"
		}
	case res.New:
		outcome = "new"
		s.metrics.fetched.WithLabelValues(name).Add(float64(res.Bytes))
	}
	s.metrics.syncs.WithLabelValues(name, outcome).Inc()
	return res, err
}

func (s *Server) sync(ctx context.Context, req api.SyncRequest, progress func(api.Progress)) (api.SyncResult, error) {
	names := slices.Compact(slices.Sorted(slices.Values(req.Mirrors)))
	if len(names) == 0 {
		for _, m := range s.e.Mirrors() {
			names = append(names, m.Name)
		}
	}
	o := mirror.SyncOptions{FromURL: remote.NewURL(req.FromURL), ByHand: true, AcceptClock: req.AcceptClock, AcceptRollback: req.AcceptRollback}
	switch {
	case len(names) == 0:
		return api.SyncResult{}, fmt.Errorf("%w: no mirror is configured", ErrUsage)
	case req.FromURL != "" && req.As == nil, req.FromURL == "" && req.As != nil:
		return api.SyncResult{}, fmt.Errorf("%w: --from-url and --as go together: where the older state is, and the timestamp it stands for", ErrUsage)
	case o.FromURL.HasSecret():
		// Packages are fetched from there later, too, and the URL is kept.
		return api.SyncResult{}, fmt.Errorf("%w: --from-url %q: a URL that is kept must not have a user name, password or token: name them in the mirror's auth_file", ErrUsage, o.FromURL)
	case req.FromURL != "" && o.FromURL.Check() != nil:
		return api.SyncResult{}, fmt.Errorf("%w: --from-url %w", ErrUsage, o.FromURL.Check())
	case req.AcceptRollback && (len(req.Mirrors) != 1 || req.FromURL != ""):
		return api.SyncResult{}, fmt.Errorf("%w: --accept-rollback names exactly one mirror and goes without --from-url", ErrUsage)
	case req.FromURL != "" && len(names) != 1:
		return api.SyncResult{}, fmt.Errorf("%w: --from-url takes exactly one mirror, found %d", ErrUsage, len(names))
	case req.As != nil:
		o.As = *req.As
	}
	for _, n := range names {
		if _, err := s.e.Mirror(n); err != nil {
			return api.SyncResult{}, err
		}
	}
	out := api.SyncResult{Mirrors: make([]api.MirrorSync, len(names))}
	if req.NoWait {
		for i, n := range names {
			out.Mirrors[i] = api.MirrorSync{Mirror: n, Started: true}
			s.background(func(ctx context.Context) {
				if _, err := s.Sync(ctx, n, o); err != nil && ctx.Err() == nil {
					s.log.Error("sync failed", "repo", n, "err", err)
				}
			})
		}
		return out, nil
	}
	var mu sync.Mutex
	failed := 0
	eg := errgroup.Group{}
	for i, n := range names {
		eg.Go(func() error {
			one := s.syncOne(ctx, n, o, progress)
			mu.Lock()
			defer mu.Unlock()
			out.Mirrors[i] = one
			if one.Error != nil {
				failed++
				out.Exit = max(out.Exit, one.Error.Exit)
			}
			return nil
		})
	}
	_ = eg.Wait()
	if err := ctx.Err(); err != nil {
		return out, fmt.Errorf("sync: %w", err)
	}
	switch {
	case failed == 0:
	case out.Exit == api.ExitVerify:
	case failed < len(names):
		out.Exit = api.ExitPartial
	default:
		out.Exit = api.ExitFailed
	}
	return out, nil
}

// syncOne is one mirror's part of a sync, with its progress.
func (s *Server) syncOne(ctx context.Context, name string, o mirror.SyncOptions, progress func(api.Progress)) api.MirrorSync {
	o.Progress = &mirror.Progress{}
	o.Progress.SetPhase("waiting")
	tick, end := context.WithCancel(ctx)
	var ticking sync.WaitGroup
	ticking.Go(func() { ticker(tick, name, o.Progress, progress) })
	res, err := s.Sync(ctx, name, o)
	end()
	ticking.Wait()
	out := api.MirrorSync{Mirror: name}
	if err != nil {
		out.Error = s.apiError("sync", err)
		return out
	}
	out.Snapshot, out.New, out.Files, out.Bytes, out.Changed, out.Warnings = res.Snapshot.ID(), res.New, res.Files, res.Bytes, res.Added+res.Removed, res.Warnings
	return out
}

// ticker tells how far an operation is until ctx ends.
func ticker(ctx context.Context, task string, p *mirror.Progress, progress func(api.Progress)) {
	if progress == nil {
		return
	}
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	var last api.Progress
	for {
		now := api.Progress{
			Task: task, Phase: p.Phase(), Files: p.Files.Load(), FilesTotal: p.FilesTotal.Load(),
			Bytes: p.Bytes.Load(), BytesTotal: p.BytesTotal.Load(),
		}
		if now != last {
			last = now
			progress(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// byNewest orders snapshots for people: newest first, then by mirror.
func byNewest(a, b api.Snapshot) int {
	return cmp.Or(b.Timestamp.Compare(a.Timestamp), cmp.Compare(a.Mirror, b.Mirror))
}
