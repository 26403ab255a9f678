package mirror

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// localChange is a change of a local mirror. It has the packages after the change.
type localChange struct {
	*attempt
	own        repo.Own
	entries    []*ownEntry
	dirty      map[repo.SuiteName]bool
	companions map[repo.SuiteName][]repo.Doc
	acquired   []acquire.Acquired               // the received files
	besides    map[cas.Digest]map[string][]byte // stanzas of new packages in other indices, by the file's digest
}

// ownEntry is a stanza with its places.
type ownEntry struct {
	pid    meta.PID // 0: new; the record then has the stanza's bytes
	rec    repo.Record
	digest [16]byte // of the stanza
	homes  []home
}

// home is a part of a local mirror that contains a package.
type home struct {
	suite     repo.SuiteName
	component string
}

// in reports whether an index lists the package.
func (e *ownEntry) in(c *localChange, p meta.Place) bool {
	for _, h := range e.homes {
		if h.suite == p.Suite && slices.Contains(c.own.OwnIndices(c.m, h.component, &e.rec), p.Index) {
			return true
		}
	}
	return false
}

// load reads the newest state of the mirror.
func (c *localChange) load(ctx context.Context) (err error) {
	c.dirty, c.companions = map[repo.SuiteName]bool{}, map[repo.SuiteName][]repo.Doc{}
	c.besides = map[cas.Digest]map[string][]byte{}
	if c.head, err = c.e.cfg.Meta.Head(ctx, c.m.Name); err != nil {
		return err
	}
	c.now = c.e.cfg.Now().UTC().Truncate(time.Second)
	c.clock.begin(c.now, c.head.Snapshot, c.head.Check)
	if err := c.clock.behind(c.now); err != nil {
		return err
	}
	c.kr = c.e.cfg.Signer.Keyring()
	extra, err := c.e.acquirer.Keyring(c.m.Name)
	if err != nil {
		return err
	}
	if extra != nil {
		c.kr = sign.Merge(c.kr, extra)
	}
	if c.head.Snapshot == nil {
		return nil
	}
	return c.e.eachPackage(ctx, c.head.Snapshot, func(en meta.Entry) error {
		e := &ownEntry{pid: en.PID, rec: en.Record, digest: en.Digest}
		e.rec.Bytes = nil
		for _, p := range en.Places {
			e.addHome(home{p.Suite, c.own.OwnComponent(p.Index)})
		}
		c.entries = append(c.entries, e)
		return nil
	})
}

// addHome adds a home, and reports whether it is new.
func (e *ownEntry) addHome(h home) bool {
	if slices.Contains(e.homes, h) {
		return false
	}
	e.homes = append(e.homes, h)
	return true
}

func digestOf(stanza []byte) (d [16]byte) {
	sum := cas.Sum(stanza)
	copy(d[:], sum[:])
	return d
}

// add adds the packages in files. It returns those that the mirror did not have.
func (c *localChange) add(ctx context.Context, files []repo.OwnFile, o AddOptions) ([]repo.OwnPackage, error) {
	byPath := map[string]*ownEntry{}
	byStanza := map[[16]byte]*ownEntry{}
	for _, e := range c.entries {
		byStanza[e.digest] = e
		for _, f := range e.rec.Files {
			byPath[f.Path] = e
		}
	}
	fileAt := func(p string) (d cas.Digest, size int64) {
		if e := byPath[p]; e != nil {
			for _, f := range e.rec.Files {
				if f.Path == p {
					return f.SHA256, f.Size
				}
			}
		}
		return d, 0
	}
	pkgs, err := c.own.OwnPackages(c.m, repo.OwnParams{Suite: o.Suite, Component: o.Component, Has: fileAt}, files)
	if err != nil {
		return nil, err
	}
	if err := c.checkSame(ctx, pkgs); err != nil {
		return nil, err
	}
	var added []repo.OwnPackage
	for _, p := range pkgs {
		for _, f := range p.Files {
			if have, _ := fileAt(f.Path); !have.IsZero() && have != f.SHA256 {
				return nil, fmt.Errorf("%s: %s: %w: %s, with SHA-256 %s, expected %s", ownName(&p.Record), f.Path, repo.ErrOtherBytes, ownName(&byPath[f.Path].rec), f.SHA256, have)
			}
		}
		d := digestOf(p.Bytes)
		e := byStanza[d]
		if e == nil {
			e = &ownEntry{rec: p.Record, digest: d}
			c.entries = append(c.entries, e)
			byStanza[d] = e
			if len(p.Beside) > 0 {
				c.besides[p.Files[0].SHA256] = p.Beside
			}
			for _, f := range p.Files {
				byPath[f.Path] = e
			}
		}
		if e.addHome(home{p.Suite, p.Component}) {
			c.dirty[p.Suite] = true
			p.Bytes, p.Beside = nil, nil
			added = append(added, p)
		}
	}
	return added, nil
}

