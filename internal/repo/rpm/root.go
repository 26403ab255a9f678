package rpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/sign"
)

var (
	// ErrLagging means that the metalink does not list a mirror's repomd.xml, because it is
	// older or newer.
	ErrLagging = errors.New("not what the metalink names")
)

const (
	maxSignature = 1 << 20 // bytes of repomd.xml.asc
	// maxFuture is how far ahead of the clock metadata may be dated. The clocks of
	// build machines are less reliable than those of archives that sign.
	maxFuture = 24 * time.Hour
)

// BaseURLs returns the configured URLs, then those in the metalink, most
// preferred first, then those in the mirror list. Without any URL it returns
// repo.ErrMissing.
func (Format) BaseURLs(ctx context.Context, g repo.Getter, m config.Mirror) ([]remote.URL, error) {
	out := m.BaseURLs()
	add := func(bases []string) {
		for _, b := range remote.NewURLs(bases...) {
			if !slices.Contains(out, b) && !slices.Contains(out, b.Listed()) {
				out = append(out, b.Listed())
			}
		}
	}
	if !m.Metalink.IsZero() {
		doc, err := g.GetURL(ctx, m.Metalink, rpmmd.MaxMetalink)
		if err != nil {
			return nil, fmt.Errorf("fetch metalink: %w", err)
		}
		ml, err := rpmmd.ParseMetalink(doc.Data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doc.URL, malformed(err))
		}
		add(ml.Bases)
	}
	if !m.Mirrorlist.IsZero() {
		doc, err := g.GetURL(ctx, m.Mirrorlist, rpmmd.MaxMetalink)
		if err != nil {
			return nil, fmt.Errorf("fetch mirror list: %w", err)
		}
		bases, err := rpmmd.ParseMirrorlist(doc.Data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doc.URL, malformed(err))
		}
		add(bases)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("mirror %s: metalink and mirror list name no http or https address: %w", m.Name, repo.ErrMissing)
	}
	return out, nil
}

// malformed maps errors of the syntax packages to those of package repo. It does
// not change read errors.
func malformed(err error) error {
	switch {
	case err == nil:
		return nil
	case isRead(err):
		return err
	case errors.Is(err, rpmmd.ErrHostile), errors.Is(err, rpmmd.ErrAddress):
		return fmt.Errorf("%w: %w", repo.ErrHostile, err)
	case errors.Is(err, rpmmd.ErrWeak):
		return fmt.Errorf("%w: %w", repo.ErrWeak, err)
	case errors.Is(err, rpmmd.ErrMismatch):
		return fmt.Errorf("%w: %w", repo.ErrMismatch, err)
	}
	return fmt.Errorf("%w: %w", repo.ErrMalformed, err)
}

