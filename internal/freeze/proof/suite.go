package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// suiteProof verifies one upstream root and the manifest's part about it.
type suiteProof struct {
	*mirrorProof
	s      *freeze.DocSuite
	object string // name for faults
	root   *repo.Root
}

// suite verifies one upstream root: its signature, its indices, and which of the wanted
// packages they list. It adds the files that the root lists to signed.
func (p *mirrorProof) suite(ctx context.Context, s *freeze.DocSuite) error {
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
	x.c.fieldFault("mirrors.suites."+field, x.object, expected, found, format, args...)
}

// checkRoot reads and verifies the documents of the root, and compares them with the
// manifest.
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
	// Use the documents that exist, not those that the manifest claims.
	claim := repo.TrustSignature
	if x.s.Metalink != nil {
		claim = repo.TrustMetalink
	} else if x.s.Trust == repo.TrustNone || x.s.Trust == repo.TrustOwn {
		claim = x.s.Trust
	}
	parse := func(keys *sign.Keyring) (*repo.Root, error) {
		params.Keyring = keys
		return x.f.ParseRoot(repo.Recorded(x.d.Name, x.d.Type, claim), x.s.Suite, docs, params)
	}
	var err error
	if x.root, err = parse(x.keys); err != nil {
		x.fault("trust", strings.Join(x.s.Keys, ", "), "", "upstream's signature: %v", err)
		if x.s.Trust == repo.TrustMetalink && x.s.Metalink == nil {
			x.fault("metalink", "", "", "the metalink for the root is missing")
		}
		return false
	}
	if x.root.Trust != x.s.Trust {
		x.fault("trust", string(x.root.Trust), string(x.s.Trust), "level of trust")
	}
	if vouched := x.root.Trust == repo.TrustMetalink; vouched != (x.s.Metalink != nil) {
		x.fault("metalink", fmt.Sprint(vouched), fmt.Sprint(!vouched), "a metalink for the root")
	}
	date := x.root.Date
	if x.kept != nil {
		signers := x.root.Signers
		if x.kept != x.keys {
			root, err := parse(x.kept)
			if err != nil {
				x.fault("keys", strings.Join(x.s.Keys, ", "), "", "upstream's signature, checked with the stored certificates: %v", err)
				return true
			}
			signers, date = root.Signers, root.Date // without a date, the time of a signature
		}
		x.checkKeys(signers)
	} else if len(x.s.Keys) > 0 && x.c.o.Upstream == nil {
		x.checkKeys(nil)
	}
	if !date.Equal(x.s.Date) {
		x.fault("date", date.String(), x.s.Date.String(), "date of the signed root")
	}
	return true
}

// documentPaths checks the names of the root's documents, which determine the
// suite and the type of the mirror.
func (x *suiteProof) documentPaths() {
	fits := func(f Format) (n int) {
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
			x.fault("documents.path", "", doc.Path, "document %d is not one of suite %s of a mirror of type %s, or has the wrong name", i+1, x.s.Suite, x.d.Type)
		}
		last = max(last, rank)
	}
	if fits(x.f) > 0 {
		return
	}
	x.fault("suite", "", string(x.s.Suite), "none of the root's documents belongs to the suite")
	for typ, f := range x.c.o.Formats {
		if fits(f) > 0 {
			x.c.fieldFault("mirrors.type", string(x.d.Name), typ, x.d.Type, "the documents of suite %s are of another type of mirror", x.s.Suite)
		}
	}
}

func (x *suiteProof) documents(ctx context.Context) ([]repo.Doc, bool) {
	var docs []repo.Doc
	for _, file := range x.s.Documents {
		x.noSHA512("documents", file)
		data, err := x.c.proofBytes(ctx, x.d.Name, file, 64<<20)
		if err != nil {
			x.unreadable("documents", file, err)
			return nil, false
		}
		docs = append(docs, repo.Doc{Path: file.Path, Data: data})
	}
	return docs, true
}

func (x *suiteProof) metalink(ctx context.Context) ([]byte, bool) {
	m := x.s.Metalink
	if m == nil {
		return nil, true
	}
	if m.Path != freeze.MetalinkFile {
		x.fault("metalink.path", freeze.MetalinkFile, m.Path, "name of the metalink")
	}
	x.noSHA512("metalink", *m)
	data, err := x.c.proofBytes(ctx, x.d.Name, *m, 16<<20)
	if err != nil {
		x.unreadable("metalink", *m, err)
		return nil, false
	}
	return data, true
}

