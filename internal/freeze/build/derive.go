package build

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/plan"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// derivation is the input for the frozen repository of one mirror.
type derivation struct {
	x      *freezing
	m      *plan.Mirror
	d      *freeze.DocMirror
	format Format
	params repo.DeriveParams
	record meta.FrozenMirror

	certs   []cas.Digest           // certificates of the keys that verified the roots
	bySuite map[repo.SuiteName]int // index into params.Choices
}

// derivation collects the input for the frozen repository of one mirror.
func (x *freezing) derivation(ctx context.Context, d *freeze.DocMirror) (*derivation, error) {
	format, err := x.formats.Of(d.Type)
	if err != nil {
		return nil, err
	}
	c, err := x.cat.Mirror(d.Name)
	if err != nil {
		c = config.Mirror{Name: d.Name, Type: d.Type} // imported, and not configured on this server
	}
	m := x.pl.Mirror(d.Name)
	v := &derivation{
		x: x, m: m, d: d, format: format, bySuite: map[repo.SuiteName]int{},
		params: repo.DeriveParams{Mirror: c, Date: x.doc.Date, Signer: x.signer},
		record: meta.FrozenMirror{Mirror: d.Name, Type: d.Type, Whole: m.Whole},
	}
	for _, f := range d.ProofFiles() {
		l := x.held(repo.Listed{Path: f.Path, Size: f.Size, SHA256: f.SHA256})
		v.record.Proof = append(v.record.Proof, repo.File{Path: l.Path, Size: l.Size, SHA256: l.SHA256, SHA512: f.SHA512})
	}
	if err := v.addStates(ctx); err != nil {
		return nil, err
	}
	if err := v.addCarried(ctx); err != nil {
		return nil, err
	}
	v.record.Certificates, err = x.joinCertificates(ctx, v.certs)
	return v, err
}

// joinCertificates stores certificates as one blob. It returns the zero digest for no
// certificates.
func (x *freezing) joinCertificates(ctx context.Context, certs []cas.Digest) (cas.Digest, error) {
	ring, err := freeze.Certificates(ctx, x.blobs, certs...)
	if err != nil || ring == nil {
		return cas.Digest{}, err
	}
	info, err := cas.PutBatch(ctx, x.batch, ring.ExportArmored(), time.Time{})
	return info.Digest, err
}

