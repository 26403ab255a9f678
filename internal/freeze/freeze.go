package freeze

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

var (
	// ErrExists means that another frozen snapshot has the name.
	ErrExists = meta.ErrExists
	// ErrMissing means that packages or their bytes cannot be had.
	ErrMissing = errclass.New(errclass.NotFound, "missing")
	// ErrAmbiguous means that a name and version stand for several contents.
	ErrAmbiguous = errclass.New(errclass.Conflict, "ambiguous")
	// ErrBroken means that the set leaves relations unsatisfied.
	ErrBroken = errclass.New(errclass.Conflict, "unsatisfied relations")
	// ErrNeedsAll means that freezing a whole on-demand mirror would fetch a lot.
	ErrNeedsAll = errclass.New(errclass.Conflict, "packages are still to be fetched")
	// ErrVerify means that a proof does not hold.
	ErrVerify = errclass.New(errclass.Security, "verification failed")
	// ErrEmpty means that a freeze would hold no package.
	ErrEmpty = errclass.New(errclass.Conflict, "nothing to freeze")
	// ErrRunning means that a recording has not been stopped.
	ErrRunning = errclass.New(errclass.Conflict, "is still running")
	// ErrBusy means that a frozen snapshot of that name is being made or taken in.
	ErrBusy = errclass.New(errclass.Conflict, "is being made by another command")
	// ErrUsage means that the options contradict each other.
	ErrUsage = errclass.Usage
)

// Config are the parts of a Freezer.
type Config struct {
	Engine *mirror.Engine
	Signer *sign.Signer
	// PublicURL is the base of the URLs that clients are told.
	PublicURL string
	// LocalURL is where the server can be reached on this machine, for the
	// resolvers that run here.
	LocalURL string
	Version  string // of this program, in provenance
	Parallel int    // fetches at once
	Log      *slog.Logger
	Now      func() time.Time
}

// Freezer makes and reads frozen snapshots. It is safe for concurrent use.
type Freezer struct {
	cfg   Config
	e     *mirror.Engine
	st    *bolt.Store
	blobs cas.Store

	mu    sync.Mutex
	names map[string]bool // being made
}

// New makes a Freezer.
func New(cfg Config) *Freezer {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 8
	}
	return &Freezer{cfg: cfg, e: cfg.Engine, st: cfg.Engine.Store(), blobs: cfg.Engine.Blobs(), names: map[string]bool{}}
}

// ReportError is a refused freeze with the resolution of each entry. Of a dry run
// it has all that the dry run found out.
type ReportError struct {
	Err     error
	Hint    string // what to do about it, where this error tells
	DryRun  bool
	Report  *api.Report
	Changes *api.Diff
	Broken  []api.Problem
}

func (e *ReportError) Error() string { return e.Err.Error() }
func (e *ReportError) Unwrap() error { return e.Err }

// source is one state of a mirror that packages are taken from.
type source struct {
	mirror string
	typ    string
	snap   *meta.Snapshot // its suites' generations; the timestamp is zero where only generations are left
}

// pick is one stanza that a freeze takes.
type pick struct {
	mirror string
	fact   *meta.Fact // PID 0: Record.Bytes is set
	places []meta.Place
	src    *source
}

func (p *pick) String() string { return p.fact.Name + " " + p.fact.Version + " " + p.fact.Arch }

// plan is what a freeze is going to be.
type plan struct {
	req     *api.FreezeRequest
	mirrors []string // in order
	sources map[string][]*source
	whole   map[string]bool
	all     map[string]bool    // taken exactly, but for all packages
	picks   map[string][]*pick // by mirror
	missing []Missing
	why     map[Missing]string // what differs in a package that has an entry's version
	kept    map[Missing]string // the id of a snapshot that was not chosen and has it
	claims  []claim
	report  *api.Report
	proof   map[string][]carried // of imported bases, by mirror
	taken   map[pickKey]*pick    // what add has seen; nil after a drop

	lacking   []Missing // entries that the base was allowed to lack
	noSources bool      // the base has no source packages, and gets none
	unlisted  []string  // build manifests that list nothing
	unmatched []string  // mirrors of which whole freezes take nothing
	warnings  []string
	refused   error // why a dry run's freeze would not be made
}

type pickKey struct {
	mirror string
	para   [16]byte
}

// carried is proof that comes from another freeze rather than from generations.
type carried struct {
	suite DocSuite
	certs cas.Digest
}

