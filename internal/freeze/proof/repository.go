package proof

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// repositoryProof verifies the frozen repository of one mirror: it is signed by
// this server, lists exactly the served files, and contains exactly the packages of
// the manifest.
type repositoryProof struct {
	*mirrorProof
	have  map[string]meta.Node  // existing files, by path below the mirror
	known map[string]cas.Digest // expected files
	sizes map[string]int64      // sizes of expected files; negative: unknown
	by512 map[string]sha512File
}

// sha512File is a file that upstream lists only by SHA-512, and the field that contains
// its SHA-256.
type sha512File struct {
	repo.File
	field string
}

// repository checks the frozen repository of a mirror.
func (c *check) repository(ctx context.Context, p *mirrorProof) error {
	x := &repositoryProof{
		mirrorProof: p, have: map[string]meta.Node{}, known: map[string]cas.Digest{}, sizes: map[string]int64{}, by512: map[string]sha512File{},
	}
	if err := c.t.Each(ctx, p.d.Name, func(n meta.Node) error {
		x.have[strings.TrimPrefix(n.Path, string(p.d.Name)+"/")] = n
		return nil
	}); err != nil {
		return err
	}
	if len(x.have) == 0 {
		c.fieldFault("mirrors.name", string(p.d.Name), "", string(p.d.Name), "there is no frozen repository of this mirror")
		return nil
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.want), spot.compare) {
		x.expectPackage(p.want[k])
	}
	done := map[repo.SuiteName]bool{}
	for _, s := range p.d.Suites {
		if done[s.Suite] {
			continue
		}
		done[s.Suite] = true
		f := &frozenSuite{repositoryProof: x, suite: s.Suite, dir: p.f.SuiteDir(s.Suite), object: fmt.Sprintf("%s: frozen suite %s", p.d.Name, s.Suite)}
		if err := f.check(ctx); err != nil {
			return err
		}
	}
	x.checkFiles()
	return nil
}

// expectPackage records where the files of a package of the manifest should be.
func (x *repositoryProof) expectPackage(l *listing) {
	for _, file := range l.files {
		x.expect(file.Path, file.SHA256, file.Size)
		if file.SHA512 != "" {
			field := l.field + ".sha256"
			if l.field == "mirrors.sources" {
				field = l.field + ".files.sha256"
			}
			x.by512[file.Path] = sha512File{repo.File{Path: file.Path, Size: file.Size, SHA512: file.SHA512}, field}
		}
		if _, ok := x.have[file.Path]; !ok {
			x.c.fault(x.packageObject(l.name, l.version, l.arch), file.SHA256.String(), "", "%s is missing from the frozen repository", file.Path)
		}
	}
}

// expect records the expected file at a path of the frozen repository. A path can only
// have one.
func (x *repositoryProof) expect(p string, sum cas.Digest, size int64) {
	if have, ok := x.known[p]; ok && have != sum {
		a, b := min(have.String(), sum.String()), max(have.String(), sum.String())
		x.c.fault(string(x.d.Name)+": "+p, "one file", "files with SHA-256 "+a+" and "+b, "two files have the same path")
	}
	x.known[p], x.sizes[p] = sum, size
}

// checkFiles checks each existing file, and schedules the reading of the expected ones.
func (x *repositoryProof) checkFiles() {
	opened := map[cas.Digest]bool{}
	for _, name := range slices.Sorted(maps.Keys(x.have)) {
		n := x.have[name]
		digest, ok := x.checkFile(name, n)
		if !ok {
			continue
		}
		x.c.files.Add(1)
		x.c.proveFile(n.Path, n.Size, digest)
		if !n.Digest.IsZero() && opened[n.Digest] {
			continue
		}
		opened[n.Digest] = true
		x.c.later(n.Size, func(ctx context.Context) { x.readFile(ctx, name, n, digest) })
	}
}

