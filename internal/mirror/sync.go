package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Progress counts the work of a long operation, for people who wait. Its
// fields may be read at any time.
type Progress struct {
	phase                                atomic.Value
	Files, FilesTotal, Bytes, BytesTotal atomic.Int64
}

// SetPhase says what is being done now.
func (p *Progress) SetPhase(s string) {
	if p != nil {
		p.phase.Store(s)
	}
}

// Phase tells what is being done now.
func (p *Progress) Phase() string {
	s, _ := p.phase.Load().(string)
	return s
}

// SyncOptions adjust one sync.
type SyncOptions struct {
	Progress *Progress
	// FromURL takes the state from another place (a snapshot service, a copied
	// tree) into history, as the state at As, by which expiry is judged.
	FromURL remote.URL
	As      time.Time
	// ByHand means that somebody asks for the sync now: pauses that hosts asked
	// for earlier do not count.
	ByHand bool
	// AcceptClock means that the system clock is right, whatever speaks against it.
	AcceptClock bool
	// AcceptRollback means that upstream may have gone back: where every URL offers
	// an older state, the newest of these is taken.
	AcceptRollback bool
}

// SyncResult tells what a sync did.
type SyncResult struct {
	Mirror   string
	Snapshot *meta.Snapshot // the newest, new or not; the historic one with FromURL
	New      bool
	Files    int64 // fetched
	Bytes    int64 // fetched
	Added    int   // stanzas
	Removed  int
	Changed  []repo.SuiteName
	Warnings []string
}

// tornRetries bounds how often a sync starts again because upstream changed
// under it.
const tornRetries = 4

// Sync takes the state of upstream. One sync of a mirror runs at a time.
func (e *Engine) Sync(ctx context.Context, name string, o SyncOptions) (*SyncResult, error) {
	m, err := e.Mirror(name)
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	unlock, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := e.CheckSpace(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", name, err)
	}
	var ignore int64
	if o.ByHand {
		ignore = e.cfg.Client.Stats().Pauses
	}
	start := e.cfg.Now()
	var res *SyncResult
	var passed []place
	var causes []error
	for try := 0; ; {
		s := &syncer{e: e, m: m, f: e.formats[m.Type], o: o, p: o.Progress, head: map[repo.SuiteName]*meta.Generation{}, passed: passed, ignore: ignore}
		res, err = s.run(ctx)
		var inc *incomplete
		if !errors.Is(err, repo.ErrTorn) && errors.As(err, &inc) && len(s.urls) > 1 && len(passed) < maxPassed && ctx.Err() == nil {
			e.cfg.Log.Warn("not all that a mirror lists can be had, trying the next one", "repo", name, "suite", string(inc.suite), "err", err)
			passed, causes = append(passed, inc.place), append(causes, err)
			continue
		}
		if try++; !errors.Is(err, repo.ErrTorn) || try == tornRetries {
			break
		}
		e.cfg.Log.Warn("upstream changed during the sync, starting again", "repo", name, "err", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(1<<try) * 125 * time.Millisecond):
		}
	}
	if err != nil && len(causes) > 0 {
		err = joined(append(causes, err))
	}
	if o.FromURL.IsZero() && ctx.Err() == nil {
		cerr := e.cfg.Store.Update(ctx, "check", func(tx *bolt.Tx) error {
			c := tx.LastCheck(name)
			res.note(&c, e.cfg.Now(), err)
			return tx.SetCheck(name, c)
		})
		if err == nil {
			err = cerr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sync %s: %w", name, err)
	}
	e.cfg.Log.Info("synced", "repo", name, "snapshot", res.Snapshot.ID(), "new", res.New, "files", res.Files, "bytes", res.Bytes, "dur", e.cfg.Now().Sub(start).Round(time.Millisecond))
	return res, nil
}

// place is one suite at one base URL.
type place struct {
	suite repo.SuiteName
	url   remote.URL
}

// maxPassed bounds how many places a sync gives up on for the next URL.
const maxPassed = 3

// incomplete means that a place has a good root, and nobody all of what it
// lists: a mirror that is being updated, ahead of the others.
type incomplete struct {
	place
	err error
}

func (i *incomplete) Error() string { return i.err.Error() }
func (i *incomplete) Unwrap() error { return i.err }

// completeOr marks errors of what a root lists and nobody has as it should be.
func (state *suiteState) completeOr(err error) error {
	if errors.Is(err, repo.ErrMissing) || errors.Is(err, fetch.ErrNotFound) || errors.Is(err, fetch.ErrMismatch) {
		return &incomplete{place{state.suite, state.url}, err}
	}
	return err
}

// syncer is one attempt.
type syncer struct {
	e    *Engine
	m    config.Mirror
	f    repo.Format
	o    SyncOptions
	p    *Progress
	kr   *sign.Keyring
	now  time.Time
	urls []remote.URL
	// passed are places that earlier attempts found incomplete.
	passed []place
	ignore int64 // pauses that do not count; see fetch.Request

	clock    clock
	headSnap *meta.Snapshot
	// failed means that the last sync failed: upstream may have served a file that
	// was refused.
	failed bool
	head   map[repo.SuiteName]*meta.Generation // of the newest snapshot
	files  atomic.Int64
	bytes  atomic.Int64

	warnMu   sync.Mutex
	warnings []string

	linksMu sync.Mutex
	links   map[remote.URL]repo.Doc
}

// suiteState is one suite of the snapshot being made.
type suiteState struct {
	suite repo.SuiteName
	root  *repo.Root // nil: unchanged
	url   remote.URL // that the root came from
	gen   meta.Generation
	files []repo.File
	also  []meta.Alias // SHA-512 of files that are known by SHA-256, too
}