func ownName(r *repo.Record) string { return r.Name + " " + r.Version + " " + r.Arch }

// checkSame refuses a package if the mirror has, or had, other bytes under the same name,
// version and architecture: clients distinguish packages by these.
func (c *localChange) checkSame(ctx context.Context, pkgs []repo.OwnPackage) error {
	var names []string
	for _, p := range pkgs {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	facts := map[string][]*meta.Fact{}
	for page := range slices.Chunk(names, pageSize) {
		lists, err := c.e.cfg.Meta.FactsByName(ctx, c.m.Name, page)
		if err != nil {
			return err
		}
		for i, n := range page {
			facts[n] = lists[i]
		}
	}
	for i := range pkgs {
		r := &pkgs[i].Record
		for _, f := range facts[r.Name] {
			if err := otherBytes(r, &f.Record); err != nil {
				return err
			}
		}
		facts[r.Name] = append(facts[r.Name], &meta.Fact{Record: *r})
	}
	return nil
}

// otherBytes returns an error if two records have the same name, version and architecture
// but different files.
func otherBytes(r, have *repo.Record) error {
	if r.Kind != have.Kind || r.Version != have.Version || r.Arch != have.Arch {
		return nil
	}
	old := map[string]cas.Digest{}
	for _, f := range have.Files {
		old[path.Base(f.Path)] = f.SHA256
	}
	for _, f := range r.Files {
		if d, ok := old[path.Base(f.Path)]; ok && d != f.SHA256 {
			return fmt.Errorf("%s: %w: %s with SHA-256 %s, expected %s", ownName(r), repo.ErrOtherBytes, path.Base(f.Path), f.SHA256, d)
		}
	}
	return nil
}

// remove removes packages from all suites.
func (c *localChange) remove(specs []string) (removed []repo.OwnPackage, err error) {
	gone := map[*ownEntry]bool{}
	for _, spec := range specs {
		rest, version, versioned := strings.Cut(spec, "=")
		name, arch, archGiven := strings.Cut(rest, ":")
		found := false
		for _, e := range c.entries {
			if e.rec.Name != name || versioned && e.rec.Version != version || archGiven && e.rec.Arch != arch {
				continue
			}
			found = true
			gone[e] = true
		}
		if !found {
			return nil, fmt.Errorf("%s: %w", spec, ErrNoPackage)
		}
	}
	c.entries = slices.DeleteFunc(c.entries, func(e *ownEntry) bool {
		if !gone[e] {
			return false
		}
		for _, h := range e.homes {
			c.dirty[h.suite] = true
			removed = append(removed, repo.OwnPackage{Suite: h.suite, Component: h.component, Record: e.rec})
		}
		return true
	})
	return removed, nil
}

// has reports whether an index lists any package.
func (c *localChange) has(p meta.Place) bool {
	return slices.ContainsFunc(c.entries, func(e *ownEntry) bool { return e.in(c, p) })
}

// records calls emit for each package of an index with its bytes.
func (c *localChange) records(ctx context.Context, p meta.Place, emit func(repo.Record) error) error {
	var list []*ownEntry
	for _, e := range c.entries {
		if e.in(c, p) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *ownEntry) int {
		return cmp.Or(cmp.Compare(a.rec.Name, b.rec.Name), cmp.Compare(a.rec.Arch, b.rec.Arch),
			cmp.Compare(a.rec.Version, b.rec.Version), slices.Compare(a.digest[:], b.digest[:]))
	})
	for page := range slices.Chunk(list, pageSize) {
		var pids []meta.PID
		for _, e := range page {
			if e.pid != 0 {
				pids = append(pids, e.pid)
			}
		}
		stanzas, err := c.e.cfg.Meta.Stanzas(ctx, pids)
		if err != nil {
			return err
		}
		for _, e := range page {
			r := e.rec
			if e.pid != 0 {
				r.Bytes, stanzas = stanzas[0], stanzas[1:]
			}
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// openLast opens an index of the last state of a suite.
func (c *localChange) openLast(ctx context.Context, last *meta.Generation, index string) (string, io.ReadCloser, error) {
	if last == nil {
		return "", nil, nil
	}
	g := groupOf(last, index)
	if g == nil {
		return "", nil, nil
	}
	r, err := c.e.cfg.Blobs.Open(ctx, g.Variant.SHA256)
	return g.Variant.Path, r, err
}