// Freeze makes the frozen snapshot that the request describes.
func (z *Freezer) Freeze(ctx context.Context, req *api.FreezeRequest, p *mirror.Progress) (*api.FreezeResult, error) {
	if p == nil {
		p = &mirror.Progress{}
	}
	if err := z.e.CheckName(ctx, req.Name); err != nil {
		return nil, err
	}
	if !z.begin(req.Name) {
		return nil, fmt.Errorf("frozen snapshot %s %w", req.Name, ErrBusy)
	}
	defer z.end(req.Name)
	if err := z.checkClock(req); err != nil {
		return nil, err
	}
	p.SetPhase("resolving")
	pl, err := z.plan(ctx, req)
	if err != nil {
		return nil, err
	}
	res := &api.FreezeResult{DryRun: req.DryRun, Report: pl.report, Warnings: pl.warnings}
	if req.Base != "" {
		if res.Changes, err = z.planDiff(ctx, req.Base, pl); err != nil {
			return nil, err
		}
		if res.Broken, err = z.broken(ctx, req.Base, pl); err != nil {
			return nil, err
		}
		if len(res.Broken) > 0 && !req.AllowBroken {
			broken := &ReportError{Err: fmt.Errorf("%w: %d (first: %s %s)", ErrBroken, len(res.Broken), res.Broken[0].Package, res.Broken[0].Relation), Broken: res.Broken}
			if err := pl.refuse(broken); err != nil {
				return nil, err
			}
		}
	}
	doc, data, err := z.encode(ctx, pl)
	if err != nil {
		return nil, err
	}
	var other error // the name has other contents, unless something turns out to be missing
	switch done, err := z.existing(ctx, req.Name, cas.Sum(data)); {
	case errors.Is(err, ErrExists) && req.AllowMissing && !req.DryRun:
		other = err
	case err != nil:
		if err := pl.refuse(err); err != nil {
			return nil, err
		}
	case done != nil && pl.refused == nil:
		res.Frozen = done
		return res, nil
	}
	if err := pl.refuse(z.checkPaths(pl)); err != nil {
		return nil, err
	}
	if err := pl.refuse(z.needsAll(ctx, pl)); err != nil {
		return nil, err
	}
	if err := pl.refuse(z.e.CheckSpace()); err != nil {
		return nil, err
	}
	if pl.refused != nil {
		return nil, &ReportError{Err: pl.refused, Hint: hintOf(pl.refused), DryRun: true, Report: pl.report, Changes: res.Changes, Broken: res.Broken}
	}
	if req.DryRun {
		return res, nil
	}
	// The batch holds every blob of the freeze until the record refers to it.
	batch := z.blobs.NewBatch()
	defer batch.Discard()
	if err := z.holdProof(ctx, batch, pl, doc); err != nil {
		return nil, err
	}
	lost, err := z.fetchAll(ctx, batch, pl, p, res)
	if err != nil {
		return nil, err
	}
	if len(lost) == 0 && other != nil {
		return nil, other
	}
	if len(lost) > 0 {
		if err := z.recordLost(pl, lost, res); err != nil {
			return nil, err
		}
		if doc, data, err = z.encode(ctx, pl); err != nil {
			return nil, err
		}
		if done, err := z.existing(ctx, req.Name, cas.Sum(data)); err != nil || done != nil {
			res.Frozen = done
			return res, err
		}
	}
	if err := z.checkClaims(ctx, pl); err != nil {
		return nil, err
	}
	p.SetPhase("signing")
	f, err := z.commit(ctx, batch, pl, doc, data)
	if err != nil {
		return nil, err
	}
	z.cfg.Log.Info("frozen", "snapshot", req.Name, "digest", f.Manifest.SHA256.String(), "size", f.Bytes)
	res.New = true
	res.Frozen, err = z.Describe(ctx, req.Name)
	return res, err
}

// maxKeyAhead is how much later than the clock a key may have been made, on clocks
// that are being set.
const maxKeyAhead = 10 * time.Minute

// checkKey refuses to sign with a key from the future: clients refuse what it
// signed until then. mirror.ErrClock.
func (z *Freezer) checkKey() error {
	now, created := z.cfg.Now(), z.cfg.Signer.CreatedAt()
	if created.Sub(now) <= maxKeyAhead {
		return nil
	}
	return fmt.Errorf("%w: it is at %s, and signing key %s was made at %s", mirror.ErrClock,
		now.UTC().Format(time.RFC3339), z.cfg.Signer.Fingerprint(), created.UTC().Format(time.RFC3339))
}

// checkClock refuses what clients would refuse since it comes from the future.
func (z *Freezer) checkClock(req *api.FreezeRequest) error {
	if now := z.cfg.Now(); req.Date != nil && req.Date.After(now) {
		return fmt.Errorf("%w: date %s is later than the system clock, which is at %s: clients refuse a freeze from the future", ErrUsage,
			req.Date.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return z.checkKey()
}

// checkPaths refuses packages that want one path for different bytes, before
// anything is fetched.
func (z *Freezer) checkPaths(pl *plan) error {
	for name, picks := range pl.picks {
		at := map[string]cas.Digest{}
		for _, p := range picks {
			for _, f := range p.fact.Files {
				if other, ok := at[f.Path]; ok && other != f.SHA256 {
					return errTwoContents(name+"/"+f.Path, other, f.SHA256)
				}
				at[f.Path] = f.SHA256
			}
		}
	}
	return nil
}

func errTwoContents(path string, a, b cas.Digest) error {
	return fmt.Errorf("%w: %s has two contents, %s and %s, in one freeze", ErrAmbiguous, path, a, b)
}

func (z *Freezer) begin(name string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.names[name] {
		return false
	}
	z.names[name] = true
	return true
}

// Making reports whether a freeze or an import of that name is under way: its
// tree belongs to no frozen snapshot yet.
func (z *Freezer) Making(name string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.names[name]
}

func (z *Freezer) end(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.names, name)
}

// existing tells whether a freeze with the same contents is there already.
func (z *Freezer) existing(ctx context.Context, name string, manifest cas.Digest) (*api.Frozen, error) {
	var f *meta.Frozen
	err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		f, err = tx.Frozen(name)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if f.Manifest.SHA256 != manifest {
		return nil, fmt.Errorf("frozen snapshot %s: %w: its manifest is %s, this one would be %s", name, ErrExists, f.Manifest.SHA256, manifest)
	}
	return z.Describe(ctx, name)
}

// The orders of a manifest's lists: by what readers look for first.

func comparePackages(a, b DocPackage) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch),
		cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Paragraph, b.Paragraph))
}