// checkFile checks that a file is expected, and that it has the expected size and, if it
// is recorded, digest. If ok is false, the file is not read.
func (x *repositoryProof) checkFile(name string, n meta.Node) (digest cas.Digest, ok bool) {
	object := string(x.d.Name) + ": " + name
	digest, ok = x.known[name]
	if !ok {
		// Packages of a whole mirror were checked with their indices. Without a
		// signed index, the expected files are unknown.
		if whole := x.d.Kind == freeze.Whole; whole && (!n.Digest.IsZero() || x.c.dir.Asked(n.Path)) || x.c.blind {
			return digest, false
		}
		x.c.fault(object, "", "", "the frozen repository has a file that neither its manifest nor its signed index lists")
		return digest, false
	}
	if !n.Digest.IsZero() && n.Digest != digest {
		x.c.fault(object, digest.String(), n.Digest.String(), "the file has another digest")
		return digest, false
	}
	if size := x.sizes[name]; size >= 0 && n.Size != size {
		x.c.fault(object, fmt.Sprint(size), fmt.Sprint(n.Size), "size in bytes")
		return digest, false
	}
	return digest, true
}

// readFile opens a file, and reads it if the check is deep.
func (x *repositoryProof) readFile(ctx context.Context, name string, n meta.Node, digest cas.Digest) {
	object := string(x.d.Name) + ": " + name
	r, err := x.c.t.Open(ctx, n.Path)
	if err != nil {
		x.c.fault(object, digest.String(), "", "%v", err)
		return
	}
	defer r.Close()
	if !x.c.o.Deep {
		return
	}
	by512, ok := x.by512[name]
	if !ok {
		x.c.hash(ctx, object, repo.File{Path: name, Size: n.Size, SHA256: digest}, r)
		return
	}
	if found := x.c.hash(ctx, object, by512.File, r); found != digest && !found.IsZero() {
		x.c.fieldFault(by512.field, object, found.String(), digest.String(), "SHA-256 of a file that upstream lists by SHA-512")
	}
}

// frozenSuite verifies one suite of the frozen repository.
type frozenSuite struct {
	*repositoryProof
	suite  repo.SuiteName
	dir    string // path of the suite, below the mirror
	object string // name for faults
	root   *repo.Root
}

// check verifies the root signed by this server and the indices that it lists.
func (x *frozenSuite) check(ctx context.Context) error {
	r := &tree.Repository{Mirror: x.d.Name, Type: x.d.Type, Format: x.f, Tree: x.c.t, Files: x.have}
	root, docs, err := r.SignedRoot(ctx, x.suite, x.c.o.Ours)
	if err != nil {
		x.c.fault(x.object, "", "", "%v", err)
		x.c.blind = true
		return nil
	}
	x.root = root
	for _, doc := range docs {
		x.expect(doc.Path, cas.Sum(doc.Data), int64(len(doc.Data)))
	}
	if found, at := derivedAt(root), fmt.Sprint(x.c.doc.Date.Unix()); found != at {
		x.c.fieldFault("date", x.object, found, at, "date of the freeze, in seconds since 1970, which is that of its signed index")
	}
	for _, l := range root.Files {
		x.listed(l)
	}
	if x.d.Kind == freeze.Whole {
		x.wholeIndices()
		return nil
	}
	return x.exactIndices(ctx)
}

// derivedAt returns the date of a root that Derive wrote, as its format
// represents it.
func derivedAt(root *repo.Root) string {
	if root.Revision != "" {
		return root.Revision
	}
	return fmt.Sprint(root.Date.Unix())
}

// served reports whether a listed file exists.
func (x *frozenSuite) served(l repo.Listed) bool {
	_, ok := x.have[x.dir+l.Path]
	return ok
}

// listed checks that a file in the root exists, also under its by-hash name, and that in
// a whole mirror it is upstream's file.
func (x *frozenSuite) listed(l repo.Listed) {
	name := x.dir + l.Path
	served := x.served(l)
	hash := x.f.HashName(name, l.SHA256)
	if _, named := x.have[hash]; named {
		x.expect(hash, l.SHA256, l.Size)
	} else if served && x.root.ByHash && hash != "" {
		x.c.fault(string(x.d.Name)+": "+hash, l.SHA256.String(), "", "%s is missing under its by-hash name", l.Path)
	}
	if !served {
		if x.d.Kind == freeze.Whole && x.compressed(l) {
			return // only for clients that compare it: the plain variant of an index
		}
		x.c.fault(string(x.d.Name)+": "+name, l.SHA256.String(), "", "the signed index lists a file that is missing")
		return
	}
	x.expect(name, l.SHA256, l.Size)
	if x.d.Kind != freeze.Whole {
		return
	}
	if want, ok := x.signed[x.suite][l.Path]; !ok || want != l.SHA256 {
		x.c.fault(string(x.d.Name)+": "+name, want.String(), l.SHA256.String(), "the frozen index is not upstream's")
	}
}

