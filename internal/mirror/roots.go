package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// parallelRoots is how many suites are requested at a time.
const parallelRoots = 4

// fetchRoots downloads the roots of the configured suites, and refuses them if
// the system clock cannot be right.
func (a *attempt) fetchRoots(ctx context.Context) error {
	a.p.SetPhase("checking signatures")
	names, err := a.f.Suites(a.m)
	if err != nil {
		return err
	}
	a.suites = make([]*suiteSync, len(names))
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallelRoots)
	for i, name := range names {
		a.suites[i] = &suiteSync{attempt: a, suite: name}
		eg.Go(func() error {
			r := &rootFetch{suiteSync: a.suites[i]}
			if !a.history() {
				r.head = a.head.Generations[name]
			}
			return r.run(egctx)
		})
	}
	return a.checkClock(eg.Wait())
}

// rootFetch looks for the root of a suite.
type rootFetch struct {
	*suiteSync
	head *meta.Generation // of the newest snapshot; nil: none
	errs []error          // why URLs were skipped
}

// run uses the first URL whose root is at least as new as the stored one. Mirrors lag
// behind, so it is a rollback only if all URLs have an older root. run sets root and url,
// or gen if nothing changed.
func (r *rootFetch) run(ctx context.Context) error {
	// A different selection of the same root is downloaded again.
	reselect := r.head != nil && r.head.Selection != "" && r.head.Selection != selection(r.m)
	var prev []repo.Doc
	if r.head != nil && !reselect {
		prev = r.documents(ctx)
	}
	for _, u := range r.candidates() {
		root, err := r.f.FetchRoot(ctx, r.upstream.Documents(u), r.m, r.suite, prev, repo.VerifyParams{Keyring: r.kr, Now: r.now})
		switch {
		case errors.Is(err, repo.ErrNotModified):
			r.gen = *r.head
			r.warnOfPassed()
			return nil
		case err != nil:
			r.errs = append(r.errs, err)
			if ctx.Err() != nil {
				return err
			}
			continue
		case r.head != nil && root.Date.Before(r.head.Date):
			r.errs = append(r.errs, fmt.Errorf("suite %s at %s: %w: its date is %s, the last sync's was %s", r.suite, u, repo.ErrRollback, stamp(root.Date), stamp(r.head.Date)))
			continue
		}
		r.warnOfPassed()
		r.use(ctx, root, u, reselect)
		return nil
	}
	switch {
	case len(r.errs) == 0:
		return fmt.Errorf("suite %s: no further URL: %w", r.suite, repo.ErrMissing)
	case r.head != nil && r.o.AcceptRollback && errors.Is(joined(r.errs), repo.ErrRollback):
		return r.useOlder(ctx)
	}
	return joined(r.errs)
}

// candidates returns the URLs that were not found to be incomplete.
func (r *rootFetch) candidates() []remote.URL {
	return slices.DeleteFunc(slices.Clone(r.urls), func(u remote.URL) bool { return slices.Contains(r.passed, place{r.suite, u}) })
}

// documents returns the stored documents, which make the request conditional. A local
// copy is as good as the blob. If the store has lost the blob, an unconditional request
// would not help: a sync does not store unchanged documents again, but fsck --repair
// does.
func (r *rootFetch) documents(ctx context.Context) []repo.Doc {
	docs, err := r.e.catalog.Documents(cas.WithCopies(ctx), r.head)
	if err != nil {
		r.e.cfg.Log.Warn("stored documents cannot be read, downloading them again", "repo", r.m.Name, "suite", string(r.suite), "err", err)
		return nil
	}
	if r.attempt.head.Check.Error != "" {
		// A file that upstream served may have been refused. The repaired file may be older
		// than the stored one, and some servers would then answer that nothing changed.
		for i := range docs {
			docs[i].ETag, docs[i].LastModified = "", time.Time{}
		}
	}
	return docs
}

// use sets the root, unless it equals the stored one.
func (r *rootFetch) use(ctx context.Context, root *repo.Root, u remote.URL, reselect bool) {
	same := r.head != nil && sameDocs(r.head, root.Docs)
	if same && !reselect {
		r.gen = *r.head
		return
	}
	if r.head != nil && !same && root.Date.Equal(r.head.Date) && !r.listsAs(ctx, r.head, root) {
		r.warn(fmt.Sprintf("suite %s: different content with the same date %s", r.suite, stamp(root.Date)))
	}
	r.root, r.url = root, u
}

// useOlder sets the newest of the older roots. If there is no valid root, it
// returns the errors of the URLs.
func (r *rootFetch) useOlder(ctx context.Context) error {
	for _, u := range r.candidates() {
		root, err := r.f.FetchRoot(ctx, r.upstream.Documents(u), r.m, r.suite, nil, repo.VerifyParams{Keyring: r.kr, Now: r.now})
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			continue // the error is in errs
		}
		if r.root == nil || root.Date.After(r.root.Date) {
			r.root, r.url = root, u
		}
	}
	if r.root == nil {
		return joined(r.errs)
	}
	r.warn(fmt.Sprintf("suite %s: accepted an older state: its date is %s, the last sync's was %s", r.suite, stamp(r.root.Date), stamp(r.head.Date)))
	return nil
}

// warnOfPassed logs why URLs were skipped.
func (r *rootFetch) warnOfPassed() {
	for _, err := range r.errs {
		if isSecurity(err) {
			r.warn(err.Error())
		}
		r.e.cfg.Log.Warn("skipped a URL", "repo", r.m.Name, "suite", string(r.suite), "err", err)
	}
}

// listsAs reports whether a root lists the same files as a stored generation, so that
// only the signature or its form (InRelease, or Release and Release.gpg) differs.
func (r *rootFetch) listsAs(ctx context.Context, g *meta.Generation, root *repo.Root) bool {
	old, _, _, err := r.e.catalog.Root(ctx, g.Mirror, r.m.Type, g.Suite, g.Gen)
	return err == nil && old.ValidUntil.Equal(root.ValidUntil) && slices.EqualFunc(old.Files, root.Files, func(a, b repo.Listed) bool {
		return a.Path == b.Path && a.Size == b.Size && a.SHA256 == b.SHA256 && a.SHA512 == b.SHA512
	})
}

// selection identifies what a mirror's configuration selects.
func selection(m config.Mirror) string {
	text := fmt.Sprintf("%q %q %t %q %t %t %t %q %q %t", m.Components, m.Architectures, m.Sources, m.Languages,
		m.Contents, m.Udebs, m.Installer, m.Indices, m.Packages, m.Download == config.All)
	if m.Local {
		text += fmt.Sprintf(" local %q %q", m.Origin, m.Label)
	}
	return cas.Sum([]byte(text)).String()[:16]
}

// isSecurity reports whether an error may be an attack, which is never ignored
// silently.
func isSecurity(err error) bool {
	return errors.Is(err, sign.ErrBadSignature) || errors.Is(err, repo.ErrUntrusted)
}

func sameDocs(g *meta.Generation, docs []repo.Doc) bool {
	return slices.EqualFunc(g.Docs, docs, func(a meta.Doc, b repo.Doc) bool { return a.Path == b.Path && a.SHA256 == cas.Sum(b.Data) })
}