// noSHA512 checks that the manifest has no SHA-512 for a document, which it lists by
// SHA-256.
func (x *suiteProof) noSHA512(field string, f repo.File) {
	if f.SHA512 != "" {
		x.fault(field+".sha512", "", f.SHA512, "%s is listed only by its SHA-256", f.Path)
	}
}

// unreadable reports a file of the proof that does not match its listing. If the
// size differs, either the size or the digest may be wrong.
func (x *suiteProof) unreadable(field string, f repo.File, err error) {
	x.fault(field+".sha256", f.SHA256.String(), "", "%s: %v", f.Path, err)
	if size, ok := errors.AsType[*tree.SizeError](err); ok {
		x.fault(field+".size", fmt.Sprint(size.Expected), "", "%s: %v", f.Path, err)
	}
}

// checkKeys compares the manifest's keys with the keys that signed. The manifest may omit
// a signer of this state only if another state of the mirror names it: each state was
// judged with the keyring of its time.
func (x *suiteProof) checkKeys(signers []repo.Signer) {
	signed := map[string]bool{}
	for _, s := range signers {
		signed[string(s.Fingerprint)] = true
	}
	for _, k := range x.s.Keys {
		if !signed[k] {
			x.fault("keys", k, "", "the manifest names a key that did not sign the root")
		}
	}
	for k := range signed {
		named := func(s freeze.DocSuite) bool { return slices.Contains(s.Keys, k) }
		if !named(*x.s) && (len(x.s.Keys) == 0 || !slices.ContainsFunc(x.d.Suites, named)) {
			x.fault("keys", "", k, "the manifest does not name a key that signed the root")
		}
	}
}

// relied records on which keys and digests the proof depends.
func (x *suiteProof) relied() {
	relied := api.Relied{Mirror: string(x.d.Name), Suite: string(x.s.Suite), Trust: string(x.root.Trust), Date: x.root.Date, Signers: []api.Signer{}, Pinned: x.c.o.Upstream != nil}
	for _, k := range x.root.Signers {
		relied.Signers = append(relied.Signers, api.Signer{Fingerprint: string(k.Fingerprint), UserID: k.UserID, SignedAt: k.SignedAt})
	}
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	x.c.res.Relied = append(x.c.res.Relied, relied)
	if x.root.Trust == repo.TrustOwn && x.c.o.Upstream == nil && !x.ownKey() {
		note := fmt.Sprintf("mirror %s: the key that signed its packages was taken from the freeze itself, so it proves no origin (--upstream-key names the key of the server that has them)", x.d.Name)
		if !slices.Contains(x.c.res.Notes, note) {
			x.c.res.Notes = append(x.c.res.Notes, note)
		}
	}
}

// ownKey reports whether a key of this server signed the root.
func (x *suiteProof) ownKey() bool {
	return x.c.o.Server != nil && slices.ContainsFunc(x.root.Signers, func(k repo.Signer) bool { return x.c.o.Server.Contains(k.Fingerprint) })
}

// groups compares the manifest's indices with those that the signed root lists,
// and returns those that match.
func (x *suiteProof) groups() (groups []repo.Group, ok bool) {
	all, err := x.f.Plan(everyIndex(string(x.d.Name), x.d.Type, x.s.Suite), x.root)
	if err != nil {
		x.c.fault(x.object, "", "", "%v", err)
		return nil, false
	}
	byPath := map[string]*repo.Group{}
	byIndex := map[string]*repo.Group{}
	for i := range all {
		byIndex[all[i].Index] = &all[i]
		for _, l := range all[i].Variants {
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
		g.Variants = []repo.Listed{l}
		if plain, ok := listed[i.Index]; ok && i.Index != i.Path {
			g.Variants = append(g.Variants, plain)
		}
		groups = append(groups, g)
	}
	return groups, true
}

// index compares one index of the manifest with the signed root: with the group
// that has its path, or else with the one of its name.
func (x *suiteProof) index(i *freeze.DocIndex, g, named *repo.Group, listed map[string]repo.Listed) (l repo.Listed, ok bool) {
	ok = true
	differs := func(field, expected, found string) {
		ok = false
		x.fault("indices."+field, expected, found, "index %s, %s: %s differs from the signed root", i.Index, i.Path, field)
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
		// Either of the two may be wrong.
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

// everyIndex returns a configuration that selects everything that a suite lists.
func everyIndex(name, typ string, suite repo.SuiteName) config.Mirror {
	m := tree.EveryPackageIndex(config.MirrorName(name), typ, suite)
	m.Indices = []string{"*"}
	return m
}