func compareSources(a, b DocSource) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Paragraph, b.Paragraph))
}

func compareSuites(a, b DocSuite) int {
	root := func(s DocSuite) string {
		if len(s.Documents) == 0 {
			return ""
		}
		return s.Documents[0].SHA256.String()
	}
	return cmp.Or(cmp.Compare(a.Suite, b.Suite), a.Date.Compare(b.Date), cmp.Compare(root(a), root(b)))
}

func compareIndices(a, b DocIndex) int { return cmp.Compare(a.Index, b.Index) }

func compareMissing(a, b Missing) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.text(), b.text()))
}

// encode writes the manifest of a plan.
func (z *Freezer) encode(ctx context.Context, pl *plan) (*Document, []byte, error) {
	doc, err := z.document(ctx, pl)
	if err != nil {
		return nil, nil, err
	}
	data, err := doc.Encode()
	return doc, data, err
}

// document writes down what the plan takes. The date is the request's, else the
// newest upstream Date: no clock enters.
func (z *Freezer) document(ctx context.Context, pl *plan) (*Document, error) {
	doc := &Document{Name: pl.req.Name, Missing: slices.Clone(pl.missing)}
	for _, name := range pl.mirrors {
		d, err := z.docMirror(ctx, pl, name)
		if err != nil {
			return nil, err
		}
		for _, s := range d.Suites {
			if s.Date.After(doc.Date) {
				doc.Date = s.Date
			}
		}
		doc.Mirrors = append(doc.Mirrors, *d)
	}
	if pl.req.Date != nil {
		doc.Date = *pl.req.Date
	}
	doc.Date = doc.Date.UTC().Truncate(time.Second)
	slices.SortFunc(doc.Mirrors, func(a, b DocMirror) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(doc.Missing, compareMissing)
	doc.Missing = slices.Compact(doc.Missing)
	doc.Format = doc.version()
	return doc, nil
}

func (z *Freezer) docMirror(ctx context.Context, pl *plan, name string) (*DocMirror, error) {
	d := &DocMirror{Name: name, Kind: Exact}
	if pl.whole[name] {
		d.Kind = Whole
	}
	components := map[meta.Place]string{}
	used := map[meta.Place]bool{}
	for _, p := range pl.picks[name] {
		for _, pl := range p.places {
			used[pl] = true
		}
	}
	seen := map[string]bool{}
	add := func(s DocSuite) {
		if k := s.Documents[0].SHA256.String(); !seen[k] {
			seen[k] = true
			d.Suites = append(d.Suites, s)
			d.Trust = weaker(d.Trust, s.Trust)
		}
	}
	for _, src := range pl.sources[name] {
		d.Type = src.typ
		for _, e := range src.snap.Suites {
			var g *meta.Generation
			err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
				g, err = tx.Generation(name, e.Suite, e.Gen)
				return err
			})
			if err != nil {
				return nil, err
			}
			s, err := z.docSuite(ctx, g, d.Kind == Whole, used)
			if err != nil {
				return nil, err
			}
			add(s)
			for _, gr := range g.Groups {
				components[meta.Place{Suite: e.Suite, Index: gr.Index}] = gr.Component
			}
		}
	}
	for _, c := range pl.proof[name] {
		if d.Type == "" {
			d.Type = pl.typeOf(name)
		}
		add(c.suite)
		for _, i := range c.suite.Indices {
			components[meta.Place{Suite: c.suite.Suite, Index: i.Index}] = i.Component
		}
	}
	slices.SortFunc(d.Suites, compareSuites)
	if d.Kind == Whole {
		return d, nil
	}
	for _, p := range pl.picks[name] {
		para := hex.EncodeToString(p.fact.Digest[:])
		for _, place := range p.places {
			if p.fact.Kind == repo.KindSource {
				d.Sources = append(d.Sources, DocSource{
					Suite: place.Suite, Component: components[place], Index: place.Index, Name: p.fact.Name, Version: p.fact.Version,
					Files: p.fact.Files, Paragraph: para,
				})
				continue
			}
			dp := DocPackage{
				Suite: place.Suite, Component: components[place], Index: place.Index, Name: p.fact.Name, Version: p.fact.Version, Arch: p.fact.Arch,
				Path: p.fact.Files[0].Path, Size: p.fact.Files[0].Size, SHA256: p.fact.Files[0].SHA256, SHA512: p.fact.Files[0].SHA512, Paragraph: para,
			}
			if len(p.fact.Sources) > 0 {
				dp.Source, dp.SourceVersion = p.fact.Sources[0].Name, p.fact.Sources[0].Version
			}
			d.Packages = append(d.Packages, dp)
		}
	}
	slices.SortFunc(d.Packages, comparePackages)
	slices.SortFunc(d.Sources, compareSources)
	return d, nil
}

func (pl *plan) typeOf(mirror string) string {
	for _, p := range pl.picks[mirror] {
		if p.src != nil {
			return p.src.typ
		}
	}
	return ""
}

// weaker is the weaker of two levels of trust.
func weaker(a, b repo.Trust) repo.Trust {
	rank := map[repo.Trust]int{"": 3, repo.TrustSignature: 2, repo.TrustMetalink: 1, repo.TrustNone: 0}
	if rank[a] < rank[b] {
		return a
	}
	return b
}