// compressed reports whether a compression variant of a listed plain file exists.
func (x *frozenSuite) compressed(l repo.Listed) bool {
	return slices.ContainsFunc(x.root.Files, func(o repo.Listed) bool { return strings.HasPrefix(o.Path, l.Path+".") && x.served(o) })
}

// wholeIndices checks that the manifest lists each index that the frozen suite of
// a whole mirror serves, because the packages in other indices were not verified.
func (x *frozenSuite) wholeIndices() {
	groups, err := x.f.Plan(everyIndex(string(x.d.Name), x.d.Type, x.suite), x.root)
	if err != nil {
		x.c.fault(x.object, "", "", "%v", err)
		return
	}
	for _, g := range groups {
		named := slices.ContainsFunc(x.d.Suites, func(s freeze.DocSuite) bool {
			return s.Suite == x.suite && slices.ContainsFunc(s.Indices, func(i freeze.DocIndex) bool { return i.Index == g.Index })
		})
		if !named && slices.ContainsFunc(g.Variants, x.served) {
			x.c.fieldFault("mirrors.suites.indices", x.object, g.Index, "", "index %s is served but not in the manifest", g.Index)
		}
	}
}

// exactIndices checks that the indices of an exact mirror list exactly the
// packages of the manifest.
func (x *frozenSuite) exactIndices(ctx context.Context) error {
	groups, err := x.f.Plan(tree.EveryPackageIndex(x.d.Name, x.d.Type, x.suite), x.root)
	if err != nil {
		x.c.fault(x.object, "", "", "%v", err)
		return nil
	}
	left := map[spot]*listing{} // not listed yet
	for k, l := range x.want {
		if k.suite == x.suite {
			left[k] = l
		}
	}
	for _, g := range groups {
		if !g.Packages {
			continue
		}
		variant := x.variant(g)
		if variant == nil {
			x.c.fault(x.object, "", "", "no variant of index %s exists", g.Index)
			continue
		}
		err := x.f.Read(ctx, x.root, g, *variant, x.open, func(r *repo.Record) error {
			k := spot{x.suite, g.Index, paragraphOf(r)}
			x.compare(k, g, r)
			delete(left, k)
			return nil
		})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			x.c.fault(x.object, variant.SHA256.String(), "", "index %s: %v", variant.Path, err)
			return nil
		}
	}
	for k, l := range left {
		x.c.fieldFault(l.field+".index", x.packageObject(l.name, l.version, l.arch), "", "", "the package is in the manifest but not in the frozen index %s", k.index)
	}
	return nil
}

// variant returns the variant of an index to read: the plain one, or otherwise the first
// that exists, or nil.
func (x *frozenSuite) variant(g repo.Group) (variant *repo.Listed) {
	for i := range g.Variants {
		if x.served(g.Variants[i]) && (variant == nil || g.Variants[i].Path == g.Index) {
			variant = &g.Variants[i]
		}
	}
	return variant
}

func (x *frozenSuite) open(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
	name := x.dir + l.Path
	r, err := x.c.t.Open(ctx, string(x.d.Name)+"/"+name)
	if err != nil {
		return nil, err
	}
	return x.c.reader(ctx, repo.File{Path: name, Size: l.Size, SHA256: l.SHA256}, r), nil
}

// compare compares a package that a frozen index lists at a spot with the
// manifest.
func (x *frozenSuite) compare(k spot, g repo.Group, r *repo.Record) {
	object := x.packageObject(r.Name, r.Version, r.Arch)
	if r.Kind == repo.KindUnusable {
		x.c.fault(object, "", "", "the frozen index %s lists a package that no client can install: %s", g.Index, r.Reason)
		return
	}
	if len(x.want) == 0 {
		x.c.fieldFault("mirrors.kind", object, "", x.d.Kind, "the frozen index %s lists a package, but the manifest has none of this mirror", g.Index)
	} else if l := x.want[k]; l == nil || len(l.differences(g, r)) > 0 {
		x.c.fault(object, "", "", "the frozen index %s lists a package that is not in the manifest", g.Index)
	}
}