// addStates adds the suites of the states that packages are taken from. It adds each
// generation once, even if it is part of several states.
func (v *derivation) addStates(ctx context.Context) error {
	done := map[meta.SnapshotSuite]bool{}
	for _, snap := range v.m.States {
		if !snap.Timestamp.IsZero() { // else only its generations still exist
			v.record.AddSnapshot(snap.Timestamp)
		}
		for _, s := range snap.Suites {
			k := meta.SnapshotSuite{Suite: s.Suite, Gen: s.Gen}
			if done[k] {
				continue
			}
			done[k] = true
			if err := v.addGeneration(ctx, snap, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *derivation) addGeneration(ctx context.Context, snap *meta.Snapshot, s meta.SnapshotSuite) error {
	root, _, _, err := v.x.cat.Root(ctx, v.d.Name, v.d.Type, s.Suite, s.Gen)
	if err != nil {
		return err
	}
	// A collection may have compacted the generation since the root was read.
	now, err := v.x.meta.Generations(ctx, &meta.Snapshot{Mirror: snap.Mirror, Suites: []meta.SnapshotSuite{s}})
	if err != nil {
		return err
	}
	g := now[0]
	v.certs = append(v.certs, g.Certificates)
	v.record.Suites = append(v.record.Suites, freeze.ClientSuite(g, v.format.SourceArch()))
	choice := repo.Choice{Suite: s.Suite, Root: root, Whole: v.m.Whole}
	kept := map[string]repo.File{}
	for _, gr := range g.Groups {
		variant := v.x.held(gr.Variant)
		if gr.Made != nil && !v.m.Whole {
			variant = gr.Plain // it is only read, and plain indices are made faster
		}
		choice.Groups = append(choice.Groups, repo.Group{
			Index: gr.Index, Component: gr.Component, Arch: gr.Arch, Packages: gr.Packages, Also: gr.Also, Variants: []repo.Listed{variant},
		})
		kept[variant.Path] = repo.File{Path: variant.Path, Size: variant.Size, SHA256: variant.SHA256}
	}
	v.complete(&choice, kept, snap)
	i, ok := v.bySuite[s.Suite]
	if !ok {
		v.bySuite[s.Suite] = len(v.params.Choices)
		v.params.Choices = append(v.params.Choices, choice)
		return nil
	}
	// Another state of a suite: the newest root provides the fields of the
	// Release file.
	newest := &v.params.Choices[i]
	if root.Date.After(newest.Root.Date) {
		*newest, choice = choice, *newest
		newest.Others, choice.Others = choice.Others, nil
	}
	newest.Others = append(newest.Others, choice)
	return nil
}

// complete sets the functions of a choice that read the stored files of its suite. snap
// is the state of the suite, or nil for an imported base.
func (v *derivation) complete(c *repo.Choice, kept map[string]repo.File, snap *meta.Snapshot) {
	suite := c.Suite
	c.Held = func(l repo.Listed) (repo.File, bool) {
		f, ok := kept[l.Path]
		return f, ok
	}
	c.Open = func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		return v.x.blobs.Open(ctx, kept[l.Path].SHA256)
	}
	c.Records = func(ctx context.Context, index string, emit func(repo.Record) error) error {
		return v.x.plans.Records(ctx, v.m, meta.Place{Suite: suite, Index: index}, emit)
	}
	c.Packages = func(ctx context.Context, emit func(repo.Record) error) error {
		return v.eachChosen(ctx, suite, snap, emit)
	}
}

// eachChosen calls emit for each package that is taken from a suite: the picked ones, or
// all of a whole state.
func (v *derivation) eachChosen(ctx context.Context, suite repo.SuiteName, snap *meta.Snapshot, emit func(repo.Record) error) error {
	take := func(e meta.Entry) error {
		if !slices.ContainsFunc(e.Places, func(p meta.Place) bool { return p.Suite == suite }) {
			return nil
		}
		return emit(e.Record)
	}
	if v.m.Whole && snap != nil {
		return freeze.EachPackage(ctx, v.x.meta, snap, take)
	}
	for _, o := range v.m.Picks {
		if err := take(o.Entry); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// addCarried adds the suites of imported bases, whose roots come from the proof
// that was imported with them.
func (v *derivation) addCarried(ctx context.Context) error {
	for _, c := range v.m.Proof {
		v.certs = append(v.certs, c.Certificates)
		if _, ok := v.bySuite[c.Suite.Suite]; ok {
			continue
		}
		root, err := freeze.ReadRoot(ctx, v.x.blobs, v.format, v.d, &c.Suite, c.Certificates)
		if err != nil {
			return err
		}
		choice := repo.Choice{Suite: c.Suite.Suite, Root: root}
		kept := map[string]repo.File{}
		for _, i := range c.Suite.Indices {
			variant := v.x.held(repo.Listed{Path: i.Path, Size: i.Size, SHA256: i.SHA256})
			choice.Groups = append(choice.Groups, repo.Group{
				Index: i.Index, Component: i.Component, Arch: i.Arch, Packages: i.Packages, Variants: []repo.Listed{variant},
			})
			kept[variant.Path] = repo.File{Path: variant.Path, Size: variant.Size, SHA256: variant.SHA256}
		}
		v.complete(&choice, kept, nil)
		one := freeze.DocMirror{Suites: []freeze.DocSuite{c.Suite}}
		v.record.Suites = append(v.record.Suites, one.ClientSuites(v.format.SourceArch())...)
		v.bySuite[c.Suite.Suite] = len(v.params.Choices)
		v.params.Choices = append(v.params.Choices, choice)
	}
	return nil
}

// derive writes the frozen repository and returns the nodes of its tree. all contains the
// derivations of the whole freeze.
func (v *derivation) derive(ctx context.Context, all []*derivation) ([]meta.Node, error) {
	params := v.params
	for _, o := range all {
		if o != v && o.d.Type == v.d.Type {
			params.Beside = append(params.Beside, o.params.Choices...)
		}
	}
	s := &sink{mirror: v.d.Name, batch: v.x.batch, date: v.x.doc.Date}
	if err := v.format.Derive(ctx, params, s); err != nil {
		return nil, fmt.Errorf("derive %s: %w", v.d.Name, err)
	}
	if v.m.Whole {
		return s.nodes, nil
	}
	for _, o := range v.m.Picks {
		for _, f := range o.Files {
			s.add(f.Path, f.SHA256, f.Size)
		}
	}
	return s.nodes, nil
}

// count returns the number of packages and source packages.
func (v *derivation) count(ctx context.Context) (packages, sources int, err error) {
	if !v.m.Whole {
		packages, sources = v.d.Tally(v.format.SourceArch())
		return packages, sources, nil
	}
	for _, snap := range v.m.States {
		gens, err := v.x.meta.Generations(ctx, snap)
		if err != nil {
			return 0, 0, err
		}
		for _, g := range gens {
			packages += g.Packages
			sources += g.Sources
		}
	}
	return packages, sources, nil
}

// wholeBytes returns the bytes of the packages of a whole mirror, which are not in the
// tree. It counts each file once.
func (v *derivation) wholeBytes(ctx context.Context) (n int64, err error) {
	if !v.m.Whole {
		return 0, nil
	}
	key := ""
	for _, snap := range v.m.States {
		gens, err := v.x.meta.Generations(ctx, snap)
		if err != nil {
			return 0, err
		}
		for _, g := range gens {
			key += fmt.Sprintln(snap.Mirror, g.Suite, g.Gen, g.Timestamp, g.Docs)
		}
	}
	if n, ok := v.x.sizes.get(key); ok {
		return n, nil
	}
	seen := map[cas.Digest]bool{}
	for _, snap := range v.m.States {
		err := freeze.EachPackage(ctx, v.x.meta, snap, func(e meta.Entry) error {
			for _, f := range e.Fact.Files {
				if !seen[f.SHA256] {
					seen[f.SHA256] = true
					n += f.Size
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	v.x.sizes.put(key, n)
	return n, nil
}

// maxSizes limits the entries of sizes.
const maxSizes = 64

// sizes caches the bytes of whole snapshots, which never change: counting them reads the
// metadata of every package.
type sizes struct {
	mu sync.Mutex
	of map[string]int64
}

func (s *sizes) get(key string) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.of[key]
	return n, ok
}

func (s *sizes) put(key string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) >= maxSizes {
		s.of = map[string]int64{}
	}
	s.of[key] = n
}