func (z *Freezer) docSuite(ctx context.Context, g *meta.Generation, whole bool, used map[meta.Place]bool) (DocSuite, error) {
	s := DocSuite{Suite: g.Suite, Date: g.Date.UTC(), Trust: g.Trust, Keys: []string{}, Indices: []DocIndex{}}
	for _, k := range g.Signers {
		s.Keys = append(s.Keys, k.Fingerprint)
	}
	slices.Sort(s.Keys)
	for _, d := range g.Docs {
		s.Documents = append(s.Documents, d.File)
	}
	if !g.Metalink.IsZero() {
		info, err := z.blobs.Stat(ctx, g.Metalink)
		if err != nil {
			return s, err
		}
		s.Metalink = &repo.File{Path: metalinkPath, Size: info.Size, SHA256: g.Metalink}
	}
	also := map[string]bool{}
	for _, gr := range g.Groups {
		also[gr.Index] = gr.Packages && used[meta.Place{Suite: g.Suite, Index: gr.Index}]
	}
	for _, gr := range g.Groups {
		if !whole && !also[gr.Index] && !z.proofNeeds(g, gr, also) {
			continue
		}
		s.Indices = append(s.Indices, DocIndex{
			Index: gr.Index, Component: gr.Component, Arch: gr.Arch, Path: gr.Form.Path, Size: gr.Form.Size, SHA256: gr.Form.SHA256, Packages: gr.Packages,
		})
	}
	slices.SortFunc(s.Indices, compareIndices)
	return s, nil
}

// proofNeeds reports whether reading a used index opens this group too.
func (z *Freezer) proofNeeds(g *meta.Generation, gr meta.Group, used map[string]bool) bool {
	for _, o := range g.Groups {
		if used[o.Index] && slices.Contains(o.Also, gr.Index) {
			return true
		}
	}
	return false
}

// needsAll refuses to fetch most of an archive unless that was asked for.
func (z *Freezer) needsAll(ctx context.Context, pl *plan) error {
	if pl.req.All {
		return nil
	}
	var n, size int64
	var names []string
	for _, name := range pl.mirrors {
		m, err := z.e.Mirror(name)
		if err != nil || m.Download != config.OnDemand || !z.takesAll(pl, name) {
			continue
		}
		before := n
		err = z.eachWanted(ctx, pl, name, z.blobs.Stat, func(_ *meta.Fact, f repo.File) error {
			n++
			size += f.Size
			return nil
		})
		if err != nil {
			return err
		}
		if n > before {
			names = append(names, name)
		}
	}
	if n > 0 {
		return fmt.Errorf("%w: freezing the whole of %s would fetch %s of %s", ErrNeedsAll, strings.Join(names, ", "), counted(n, "file"), sizeText(size))
	}
	return nil
}

