package freeze

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// The signature of a freeze manifest says who wrote it, not that it is true:
// whoever has the key can write anything. So each field is recomputed from what
// the distribution signed, or compared with the frozen repository.
// TestManifestFields walks them all.

// spot is where an upstream index lists a package.
type spot struct {
	suite  repo.SuiteName
	index  string
	stanza string
}

// listing is what the manifest says of the package at a spot.
type listing struct {
	field         string // "mirrors.packages" or "mirrors.sources"
	name          string
	version       string
	arch          string
	component     string
	source        string
	sourceVersion string
	files         []repo.File
	proven        bool
}

// mirrorProof checks what the manifest says of one mirror against upstream's
// signed documents and indices.
type mirrorProof struct {
	v    *verifier
	f    repo.Format
	d    *DocMirror
	keys *sign.Keyring // that upstream's signatures must be by
	kept *sign.Keyring // the certificates that the manifest's keys are compared with; nil: they are not

	want   map[spot]*listing
	signed map[repo.SuiteName]map[string]cas.Digest // what the roots list

	mu    sync.Mutex
	found map[string]spot // where a wanted stanza is listed besides
}

func (v *verifier) newMirrorProof(f repo.Format, d *DocMirror) *mirrorProof {
	p := &mirrorProof{v: v, f: f, d: d, want: map[spot]*listing{}, signed: map[repo.SuiteName]map[string]cas.Digest{}, found: map[string]spot{}}
	add := func(k spot, l *listing) {
		if _, ok := p.want[k]; ok {
			v.fieldFault(l.field+".paragraph", p.packageObject(l.name, l.version, l.arch), "", "", "the manifest lists the stanza twice in index %s of suite %s", k.index, k.suite)
		}
		p.want[k] = l
	}
	for i := range d.Packages {
		e := &d.Packages[i]
		add(spot{e.Suite, e.Index, e.Paragraph}, &listing{
			field: "mirrors.packages", name: e.Name, version: e.Version, arch: e.Arch, component: e.Component,
			source: e.Source, sourceVersion: e.SourceVersion, files: []repo.File{{Path: e.Path, Size: e.Size, SHA256: e.SHA256, SHA512: e.SHA512}},
		})
	}
	for i := range d.Sources {
		e := &d.Sources[i]
		add(spot{e.Suite, e.Index, e.Paragraph}, &listing{
			field: "mirrors.sources", name: e.Name, version: e.Version, arch: f.SourceArch(), component: e.Component, files: e.Files,
		})
	}
	for k := range p.want {
		p.found[k.stanza] = spot{}
	}
	return p
}

// packageObject names a package in a fault.
func (p *mirrorProof) packageObject(name, version, arch string) string {
	return fmt.Sprintf("%s: %s %s %s", p.d.Name, name, version, arch)
}

// mirrorFields checks what the manifest says of a mirror as a whole. Without ok
// nothing further can be checked.
func (v *verifier) mirrorFields(d *DocMirror) (f repo.Format, ok bool) {
	if f = v.formats[d.Type]; f == nil {
		v.fieldFault("mirrors.type", d.Name, "", d.Type, "mirror of unknown type %q", d.Type)
		return nil, false
	}
	switch packages := len(d.Packages) + len(d.Sources); {
	case d.Kind != Exact && d.Kind != Whole:
		v.fieldFault("mirrors.kind", d.Name, Exact+" or "+Whole, d.Kind, "kind of the mirror")
		return nil, false
	case d.Kind == Whole && packages > 0:
		v.fieldFault("mirrors.kind", d.Name, "0", fmt.Sprint(packages), "packages of a whole mirror beside those of its indices")
		return nil, false
	}
	var weakest repo.Trust
	for i := range d.Suites {
		weakest = weaker(weakest, d.Suites[i].Trust)
	}
	if d.Trust != weakest {
		v.fieldFault("mirrors.trust", d.Name, string(weakest), string(d.Trust), "level of trust of the mirror, the weakest of its suites")
	}
	v.mirrorOrder(d)
	return f, true
}