func (s *syncer) run(ctx context.Context) (*SyncResult, error) {
	st := s.e.cfg.Store
	var err error
	if s.kr, err = s.e.Keyring(s.m); err != nil {
		return nil, err
	}
	history := !s.o.FromURL.IsZero()
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	if history {
		s.now = s.o.As
		s.urls = []remote.URL{s.o.FromURL.Trim()}
	} else if s.urls, err = s.f.BaseURLs(ctx, &getter{s: s}, s.m); err != nil {
		return nil, err
	}
	if len(s.urls) == 0 {
		return nil, fmt.Errorf("mirror %s has no URL", s.m.Name)
	}
	suites, err := s.f.Suites(s.m)
	if err != nil {
		return nil, err
	}
	if history {
		if err := s.checkHistory(ctx); err != nil {
			return nil, err
		}
	}

	s.p.SetPhase("checking signatures")
	states := make([]*suiteState, len(suites))
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(4)
	for i, suite := range suites {
		eg.Go(func() (err error) {
			states[i], err = s.fetchRoot(egctx, suite)
			return err
		})
	}
	if err := s.checkClock(states, eg.Wait()); err != nil {
		return nil, err
	}
	changed := false
	for _, state := range states {
		changed = changed || state.root != nil
	}
	if !changed && s.headSnap != nil && !history && sameSuites(s.headSnap, suites) {
		s.warnOf(states)
		return &SyncResult{Mirror: s.m.Name, Snapshot: s.headSnap, Warnings: s.warnings}, nil
	}

	res := &SyncResult{Mirror: s.m.Name, New: true}
	batch := s.e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	for _, state := range states {
		if state.root == nil {
			continue
		}
		if err := s.takeSuite(ctx, state, batch, res); err != nil {
			return nil, state.completeOr(err)
		}
		res.Changed = append(res.Changed, state.suite)
	}
	// Invariant 1: blobs are durable before metadata names them.
	if err := s.e.Flush(ctx, batch); err != nil {
		return nil, err
	}
	if err := s.checkPaths(ctx, states); err != nil {
		return nil, err
	}
	if s.m.Download == config.All {
		if err := s.takePackages(ctx, states); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.p.SetPhase("sealing")
	sealing := &meta.Sealing{History: history}
	sealing.Snapshot = meta.Snapshot{Mirror: s.m.Name, Type: s.m.Type}
	if history {
		sealing.Snapshot.Timestamp = s.o.As
		sealing.Snapshot.FromURL = s.o.FromURL.String()
	}
	for _, state := range states {
		if state.root != nil {
			sealing.Generations = append(sealing.Generations, state.gen)
			sealing.Listings = append(sealing.Listings, state.files)
		}
		sealing.Snapshot.Suites = append(sealing.Snapshot.Suites, meta.SnapshotSuite{Suite: state.suite, Gen: state.gen.Gen, Date: state.gen.Date})
	}
	// The batch holds what is here from this look until it is referenced.
	for i := range sealing.Generations {
		for _, d := range sealing.Generations[i].Blobs() {
			err := s.e.Hold(ctx, batch, d)
			if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
				err = fmt.Errorf("%w: %w", repo.ErrTorn, err)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	now := s.e.cfg.Now()
	if err := s.accept(s.clock.set(now)); err != nil {
		return nil, err
	}
	// If we stop here, the staged facts are compared again by the next sync.
	err = st.Update(ctx, "seal", func(tx *bolt.Tx) error {
		for _, state := range states {
			for _, a := range state.also {
				if d, err := tx.Alias(a.Algo, a.Other); err != nil || d != a.SHA256 {
					sealing.Aliases = append(sealing.Aliases, a)
				}
			}
		}
		return tx.Seal(sealing, now)
	})
	if err != nil {
		return nil, err
	}
	s.e.Changed()
	snap := sealing.Snapshot
	res.Snapshot = &snap
	s.warnOf(states)
	res.Files, res.Bytes, res.Warnings = s.files.Load(), s.bytes.Load(), s.warnings
	return res, nil
}

// begin reads what the last sync left, and refuses a clock that is behind it.
func (s *syncer) begin(ctx context.Context) error {
	var last meta.Check
	err := s.e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
		last = tx.LastCheck(s.m.Name)
		s.failed = last.Error != ""
		s.headSnap, err = tx.Latest(s.m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		for _, e := range s.headSnap.Suites {
			if s.head[e.Suite], err = tx.Generation(s.m.Name, e.Suite, e.Gen); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.now = s.e.cfg.Now()
	s.clock.begin(s.now, s.headSnap, last)
	if !s.o.FromURL.IsZero() {
		return nil
	}
	return s.accept(s.clock.behind(s.now))
}

// checkHistory refuses timestamps that history already answers for.
func (s *syncer) checkHistory(ctx context.Context) error {
	if s.o.As.IsZero() {
		return errors.New("a state from another URL needs the timestamp that it stands for")
	}
	if s.o.As.After(s.e.cfg.Now()) {
		return fmt.Errorf("the timestamp %s lies in the future", meta.FormatTimestamp(s.o.As))
	}
	return s.e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		snap, err := tx.Snapshot(s.m.Name, s.o.As)
		switch {
		case errors.Is(err, meta.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("snapshot %s: %w", snap.ID(), meta.ErrExists)
	})
}

func sameSuites(snap *meta.Snapshot, suites []repo.SuiteName) bool {
	return slices.EqualFunc(snap.Suites, suites, func(a meta.SnapshotSuite, b repo.SuiteName) bool { return a.Suite == b })
}

// fetchRoot takes a suite's root from the first URL that has one at least as
// new as ours: mirrors lag, and only when all do is it a rollback.
func (s *syncer) fetchRoot(ctx context.Context, suite repo.SuiteName) (*suiteState, error) {
	state := &suiteState{suite: suite}
	head := s.head[suite]
	if !s.o.FromURL.IsZero() {
		head = nil
	}
	var prev []repo.Doc
	again := head != nil && head.Selection != "" && head.Selection != selection(s.m)
	if head != nil && !again {
		var err error
		if prev, err = s.e.Documents(ctx, head); err != nil {
			s.e.cfg.Log.Warn("documents held cannot be read, fetching them again", "repo", s.m.Name, "suite", string(suite), "err", err)
			prev = nil
		}
		for i := range prev {
			if s.failed {
				// The repaired file may be older than the one held, and some servers
				// would then answer that nothing changed.
				prev[i].ETag, prev[i].LastModified = "", time.Time{}
			}
		}
	}
	var errs []error
	passOver := func() {
		for _, err := range errs {
			if isSecurity(err) {
				s.warn(err.Error())
			}
			s.e.cfg.Log.Warn("passed over a URL", "repo", s.m.Name, "suite", string(suite), "err", err)
		}
	}
	for _, u := range s.urls {
		if slices.Contains(s.passed, place{suite, u}) {
			continue
		}
		p := repo.VerifyParams{Keyring: s.kr, Now: s.now}
		if !s.o.FromURL.IsZero() {
			// A state of the past: expiry is judged at As, and keys that expired since
			// count as they did then.
			p.Now = s.o.As
		}
		root, err := s.f.FetchRoot(ctx, &getter{s: s, base: u}, s.m, suite, prev, p)
		switch {
		case errors.Is(err, repo.ErrNotModified):
			state.gen = *head
			passOver()
			return state, nil
		case err != nil:
			errs = append(errs, err)
			if ctx.Err() != nil {
				return nil, err
			}
			continue
		}
		if head != nil && root.Date.Before(head.Date) {
			errs = append(errs, fmt.Errorf("suite %s at %s: %w: its date is %s, the last sync's was %s", suite, u, repo.ErrRollback, stamp(root.Date), stamp(head.Date)))
			continue
		}
		same := head != nil && sameDocs(head, root.Docs)
		passOver()
		if same && !again {
			state.gen = *head
			return state, nil
		}
		if head != nil && !same && root.Date.Equal(head.Date) && !s.listsAs(ctx, head, root) {
			s.warn(fmt.Sprintf("suite %s: other content under the same date %s", suite, stamp(root.Date)))
		}
		state.root, state.url = root, u
		return state, nil
	}
	switch {
	case len(errs) == 0:
		return nil, fmt.Errorf("suite %s: no further URL: %w", suite, repo.ErrMissing)
	case head != nil && s.o.AcceptRollback && errors.Is(joined(errs), repo.ErrRollback):
		return s.acceptOlder(ctx, head, errs)
	}
	return nil, joined(errs)
}

// acceptOlder takes a suite's root from the URL that has the newest, although it
// is older than the one held. errs say why no URL was taken; they are the result
// if none has a valid root.
func (s *syncer) acceptOlder(ctx context.Context, head *meta.Generation, errs []error) (*suiteState, error) {
	var state *suiteState
	for _, u := range s.urls {
		if slices.Contains(s.passed, place{head.Suite, u}) {
			continue
		}
		root, err := s.f.FetchRoot(ctx, &getter{s: s, base: u}, s.m, head.Suite, nil, repo.VerifyParams{Keyring: s.kr, Now: s.now})
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			continue // errs has it
		}
		if state == nil || root.Date.After(state.root.Date) {
			state = &suiteState{suite: head.Suite, root: root, url: u}
		}
	}
	if state == nil {
		return nil, joined(errs)
	}
	s.warn(fmt.Sprintf("suite %s: accepted an older state: its date is %s, the last sync's was %s", head.Suite, stamp(state.root.Date), stamp(head.Date)))
	return state, nil
}

// listsAs reports whether a root lists the same files as a stored generation:
// InRelease in place of Release and Release.gpg, or a new signature.
func (s *syncer) listsAs(ctx context.Context, g *meta.Generation, root *repo.Root) bool {
	old, _, _, err := s.e.Root(ctx, g.Mirror, s.m.Type, g.Suite, g.Gen)
	return err == nil && old.ValidUntil.Equal(root.ValidUntil) && slices.EqualFunc(old.Files, root.Files, func(a, b repo.Listed) bool {
		return a.Path == b.Path && a.Size == b.Size && a.SHA256 == b.SHA256 && a.SHA512 == b.SHA512
	})
}

// selection stands for what a mirror's configuration selects, in a few letters.
func selection(m config.Mirror) string {
	text := fmt.Sprintf("%q %q %t %q %t %t %t %q %q %t", m.Components, m.Architectures, m.Sources, m.Languages,
		m.Contents, m.Udebs, m.Installer, m.Indices, m.Packages, m.Download == config.All)
	return cas.Sum([]byte(text)).String()[:16]
}

func (s *syncer) warn(w string) {
	s.warnMu.Lock()
	defer s.warnMu.Unlock()
	s.warnings = append(s.warnings, w)
}

// warnOf passes on what the suites of the newest snapshot warn of.
func (s *syncer) warnOf(states []*suiteState) {
	for _, state := range states {
		for _, w := range state.gen.Warnings {
			s.warn(fmt.Sprintf("suite %s: %s", state.suite, w))
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// joined tells all when every URL failed: a security error is never hidden by a
// network error of another mirror.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// isSecurity reports whether an error may be somebody's attempt, and is never
// passed over in silence.
func isSecurity(err error) bool {
	return errors.Is(err, sign.ErrBadSignature) || errors.Is(err, repo.ErrUntrusted)
}

func sameDocs(g *meta.Generation, docs []repo.Doc) bool {
	return slices.EqualFunc(g.Docs, docs, func(a meta.Doc, b repo.Doc) bool { return a.Path == b.Path && a.SHA256 == cas.Sum(b.Data) })
}

// takeSuite fetches and stages what the configuration selects of one root.
func (s *syncer) takeSuite(ctx context.Context, state *suiteState, batch cas.Batch, res *SyncResult) error {
	root := state.root
	dir := s.f.SuiteDir(root.Suite)
	groups, err := s.f.Plan(s.m, root)
	if err != nil {
		return err
	}
	stage, err := s.e.cfg.Store.NewStage(ctx, s.m.Name, root.Suite)
	if err != nil {
		return err
	}
	gen := &state.gen
	*gen = meta.Generation{
		Mirror: s.m.Name, Suite: root.Suite, Gen: stage.Gen(), Date: root.Date, ValidUntil: root.ValidUntil,
		Selection: selection(s.m), Revision: root.Revision, Trust: root.Trust, Signers: root.Signers, ByHash: root.ByHash,
		Undated: root.Undated, Warnings: slices.Clone(root.Warnings),
	}
	for _, g := range groups {
		if g.Err != nil {
			return g.Err
		}
		if g.Warning != "" {
			gen.Warnings = append(gen.Warnings, g.Warning)
		}
	}
	if gen.Docs, err = putDocs(ctx, batch, root.Docs); err != nil {
		return err
	}
	if c, ok := s.f.(repo.CompanionFetcher); ok {
		docs := c.FetchCompanions(ctx, &getter{s: s, base: state.url}, root, repo.VerifyParams{Keyring: s.kr, Now: s.now})
		if gen.Companions, err = putDocs(ctx, batch, docs); err != nil {
			return err
		}
	}
	if err := s.keepProof(ctx, batch, root, gen); err != nil {
		return err
	}
	// What the last arrival held tells which indices need no reading.
	base := map[string]meta.Group{}
	var elsewhere []string // what it said about where packages stand
	if err := s.e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		last, err := tx.LastGeneration(s.m.Name, root.Suite)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		elsewhere = last.AlternateBases
		for _, g := range last.Groups {
			base[g.Index] = g
		}
		return nil
	}); err != nil {
		return err
	}

	s.p.SetPhase("fetching indices of " + string(root.Suite))
	s.p.FilesTotal.Add(int64(len(groups)))
	held := make([]*repo.Listed, len(groups))
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(min(4, s.e.cfg.Parallel))
	for i, g := range groups {
		eg.Go(func() (err error) {
			held[i], err = s.takeGroup(egctx, state, dir, g, batch)
			s.p.Files.Add(1)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	gen.Warnings = append(gen.Warnings, absentWarnings(groups, held)...)
	if err := s.e.Flush(ctx, batch); err != nil {
		return err
	}

	s.p.SetPhase("reading indices of " + string(root.Suite))
	open := func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		for i, g := range groups {
			if held[i] == nil {
				continue
			}
			for _, form := range g.Forms {
				if form.Path == l.Path {
					return s.e.cfg.Blobs.Open(ctx, held[i].SHA256)
				}
			}
		}
		return nil, fmt.Errorf("%s: %w", l.Path, repo.ErrMissing)
	}
	seen := map[string]bool{}
	for i, g := range groups {
		if held[i] == nil {
			continue
		}
		kept := meta.Group{Index: g.Index, Component: g.Component, Arch: g.Arch, Packages: g.Packages, Form: *held[i], Plain: plainOf(g), Also: g.Also}
		if g.Packages {
			seen[g.Index] = true
			dirty, err := stage.Dirty(ctx, g.Index)
			if err != nil {
				return err
			}
			if old, ok := base[g.Index]; ok && old.Packages && !dirty && sameContent(old, kept) && !alsoChanged(base, groups, held, g) {
				kept.Count, kept.Sources, kept.Unusable, kept.FirstUnusable = old.Count, old.Sources, old.Unusable, old.FirstUnusable
				for _, e := range elsewhere {
					if !slices.Contains(gen.AlternateBases, e) {
						gen.AlternateBases = append(gen.AlternateBases, e)
					}
				}
			} else {
				if err := stage.Begin(ctx, g.Index); err != nil {
					return err
				}
				known := &sha512Files{s: s, batch: batch, add: func(ctx context.Context, r *repo.Record) error {
					noteRecord(&kept, r)
					return stage.Add(ctx, r)
				}}
				err := s.f.Read(ctx, root, g, *held[i], open, func(r *repo.Record) error {
					if e := strings.TrimRight(r.AlternateBases, "/"); e != "" && !slices.Contains(gen.AlternateBases, e) {
						if len(gen.AlternateBases) == maxElsewhere {
							return fmt.Errorf("%w: packages stand at more than %d places, %s the last", repo.ErrMalformed, maxElsewhere, e)
						}
						gen.AlternateBases = append(gen.AlternateBases, e)
					}
					return known.put(ctx, r)
				})
				if err == nil {
					err = known.flush(ctx)
				}
				if err != nil {
					return fmt.Errorf("index %s%s: %w", dir, held[i].Path, err)
				}
				records, changed, err := stage.End(ctx)
				if err != nil {
					return err
				}
				kept.Count = records
				res.Added += changed
			}
			gen.Sources += kept.Sources
			gen.Packages += kept.Count - kept.Sources - kept.Unusable
			if w := unusableWarning(&kept); w != "" {
				gen.Warnings = append(gen.Warnings, w)
			}
		}
		gen.Groups = append(gen.Groups, kept)
	}
	more, err := s.takeExpanded(ctx, state, dir, gen.Groups, batch)
	if err != nil {
		return err
	}
	gen.Groups = append(gen.Groups, more...)
	left, err := stage.Indices(ctx)
	if err != nil {
		return err
	}
	for _, index := range left {
		if seen[index] {
			continue
		}
		if err := stage.Begin(ctx, index); err != nil {
			return err
		}
		if _, _, err := stage.End(ctx); err != nil {
			return err
		}
	}
	taken := map[string]*repo.Listed{}
	for _, l := range held {
		if l != nil {
			taken[l.Path] = l
		}
	}
	for _, l := range root.Files {
		if t := taken[l.Path]; t != nil && l.SHA256.IsZero() {
			l.SHA256 = t.SHA256
		}
		if l.SHA256.IsZero() {
			continue
		}
		state.files = append(state.files, repo.File{Path: dir + l.Path, Size: l.Size, SHA256: l.SHA256})
		if l.SHA512 != "" {
			state.also = append(state.also, meta.Alias{Algo: meta.AliasSHA512, Other: []byte(l.SHA512), SHA256: l.SHA256})
		}
	}
	return nil
}

// putDocs stores signed documents.
func putDocs(ctx context.Context, batch cas.Batch, docs []repo.Doc) (out []meta.Doc, err error) {
	for _, d := range docs {
		info, err := cas.PutBatch(ctx, batch, d.Data, d.LastModified)
		if err != nil {
			return nil, err
		}
		out = append(out, meta.Doc{
			File:         repo.File{Path: d.Path, Size: info.Size, SHA256: info.Digest},
			LastModified: d.LastModified.UTC(), ETag: d.ETag, URL: d.URL,
		})
	}
	return out, ctx.Err()
}

// noteRecord counts a record of an index.
func noteRecord(g *meta.Group, r *repo.Record) {
	switch r.Kind {
	case repo.KindSource:
		g.Sources++
	case repo.KindUnusable:
		if g.Unusable++; g.Unusable == 1 {
			g.FirstUnusable = strings.Join(strings.Fields(r.Name+" "+r.Version+" "+r.Arch), " ") + ": " + r.Reason
		}
	}
}

// absentWarnings says which optional groups are not held, for each kind of them:
// how many, and the first one.
func absentWarnings(groups []repo.Group, held []*repo.Listed) (out []string) {
	absent := map[string][]string{}
	for i, g := range groups {
		if held[i] == nil && g.WarnAbsent != "" {
			absent[g.WarnAbsent] = append(absent[g.WarnAbsent], g.Index)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(absent)) {
		names := slices.Sorted(slices.Values(absent[what]))
		out = append(out, fmt.Sprintf("%s: %d (the first: %s)", what, len(names), names[0]))
	}
	return out
}

// unusableWarning says which stanzas of an index are left out, or nothing.
func unusableWarning(g *meta.Group) string {
	switch g.Unusable {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s: 1 stanza that no client can install is left out (%s)", g.Index, g.FirstUnusable)
	}
	return fmt.Sprintf("%s: %d stanzas that no client can install are left out (the first: %s)", g.Index, g.Unusable, g.FirstUnusable)
}

// takeExpanded fetches what listed files that were taken list in their turn:
// an installer's images behind its SHA256SUMS.
func (s *syncer) takeExpanded(ctx context.Context, state *suiteState, dir string, groups []meta.Group, batch cas.Batch) ([]meta.Group, error) {
	x, ok := s.f.(repo.Expander)
	if !ok || !s.m.Installer {
		return nil, nil
	}
	var out []meta.Group
	looked := false // whether upstream changed
	for _, g := range groups {
		if !x.Expands(g.Index) {
			continue
		}
		data, err := cas.ReadAll(ctx, s.e.cfg.Blobs, g.Form.SHA256, catalog.MaxDocument)
		if err != nil {
			return nil, err
		}
		files, err := x.Expand(g.Index, bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", dir, g.Index, err)
		}
		s.p.FilesTotal.Add(int64(len(files)))
		for _, l := range files {
			info, err := batch.Hold(ctx, l.SHA256)
			if err != nil {
				info, err = s.fetch(ctx, state, dir, l, batch)
				if !looked && (errors.Is(err, fetch.ErrNotFound) || errors.Is(err, fetch.ErrMismatch)) {
					looked = true
					if terr := s.tornOr(ctx, state, err); errors.Is(terr, repo.ErrTorn) {
						return nil, fmt.Errorf("%s%s: %w", dir, l.Path, terr)
					}
				}
				if errors.Is(err, fetch.ErrNotFound) {
					s.warn(fmt.Sprintf("%s%s is listed in %s but upstream does not have it", dir, l.Path, g.Index))
					continue
				} else if err != nil {
					return nil, fmt.Errorf("%s%s: %w", dir, l.Path, err)
				}
			}
			s.p.Files.Add(1)
			out = append(out, meta.Group{Index: l.Path, Component: g.Component, Arch: g.Arch, Form: repo.Listed{Path: l.Path, Size: info.Size, SHA256: info.Digest}})
		}
	}
	return out, nil
}

func plainOf(g repo.Group) repo.Listed {
	for _, f := range g.Forms {
		if f.Path == g.Index {
			f.Alternates = nil
			return f
		}
	}
	return repo.Listed{}
}

// sameContent compares two generations of an index: by the plain digest where
// both list it, since compressions may differ.
func sameContent(a, b meta.Group) bool {
	if !a.Plain.SHA256.IsZero() && !b.Plain.SHA256.IsZero() {
		return a.Plain.SHA256 == b.Plain.SHA256
	}
	return a.Form.SHA256 == b.Form.SHA256
}

func alsoChanged(base map[string]meta.Group, groups []repo.Group, held []*repo.Listed, g repo.Group) bool {
	for _, also := range g.Also {
		for i := range groups {
			if groups[i].Index == also && held[i] != nil && base[also].Form.SHA256 != held[i].SHA256 {
				return true
			}
		}
	}
	return false
}

// keepProof stores the certificates that verified a root, or those of the whole
// keyring where packages are signed by it, too, and the metalink that vouched
// for the root.
func (s *syncer) keepProof(ctx context.Context, batch cas.Batch, root *repo.Root, gen *meta.Generation) error {
	kr := s.kr
	if f, ok := s.f.(repo.PackageSigner); kr != nil && !(ok && f.SignsPackages() && s.m.CheckPackages()) {
		var fprs []string
		for _, k := range root.Signers {
			fprs = append(fprs, k.Fingerprint)
		}
		var err error
		if kr, err = kr.Filter(fprs...); err != nil {
			return err
		}
	}
	if kr != nil && kr.Len() > 0 {
		info, err := cas.PutBatch(ctx, batch, kr.ExportArmored(), time.Time{})
		if err != nil {
			return err
		}
		gen.Certificates = info.Digest
	}
	if len(root.Metalink) > 0 {
		info, err := cas.PutBatch(ctx, batch, root.Metalink, time.Time{})
		if err != nil {
			return err
		}
		gen.Metalink = info.Digest
	}
	return nil
}

// takeGroup makes sure that one form of a listed file is here: the first that
// is held already, else the first that upstream has.
func (s *syncer) takeGroup(ctx context.Context, state *suiteState, dir string, g repo.Group, batch cas.Batch) (*repo.Listed, error) {
	for _, form := range g.Forms {
		if form.SHA256.IsZero() {
			if err := s.e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
				form.SHA256, err = tx.Alias(meta.AliasSHA512, []byte(form.SHA512))
				return err
			}); err != nil {
				continue
			}
		}
		if _, err := batch.Hold(ctx, form.SHA256); err == nil && s.e.Corrupt(form.SHA256) == nil {
			form.Alternates = nil
			return &form, nil
		}
	}
	var failed []error
	gone := true // every variant is missing
	for _, form := range g.Forms {
		if form.Size == 0 && form.Path == g.Index && len(g.Forms) > 1 {
			continue // an empty plain form beside compressed ones is as a rule not there
		}
		info, err := s.fetch(ctx, state, dir, form, batch)
		if err == nil {
			for _, err := range failed {
				s.e.cfg.Log.Warn("took another variant of an index", "repo", s.m.Name, "suite", string(state.suite), "variant", form.Path, "err", err)
			}
			form.SHA256, form.Size, form.Alternates = info.Digest, info.Size, nil
			return &form, nil
		}
		if ctx.Err() != nil || !fetch.IsUpstream(err) && !errors.Is(err, fetch.ErrNotFound) {
			return nil, err
		}
		err = fmt.Errorf("%s%s: %w", dir, form.Path, err)
		if errors.Is(err, fetch.ErrMismatch) {
			return nil, s.tornOr(ctx, state, err) // apt looks no further either
		}
		gone = gone && errors.Is(err, fetch.ErrNotFound)
		failed = append(failed, err)
	}
	switch {
	case gone && g.Optional:
		return nil, nil
	case !gone && len(failed) == 1:
		return nil, failed[0]
	case !gone:
		return nil, fmt.Errorf("%s%s: no variant of the index can be fetched: %w", dir, g.Index, errors.Join(failed...))
	}
	var missing []string
	for _, form := range g.Forms {
		missing = append(missing, form.Path)
	}
	err := fmt.Errorf("%s%s: %w: upstream lists it but does not have any variant of it (%s)", dir, g.Index, repo.ErrMissing, strings.Join(missing, ", "))
	return nil, s.tornOr(ctx, state, err)
}

// tornOr tells a change of upstream during the sync from a fault: when the root
// is another one by now, the sync starts again.
func (s *syncer) tornOr(ctx context.Context, state *suiteState, cause error) error {
	g := &getter{s: s, base: state.url}
	for _, d := range state.root.Docs {
		now, err := g.Get(ctx, d.Path, catalog.MaxDocument, nil)
		if err == nil && !bytes.Equal(now.Data, d.Data) {
			return fmt.Errorf("%w: %w", repo.ErrTorn, cause)
		}
	}
	return cause
}

// fetch gets one listed file into the batch.
func (s *syncer) fetch(ctx context.Context, state *suiteState, dir string, l repo.Listed, batch cas.Batch) (cas.Info, error) {
	bases := []remote.URL{state.url}
	for _, u := range s.urls {
		if u != state.url {
			bases = append(bases, u)
		}
	}
	w, err := batch.Create(ctx)
	if err != nil {
		return cas.Info{}, err
	}
	defer w.Abort()
	var urls []remote.URL
	for _, b := range bases {
		for _, p := range append(slices.Clone(l.Alternates), l.Path) {
			urls = append(urls, b.Join(dir+p))
		}
	}
	return s.e.download(ctx, s.m, urls, l, w, s.p, s)
}

// download runs one verified fetch into w and commits it.
func (e *Engine) download(ctx context.Context, m config.Mirror, urls []remote.URL, l repo.Listed, w cas.Writer, p *Progress, s *syncer) (cas.Info, error) {
	req := fetch.Request{URLs: urls, Size: l.Size, MaxSize: maxUnknown, Want: fetch.StrongDigests(l.SHA256, l.SHA512), Dest: w, Tree: treeOf(urls), Access: e.access[m.Name], Scope: e.scopes[m.Name]}
	if l.Size >= 0 {
		req.MaxSize = 0
	}
	if p != nil {
		req.OnBytes = func(n int64) { p.Bytes.Add(n) }
	}
	if s != nil {
		req.IgnorePauses = s.ignore
	}
	res, err := e.get(ctx, m, req)
	if err != nil {
		return cas.Info{}, err
	}
	info, err := w.Commit(l.SHA256, l.Size, res.LastModified)
	if err != nil {
		return info, err
	}
	if s != nil {
		s.files.Add(1)
		s.bytes.Add(info.Size)
	}
	return info, nil
}

// maxElsewhere bounds the places outside of a mirror at which packages stand.
const maxElsewhere = 16

// takePackages fetches every package of the new generations that is not here.
func (s *syncer) takePackages(ctx context.Context, states []*suiteState) error {
	s.p.SetPhase("fetching packages")
	all := snapshotOf(s.m.Name, s.m.Type, states)
	for _, state := range states {
		if state.root == nil {
			continue
		}
		var gone missingFiles
		if err := s.takeSuitePackages(ctx, state, all, &gone); err != nil {
			return state.completeOr(err)
		}
		state.gen.Complete = gone.n == 0
		if gone.n > 0 {
			state.gen.Missing = gone.n
			state.gen.Warnings = append(state.gen.Warnings, gone.warning())
		}
	}
	return nil
}

// missingFiles counts the package files that upstream lists and does not have.
type missingFiles struct {
	mu    sync.Mutex
	n     int
	first string // in order
}

func (m *missingFiles) add(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n++; m.n == 1 || name < m.first {
		m.first = name
	}
}

func (m *missingFiles) warning() string {
	if m.n == 1 {
		return "1 file that upstream lists is not there (" + m.first + ")"
	}
	return fmt.Sprintf("%d files that upstream lists are not there (the first: %s)", m.n, m.first)
}

// takeSuitePackages fetches the packages of a suite that the configuration's globs
// select, and with each its source, whatever that is called. Those that upstream does
// not have are counted where the configuration allows it.
func (s *syncer) takeSuitePackages(ctx context.Context, state *suiteState, all *meta.Snapshot, gone *missingFiles) error {
	files, bytes, err := s.e.FetchPackages(ctx, FetchOptions{
		Mirror: s.m, URLs: append(slices.Clone(s.urls), foreign(state.gen.AlternateBases)...), Progress: s.p, IgnorePauses: s.ignore,
		Lost: func(w *repo.Record, f repo.File, err error) error {
			missing := errors.Is(err, fetch.ErrNotFound)
			err = fmt.Errorf("package %s %s: %s: %w", w.Name, w.Version, f.Path, err)
			if missing || errors.Is(err, fetch.ErrMismatch) {
				err = s.tornOr(ctx, state, err)
			}
			if missing && s.m.Missing == config.RecordMissing && !errors.Is(err, repo.ErrTorn) {
				gone.add(f.Path)
				return nil
			}
			return err
		},
	}, func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error {
		return s.e.eachStaged(ctx, &state.gen, func(f *meta.Fact) error {
			if !s.f.Match(s.m, &f.Record) {
				return nil
			}
			taken := []*meta.Fact{f}
			if len(s.m.Packages) > 0 && s.m.Sources && f.Kind != repo.KindSource {
				sources, err := s.e.sourcesOf(ctx, all, f)
				if err != nil {
					return err
				}
				taken = append(taken, sources...)
			}
			for _, f := range taken {
				for _, file := range f.Files {
					if err := fetch(&f.Record, file); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	s.files.Add(files)
	s.bytes.Add(bytes)
	return err
}

// sourcesOf lists the source packages of a snapshot that a package names as its
// own.
func (e *Engine) sourcesOf(ctx context.Context, snap *meta.Snapshot, f *meta.Fact) (out []*meta.Fact, err error) {
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		for _, ref := range f.Sources {
			named, err := tx.ByName(snap.Mirror, ref.Name)
			if err != nil {
				return err
			}
			for _, src := range named {
				if src.Kind != repo.KindSource || src.Version != ref.Version {
					continue
				}
				if places, err := tx.PlacesAt(snap, src.PID); err != nil {
					return err
				} else if len(places) > 0 {
					out = append(out, src)
				}
			}
		}
		return nil
	})
	return out, err
}

// begun lists the stanzas that begin with a staged generation, and returns the
// generation before it; without one, every stanza begins.
func (e *Engine) begun(ctx context.Context, g *meta.Generation) (base *meta.Generation, fresh []meta.PID, err error) {
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		last, err := tx.LastGeneration(g.Mirror, g.Suite)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		base = last
		changes, err := tx.Changes(g.Mirror, g.Suite, last.Gen, g.Gen)
		for _, c := range changes {
			if c.Added {
				fresh = append(fresh, c.PID)
			}
		}
		return err
	})
	return base, fresh, err
}

// eachStaged calls f for each stanza of a suite's staged generation: only for
// those that began with it when the base was complete.
func (e *Engine) eachStaged(ctx context.Context, g *meta.Generation, f func(*meta.Fact) error) error {
	base, fresh, err := e.begun(ctx, g)
	if err != nil {
		return err
	}
	if base != nil && base.Complete && base.Selection == g.Selection {
		return e.eachFact(ctx, fresh, f)
	}
	return e.eachOf(ctx, g, f)
}

// eachBegun calls f for each stanza that begins with a staged generation.
func (e *Engine) eachBegun(ctx context.Context, g *meta.Generation, f func(*meta.Fact) error) error {
	base, fresh, err := e.begun(ctx, g)
	if err != nil {
		return err
	}
	if base != nil {
		return e.eachFact(ctx, fresh, f)
	}
	return e.eachOf(ctx, g, f)
}

// eachFact calls f for each of the stanzas, in bounded transactions.
func (e *Engine) eachFact(ctx context.Context, pids []meta.PID, f func(*meta.Fact) error) error {
	for page := range slices.Chunk(pids, pageSize) {
		var facts []*meta.Fact
		if err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
			for _, pid := range page {
				fact, err := tx.Fact(pid)
				if err != nil {
					return err
				}
				facts = append(facts, fact)
			}
			return nil
		}); err != nil {
			return err
		}
		for _, fact := range facts {
			if err := f(fact); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachOf calls f for each stanza of a staged generation.
func (e *Engine) eachOf(ctx context.Context, g *meta.Generation, f func(*meta.Fact) error) error {
	// A snapshot of one suite, which nobody else sees.
	return e.EachPackage(ctx, &meta.Snapshot{Mirror: g.Mirror, Suites: []meta.SnapshotSuite{{Suite: g.Suite, Gen: g.Gen}}},
		func(en meta.Entry) error { return f(en.Fact) })
}

// EachPackage calls f for each stanza of a snapshot, by name, in bounded
// transactions.
func (e *Engine) EachPackage(ctx context.Context, snap *meta.Snapshot, f func(meta.Entry) error) error {
	var after []byte
	for {
		var page []meta.Entry
		err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
			page, after, err = tx.Packages(snap, after, pageSize)
			return err
		})
		if err != nil {
			return err
		}
		for _, en := range page {
			if err := f(en); err != nil {
				return err
			}
		}
		if after == nil {
			return nil
		}
	}
}

// checked puts a format's own check of packages in front of a blob's writer.
func (e *Engine) checked(m config.Mirror, rec *repo.Record, w cas.Writer) (dest cas.Writer, finish func() error, err error) {
	kr, err := e.Keyring(m)
	if err != nil {
		return nil, nil, err
	}
	check, err := e.formats[m.Type].CheckPackage(m, rec, kr)
	if err != nil || check == nil {
		return w, func() error { return nil }, err
	}
	cw := &checkedWriter{Writer: w, check: check, again: func() (io.WriteCloser, error) {
		return e.formats[m.Type].CheckPackage(m, rec, kr)
	}}
	return cw, cw.finish, nil
}

type checkedWriter struct {
	cas.Writer
	check io.WriteCloser
	again func() (io.WriteCloser, error)
	err   error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	if err == nil && c.err == nil {
		_, c.err = c.check.Write(p[:n])
	}
	return n, err
}

func (c *checkedWriter) Reset() error {
	c.check.Close()
	c.check, c.err = nil, nil
	var err error
	if c.check, err = c.again(); err != nil {
		return err
	}
	return c.Writer.Reset()
}

func (c *checkedWriter) finish() error {
	err := c.check.Close()
	if c.err != nil {
		return c.err
	}
	return err
}

// getter is repo.Getter over the fetch client.
type getter struct {
	s    *syncer
	base remote.URL
}

func (g *getter) BaseURL() remote.URL { return g.base }

func (g *getter) Get(ctx context.Context, path string, max int64, prev *repo.Doc) (repo.Doc, error) {
	return g.get(ctx, g.base.Join(path), path, max, prev)
}

// GetURL fetches each URL once a sync: a metalink names the mirrors and then
// vouches for what one of them has.
func (g *getter) GetURL(ctx context.Context, url remote.URL, max int64) (repo.Doc, error) {
	g.s.linksMu.Lock()
	defer g.s.linksMu.Unlock()
	if d, ok := g.s.links[url]; ok {
		return d, nil
	}
	d, err := g.get(ctx, url, "", max, nil)
	if err == nil {
		if g.s.links == nil {
			g.s.links = map[remote.URL]repo.Doc{}
		}
		g.s.links[url] = d
	}
	return d, err
}

func (g *getter) get(ctx context.Context, url remote.URL, path string, max int64, prev *repo.Doc) (repo.Doc, error) {
	req := fetch.Request{
		URLs: []remote.URL{url}, Size: -1, MaxSize: max, Tree: treeOf([]remote.URL{url}), Access: g.s.e.access[g.s.m.Name], Scope: g.s.e.scopes[g.s.m.Name], IgnorePauses: g.s.ignore,
		OnClock: g.s.clock.answered,
	}
	if !g.base.IsZero() {
		req.Tree = treeOf([]remote.URL{g.base})
	}
	if prev != nil {
		req.ETag = prev.ETag
		if prev.URL == url.String() && url.Scheme() != "file" && !prev.LastModified.After(g.s.e.cfg.Now()) {
			// Of another URL's file, which may be older, some servers would say
			// that it was not modified since; a copied tree has whatever times the
			// copying gave it; and nothing is modified since a time in the future.
			req.IfModifiedSince = prev.LastModified
		}
	}
	// Documents are small. One that trickles would keep the mirror's other URLs,
	// and all later syncs, waiting.
	most := g.s.e.cfg.DocTime
	timed, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("get %s: %w: not complete within %v", url, fetch.ErrUnavailable, most))
	defer cancel()
	data, res, err := g.s.e.cfg.Client.GetBytes(timed, req)
	if err != nil {
		return repo.Doc{}, err
	}
	if res.NotModified && prev != nil && (!res.LastModified.IsZero() && !prev.LastModified.IsZero() && !res.LastModified.Equal(prev.LastModified) ||
		res.ETag != "" && res.ETag != prev.ETag) {
		// Not modified since, but not the file that is held either: the server, or
		// another one of that name, went back.
		return g.get(ctx, url, path, max, nil)
	}
	if res.NotModified {
		return repo.Doc{}, repo.ErrNotModified
	}
	g.s.files.Add(1)
	g.s.bytes.Add(int64(len(data)))
	return repo.Doc{Path: path, Data: data, LastModified: res.LastModified, ETag: res.ETag, URL: url.String()}, nil
}