// counted is a number and what it counts.
func counted[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if f /= 1024; f < 1023.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// takesAll reports whether every package of a mirror is taken.
func (z *Freezer) takesAll(pl *plan, name string) bool { return pl.whole[name] || pl.all[name] }

// eachWanted calls f for each package file of a mirror's part of the plan that
// is not here, according to stat.
func (z *Freezer) eachWanted(ctx context.Context, pl *plan, name string, stat statFunc, f func(*meta.Fact, repo.File) error) error {
	seen := map[cas.Digest]bool{}
	look := func(fact *meta.Fact) error {
		for _, file := range fact.Files {
			if _, err := stat(ctx, file.SHA256); err == nil && z.e.Corrupt(file.SHA256) == nil || seen[file.SHA256] {
				continue
			}
			seen[file.SHA256] = true
			if err := f(fact, file); err != nil {
				return err
			}
		}
		return nil
	}
	if !pl.whole[name] {
		for _, p := range pl.picks[name] {
			if err := look(p.fact); err != nil {
				return err
			}
		}
		return nil
	}
	for _, src := range pl.sources[name] {
		complete := true
		for _, e := range src.snap.Suites {
			err := z.st.View(ctx, func(tx *bolt.Tx) error {
				g, err := tx.Generation(name, e.Suite, e.Gen)
				if err == nil && !g.Complete {
					complete = false
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		if complete && !z.e.AnyCorrupt() {
			continue // every package was here when it was sealed, and referenced since
		}
		if err := z.e.EachPackage(ctx, src.snap, func(en meta.Entry) error { return look(en.Fact) }); err != nil {
			return err
		}
	}
	return nil
}

// holdProof makes the batch hold what the freeze takes over from others: a base
// may be removed while a freeze is made from it.
func (z *Freezer) holdProof(ctx context.Context, batch cas.Batch, pl *plan, doc *Document) error {
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		for _, f := range proofFiles(d) {
			if err := z.e.Hold(ctx, batch, f.SHA256); err != nil {
				return fmt.Errorf("proof %s of %s: %w", f.Path, d.Name, err)
			}
		}
		for _, c := range pl.proof[d.Name] {
			if c.certs.IsZero() {
				continue
			}
			if err := z.e.Hold(ctx, batch, c.certs); err != nil {
				return fmt.Errorf("certificates of %s: %w", d.Name, err)
			}
		}
	}
	return nil
}

// statFunc describes a blob like cas.Store.Stat.
type statFunc func(context.Context, cas.Digest) (cas.Info, error)

// lostFile is a package file that upstream lists and does not have.
type lostFile struct {
	mirror string
	rec    repo.Record
	file   repo.File
	text   string
}

// recordLost takes what upstream no longer has out of the plan, and names it among
// what is missing.
func (z *Freezer) recordLost(pl *plan, lost []lostFile, res *api.FreezeResult) error {
	gone := map[pickKey]bool{}
	for _, l := range lost {
		m, err := z.e.Mirror(l.mirror)
		if err != nil {
			return err
		}
		f, err := z.e.Format(m.Type)
		if err != nil {
			return err
		}
		pl.reportLost(l)
		pl.missing = append(pl.missing, missingStanza(f, &l.rec))
		for _, p := range pl.picks[l.mirror] {
			if slices.Contains(p.fact.Files, l.file) {
				gone[pickKey{l.mirror, p.fact.Digest}] = true
			}
		}
	}
	pl.drop(func(p *pick) bool { return gone[pickKey{p.mirror, p.fact.Digest}] })
	pl.claims = slices.DeleteFunc(pl.claims, func(c claim) bool { return gone[pickKey{c.pick.mirror, c.pick.fact.Digest}] })
	what := "1 file that upstream no longer has is"
	if len(lost) > 1 {
		what = fmt.Sprintf("%d files that upstream no longer has are", len(lost))
	}
	res.Warnings = append(res.Warnings, fmt.Sprintf("%s recorded as missing (%s)", what, lost[0].text))
	return nil
}

// reportLost says in the report of the entries which of them upstream no longer has.
func (pl *plan) reportLost(l lostFile) {
	if pl.report == nil {
		return
	}
	for i := range pl.report.Entries {
		e := &pl.report.Entries[i]
		if e.State != "resolved" || !slices.ContainsFunc(e.Places, func(p api.Package) bool {
			return p.Mirror == l.mirror && (p.Path == l.file.Path || slices.ContainsFunc(p.Files, func(f api.File) bool { return f.Path == l.file.Path }))
		}) {
			continue
		}
		e.State, e.Reason = "missing", "upstream no longer has it"
		pl.report.Resolved--
		pl.report.Missing++
	}
}

// fetchAll brings every missing byte here, and names each package for which
// that cannot be done; with --allow-missing it returns those that upstream no longer
// has. The batch holds the packages of exact mirrors; those of
// whole ones are referenced through their generations, which PutFrozen checks.
func (z *Freezer) fetchAll(ctx context.Context, batch cas.Batch, pl *plan, p *mirror.Progress, res *api.FreezeResult) ([]lostFile, error) {
	p.SetPhase("fetching packages")
	var mu sync.Mutex
	var lost []lostFile
	refused := false // something is wrong with what is lost
	for _, name := range pl.mirrors {
		if err := z.e.CheckSpace(); err != nil {
			return nil, err
		}
		m, err := z.e.Mirror(name)
		if err != nil {
			// An imported mirror that is not configured here: what is missing is lost.
			m = config.Mirror{Name: name}
		}
		stat := batch.Hold
		if pl.whole[name] {
			stat = z.blobs.Stat
		}
		var urls []remote.URL
		for _, s := range pl.sources[name] {
			if s.snap.FromURL != "" {
				urls = append(m.BaseURLs(), remote.NewURL(s.snap.FromURL))
			}
		}
		if m.Type == "" {
			err := z.eachWanted(ctx, pl, name, stat, func(fact *meta.Fact, f repo.File) error {
				refused = true
				lost = append(lost, lostFile{name, fact.Record, f, fmt.Sprintf("%s %s %s (%s): mirror %s is not configured", fact.Name, fact.Version, fact.Arch, f.Path, name)})
				return nil
			})
			if err != nil {
				return nil, err
			}
			continue
		}
		files, bytes, err := z.e.FetchPackages(ctx, mirror.FetchOptions{
			Mirror: m, URLs: urls, Progress: p,
			Lost: func(rec *repo.Record, f repo.File, err error) error {
				if !errors.Is(err, fetch.ErrNotFound) && !errors.Is(err, fetch.ErrMismatch) {
					return fmt.Errorf("package %s %s %s: %s of %s: %w", rec.Name, rec.Version, rec.Arch, f.Path, name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				refused = refused || !errors.Is(err, fetch.ErrNotFound)
				lost = append(lost, lostFile{name, *rec, f, fmt.Sprintf("%s %s %s (%s of %s): %v", rec.Name, rec.Version, rec.Arch, f.Path, name, err)})
				return nil
			},
		}, func(ctx context.Context, get func(*repo.Record, repo.File) error) error {
			return z.eachWanted(ctx, pl, name, stat, func(fact *meta.Fact, f repo.File) error { return get(&fact.Record, f) })
		})
		res.Fetched += files
		res.FetchedBytes += bytes
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(lost, func(a, b lostFile) int { return cmp.Compare(a.text, b.text) })
	if len(lost) > 0 && (refused || !pl.req.AllowMissing) {
		var texts []string
		for _, l := range lost {
			texts = append(texts, l.text)
		}
		return nil, fmt.Errorf("%w: upstream no longer has %d of the files:\n  %s", ErrMissing, len(lost), strings.Join(texts, "\n  "))
	}
	return lost, nil
}

// sink collects the files of derived repositories as blobs and nodes.
type sink struct {
	z      *Freezer
	mirror string
	batch  cas.Batch
	date   time.Time
	mu     sync.Mutex
	nodes  []meta.Node
}

func (s *sink) add(path string, d cas.Digest, size int64) repo.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, meta.Node{Path: s.mirror + "/" + path, Digest: d, Size: size, ModTime: s.date})
	return repo.File{Path: path, Size: size, SHA256: d}
}

func (s *sink) Put(ctx context.Context, path string, data []byte) (repo.File, error) {
	info, err := cas.PutBatch(ctx, s.batch, data, s.date)
	if err != nil {
		return repo.File{}, err
	}
	return s.add(path, info.Digest, info.Size), nil
}

func (s *sink) Create(ctx context.Context, path string) (repo.SinkWriter, error) {
	w, err := s.batch.Create(ctx)
	if err != nil {
		return nil, err
	}
	return &sinkWriter{w, s, path}, nil
}

func (s *sink) Link(_ context.Context, path string, f repo.File) error {
	s.add(path, f.SHA256, f.Size)
	return nil
}

type sinkWriter struct {
	w    cas.Writer
	s    *sink
	path string
}

func (w *sinkWriter) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w *sinkWriter) Abort()                      { w.w.Abort() }
func (w *sinkWriter) Commit() (repo.File, error) {
	info, err := w.w.Commit(cas.Digest{}, -1, w.s.date)
	if err != nil {
		return repo.File{}, err
	}
	return w.s.add(w.path, info.Digest, info.Size), nil
}

// commit derives, signs and publishes (invariant 1): blobs, then nodes and
// their references, then a look whether each blob is here, then the record.
func (z *Freezer) commit(ctx context.Context, batch cas.Batch, pl *plan, doc *Document, data []byte) (*meta.Frozen, error) {
	f := &meta.Frozen{Name: doc.Name, Date: doc.Date, Created: z.cfg.Now().UTC().Truncate(time.Second), Key: z.cfg.Signer.Fingerprint()}
	var nodes []meta.Node
	all := make([]*derivation, len(doc.Mirrors))
	for i := range doc.Mirrors {
		var err error
		if all[i], err = z.derivation(ctx, pl, &doc.Mirrors[i], doc.Date, batch); err != nil {
			return nil, fmt.Errorf("derive %s: %w", doc.Mirrors[i].Name, err)
		}
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		s := &sink{z: z, mirror: d.Name, batch: batch, date: doc.Date}
		if err := all[i].derive(ctx, all, s); err != nil {
			return nil, fmt.Errorf("derive %s: %w", d.Name, err)
		}
		f.Mirrors = append(f.Mirrors, *all[i].fm)
		for _, p := range pl.picks[d.Name] {
			if pl.whole[d.Name] {
				break
			}
			for _, file := range p.fact.Files {
				s.nodes = append(s.nodes, meta.Node{Path: d.Name + "/" + file.Path, Digest: file.SHA256, Size: file.Size, ModTime: doc.Date})
			}
		}
		if !pl.whole[d.Name] {
			format, err := z.e.Format(d.Type)
			if err != nil {
				return nil, err
			}
			packages, sources := tally(d, format.SourceArch())
			f.Packages += packages
			f.Sources += sources
		} else {
			for _, src := range pl.sources[d.Name] {
				for _, e := range src.snap.Suites {
					err := z.st.View(ctx, func(tx *bolt.Tx) error {
						g, err := tx.Generation(d.Name, e.Suite, e.Gen)
						if err == nil {
							f.Packages += g.Packages
							f.Sources += g.Sources
						}
						return err
					})
					if err != nil {
						return nil, err
					}
				}
			}
		}
		nodes = append(nodes, s.nodes...)
	}
	slices.SortFunc(nodes, func(a, b meta.Node) int { return cmp.Compare(a.Path, b.Path) })
	nodes = slices.CompactFunc(nodes, func(a, b meta.Node) bool { return a.Path == b.Path && a.Digest == b.Digest })
	for i := 1; i < len(nodes); i++ {
		if nodes[i].Path == nodes[i-1].Path {
			return nil, errTwoContents(nodes[i].Path, nodes[i-1].Digest, nodes[i].Digest)
		}
		f.Bytes += nodes[i].Size
	}
	if err := checkDirs(nodes); err != nil {
		return nil, err
	}
	if err := z.putManifest(ctx, batch, f, doc, data, pl); err != nil {
		return nil, err
	}
	if err := putTreeList(ctx, batch, f, nodes); err != nil {
		return nil, err
	}
	if err := z.e.Flush(ctx, batch); err != nil {
		return nil, err
	}
	if err := z.publish(ctx, batch, f, nodes); err != nil {
		return nil, err
	}
	return f, nil
}

// checkDirs refuses a tree in which one path is a file and a directory. nodes are
// sorted by path.
func checkDirs(nodes []meta.Node) error {
	last := ""
	for _, n := range nodes {
		if path.Dir(n.Path) == last {
			continue
		}
		last = path.Dir(n.Path)
		for dir := last; dir != "."; dir = path.Dir(dir) {
			_, found := slices.BinarySearchFunc(nodes, dir, func(n meta.Node, p string) int { return cmp.Compare(n.Path, p) })
			if found {
				return fmt.Errorf("%w: %s is a file, and the directory of %s, in one freeze", ErrAmbiguous, dir, n.Path)
			}
		}
	}
	return nil
}

// publish puts the tree and then the record of a frozen snapshot. The batch
// holds its new blobs, which are durable, and is made to hold the others.
func (z *Freezer) publish(ctx context.Context, batch cas.Batch, f *meta.Frozen, nodes []meta.Node) error {
	for {
		var more bool
		err := z.st.Update(ctx, "freeze clear", func(tx *bolt.Tx) (err error) {
			more, err = tx.ClearFrozenTree(f.Name, 5000)
			return err
		})
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	// If we stop here, the nodes belong to no freeze; the next one of the name
	// clears them, and so does gc.
	for part := range slices.Chunk(nodes, 5000) {
		if err := z.st.Update(ctx, "freeze nodes", func(tx *bolt.Tx) error { return tx.PutNodes(f.Name, part) }); err != nil {
			return err
		}
	}
	// What is held stays; what a collection took before it was held comes back
	// from the quarantine. A freeze that lacks a blob is not published.
	for _, n := range nodes {
		if err := z.e.Hold(ctx, batch, n.Digest); err != nil {
			return fmt.Errorf("%s of %s: %w", n.Path, f.Name, err)
		}
	}
	for _, d := range f.Blobs() {
		if err := z.e.Hold(ctx, batch, d); err != nil {
			return fmt.Errorf("frozen snapshot %s: %w", f.Name, err)
		}
	}
	if err := z.st.Update(ctx, "freeze", func(tx *bolt.Tx) error { return tx.PutFrozen(f) }); err != nil {
		return err
	}
	z.e.Changed()
	return nil
}

// putManifest signs the manifest and checks the signature before anything is
// published.
func (z *Freezer) putManifest(ctx context.Context, batch cas.Batch, f *meta.Frozen, doc *Document, data []byte, pl *plan) error {
	sig, err := z.cfg.Signer.SignDetached(data, doc.Date)
	if err != nil {
		return fmt.Errorf("sign manifest of %s: %w", doc.Name, err)
	}
	at := doc.Date
	if c := z.cfg.Signer.CreatedAt(); c.After(at) {
		at = c
	}
	if _, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: z.cfg.Signer.Keyring(), At: at}); err != nil {
		return fmt.Errorf("check own signature of %s: %w", doc.Name, err)
	}
	prov, err := z.provenance(ctx, f, cas.Sum(data), pl)
	if err != nil {
		return err
	}
	provSig, err := z.cfg.Signer.SignDetached(prov, doc.Date)
	if err != nil {
		return fmt.Errorf("sign provenance of %s: %w", doc.Name, err)
	}
	for _, e := range []struct {
		path string
		data []byte
		to   *repo.File
	}{{"manifest.json", data, &f.Manifest}, {"manifest.json.asc", sig, &f.Signature}, {provenanceFile, prov, &f.Prov}, {provSignature, provSig, &f.ProvSignature}} {
		info, err := cas.PutBatch(ctx, batch, e.data, doc.Date)
		if err != nil {
			return err
		}
		*e.to = repo.File{Path: e.path, Size: info.Size, SHA256: info.Digest}
	}
	info, err := cas.PutBatch(ctx, batch, []byte(z.cfg.Signer.PublicKeyArmored()), time.Time{})
	f.KeyBlob = info.Digest
	return err
}

// derivation is what one mirror's frozen repository is made of.
type derivation struct {
	format repo.Format
	params repo.DeriveParams
	fm     *meta.FrozenMirror
}

// derive writes the frozen repository of one mirror of a freeze; all are those of
// the freeze.
func (x *derivation) derive(ctx context.Context, all []*derivation, s *sink) error {
	p := x.params
	for _, o := range all {
		if o != x && o.fm.Type == x.fm.Type {
			p.Beside = append(p.Beside, o.params.Choices...)
		}
	}
	return x.format.Derive(ctx, p, s)
}

// derivation gathers what one mirror's frozen repository is made of.
func (z *Freezer) derivation(ctx context.Context, pl *plan, d *DocMirror, date time.Time, batch cas.Batch) (*derivation, error) {
	format, err := z.e.Format(d.Type)
	if err != nil {
		return nil, err
	}
	fm := &meta.FrozenMirror{Mirror: d.Name, Type: d.Type, Whole: d.Kind == Whole}
	m, err := z.e.Mirror(d.Name)
	if err != nil {
		m = config.Mirror{Name: d.Name, Type: d.Type}
	}
	params := repo.DeriveParams{Mirror: m, Date: date, Signer: z.cfg.Signer}
	bySuite := map[repo.SuiteName]int{}
	done := map[meta.SnapshotSuite]bool{} // several snapshots may have one state of a suite
	certs := map[cas.Digest]bool{}
	for _, src := range pl.sources[d.Name] {
		if fm.Timestamp.IsZero() {
			fm.Timestamp = src.snap.Timestamp
		}
		for _, e := range src.snap.Suites {
			if k := (meta.SnapshotSuite{Suite: e.Suite, Gen: e.Gen}); done[k] {
				continue
			} else {
				done[k] = true
			}
			root, g, _, err := z.e.Root(ctx, d.Name, d.Type, e.Suite, e.Gen)
			if err != nil {
				return nil, err
			}
			fs := suiteOf(format, g)
			choice := repo.Choice{Suite: e.Suite, Root: root, Whole: fm.Whole}
			kept := map[string]repo.File{}
			for _, gr := range g.Groups {
				choice.Groups = append(choice.Groups, repo.Group{
					Index: gr.Index, Component: gr.Component, Arch: gr.Arch, Packages: gr.Packages, Also: gr.Also, Forms: []repo.Listed{gr.Form},
				})
				kept[gr.Form.Path] = repo.File{Path: gr.Form.Path, Size: gr.Form.Size, SHA256: gr.Form.SHA256}
			}
			choice.Held = func(l repo.Listed) (repo.File, bool) {
				f, ok := kept[l.Path]
				return f, ok
			}
			choice.Open = func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
				return z.blobs.Open(ctx, kept[l.Path].SHA256)
			}
			choice.Records = z.records(pl, d.Name, e.Suite)
			choice.Packages = z.chosen(pl, d.Name, e.Suite, src.snap)
			for _, dg := range []cas.Digest{g.Certificates, g.Metalink} {
				if !dg.IsZero() {
					certs[dg] = true
				}
			}
			if i, ok := bySuite[e.Suite]; ok {
				// Another state of a suite: the newest root gives the Release's fields.
				old := params.Choices[i]
				others := old.Others
				old.Others = nil
				if root.Date.After(old.Root.Date) {
					choice.Others = append(others, old)
					params.Choices[i] = choice
				} else {
					params.Choices[i].Others = append(others, choice)
				}
				fm.Suites = append(fm.Suites, fs)
				continue
			}
			bySuite[e.Suite] = len(params.Choices)
			params.Choices = append(params.Choices, choice)
			fm.Suites = append(fm.Suites, fs)
		}
	}
	for _, c := range pl.proof[d.Name] {
		if _, ok := bySuite[c.suite.Suite]; ok {
			continue
		}
		choice, fs, err := z.carriedChoice(ctx, pl, d, c)
		if err != nil {
			return nil, err
		}
		bySuite[c.suite.Suite] = len(params.Choices)
		params.Choices = append(params.Choices, *choice)
		fm.Suites = append(fm.Suites, *fs)
	}
	fm.Proof = proofFiles(d)
	if fm.Certificates, err = z.joinCerts(ctx, pl, d.Name, batch); err != nil {
		return nil, err
	}
	return &derivation{format: format, params: params, fm: fm}, nil
}

// proofFiles lists the upstream files that a mirror's proof consists of.
func proofFiles(d *DocMirror) []repo.File {
	var out []repo.File
	for _, s := range d.Suites {
		out = append(out, s.Documents...)
		if s.Metalink != nil {
			out = append(out, *s.Metalink)
		}
		for _, i := range s.Indices {
			out = append(out, repo.File{Path: i.Path, Size: i.Size, SHA256: i.SHA256})
		}
	}
	return out
}

// joinCerts stores the certificates that verified a mirror's roots as one blob.
func (z *Freezer) joinCerts(ctx context.Context, pl *plan, name string, batch cas.Batch) (cas.Digest, error) {
	var rings []*sign.Keyring
	load := func(d cas.Digest) error {
		if d.IsZero() {
			return nil
		}
		data, err := cas.ReadAll(ctx, z.blobs, d, 16<<20)
		if err != nil {
			return err
		}
		k, err := sign.ParseKeyring(data)
		rings = append(rings, k)
		return err
	}
	for _, src := range pl.sources[name] {
		for _, e := range src.snap.Suites {
			var g *meta.Generation
			if err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
				g, err = tx.Generation(name, e.Suite, e.Gen)
				return err
			}); err != nil {
				return cas.Digest{}, err
			}
			if err := load(g.Certificates); err != nil {
				return cas.Digest{}, err
			}
		}
	}
	for _, c := range pl.proof[name] {
		if err := load(c.certs); err != nil {
			return cas.Digest{}, err
		}
	}
	if len(rings) == 0 {
		return cas.Digest{}, nil
	}
	info, err := cas.PutBatch(ctx, batch, sign.Merge(rings...).ExportArmored(), time.Time{})
	return info.Digest, err
}

