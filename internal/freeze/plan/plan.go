// Package plan resolves freeze requests: it determines which packages of which states of
// which mirrors a freeze takes. It neither downloads nor changes anything.
package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Catalog looks up snapshots and freezes.
type Catalog interface {
	Mirror(name config.MirrorName) (config.Mirror, error)
	ResolvePast(ctx context.Context, ref string) (r catalog.Ref, notice string, err error)
	LatestOfAll(ctx context.Context) ([]*meta.Snapshot, error)
	Root(ctx context.Context, mirror meta.MirrorName, typ string, suite repo.SuiteName, gen uint32) (*repo.Root, *meta.Generation, map[string]repo.Listed, error)
}

// Format reads derived repositories, and compares the versions and checks the
// dependencies of packages. It may also be a prioritizer and a repo.Resolver.
type Format interface {
	tree.Format
	repo.Versions
	repo.Fields
	Match(m config.Mirror, rec *repo.Record) bool
	Broken(ctx context.Context, records func(emit func(repo.Record) error) error) ([]repo.Problem, error)
}

// Keyrings returns the keys of the distributions.
type Keyrings interface {
	Keyring(mirror meta.MirrorName) (*sign.Keyring, error)
}

// Metadata is the part of meta.Store that a Planner reads.
type Metadata interface {
	freeze.Records
	freeze.Stanzas
	freeze.Unusables
	tree.Files
	Snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error)
	Generations(ctx context.Context, s *meta.Snapshot) ([]*meta.Generation, error)
	Recording(ctx context.Context, name string) (*meta.Recording, error)
	RecordingEntries(ctx context.Context, name string) ([]meta.RecordEntry, error)
	Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error)
	PackagesByDigest(ctx context.Context, s *meta.Snapshot, digests []cas.Digest) ([][]meta.Entry, error)
	PackagesByPath(ctx context.Context, s *meta.Snapshot, paths []string) ([]meta.PathEntry, error)
	FactsByStanza(ctx context.Context, mirror meta.MirrorName, keys []meta.StanzaKey) ([]*meta.Fact, error)
	FactsByName(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error)
	OwnersOf(ctx context.Context, digests []cas.Digest) ([][]meta.OwnedFact, error)
	NewestWith(ctx context.Context, mirror meta.MirrorName, stanzas [][]meta.PID) ([]*meta.Snapshot, error)
}

// Config contains the parts of a Planner.
type Config struct {
	Formats  repo.Formats[Format]
	Catalog  Catalog
	Keyrings Keyrings
	Meta     Metadata
	Blobs    cas.Reader
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt func(cas.Digest) error
	// LocalURL is the URL of the server on this machine, for the dependency
	// resolvers.
	LocalURL string
}

// Planner plans freezes. It is safe for concurrent use.
type Planner struct {
	cfg   Config
	cat   Catalog
	meta  Metadata
	blobs cas.Reader
}

// New returns a Planner.
func New(cfg Config) *Planner {
	return &Planner{cfg: cfg, cat: cfg.Catalog, meta: cfg.Meta, blobs: cfg.Blobs}
}

// pageSize is the number of packages, names or digests in one query.
const pageSize = 250

// Plan is the contents of a planned freeze.
type Plan struct {
	Request  *api.FreezeRequest
	Mirrors  []*Mirror // in the order of the request
	Missing  []freeze.Missing
	Report   *api.Report
	Warnings []string
	// Refused says why the freeze would not be made; set by a dry run.
	Refused error

	why       map[freeze.Missing]string // how the package with the entry's version differs from it
	kept      map[freeze.Missing]string // ID of a snapshot that was not chosen and contains it
	unasked   bool                      // the query matches no package
	claims    []claim
	lacking   []freeze.Missing // entries that the base is allowed to lack
	noSources bool             // the base has no source packages, so none are added
	unlisted  []string         // build manifests without entries
	unmatched []string         // mirrors of which whole freezes take no packages
}

// Mirror is a planned freeze's part from one mirror.
type Mirror struct {
	Name   meta.MirrorName
	Type   string
	States []*meta.Snapshot // states that packages are taken from; a zero timestamp: only its generations are left
	Whole  bool             // all packages of its only state are taken, as listed by its indices
	All    bool             // all packages are taken, one by one
	Picks  []*Pick          // packages of a mirror that is not Whole
	Proof  []Carried        // of imported bases

	taken map[[16]byte]*Pick // by digest; nil after a drop
}

// Pick is a stanza that a freeze takes.
type Pick struct {
	meta.Entry                // PID 0: Record.Bytes is set
	From       *meta.Snapshot // has no suites if the stanza is from an imported base
}

func (p *Pick) String() string { return p.Name + " " + p.Version + " " + p.Arch }

func (p *Pick) isSource() bool { return p.Kind == repo.KindSource }