// mirrorOrder checks that lists are sorted, and name nothing twice.
func (v *verifier) mirrorOrder(d *DocMirror) {
	unsorted := func(field string) {
		v.fieldFault(field, d.Name, "", "", "the list is not in the order of the format, or has an entry twice")
	}
	if !sorted(d.Suites, compareSuites) {
		unsorted("mirrors.suites")
	}
	if !sorted(d.Packages, comparePackages) {
		unsorted("mirrors.packages")
	}
	if !sorted(d.Sources, compareSources) {
		unsorted("mirrors.sources")
	}
	for i := range d.Suites {
		s := &d.Suites[i]
		if !sorted(s.Indices, compareIndices) {
			unsorted("mirrors.suites.indices")
		}
		if !sorted(s.Keys, cmp.Compare[string]) {
			unsorted("mirrors.suites.keys")
		}
	}
}

// sorted reports whether each element comes before the next.
func sorted[T any](list []T, compare func(a, b T) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

// keyrings chooses the keys that upstream's signatures must be by, and those
// that the manifest's keys are compared with.
func (p *mirrorProof) keyrings(ctx context.Context) {
	data, err := p.v.t.certs(ctx, p.d.Name)
	if err == nil && len(data) > 0 {
		p.v.prove(proofDir+"/"+p.d.Name+"/"+certsFile, data)
		p.kept, err = sign.ParseKeyring(data)
	}
	if err != nil {
		p.v.fault(p.d.Name, "", "", "certificates of upstream's keys: %v", err)
	}
	if p.keys = p.v.o.Upstream; p.keys == nil {
		p.keys = p.kept
	}
}

// unproven reports the packages that no signed index lists.
func (p *mirrorProof) unproven() {
	for k, l := range p.want {
		if !l.proven {
			p.v.fieldFault(l.field+"."+p.misplaced(k), p.packageObject(l.name, l.version, l.arch), "", "",
				"no index that the distribution signed lists this package with these bytes (suite %s, index %s)", k.suite, k.index)
		}
	}
}

// misplaced tells which field of an unproven package leads astray.
func (p *mirrorProof) misplaced(k spot) string {
	switch other := p.found[k.stanza]; {
	case other.index != "" && other.suite != k.suite:
		return "suite"
	case other.index != "":
		return "index"
	case !slices.ContainsFunc(p.d.Suites, func(s DocSuite) bool { return s.Suite == k.suite }):
		return "suite"
	case !slices.ContainsFunc(p.d.Suites, func(s DocSuite) bool {
		return s.Suite == k.suite && slices.ContainsFunc(s.Indices, func(i DocIndex) bool { return i.Index == k.index && i.Packages })
	}):
		return "index"
	}
	return "paragraph"
}

// suiteProof checks one upstream root and what the manifest says of it.
type suiteProof struct {
	*mirrorProof
	s      *DocSuite
	object string // in faults
	root   *repo.Root
}

// suite checks one upstream root: its signature, its indices, and which of the
// wanted packages they list. What it lists is added to signed.
func (p *mirrorProof) suite(ctx context.Context, s *DocSuite) error {
	x := &suiteProof{mirrorProof: p, s: s, object: fmt.Sprintf("%s: suite %s", p.d.Name, s.Suite)}
	if !x.checkRoot(ctx) {
		return ctx.Err()
	}
	x.relied()
	groups, ok := x.groups()
	if !ok {
		return ctx.Err()
	}
	return x.read(ctx, groups)
}

func (x *suiteProof) fault(field, expected, found, format string, args ...any) {
	x.v.fieldFault("mirrors.suites."+field, x.object, expected, found, format, args...)
}

// checkRoot reads and verifies the root's documents, and compares what the
// manifest says of them.
func (x *suiteProof) checkRoot(ctx context.Context) bool {
	x.documentPaths()
	docs, ok := x.documents(ctx)
	if !ok {
		return false
	}
	params := repo.VerifyParams{Keyring: x.keys}
	if params.Metalink, ok = x.metalink(ctx); !ok {
		return false
	}
	// What the manifest claims is not asked, but what is there.
	claim := repo.TrustSignature
	if x.s.Metalink != nil {
		claim = repo.TrustMetalink
	} else if x.s.Trust == repo.TrustNone {
		claim = repo.TrustNone
	}
	parse := func(keys *sign.Keyring) (*repo.Root, error) {
		params.Keyring = keys
		return x.f.ParseRoot(repo.Recorded(x.d.Name, x.d.Type, claim), x.s.Suite, docs, params)
	}
	var err error
	if x.root, err = parse(x.keys); err != nil {
		x.fault("trust", strings.Join(x.s.Keys, ", "), "", "upstream's signature: %v", err)
		if x.s.Trust == repo.TrustMetalink && x.s.Metalink == nil {
			x.fault("metalink", "", "", "the metalink that vouches for the root is missing")
		}
		return false
	}
	if x.root.Trust != x.s.Trust {
		x.fault("trust", string(x.root.Trust), string(x.s.Trust), "level of trust")
	}
	if vouched := x.root.Trust == repo.TrustMetalink; vouched != (x.s.Metalink != nil) {
		x.fault("metalink", fmt.Sprint(vouched), fmt.Sprint(!vouched), "a metalink that vouches for the root")
	}
	date := x.root.Date
	if x.kept != nil {
		signers := x.root.Signers
		if x.kept != x.keys {
			root, err := parse(x.kept)
			if err != nil {
				x.fault("keys", strings.Join(x.s.Keys, ", "), "", "upstream's signature by the certificates that are kept: %v", err)
				return true
			}
			signers, date = root.Signers, root.Date // in place of an absent date, the time of a signature
		}
		x.checkKeys(signers)
	} else if len(x.s.Keys) > 0 && x.v.o.Upstream == nil {
		x.checkKeys(nil)
	}
	if !date.Equal(x.s.Date) {
		x.fault("date", date.String(), x.s.Date.String(), "date of the signed root")
	}
	return true
}

// documentPaths checks the names of the root's documents: they tell of the
// suite, and of the type of the mirror.
func (x *suiteProof) documentPaths() {
	fits := func(f repo.Format) (n int) {
		for _, doc := range x.s.Documents {
			if _, ok := f.DocumentRank(x.s.Suite, doc.Path); ok {
				n++
			}
		}
		return n
	}
	last := -1
	for i, doc := range x.s.Documents {
		rank, ok := x.f.DocumentRank(x.s.Suite, doc.Path)
		if !ok || rank <= last {
			x.fault("documents.path", "", doc.Path, "document %d is none of suite %s of a mirror of type %s, or is not in its place", i+1, x.s.Suite, x.d.Type)
		}
		last = max(last, rank)
	}
	if fits(x.f) > 0 {
		return
	}
	x.fault("suite", "", string(x.s.Suite), "none of the root's documents belongs to the suite")
	for typ, f := range x.v.formats {
		if fits(f) > 0 {
			x.v.fieldFault("mirrors.type", x.d.Name, typ, x.d.Type, "the documents of suite %s are of another type of mirror", x.s.Suite)
		}
	}
}

func (x *suiteProof) documents(ctx context.Context) ([]repo.Doc, bool) {
	var docs []repo.Doc
	for _, file := range x.s.Documents {
		x.noSHA512("documents", file)
		data, err := x.v.proofBytes(ctx, x.d.Name, file, 64<<20)
		if err != nil {
			x.unreadable("documents", file, err)
			return nil, false
		}
		docs = append(docs, repo.Doc{Path: file.Path, Data: data})
	}
	return docs, true
}

// metalinkPath is the name that a manifest gives to the document of a metalink.
const metalinkPath = "metalink.xml"

func (x *suiteProof) metalink(ctx context.Context) ([]byte, bool) {
	m := x.s.Metalink
	if m == nil {
		return nil, true
	}
	if m.Path != metalinkPath {
		x.fault("metalink.path", metalinkPath, m.Path, "name of the metalink")
	}
	x.noSHA512("metalink", *m)
	data, err := x.v.proofBytes(ctx, x.d.Name, *m, 16<<20)
	if err != nil {
		x.unreadable("metalink", *m, err)
		return nil, false
	}
	return data, true
}

// noSHA512 checks that a document has none: it is known by SHA-256.
func (x *suiteProof) noSHA512(field string, f repo.File) {
	if f.SHA512 != "" {
		x.fault(field+".sha512", "", f.SHA512, "%s is known by its SHA-256 alone", f.Path)
	}
}

// unreadable reports a file of the proof that is not as it is listed. Where the
// size differs, nothing tells whether the size or the digest is wrong.
func (x *suiteProof) unreadable(field string, f repo.File, err error) {
	x.fault(field+".sha256", f.SHA256.String(), "", "%s: %v", f.Path, err)
	if size, ok := errors.AsType[*sizeError](err); ok {
		x.fault(field+".size", fmt.Sprint(size.expected), "", "%s: %v", f.Path, err)
	}
}

// checkKeys compares the manifest's keys with those that signed. A signer may be
// absent only where another state of the mirror names it: it was judged by the
// keyring of its time.
func (x *suiteProof) checkKeys(signers []repo.Signer) {
	signed := map[string]bool{}
	for _, s := range signers {
		signed[s.Fingerprint] = true
	}
	for _, k := range x.s.Keys {
		if !signed[k] {
			x.fault("keys", k, "", "the manifest names a key that did not sign the root")
		}
	}
	for k := range signed {
		named := func(s DocSuite) bool { return slices.Contains(s.Keys, k) }
		if !named(*x.s) && (len(x.s.Keys) == 0 || !slices.ContainsFunc(x.d.Suites, named)) {
			x.fault("keys", "", k, "the manifest does not name a key that signed the root")
		}
	}
}

// relied notes what the proof rests on.
func (x *suiteProof) relied() {
	relied := api.Relied{Mirror: x.d.Name, Suite: string(x.s.Suite), Trust: string(x.root.Trust), Date: x.root.Date, Signers: []api.Signer{}, Pinned: x.v.o.Upstream != nil}
	for _, k := range x.root.Signers {
		relied.Signers = append(relied.Signers, api.Signer{Fingerprint: k.Fingerprint, UserID: k.UserID, SignedAt: k.SignedAt})
	}
	x.v.mu.Lock()
	defer x.v.mu.Unlock()
	x.v.res.Relied = append(x.v.res.Relied, relied)
}

// groups compares the manifest's indices with those that the signed root lists,
// and returns those that agree.
func (x *suiteProof) groups() (groups []repo.Group, ok bool) {
	all, err := x.f.Plan(everyIndex(x.d.Name, x.d.Type, x.s.Suite), x.root)
	if err != nil {
		x.v.fault(x.object, "", "", "%v", err)
		return nil, false
	}
	byPath := map[string]*repo.Group{}
	byIndex := map[string]*repo.Group{}
	for i := range all {
		byIndex[all[i].Index] = &all[i]
		for _, l := range all[i].Forms {
			byPath[l.Path] = &all[i]
		}
	}
	listed := map[string]repo.Listed{}
	if x.signed[x.s.Suite] == nil {
		x.signed[x.s.Suite] = map[string]cas.Digest{}
	}
	for _, l := range x.root.Files {
		listed[l.Path] = l
		x.signed[x.s.Suite][l.Path] = l.SHA256
	}
	for _, i := range x.s.Indices {
		l, ok := x.index(&i, byPath[i.Path], byIndex[i.Index], listed)
		if !ok {
			continue
		}
		x.signed[x.s.Suite][i.Path] = i.SHA256
		g := *byIndex[i.Index]
		g.Forms = []repo.Listed{l}
		if plain, ok := listed[i.Index]; ok && i.Index != i.Path {
			g.Forms = append(g.Forms, plain)
		}
		groups = append(groups, g)
	}
	return groups, true
}

// index compares one index of the manifest with the signed root: with the group
// that has its path, or else with the one of its name.
func (x *suiteProof) index(i *DocIndex, g, named *repo.Group, listed map[string]repo.Listed) (l repo.Listed, ok bool) {
	ok = true
	differs := func(field, expected, found string) {
		ok = false
		x.fault("indices."+field, expected, found, "index %s, %s: %s is not what the signed root says", i.Index, i.Path, field)
	}
	switch {
	case g == nil && named == nil:
		differs("index", "", i.Index)
		differs("path", "", i.Path)
		return l, false
	case g == nil:
		differs("path", "", i.Path)
		return l, false
	case g.Index != i.Index:
		// One of the two is wrong; which of them nothing tells.
		differs("index", g.Index, i.Index)
		differs("path", "", i.Path)
	}
	if g.Component != i.Component {
		differs("component", g.Component, i.Component)
	}
	if g.Arch != i.Arch {
		differs("architecture", g.Arch, i.Arch)
	}
	if g.Packages != i.Packages {
		differs("packages", fmt.Sprint(g.Packages), fmt.Sprint(i.Packages))
	}
	l = listed[i.Path]
	if !l.SHA256.IsZero() && l.SHA256 != i.SHA256 {
		differs("sha256", l.SHA256.String(), i.SHA256.String())
	}
	if l.Size >= 0 && l.Size != i.Size {
		differs("size", fmt.Sprint(l.Size), fmt.Sprint(i.Size))
	}
	l.SHA256 = i.SHA256
	return l, ok
}

// open opens an index of the manifest as upstream published it.
func (x *suiteProof) open(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
	for _, i := range x.s.Indices {
		if i.Path == l.Path {
			return x.v.proofReader(ctx, x.d.Name, repo.File{Path: i.Path, Size: i.Size, SHA256: i.SHA256})
		}
	}
	return nil, fmt.Errorf("%s is not part of the proof: %w", l.Path, ErrMissing)
}

// read reads the indices and compares each package that they list.
func (x *suiteProof) read(ctx context.Context, groups []repo.Group) error {
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for _, g := range groups {
		eg.Go(func() error {
			var err error
			switch {
			case g.Packages:
				err = x.readPackages(egctx, g)
			case x.d.Kind == Whole || x.v.o.Deep:
				err = x.v.drain(egctx, x.open, g.Forms[0])
			}
			if err != nil && egctx.Err() == nil {
				x.unreadable("indices", repo.File{Path: g.Forms[0].Path, SHA256: g.Forms[0].SHA256}, err)
				err = nil
			}
			return err
		})
	}
	return eg.Wait()
}

func (x *suiteProof) readPackages(ctx context.Context, g repo.Group) error {
	count := 0
	err := x.f.Read(ctx, x.root, g, g.Forms[0], x.open, func(r *repo.Record) error {
		if r.Kind == repo.KindUnusable {
			x.unusable(g, r)
			return nil
		}
		count++
		if count%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if x.d.Kind == Whole {
			for _, file := range r.Files {
				x.v.packageFile(ctx, x.f, x.d.Name, r, file)
			}
			return nil
		}
		x.compare(g, r)
		return nil
	})
	if x.d.Kind == Whole {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.v.res.Places += count
		if g.Arch == x.f.SourceArch() {
			x.v.res.Sources += count
		} else {
			x.v.res.Packages += count
		}
	}
	return err
}

// unusable checks that the manifest of a whole mirror names a stanza that no client
// can install as missing.
func (x *suiteProof) unusable(g repo.Group, r *repo.Record) {
	e := missingStanza(x.f, r)
	if x.d.Kind == Whole && !x.v.mayMiss(e) {
		x.v.fieldFault("missing", x.packageObject(r.Name, r.Version, r.Arch), e.text(), "",
			"no client can install what index %s lists (%s), and the manifest does not name it as missing", g.Index, r.Reason)
	}
}

// mayMiss reports whether the manifest names an entry as missing.
func (v *verifier) mayMiss(m Missing) bool {
	_, ok := slices.BinarySearchFunc(v.doc.Missing, m, compareMissing)
	return ok
}

// paragraphOf is the name that manifests give to a stanza.
func paragraphOf(r *repo.Record) string {
	sum := cas.Sum(r.Bytes)
	return hex.EncodeToString(sum[:16])
}

// compare compares what the manifest says of a package with its stanza in
// the signed index.
func (x *suiteProof) compare(g repo.Group, r *repo.Record) {
	k := spot{x.s.Suite, g.Index, paragraphOf(r)}
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.want[k]
	if l == nil {
		if _, ok := x.found[k.stanza]; ok {
			x.found[k.stanza] = k
		}
		return
	}
	l.proven = true
	for _, d := range l.differences(g, r) {
		x.v.fieldFault(l.field+d.field, x.packageObject(l.name, l.version, l.arch), d.expected, d.found, "%s", d.message())
	}
}

// difference is one field in which a manifest and a signed index disagree.
type difference struct{ field, expected, found string }

func (d *difference) message() string {
	switch d.field {
	case ".component", ".source", ".source_version":
		return "component and source are not those of the signed index"
	case ".path", ".size", ".sha256", ".sha512", ".files", ".files.path", ".files.size", ".files.sha256", ".files.sha512":
		return "the signed index lists other files than the manifest"
	}
	return "the signed index lists another package with this stanza"
}

// differences compares every field of a listing with a record.
func (l *listing) differences(g repo.Group, r *repo.Record) (out []difference) {
	differ := func(field, expected, found string) {
		if expected != found {
			out = append(out, difference{field, expected, found})
		}
	}
	differ(".name", r.Name, l.name)
	differ(".version", r.Version, l.version)
	differ(".component", g.Component, l.component)
	prefix := ".files."
	if l.field == "mirrors.packages" {
		prefix = "."
		differ(".architecture", r.Arch, l.arch)
		var is repo.Ref
		if len(r.Sources) > 0 {
			is = r.Sources[0]
		}
		differ(".source", is.Name, l.source)
		differ(".source_version", is.Version, l.sourceVersion)
	}
	if isSource := r.Kind == repo.KindSource; isSource != (l.field == "mirrors.sources") {
		differ("", fmt.Sprintf("source: %t", isSource), fmt.Sprintf("source: %t", !isSource))
	}
	if len(r.Files) != len(l.files) {
		differ(".files", fmt.Sprint(len(r.Files)), fmt.Sprint(len(l.files)))
		return out
	}
	for i, f := range r.Files {
		differ(prefix+"path", f.Path, l.files[i].Path)
		differ(prefix+"size", fmt.Sprint(f.Size), fmt.Sprint(l.files[i].Size))
		if !f.SHA256.IsZero() {
			differ(prefix+"sha256", f.SHA256.String(), l.files[i].SHA256.String())
		}
		differ(prefix+"sha512", f.SHA512, l.files[i].SHA512)
	}
	return out
}

// everyIndex is a configuration that selects everything that a suite lists.
func everyIndex(name, typ string, suite repo.SuiteName) config.Mirror {
	m := everything(name, typ, suite)
	m.Indices = []string{"*"}
	return m
}

// documentFields checks what the manifest says of the freeze as a whole.
func (v *verifier) documentFields(doc *Document) {
	if !config.NameRE.MatchString(doc.Name) {
		v.fieldFault("name", "manifest.json", "letters, digits and .+~_-", doc.Name, "name of the frozen snapshot")
	}
	if v.o.Name != "" && doc.Name != v.o.Name {
		v.fieldFault("name", "manifest.json", v.o.Name, doc.Name, "name of the frozen snapshot")
	}
	if want := doc.version(); doc.Format != want {
		v.fieldFault("format", "manifest.json", fmt.Sprint(want), fmt.Sprint(doc.Format), "version of the format, with what the manifest holds")
	}
	if !sorted(doc.Mirrors, func(a, b DocMirror) int { return cmp.Compare(a.Name, b.Name) }) {
		v.fieldFault("mirrors", "manifest.json", "", "", "the mirrors are not sorted by name, or one is there twice")
	}
	if !sorted(doc.Missing, compareMissing) {
		v.fieldFault("missing", "manifest.json", "", "", "the missing entries are not sorted, or one is there twice")
	}
	for _, m := range doc.Missing {
		if m.Name == "" {
			v.fieldFault("missing.name", "manifest.json", "", "", "a missing entry has no name")
		}
	}
}

// derivedAt is the date of a root that Derive wrote, as its format tells it.
func derivedAt(root *repo.Root) string {
	if root.Revision != "" {
		return root.Revision
	}
	return fmt.Sprint(root.Date.Unix())
}

// sizeError means that a file does not have the listed size.
type sizeError struct {
	path            string
	expected, found int64
}

func (e *sizeError) Error() string {
	found := fmt.Sprint(e.found)
	if e.found < 0 {
		found = "more"
	}
	return fmt.Sprintf("%s: expected %d bytes, found %s", e.path, e.expected, found)
}

func (e *sizeError) Is(target error) bool { return target == repo.ErrMismatch }