// FetchRoot fetches and verifies repomd.xml, its signature, and the metalink if one
// is configured. If prev contains the newest repomd.xml, FetchRoot makes one request
// and returns repo.ErrNotModified. If only the metalink vouched for prev and a
// keyring is configured, it also requests repomd.xml.asc again. If prev no longer
// verifies, it fetches the documents anew.
//
// A revision lower than that of prev is repo.ErrRollback, and the caller tries the
// next URL.
func (f Format) FetchRoot(ctx context.Context, g repo.Getter, m config.Mirror, suite repo.SuiteName, prev []repo.Doc, p repo.VerifyParams) (*repo.Root, error) {
	p.Strict = true
	dir := f.SuiteDir(suite)
	older := findDoc(prev, repomdPath)
	ml, err := fetchMetalink(ctx, g, m, &p)
	if err != nil {
		return nil, err
	}
	known, err := f.ParseRoot(m, suite, prev, repo.VerifyParams{Keyring: p.Keyring, Metalink: p.Metalink, Strict: true})
	var held *repo.Doc
	if err == nil {
		held = older
	}
	if ml != nil && held != nil && ml.Current.Matches(held.Data) {
		return f.signedSince(ctx, g, m, known, p)
	}
	cond := held
	if ml != nil {
		cond = nil // the metalink says that there is something newer
	}
	md, err := g.Get(ctx, dir+repomdPath, rpmmd.MaxRepoMD, cond)
	if err == nil && cond != nil && bytes.Equal(md.Data, cond.Data) {
		err = repo.ErrNotModified // the server does not support conditional requests
	}
	switch {
	case errors.Is(err, repo.ErrNotModified):
		return f.signedSince(ctx, g, m, known, p)
	case errors.Is(err, fetch.ErrNotFound):
		return nil, fmt.Errorf("no %s at %s: %w: %w", repomdPath, g.BaseURL(), repo.ErrMissing, err)
	case err != nil:
		return nil, fmt.Errorf("fetch %s: %w", repomdPath, err)
	}
	docs, err := fetchBeside(ctx, g, dir, m.Installer)
	if err != nil {
		return nil, err
	}
	docs = append([]repo.Doc{md}, docs...)
	root, err := f.ParseRoot(m, suite, docs, p)
	if err != nil {
		if errors.Is(err, sign.ErrBadSignature) {
			// repomd.xml may have changed between the two requests.
			again, aerr := g.Get(ctx, dir+repomdPath, rpmmd.MaxRepoMD, nil)
			if aerr == nil && !bytes.Equal(again.Data, md.Data) {
				return nil, fmt.Errorf("%s: %w: %w", repomdPath, repo.ErrTorn, err)
			}
		}
		return nil, err
	}
	if older != nil {
		if err := checkRevision(older.Data, root); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// fetchMetalink fetches the mirror's metalink into p, unless p has it already, and
// parses it. It returns nil if none is configured.
func fetchMetalink(ctx context.Context, g repo.Getter, m config.Mirror, p *repo.VerifyParams) (*rpmmd.Metalink, error) {
	if m.Metalink.IsZero() {
		return nil, nil
	}
	if p.Metalink == nil {
		doc, err := g.GetURL(ctx, m.Metalink, rpmmd.MaxMetalink)
		if err != nil {
			return nil, fmt.Errorf("fetch metalink: %w", err)
		}
		p.Metalink = doc.Data
	}
	ml, err := rpmmd.ParseMetalink(p.Metalink)
	return ml, malformed(err)
}

// fetchBeside fetches the documents that accompany repomd.xml, if upstream has
// them: the signature and, with installer, the treeinfo.
func fetchBeside(ctx context.Context, g repo.Getter, dir string, installer bool) (docs []repo.Doc, err error) {
	// first fetches the first of the names that exists.
	first := func(max int64, names ...string) error {
		for _, name := range names {
			doc, err := g.Get(ctx, dir+name, max, nil)
			switch {
			case err == nil:
				docs = append(docs, doc)
				return nil
			case errors.Is(err, fetch.ErrNotFound), errors.Is(err, fetch.ErrDenied):
				// Object stores may answer a request for a missing object with 403.
			default:
				return fmt.Errorf("fetch %s: %w", name, err)
			}
		}
		return nil
	}
	if err := first(maxSignature, ascPath); err != nil || !installer {
		return docs, err
	}
	err = first(rpmmd.MaxTreeinfo, treeinfoPaths...)
	return docs, err
}

// signedSince is called when repomd.xml has not changed. If only a metalink vouched for
// it so far and upstream now has a good signature, signedSince returns the stored root
// with that signature. Otherwise it returns repo.ErrNotModified. It makes no request if
// no keyring is configured.
func (f Format) signedSince(ctx context.Context, g repo.Getter, m config.Mirror, held *repo.Root, p repo.VerifyParams) (*repo.Root, error) {
	if held.Trust != repo.TrustMetalink || p.Keyring == nil || p.Keyring.Len() == 0 {
		return nil, repo.ErrNotModified
	}
	asc, err := g.Get(ctx, f.SuiteDir(held.Suite)+ascPath, maxSignature, nil)
	if err != nil {
		return nil, repo.ErrNotModified // the metalink still vouches for it
	}
	docs := []repo.Doc{*findDoc(held.Docs, repomdPath), asc}
	if tree := findDoc(held.Docs, treeinfoPaths...); tree != nil {
		docs = append(docs, *tree)
	}
	root, err := f.ParseRoot(m, held.Suite, docs, p)
	if err != nil || root.Trust != repo.TrustSignature {
		return nil, repo.ErrNotModified
	}
	return root, nil
}

// checkRevision returns repo.ErrRollback if the revision of root is lower than that of
// the stored repomd.xml.
func checkRevision(held []byte, root *repo.Root) error {
	old, err := rpmmd.ParseRepoMD(held)
	if err != nil {
		return nil // it was verified when it was stored; sync without the comparison
	}
	a, errA := strconv.ParseUint(old.Revision, 10, 63)
	b, errB := strconv.ParseUint(root.Revision, 10, 63)
	if errA == nil && errB == nil && b < a {
		return fmt.Errorf("%s: revision %d, expected %d or higher: %w", repomdPath, b, a, repo.ErrRollback)
	}
	return nil
}

// findDoc returns the first document with one of the names, which are relative to
// the repository; nil if there is no such document.
func findDoc(docs []repo.Doc, names ...string) *repo.Doc {
	for i := range docs {
		for _, name := range names {
			if p := docs[i].Path; p == name || strings.HasSuffix(p, "/"+name) {
				return &docs[i]
			}
		}
	}
	return nil
}

// ParseRoot parses repomd.xml and verifies it with repomd.xml.asc, or else with the
// metalink. It accepts an unverified repomd.xml only if repo_gpgcheck = false is
// configured.
func (Format) ParseRoot(m config.Mirror, suite repo.SuiteName, docs []repo.Doc, p repo.VerifyParams) (*repo.Root, error) {
	doc := findDoc(docs, repomdPath)
	if doc == nil {
		return nil, fmt.Errorf("no %s among the documents: %w", repomdPath, repo.ErrMalformed)
	}
	root := &repo.Root{Suite: suite, Docs: docs}
	if err := trust(m, root, doc, findDoc(docs, ascPath), p); err != nil {
		return nil, err
	}
	md, err := rpmmd.ParseRepoMD(doc.Data)
	if err != nil {
		return nil, malformed(err)
	}
	if root.Files, err = listed(md); err != nil {
		return nil, err
	}
	if t := md.Time(); t > 0 {
		root.Date = time.Unix(t, 0).UTC()
		if !p.Now.IsZero() && root.Date.After(p.Now.Add(maxFuture)) {
			return nil, fmt.Errorf("%s of %s, judged at %s: %w", repomdPath, root.Date.Format(time.RFC3339), p.Now.UTC().Format(time.RFC3339), repo.ErrFuture)
		}
	}
	root.Revision, root.ByHash = md.Revision, md.HashNamed()
	if tree := findDoc(docs, treeinfoPaths...); tree != nil {
		files, err := treeFiles(tree, root.Files)
		if err != nil {
			return nil, err
		}
		root.Files = append(root.Files, files...)
	}
	return root, nil
}

// trust verifies repomd.xml, by signature if possible or else by metalink, and sets
// root.Trust accordingly.
func trust(m config.Mirror, root *repo.Root, md, asc *repo.Doc, p repo.VerifyParams) error {
	why := "it has no signature"
	if asc != nil && p.Keyring != nil && p.Keyring.Len() > 0 {
		client := sign.AnyClient
		if p.Strict {
			client = sign.DNF
		}
		v, err := sign.VerifyDetached(md.Data, asc.Data, sign.VerifyOptions{Keyring: p.Keyring, Now: p.Now, Client: client})
		if err == nil {
			root.Trust = repo.TrustSignature
			if m.Local {
				root.Trust = repo.TrustOwn
			}
			for _, s := range v.Good {
				root.Signers = append(root.Signers, repo.Signer{Fingerprint: s.Fingerprint, UserID: s.UserID, SignedAt: s.Created})
			}
			return nil
		}
		if !errors.Is(err, sign.ErrUnknownKey) {
			return fmt.Errorf("verify %s: %w: %w", ascPath, repo.ErrUntrusted, err)
		}
		// A signature by an unknown key proves as little as no signature.
		why = err.Error()
		if m.CheckRepo() && m.Metalink.IsZero() {
			return fmt.Errorf("verify %s: %w: %w", ascPath, repo.ErrUntrusted, err)
		}
	} else if asc != nil {
		why = "its signature cannot be checked without a keyring"
	}
	if len(p.Metalink) > 0 && m.Metalink.Scheme() == "https" {
		ml, err := rpmmd.ParseMetalink(p.Metalink)
		if err != nil {
			return malformed(err)
		}
		if _, err := ml.Current.Strongest(); err != nil {
			return malformed(err)
		}
		if ml.Match(md.Data) < 0 {
			h := cas.Sum(md.Data)
			want, _ := ml.Current.Strongest()
			return fmt.Errorf("%s has sha256:%s, the metalink names %s: %w: %w", repomdPath, h, want, ErrLagging, repo.ErrUntrusted)
		}
		root.Trust, root.Metalink = repo.TrustMetalink, p.Metalink
		return nil
	}
	if !m.Metalink.IsZero() && m.Metalink.Scheme() != "https" {
		why += ", and a metalink vouches only over https"
	}
	if m.CheckRepo() {
		return fmt.Errorf("%s: %s; expected %s, a metalink over https, or repo_gpgcheck = false: %w", repomdPath, why, ascPath, repo.ErrUntrusted)
	}
	root.Trust = repo.TrustNone
	return nil
}

// listed returns the files that repomd.xml lists. Like dnf, it requires only primary.
func listed(md *rpmmd.RepoMD) ([]repo.Listed, error) {
	if md.Find(string(rpmmd.Primary)) == nil {
		return nil, fmt.Errorf("repomd.xml: no data of type %q: %w", rpmmd.Primary, repo.ErrMalformed)
	}
	var out []repo.Listed
	seen := map[string]string{}
	for i := range md.Data {
		d := &md.Data[i]
		if err := d.Check(); err != nil {
			return nil, malformed(err)
		}
		if d.Odd && (d.Type == string(rpmmd.Primary) || slices.Contains(dnfTypes, d.Type)) {
			return nil, fmt.Errorf("repomd.xml: data %s: the checksum has capitals or white space, expected lower-case hexadecimal digits: %w", d.Type, repo.ErrMalformed)
		}
		if d.Path == repomdPath || d.Path == ascPath {
			return nil, fmt.Errorf("repomd.xml: data %s is at %s: %w", d.Type, d.Path, repo.ErrHostile)
		}
		if other, ok := seen[d.Path]; ok {
			return nil, fmt.Errorf("repomd.xml: data %s and %s are the same file, %s: %w", other, d.Type, d.Path, repo.ErrMalformed)
		}
		seen[d.Path] = d.Type
		l, err := listedFile(d.Path, d.Size, d.Checksum)
		if err != nil {
			return nil, fmt.Errorf("repomd.xml: data %s: %w", d.Type, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// listedFile returns a Listed with a strong checksum. A weak one is repo.ErrWeak.
func listedFile(path string, size int64, c rpmmd.Checksum) (repo.Listed, error) {
	l := repo.Listed{Path: path, Size: size}
	switch {
	case c.Type == "sha256":
		d, err := cas.ParseDigest(c.Hex)
		if err != nil {
			return l, err
		}
		l.SHA256 = d
	case c.Strong():
		l.SHA512 = c.Hex
	default:
		return l, fmt.Errorf("checksum of type %s, expected sha256 or stronger: %w", c.Type, repo.ErrWeak)
	}
	return l, nil
}

// treeFiles lists the images that treeinfo lists with a strong checksum and that
// repomd.xml does not list. A digest that contradicts repomd.xml is repo.ErrHostile.
func treeFiles(doc *repo.Doc, have []repo.Listed) ([]repo.Listed, error) {
	t, err := rpmmd.ParseTreeinfo(doc.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doc.Path, malformed(err))
	}
	var out []repo.Listed
	for _, f := range t.Files {
		if !f.Checksum.Strong() || f.Path == repomdPath {
			continue
		}
		l, err := listedFile(f.Path, -1, f.Checksum)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", doc.Path, f.Path, err)
		}
		i := slices.IndexFunc(have, func(l repo.Listed) bool { return l.Path == f.Path })
		if i < 0 {
			out = append(out, l)
			continue
		}
		if h := have[i]; l.SHA256 != h.SHA256 && !l.SHA256.IsZero() && !h.SHA256.IsZero() || l.SHA512 != h.SHA512 && l.SHA512 != "" && h.SHA512 != "" {
			return nil, fmt.Errorf("%s: %s has %s there, and another digest in repomd.xml: %w", doc.Path, f.Path, f.Checksum, repo.ErrHostile)
		}
	}
	return out, nil
}

// location resolves the href and xml:base of a package to a path relative to the
// mirror. dir is the repository's directory in the mirror. If it is not empty, an
// href may begin with "../", which refers to the mirror's base URL.
//
// A relative xml:base is a directory in the repository. An absolute one is the URL
// that the tree had when its metadata were generated; mirrors usually copy it
// unchanged. The package is requested first relative to the metadata and then below
// that URL, the alternate base. The path does not depend on the server that the
// metadata came from.
func location(dir, href, base string) (path, alternate string, err error) {
	inner, up := strings.CutPrefix(href, "../")
	if up && dir == "" {
		_, err := rpmmd.CleanHref(href)
		return "", "", fmt.Errorf("%w; allow_parent = true allows packages in the parent of the mirror's URL", err)
	}
	p, err := rpmmd.CleanHref(inner)
	if err != nil {
		return "", "", err
	}
	if !up {
		p = dir + p
	}
	if base == "" {
		return p, "", nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", "", fmt.Errorf("%w: xml:base %q", rpmmd.ErrHostile, excerpt.Of(remote.Redact(base)))
	}
	if u.Scheme != "" || u.Host != "" {
		switch {
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return "", "", fmt.Errorf("%w: xml:base %q: expected an http or https URL", rpmmd.ErrHostile, excerpt.Of(remote.Redact(base)))
		case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			return "", "", fmt.Errorf("%w: xml:base %q: has a user, query or fragment", rpmmd.ErrHostile, excerpt.Of(remote.Redact(base)))
		}
		if parent, last := remote.NewURL(base).Parent(); dir != "" && last+"/" == dir {
			base = parent.String() // the path begins with the repository's directory
		}
		return p, base, nil
	}
	if base = strings.Trim(strings.TrimPrefix(base, "./"), "/"); base == "" || base == "." {
		return p, "", nil
	}
	below, err := rpmmd.CleanHref(base)
	if err != nil {
		return "", "", fmt.Errorf("xml:base: %w", err)
	}
	if up {
		return "", "", fmt.Errorf("%w: href %q below xml:base %q", rpmmd.ErrHostile, excerpt.Of(href), excerpt.Of(base))
	}
	return dir + below + "/" + inner, "", nil
}

// dnfTypes are the data types that dnf reads in addition to primary.
var dnfTypes = append([]string{string(rpmmd.Filelists), string(rpmmd.Other), "updateinfo", "modules"}, groupTypes...)

// Plan selects all files that repomd.xml lists, primary first. Metadata are small
// compared with the packages, and upstream deletes them with the next compose.
func (Format) Plan(_ config.Mirror, root *repo.Root) ([]repo.Group, error) {
	doc := findDoc(root.Docs, repomdPath)
	if doc == nil {
		return nil, fmt.Errorf("no %s among the documents: %w", repomdPath, repo.ErrMalformed)
	}
	md, err := rpmmd.ParseRepoMD(doc.Data)
	if err != nil {
		return nil, malformed(err)
	}
	byPath := map[string]string{}
	for i := range md.Data {
		byPath[md.Data[i].Path] = md.Data[i].Type
	}
	var first, rest []repo.Group
	for _, l := range root.Files {
		g := repo.Group{Index: byPath[l.Path], Variants: []repo.Listed{l}}
		switch g.Index {
		case "":
			g.Index = l.Path // an image of the tree
			g.Optional, g.WarnAbsent = true, "images that treeinfo lists are absent upstream"
		case string(rpmmd.Primary):
			g.Packages = true
			for _, k := range []rpmmd.Kind{rpmmd.Filelists, rpmmd.Other} {
				if md.Find(string(k)) != nil {
					g.Also = append(g.Also, string(k))
				}
			}
			first = append(first, g)
			continue
		default:
			if !slices.Contains(dnfTypes, g.Index) {
				g.Optional, g.WarnAbsent = true, "files that repomd.xml lists and dnf does not read are absent upstream"
			}
		}
		rest = append(rest, g)
	}
	return append(first, rest...), nil
}