func (p *Pick) describe() api.Package { return catalog.Components(nil).Package(p.From.Mirror, p.Entry) }

// addPlaces adds new places.
func (p *Pick) addPlaces(places []meta.Place) {
	for _, place := range places {
		if !slices.Contains(p.Places, place) {
			p.Places = append(p.Places, place)
		}
	}
}

// Carried is proof that is copied from another freeze instead of generations.
type Carried struct {
	Suite        freeze.DocSuite
	Certificates cas.Digest
}

// Mirror returns the part of the plan from a mirror, or nil if the mirror is not in the
// plan.
func (pl *Plan) Mirror(name meta.MirrorName) *Mirror {
	for _, m := range pl.Mirrors {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// mirror is like Mirror, but adds a mirror that is not part of the plan yet.
func (pl *Plan) mirror(name, typ string) *Mirror {
	m := pl.Mirror(meta.MirrorName(name))
	if m == nil {
		m = &Mirror{Name: meta.MirrorName(name), Type: typ}
		pl.Mirrors = append(pl.Mirrors, m)
	}
	return m
}

// use adds a state that packages are taken from.
func (pl *Plan) use(snap *meta.Snapshot) {
	m := pl.mirror(string(snap.Mirror), snap.Type)
	m.States = append(m.States, snap)
}

// states returns the states of all mirrors.
func (pl *Plan) states() (out []*meta.Snapshot) {
	for _, m := range pl.Mirrors {
		out = append(out, m.States...)
	}
	return out
}

// add takes a stanza, once.
func (pl *Plan) add(p *Pick) {
	m := pl.mirror(string(p.From.Mirror), p.From.Type)
	if m.taken == nil {
		m.taken = map[[16]byte]*Pick{}
		for _, o := range m.Picks {
			m.taken[o.Digest] = o
		}
	}
	if o := m.taken[p.Digest]; o != nil {
		o.addPlaces(p.Places)
		return
	}
	m.taken[p.Digest] = p
	m.Picks = append(m.Picks, p)
}

// drop removes the stanzas that match f and returns how many.
func (pl *Plan) drop(f func(*Pick) bool) (n int) {
	for _, m := range pl.Mirrors {
		before := len(m.Picks)
		m.Picks = slices.DeleteFunc(m.Picks, f)
		n += before - len(m.Picks)
		m.taken = nil
	}
	return n
}

// Refuse returns err, the reason why the freeze cannot be made. A dry run instead keeps
// the first reason and continues, so that it reports everything before it ends like the
// freeze itself.
func (pl *Plan) Refuse(err error) error {
	if err == nil || !pl.Request.DryRun {
		return err
	}
	if pl.Refused == nil {
		pl.Refused = err
	}
	return nil
}

// report returns the report of the plan, and creates it if necessary.
func (pl *Plan) report() *api.Report {
	if pl.Report == nil {
		pl.Report = &api.Report{Entries: []api.ReportEntry{}}
	}
	return pl.Report
}

// Plan resolves a request: its manifests and packages, or otherwise the recording of its
// name, or otherwise whole mirrors.
func (p *Planner) Plan(ctx context.Context, req *api.FreezeRequest) (*Plan, error) {
	pl := &Plan{Request: req}
	named, err := checkRequest(req)
	if err != nil {
		return nil, err
	}
	if OfItsRecording(req) {
		_, err := p.meta.Recording(ctx, req.Name)
		switch {
		case err == nil && len(req.Mirrors) > 0:
			return nil, fmt.Errorf("%w: mirrors cannot be given for recording %s, which determines them: leave them out to freeze the recording, or use no_recording (--no-recording) to freeze the mirrors", freeze.ErrUsage, req.Name)
		case err == nil:
			req.Recording = req.Name
		case !errors.Is(err, meta.ErrNotFound):
			return nil, err
		}
	}
	switch {
	case req.Recording != "":
		err = p.planRecording(ctx, pl)
	case req.Base != "":
		err = p.planBase(ctx, pl)
	case named:
		err = p.planEntries(ctx, pl)
	default:
		err = p.planWhole(ctx, pl)
	}
	if err != nil {
		return nil, err
	}
	if !req.NoSources && !pl.noSources {
		if err := p.addSources(ctx, pl); err != nil {
			return nil, err
		}
	}
	if err := pl.Refuse(pl.checkMissing()); err != nil {
		return nil, err
	}
	empty, err := p.checkEmpty(ctx, pl)
	if err != nil {
		return nil, err
	}
	return pl, pl.Refuse(empty)
}

// checkRequest refuses contradictory options. named reports whether the request says what
// the freeze contains.
func checkRequest(req *api.FreezeRequest) (named bool, err error) {
	kinds := 0
	for _, set := range []bool{len(req.Manifests) > 0, req.Recording != "", len(req.Packages)+len(req.Query) > 0, req.Base != ""} {
		if set {
			kinds++
		}
	}
	listed := len(req.Manifests) + len(req.Packages) + len(req.Query)
	switch {
	case kinds > 1 && !(kinds == 2 && len(req.Manifests) > 0 && len(req.Packages)+len(req.Query) > 0):
		return false, fmt.Errorf("%w: manifests or packages, a recording, and a base cannot be combined", freeze.ErrUsage)
	case req.Base == "" && len(req.Replace)+len(req.Remove) > 0:
		return false, fmt.Errorf("%w: replace and remove need a base", freeze.ErrUsage)
	case req.WithDeps && listed == 0:
		return false, fmt.Errorf("%w: dependencies can only be resolved for given packages or a manifest", freeze.ErrUsage)
	case req.Recording != "" && len(req.Mirrors) > 0:
		return false, fmt.Errorf("%w: mirrors cannot be given for a recording, which determines them", freeze.ErrUsage)
	}
	return kinds > 0, nil
}

// OfItsRecording reports whether a request freezes the recording with the name of the
// freeze, if it exists, because it does not name other contents.
func OfItsRecording(req *api.FreezeRequest) bool {
	listed := len(req.Manifests) + len(req.Packages) + len(req.Query)
	return listed == 0 && req.Recording == "" && req.Base == "" && !req.NoRecording && !req.All
}

// chooseStates returns the snapshots in the request, possibly several of one mirror, or
// otherwise the newest snapshot of every configured mirror.
func (p *Planner) chooseStates(ctx context.Context, pl *Plan) error {
	if len(pl.Request.Mirrors) == 0 {
		snaps, err := p.cat.LatestOfAll(ctx)
		for _, snap := range snaps {
			pl.use(snap)
		}
		return err
	}
	for _, ref := range pl.Request.Mirrors {
		name, at, dated := strings.Cut(ref, "@")
		if _, err := p.cat.Mirror(meta.MirrorName(name)); err != nil {
			return err
		}
		if !dated {
			at = catalog.Latest
		}
		r, err := p.resolve(ctx, pl, name+"@"+at)
		if err != nil {
			return err
		}
		snap := r.Snapshot
		if m := pl.Mirror(meta.MirrorName(name)); m != nil && slices.ContainsFunc(m.States, func(s *meta.Snapshot) bool { return s.Timestamp.Equal(snap.Timestamp) }) {
			return fmt.Errorf("%w: snapshot %s is given twice", freeze.ErrUsage, snap.ID())
		}
		pl.use(snap)
	}
	return nil
}

// resolve resolves a reference of the request, and keeps its notice for the report.
func (p *Planner) resolve(ctx context.Context, pl *Plan, ref string) (catalog.Ref, error) {
	r, notice, err := p.cat.ResolvePast(ctx, ref)
	if notice != "" && !slices.Contains(pl.Warnings, notice) {
		pl.Warnings = append(pl.Warnings, notice)
	}
	return r, err
}

// picksByName returns, for each name, the packages of the states with that name.
func (p *Planner) picksByName(ctx context.Context, states []*meta.Snapshot, names []string) ([][]*Pick, error) {
	return picksBy(ctx, states, names, p.meta.PackagesByName)
}

// picksByDigest returns, for each digest, the packages of the states with that digest.
func (p *Planner) picksByDigest(ctx context.Context, states []*meta.Snapshot, digests []cas.Digest) ([][]*Pick, error) {
	return picksBy(ctx, states, digests, p.meta.PackagesByDigest)
}

// picksBy queries each state for all keys, in pages. A stanza in several states
// of a mirror is one pick.
func picksBy[K any](ctx context.Context, states []*meta.Snapshot, keys []K, find func(context.Context, *meta.Snapshot, []K) ([][]meta.Entry, error)) ([][]*Pick, error) {
	out := make([][]*Pick, 0, len(keys))
	for page := range slices.Chunk(keys, pageSize) {
		found := make([][]*Pick, len(page))
		for _, snap := range states {
			lists, err := find(ctx, snap, page)
			if err != nil {
				return nil, err
			}
			for i, list := range lists {
				for _, e := range list {
					found[i] = addPick(found[i], &Pick{Entry: e, From: snap})
				}
			}
		}
		out = append(out, found...)
	}
	return out, nil
}

// addPick appends a pick, or adds its places to the same stanza of another state
// of the mirror.
func addPick(list []*Pick, p *Pick) []*Pick {
	for _, o := range list {
		if o.From.Mirror == p.From.Mirror && o.PID == p.PID {
			o.addPlaces(p.Places)
			return list
		}
	}
	return append(list, p)
}

// clip returns the first max elements of a list.
func clip(l []string, max int) []string {
	if len(l) <= max {
		return l
	}
	return append(slices.Clone(l[:max]), fmt.Sprintf("… and %d more", len(l)-max))
}