// chosen iterates over the packages that are taken of one suite: those picked, or
// all of a whole snapshot's.
func (z *Freezer) chosen(pl *plan, name string, suite repo.SuiteName, snap *meta.Snapshot) func(context.Context, func(repo.Record) error) error {
	in := func(p meta.Place) bool { return p.Suite == suite }
	return func(ctx context.Context, emit func(repo.Record) error) error {
		if pl.whole[name] && snap != nil {
			return z.e.EachPackage(ctx, snap, func(e meta.Entry) error {
				if !slices.ContainsFunc(e.Places, in) {
					return nil
				}
				return emit(e.Fact.Record)
			})
		}
		for _, p := range pl.picks[name] {
			if !slices.ContainsFunc(p.places, in) {
				continue
			}
			if err := emit(p.fact.Record); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}

// records iterates over what was picked of one index, ordered by content alone.
func (z *Freezer) records(pl *plan, name string, suite repo.SuiteName) func(context.Context, string, func(repo.Record) error) error {
	return func(ctx context.Context, index string, emit func(repo.Record) error) error {
		place := meta.Place{Suite: suite, Index: index}
		var picks []*pick
		for _, p := range pl.picks[name] {
			if slices.Contains(p.places, place) {
				picks = append(picks, p)
			}
		}
		slices.SortFunc(picks, func(a, b *pick) int {
			return cmp.Or(cmp.Compare(a.fact.Name, b.fact.Name), cmp.Compare(a.fact.Arch, b.fact.Arch),
				cmp.Compare(a.fact.Version, b.fact.Version), slices.Compare(a.fact.Digest[:], b.fact.Digest[:]))
		})
		return z.emitPicks(ctx, picks, emit)
	}
}
