package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

const (
	// maxSignature bounds a Release.gpg, in bytes.
	maxSignature = 1 << 20
	// maxFuture is how far a Release file's Date may be ahead of the clock: apt
	// allows 10 s, on clocks that may not be set yet when a mirror first syncs.
	maxFuture = 10 * time.Minute
)

// SuiteDir returns the directory of a suite relative to the mirror's base URL,
// with a trailing slash; empty for the base itself.
func (Format) SuiteDir(suite repo.SuiteName) string { return suiteDir(suite) }

func suiteDir(suite repo.SuiteName) string {
	s := string(suite)
	if !isFlat(suite) {
		return "dists/" + path.Clean(s) + "/"
	}
	if s = strings.Trim(path.Clean(s), "/"); s == "." || s == "" {
		return ""
	}
	return s + "/"
}

// FetchRoot downloads InRelease or, if it does not exist, Release and
// Release.gpg, and verifies them as strictly as apt. A bad InRelease is an error
// even if upstream also serves a good Release: apt does not look further either.
//
// If prev contains the suite's documents and upstream has nothing newer, it
// returns repo.ErrNotModified, or repo.ErrExpired if the stored documents have
// expired since. That takes one request, or two if there was no InRelease,
// because InRelease is requested each time. Stored documents that FetchRoot would
// refuse today are downloaded again.
func (f Format) FetchRoot(ctx context.Context, g repo.Getter, m config.Mirror, suite repo.SuiteName, prev []repo.Doc, p repo.VerifyParams) (*repo.Root, error) {
	p.Strict = true
	if _, err := parseRoot(suite, prev, repo.VerifyParams{Keyring: p.Keyring, Strict: true}); err != nil {
		prev = nil
	}
	dir := suiteDir(suite)
	// get requests a document, on condition that it is not the stored one.
	get := func(name string, max int64) (repo.Doc, error) {
		var held *repo.Doc
		for i := range prev {
			if prev[i].Path == dir+name {
				held = &prev[i]
			}
		}
		d, err := g.Get(ctx, dir+name, max, held)
		if err == nil && held != nil && bytes.Equal(d.Data, held.Data) {
			err = repo.ErrNotModified // a server that does not support conditional requests
		}
		if errors.Is(err, repo.ErrNotModified) {
			if err := f.stillValid(prev, p.Now); err != nil {
				return d, fmt.Errorf("suite %s: %w", suite, err)
			}
			return d, repo.ErrNotModified
		}
		if err != nil {
			err = fmt.Errorf("fetch %s: %w", dir+name, err)
		}
		return d, err
	}

	in, err := get("InRelease", maxRelease)
	switch {
	case err == nil:
		return f.ParseRoot(m, suite, []repo.Doc{in}, p)
	case !errors.Is(err, fetch.ErrNotFound):
		return nil, err
	}
	release, err := get("Release", maxRelease)
	if errors.Is(err, fetch.ErrNotFound) {
		return nil, fmt.Errorf("suite %s: neither %sInRelease nor %sRelease at %s: %w: %w", suite, dir, dir, g.BaseURL(), repo.ErrMissing, err)
	}
	if err != nil {
		return nil, err
	}
	sig, err := g.Get(ctx, dir+"Release.gpg", maxSignature, nil)
	if errors.Is(err, fetch.ErrNotFound) {
		return nil, fmt.Errorf("suite %s: %sRelease has no signature: neither InRelease nor Release.gpg at %s: %w", suite, dir, g.BaseURL(), repo.ErrUntrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", dir+"Release.gpg", err)
	}
	root, err := f.ParseRoot(m, suite, []repo.Doc{release, sig}, p)
	if errors.Is(err, sign.ErrBadSignature) {
		// The two files cannot be downloaded at once: check whether they changed.
		again, aerr := g.Get(ctx, dir+"Release", maxRelease, nil)
		if aerr == nil && !bytes.Equal(again.Data, release.Data) {
			return nil, fmt.Errorf("suite %s: %sRelease: %w: %w", suite, dir, repo.ErrTorn, err)
		}
	}
	return root, err
}

// FetchCompanions downloads Release and Release.gpg beside InRelease. They are
// used only if they have the same text and are signed by a key of the keyring.
func (Format) FetchCompanions(ctx context.Context, g repo.Getter, root *repo.Root, p repo.VerifyParams) []repo.Doc {
	dir := suiteDir(root.Suite)
	if len(root.Docs) != 1 || root.Docs[0].Path != dir+"InRelease" {
		return nil
	}
	text, err := releaseText(root.Docs)
	if err != nil {
		return nil
	}
	release, err := g.Get(ctx, dir+"Release", maxRelease, nil)
	if err != nil || !sameText(text, release.Data) {
		return nil
	}
	sig, err := g.Get(ctx, dir+"Release.gpg", maxSignature, nil)
	if err != nil {
		return nil
	}
	docs := []repo.Doc{release, sig}
	p.Strict = true
	if _, err := parseRoot(root.Suite, docs, p); err != nil {
		return nil
	}
	return docs
}

// sameText compares texts without what clear-signing does not preserve: white
// space at the ends of lines and of the text.
func sameText(a, b []byte) bool {
	const space = " \t\r\n"
	for len(a) > 0 || len(b) > 0 {
		var x, y []byte
		x, a, _ = bytes.Cut(a, []byte("\n"))
		y, b, _ = bytes.Cut(b, []byte("\n"))
		if !bytes.Equal(bytes.TrimRight(x, space), bytes.TrimRight(y, space)) {
			return false
		}
	}
	return true
}

// stillValid checks the dates of documents that were verified when they were
// downloaded.
func (f Format) stillValid(docs []repo.Doc, now time.Time) error {
	text, err := releaseText(docs)
	if err != nil {
		return err
	}
	rel, err := ParseRelease(text)
	if err != nil {
		return err
	}
	return checkDates(rel, now)
}

func checkDates(rel *Release, now time.Time) error {
	if now.IsZero() {
		return nil
	}
	if rel.Date.After(now.Add(maxFuture)) {
		return fmt.Errorf("Release of %s, judged at %s: %w", formatDate(rel.Date), formatDate(now), repo.ErrFuture)
	}
	if !rel.ValidUntil.IsZero() && now.After(rel.ValidUntil) {
		return fmt.Errorf("Release of %s was valid until %s, judged at %s: %w", formatDate(rel.Date), formatDate(rel.ValidUntil), formatDate(now), repo.ErrExpired)
	}
	return nil
}

// ParseRoot verifies the documents of a suite: InRelease, or Release and
// Release.gpg. It checks the validity of keys at the Release file's own Date, and
// Valid-Until at p.Now. If Date is absent or unreadable for apt, it uses the time
// of the signature instead.
func (Format) ParseRoot(m config.Mirror, suite repo.SuiteName, docs []repo.Doc, p repo.VerifyParams) (*repo.Root, error) {
	root, err := parseRoot(suite, docs, p)
	if err != nil {
		return nil, fmt.Errorf("suite %s: %w", suite, err)
	}
	if m.Local {
		root.Trust = repo.TrustOwn
	}
	return root, nil
}

func parseRoot(suite repo.SuiteName, docs []repo.Doc, p repo.VerifyParams) (*repo.Root, error) {
	if p.Keyring == nil || p.Keyring.Len() == 0 {
		return nil, fmt.Errorf("no key to verify with: %w", repo.ErrUntrusted)
	}
	var verify func(sign.VerifyOptions) (sign.Verified, error)
	var text []byte
	switch {
	case len(docs) == 1 && path.Base(docs[0].Path) == "InRelease":
		verify = func(o sign.VerifyOptions) (sign.Verified, error) { return sign.VerifyClearsigned(docs[0].Data, o) }
	case len(docs) == 2 && path.Base(docs[0].Path) == "Release" && path.Base(docs[1].Path) == "Release.gpg":
		text = docs[0].Data
		verify = func(o sign.VerifyOptions) (sign.Verified, error) {
			return sign.VerifyDetached(docs[0].Data, docs[1].Data, o)
		}
	default:
		return nil, fmt.Errorf("expected InRelease, or Release and Release.gpg: %w", repo.ErrMalformed)
	}
	client := sign.AnyClient
	if p.Strict {
		client = sign.Apt
	}
	what := docs[len(docs)-1].Path
	untrusted := func(err error) error {
		return fmt.Errorf("verify %s: %w: %w", what, repo.ErrUntrusted, err)
	}
	// The first pass returns the text. The second pass checks the keys at the date
	// in that text.
	v, err := verify(sign.VerifyOptions{Keyring: p.Keyring, Now: p.Now, Client: client})
	if err != nil {
		return nil, untrusted(err)
	}
	if text == nil {
		text = v.Text
	}
	rel, err := ParseRelease(text)
	if err != nil {
		return nil, err
	}
	undated := rel.Date.IsZero()
	if undated {
		// The keys were already checked at that time.
		rel.Date = signedAt(v)
	} else if v, err = verify(sign.VerifyOptions{Keyring: p.Keyring, At: rel.Date, Now: p.Now, Client: client}); err != nil {
		return nil, untrusted(err)
	}
	if err := checkDates(rel, p.Now); err != nil {
		return nil, err
	}
	root := &repo.Root{
		Suite: suite, Docs: docs, Date: rel.Date, Undated: undated, ValidUntil: rel.ValidUntil,
		Trust: repo.TrustSignature, Files: rel.Files, ByHash: rel.AcquireByHash, Warnings: rel.warnings(undated),
	}
	for _, s := range v.Good {
		root.Signers = append(root.Signers, repo.Signer{Fingerprint: s.Fingerprint, UserID: s.UserID, SignedAt: s.Created})
	}
	return root, nil
}

// signedAt returns the time of the newest good signature.
func signedAt(v sign.Verified) time.Time {
	var at time.Time
	for _, s := range v.Good {
		if s.Created.After(at) {
			at = s.Created
		}
	}
	return at
}

// warnings describes the ignored faults of a Release file.
func (r *Release) warnings(undated bool) []string {
	var out []string
	switch {
	case undated && r.DateText == "":
		out = append(out, fmt.Sprintf("Release has no Date, its signature's time %s is used", formatDate(r.Date)))
	case undated:
		out = append(out, fmt.Sprintf("Release has a Date that apt cannot read (%q), its signature's time %s is used", excerpt.Of(r.DateText), formatDate(r.Date)))
	}
	switch n := len(r.Oddities); {
	case n == 1:
		out = append(out, "Release: "+r.Oddities[0])
	case n > 1:
		out = append(out, fmt.Sprintf("Release: %s, and %d more", r.Oddities[0], n-1))
	}
	return out
}

// releaseText returns the text of documents that ParseRoot has accepted. It
// checks nothing again, because there is only one way to read them.
func releaseText(docs []repo.Doc) ([]byte, error) {
	if len(docs) == 0 {
		return nil, fmt.Errorf("no Release: %w", repo.ErrMalformed)
	}
	data := docs[0].Data
	if !sign.IsClearsigned(data) {
		return data, nil
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	_, body, ok := bytes.Cut(data, []byte("\n\n"))
	end := bytes.Index(body, []byte("\n-----BEGIN PGP SIGNATURE-----"))
	if !ok || end < 0 {
		return nil, fmt.Errorf("%s: no clear-signed message: %w", docs[0].Path, repo.ErrMalformed)
	}
	body = body[:end+1]
	text := make([]byte, 0, len(body))
	for line := range bytes.Lines(body) {
		line = bytes.TrimPrefix(line, []byte("- "))
		text = append(append(text, bytes.TrimRight(line, " \t\n")...), '\n')
	}
	return text, nil
}

// releaseOf parses the Release file of a verified root again.
func releaseOf(root *repo.Root) (*Release, error) {
	text, err := releaseText(root.Docs)
	if err != nil {
		return nil, fmt.Errorf("suite %s: %w", root.Suite, err)
	}
	rel, err := ParseRelease(text)
	if err != nil {
		return nil, fmt.Errorf("suite %s: %w", root.Suite, err)
	}
	return rel, nil
}

// SuiteOf finds the suite among suites whose directory contains path. The Release
// file need not list the path: flat repositories have their packages beside the
// indices, and some others have them below dists/.
func (Format) SuiteOf(p string, suites []repo.SuiteName) (suite repo.SuiteName, rel string, ok bool) {
	best := -1
	for _, s := range suites {
		dir := suiteDir(s)
		r, in := strings.CutPrefix(p, dir)
		if !in || r == "" || len(dir) <= best {
			continue
		}
		best, suite, rel, ok = len(dir), s, r, true
	}
	return suite, rel, ok
}

// ByHash parses a by-hash name: dir/by-hash/SHA256/<hex>. The digest is in lower
// case.
func (Format) ByHash(p string) (algo, hex string, ok bool) {
	dir, hex := path.Split(p)
	dir, algo = path.Split(strings.TrimSuffix(dir, "/"))
	if path.Base(dir) != "by-hash" {
		return "", "", false
	}
	n := map[string]int{"MD5Sum": 32, "SHA1": 40, "SHA256": 64, "SHA512": 128}[algo]
	if n == 0 || len(hex) != n || strings.Trim(hex, "0123456789abcdefABCDEF") != "" {
		return "", "", false
	}
	return algo, strings.ToLower(hex), true
}
