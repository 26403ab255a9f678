package httpd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// maxListing bounds the names of a directory listing.
const maxListing = 20_000

// Public is the handler of the public listener: GET and HEAD, nothing else.
func (s *Server) Public() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &response{ResponseWriter: rw}
		start := time.Now()
		area := areaOf(r)
		defer func() {
			s.metrics.request(area, r.Method, w.status, w.n, time.Since(start))
			if p := recover(); p != nil {
				if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					s.log.Error("panic", "path", r.URL.Path, "err", p, "stack", string(debug.Stack()))
				}
				panic(http.ErrAbortHandler) // the connection is reset: nothing looks complete
			}
		}()
		s.public(w, r)
	})
}

// area is the part of the public tree that a request is for.
type area int

const (
	areaOther area = iota
	areaArchive
	areaFrozen
	areaRecord
	areaProxy
	areaBlob
	areaKit
	areaPages
	areas
)

var areaNames = [areas]string{"other", "archive", "frozen", "record", "proxy", "blob", "iuk", "pages"}

func areaOf(r *http.Request) area {
	p := r.URL.Path
	switch {
	case r.Method == http.MethodConnect || r.URL.Host != "" || r.URL.Scheme != "":
		return areaProxy
	case strings.HasPrefix(p, "/archive/"):
		return areaArchive
	case strings.HasPrefix(p, "/frozen/"):
		return areaFrozen
	case strings.HasPrefix(p, "/record/"):
		return areaRecord
	case strings.HasPrefix(p, "/by-hash/"), strings.HasPrefix(p, "/file/"):
		return areaBlob
	case strings.HasPrefix(p, "/iuk/"):
		return areaKit
	}
	return areaOther
}

func (s *Server) public(w *response, r *http.Request) {
	// The proxy form is decided before any path: what it names is upstream's.
	if r.Method == http.MethodConnect || r.URL.Host != "" || r.URL.Scheme != "" {
		s.proxy(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		s.text(w, http.StatusMethodNotAllowed, "this server is read-only: GET and HEAD\n")
		return
	}
	// A body of a GET means nothing; net/http reads it away.
	epoch := s.e.Epoch()
	key := r.RequestURI
	if e := s.lookups.get(epoch, []byte(key)); e != nil {
		s.serve(w, r, e, nil)
		return
	}
	p, ok := cleanPath(r.URL.Path)
	if !ok {
		s.notFound(w, r)
		return
	}
	first, rest, _ := strings.Cut(p[1:], "/")
	var a answer
	var err error
	switch first {
	case "archive":
		a, err = s.archive(r.Context(), rest)
	case "frozen":
		a, err = s.frozen(r.Context(), rest)
	case "record":
		s.record(w, r, rest)
		return
	case "by-hash":
		a, err = s.byHash(r.Context(), rest)
	case "file":
		a, err = s.byDigest(r.Context(), rest)
	case "iuk":
		a, err = s.kit(r.Context(), rest)
	default:
		s.pages.ServeHTTP(w, r)
		return
	}
	if err != nil {
		s.fail(w, r, err, a.frozen)
		return
	}
	if a.entity != nil && !a.volatile && a.entity.found.Known() && len(key) < 1024 && r.URL.RawQuery == "" {
		s.lookups.put(epoch, key, a.entity)
	}
	s.answer(w, r, p, a, nil)
}

// answer is what stands under a path: one of its fields is set.
type answer struct {
	entity   *entity
	redirect string // path to go to, not escaped
	listing  *listing
	frozen   bool // with an error: the failure is this server's
	volatile bool // the entity is not to be remembered
}

func (s *Server) answer(w *response, r *http.Request, p string, a answer, note func(context.Context, cas.Info) error) {
	switch {
	case a.entity != nil:
		s.serve(w, r, a.entity, note)
	case a.redirect != "":
		h := w.Header()
		h.Set("Location", (&url.URL{Path: a.redirect}).EscapedPath())
		h["Cache-Control"] = cacheNone
		s.text(w, http.StatusFound, "see "+a.redirect+"\n")
	case a.listing != nil:
		if !strings.HasSuffix(p, "/") {
			w.Header().Set("Location", (&url.URL{Path: p + "/"}).EscapedPath())
			s.text(w, http.StatusMovedPermanently, "see "+p+"/\n")
			return
		}
		s.listDir(w, r, p, a.listing)
	default:
		s.notFound(w, r)
	}
}

func (s *Server) notFound(w *response, _ *http.Request) {
	w.Header()["Cache-Control"] = cacheNone
	s.text(w, http.StatusNotFound, "not found\n")
}

// cleanPath takes a decoded path as it may be looked up: doubled slashes are
// one, and an element "." is none (RFC 3986, 5.2.4; apt sends it for a flat
// repository whose suite is "./"). An element "..", a NUL or a path that does
// not begin with a slash is refused, since no client that means well sends them.
func cleanPath(p string) (string, bool) {
	if !strings.HasPrefix(p, "/") || strings.IndexByte(p, 0) >= 0 {
		return "", false
	}
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	if !strings.Contains(p, "/.") {
		return p, true
	}
	var b strings.Builder
	for el := range strings.SplitSeq(p[1:], "/") {
		switch el {
		case "..":
			return "", false
		case ".":
		default:
			b.WriteString("/" + el)
		}
	}
	if strings.HasSuffix(p, "/.") {
		b.WriteByte('/')
	}
	if b.Len() == 0 {
		return "/", true
	}
	return b.String(), true
}

// archive answers /archive/<mirror>/<timestamp>/<path>.
func (s *Server) archive(ctx context.Context, rest string) (answer, error) {
	name, rest, _ := strings.Cut(rest, "/")
	if name == "" {
		return s.listMirrors(ctx)
	}
	at, p, slash := strings.Cut(rest, "/")
	if at == "" {
		return s.listTimestamps(ctx, name)
	}
	latest := at == catalog.Latest
	if err := s.e.Store().Damage(); err != nil && latest {
		// A newer snapshot may have been lost, and older bytes would be a rollback.
		return answer{}, err
	}
	var snap *meta.Snapshot
	if latest {
		err := s.view(ctx, func(tx *bolt.Tx) (err error) {
			snap, err = tx.Latest(name)
			return err
		})
		if err != nil {
			return answer{}, err
		}
	} else {
		t, err := catalog.ParseTimestamp(at)
		if err != nil {
			return answer{}, err
		}
		// The newest at or before; removed ones answer 410, never another.
		err = s.view(ctx, func(tx *bolt.Tx) (err error) {
			snap, err = tx.At(name, t)
			return err
		})
		if err != nil {
			return answer{}, err
		}
		if exact := meta.FormatTimestamp(snap.Timestamp); exact != at {
			to := "/archive/" + name + "/" + exact
			if slash {
				to += "/" + p
			}
			return answer{redirect: to}, nil
		}
	}
	return s.inSnapshot(ctx, snap, p, latest)
}

// inSnapshot answers a path of a snapshot.
func (s *Server) inSnapshot(ctx context.Context, snap *meta.Snapshot, p string, latest bool) (answer, error) {
	dir := p == "" || strings.HasSuffix(p, "/")
	if !dir {
		f, err := s.e.Lookup(ctx, snap, p, latest)
		if err == nil {
			return answer{entity: newEntity(f, p, !latest)}, nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return answer{}, err
		}
	}
	names, more, err := s.e.Dir(ctx, snap, strings.TrimSuffix(p, "/"), maxListing)
	if err != nil {
		return answer{}, err
	}
	return answer{listing: &listing{names: names, more: more, immutable: !latest}}, nil
}

func (s *Server) listMirrors(ctx context.Context) (answer, error) {
	l := &listing{}
	err := s.view(ctx, func(tx *bolt.Tx) error {
		for _, m := range tx.Mirrors() {
			l.names = append(l.names, m+"/")
		}
		return nil
	})
	return answer{listing: l}, err
}

func (s *Server) listTimestamps(ctx context.Context, name string) (answer, error) {
	l := &listing{names: []string{"latest/"}}
	var before time.Time
	for {
		var page []*meta.Snapshot
		err := s.view(ctx, func(tx *bolt.Tx) (err error) {
			page, err = tx.Snapshots(name, before, 500)
			return err
		})
		if err != nil {
			return answer{}, err
		}
		for _, snap := range page {
			l.names = append(l.names, meta.FormatTimestamp(snap.Timestamp)+"/")
			before = snap.Timestamp
		}
		if len(l.names) == 1 {
			return answer{}, fmt.Errorf("mirror %s: %w", name, meta.ErrNotFound)
		}
		if len(page) < 500 || len(l.names) >= maxListing {
			l.more = len(page) == 500
			return answer{listing: l}, nil
		}
	}
}

// frozen answers /frozen/<name>/….
func (s *Server) frozen(ctx context.Context, rest string) (answer, error) {
	name, rest, slash := strings.Cut(rest, "/")
	if name == "" {
		l := &listing{}
		err := s.view(ctx, func(tx *bolt.Tx) error {
			all, err := tx.Frozens()
			for _, f := range all {
				l.names = append(l.names, f.Name+"/")
			}
			return err
		})
		return answer{listing: l}, err
	}
	var fr *meta.Frozen
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		fr, err = tx.Frozen(name)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	if !slash || rest == "" {
		l := &listing{names: []string{"manifest.json", "manifest.json.asc", "provenance.json", "key.asc"}, immutable: true}
		for _, c := range s.clientConfigs(fr) {
			l.names = append(l.names, c.path)
		}
		if !fr.ProvSignature.SHA256.IsZero() {
			l.names = append(l.names, "provenance.json.asc")
		}
		for _, m := range fr.Mirrors {
			l.names = append(l.names, m.Mirror+"/")
		}
		return answer{listing: l}, nil
	}
	stored := func(f repo.File, p string, immutable bool) (answer, error) {
		e := blobEntity(f.SHA256, f.Size, fr.Date, p, immutable)
		e.frozen = true
		return answer{entity: e}, nil
	}
	switch rest {
	case "manifest.json":
		return stored(fr.Manifest, rest, true)
	case "manifest.json.asc":
		return stored(fr.Signature, rest, true)
	case "provenance.json":
		return stored(fr.Prov, rest, false)
	case "provenance.json.asc":
		if fr.ProvSignature.SHA256.IsZero() {
			break
		}
		return stored(fr.ProvSignature, rest, false)
	case "key.asc":
		if s.cfg.Signer != nil && fr.Key == s.cfg.Signer.Fingerprint() {
			// It may have been renewed since.
			return answer{entity: newBytes([]byte(s.cfg.Signer.PublicKeyArmored()), keyType, s.cfg.Signer.CreatedAt()), volatile: true}, nil
		}
		return s.certificates(ctx, fr.KeyBlob)
	}
	for _, c := range s.clientConfigs(fr) {
		if c.path == rest {
			return s.clientConfig(ctx, fr, c.format)
		}
	}
	for i := range fr.Mirrors {
		if m := &fr.Mirrors[i]; rest == "_proof/"+m.Mirror+"/keys.asc" && !m.Certificates.IsZero() {
			return s.certificates(ctx, m.Certificates)
		}
	}
	for _, st := range fr.Statements {
		if st.Path == rest {
			return stored(st, rest, true)
		}
	}
	mname, p, slash := strings.Cut(rest, "/")
	i := fr.MirrorIndex(mname)
	if i < 0 {
		return answer{}, fmt.Errorf("%s in frozen snapshot %s: %w", mname, name, meta.ErrNotFound)
	}
	if slash && p != "" && !strings.HasSuffix(p, "/") {
		f, err := s.frozenLookup(ctx, fr, i, p)
		if err == nil {
			e := newEntity(f, p, true)
			e.frozen = true
			return answer{entity: e}, nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return answer{frozen: true}, err
		}
	}
	return s.frozenDir(ctx, fr, i, strings.TrimSuffix(p, "/"))
}

// frozenLookup finds a file of a frozen mirror: in its derived tree or, for a
// whole mirror, among what its generations list; upstream's own signed
// documents are not part of it. store.ErrNotFound.
func (s *Server) frozenLookup(ctx context.Context, fr *meta.Frozen, i int, p string) (*catalog.Found, error) {
	m := &fr.Mirrors[i]
	var node meta.Node
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		node, err = tx.Node(fr.Name, m.Mirror+"/"+p)
		return err
	})
	if err == nil {
		f := &catalog.Found{Digest: node.Digest, Size: node.Size, Modified: node.ModTime}
		f.Want = catalog.Want{Mirror: m.Mirror, Listed: repo.Listed{Path: p, Size: node.Size, SHA256: node.Digest}}
		return f, nil
	}
	snap := fr.View(i)
	if !errors.Is(err, meta.ErrNotFound) || !m.Whole || snap == nil {
		return nil, err
	}
	f, lerr := s.e.Lookup(ctx, snap, p, false)
	if lerr != nil {
		return nil, lerr
	}
	if doc, derr := s.isDoc(ctx, snap, p); derr != nil {
		return nil, derr
	} else if doc {
		return nil, err
	}
	if f.Package == nil {
		if f.Plain == nil {
			// Upstream lists it, the frozen Release does not: it is not served.
			return nil, err
		}
		// The plain form of an index that is kept compressed.
		f.Modified = fr.Date
	}
	return f, nil
}

// isDoc tells whether a path is one of upstream's signed documents.
func (s *Server) isDoc(ctx context.Context, snap *meta.Snapshot, p string) (is bool, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		for _, su := range snap.Suites {
			g, err := tx.Generation(snap.Mirror, su.Suite, su.Gen)
			if err != nil {
				return err
			}
			for _, d := range slices.Concat(g.Docs, g.Companions) {
				is = is || d.Path == p
			}
		}
		return nil
	})
	return is, err
}

// frozenDir lists a directory of a frozen mirror.
func (s *Server) frozenDir(ctx context.Context, fr *meta.Frozen, i int, dir string) (answer, error) {
	m := &fr.Mirrors[i]
	prefix := m.Mirror + "/"
	if dir != "" {
		prefix += dir + "/"
	}
	l := &listing{immutable: true}
	seen := map[string]bool{}
	after := ""
	for done := false; !done; {
		err := s.view(ctx, func(tx *bolt.Tx) error {
			for range 500 {
				nodes := tx.Nodes(fr.Name, prefix, after, 1)
				if len(nodes) == 0 {
					done = true
					return nil
				}
				after = nodes[0].Path
				name := after[len(prefix):]
				if j := strings.IndexByte(name, '/'); j >= 0 {
					name = name[:j+1]
					after = prefix + name + "\xff" // past everything below it
				}
				if !seen[name] {
					seen[name] = true
					l.names = append(l.names, name)
				}
			}
			return nil
		})
		if err != nil {
			return answer{}, err
		}
		if len(l.names) >= maxListing {
			l.more = true
			break
		}
	}
	if snap := fr.View(i); snap != nil && m.Whole {
		names, more, err := s.e.Dir(ctx, snap, dir, maxListing)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return answer{}, err
		}
		l.more = l.more || more
		for _, n := range names {
			if seen[n] {
				continue
			}
			if served, err := s.wholeServes(ctx, fr, i, path.Join(dir, n), strings.HasSuffix(n, "/")); err != nil && !errors.Is(err, meta.ErrNotFound) {
				return answer{}, err
			} else if served {
				l.names = append(l.names, n)
			}
		}
	}
	if len(l.names) == 0 {
		return answer{}, fmt.Errorf("%s in frozen snapshot %s: %w", prefix, fr.Name, meta.ErrNotFound)
	}
	return answer{listing: l}, nil
}

// wholeServes reports whether a whole mirror of a frozen snapshot serves a file,
// or a file below a directory, that upstream lists: all packages, and those files
// of its suites that the frozen index lists.
func (s *Server) wholeServes(ctx context.Context, fr *meta.Frozen, i int, p string, dir bool) (bool, error) {
	m := &fr.Mirrors[i]
	if !dir {
		f, err := s.e.Format(m.Type)
		if err != nil {
			return false, err
		}
		var suites []repo.SuiteName
		for _, su := range m.Suites {
			suites = append(suites, su.Suite)
		}
		if _, _, ok := f.SuiteOf(p, suites); !ok {
			return true, nil // a package
		}
		_, err = s.frozenLookup(ctx, fr, i, p)
		return err == nil, err
	}
	var inTree bool
	err := s.view(ctx, func(tx *bolt.Tx) error {
		inTree = len(tx.Nodes(fr.Name, m.Mirror+"/"+p+"/", "", 1)) > 0
		return nil
	})
	if err != nil || inTree {
		return inTree, err
	}
	names, _, err := s.e.Dir(ctx, fr.View(i), p, maxListing)
	for _, n := range names {
		served, err := s.wholeServes(ctx, fr, i, path.Join(p, n), strings.HasSuffix(n, "/"))
		if served || err != nil && !errors.Is(err, meta.ErrNotFound) {
			return served, err
		}
	}
	return false, err
}

// clientConfig is a file below /frozen/<name>/ that configures a client.
type clientConfig struct{ path, format, title string }

// clientConfigs lists the files that configure clients of a frozen snapshot: only
// those of formats in which it has something.
func (s *Server) clientConfigs(fr *meta.Frozen) []clientConfig {
	var out []clientConfig
	for _, c := range []clientConfig{{"sources", "deb822", "apt sources"}, {"repo", "repo", "dnf repo"}} {
		if slices.ContainsFunc(fr.Mirrors, func(m meta.FrozenMirror) bool {
			f, err := s.e.Format(m.Type)
			return err == nil && slices.Contains(f.ClientKinds(), c.format)
		}) {
			out = append(out, c)
		}
	}
	return out
}

// clientConfig renders /frozen/<name>/sources and …/repo.
func (s *Server) clientConfig(ctx context.Context, fr *meta.Frozen, format string) (answer, error) {
	res, err := s.control.Sources(ctx, &api.SourcesRequest{Ref: fr.Name, Format: format})
	if err != nil {
		return answer{}, err
	}
	return answer{entity: newBytes([]byte(res.Text), textPlain, time.Time{}), volatile: true}, nil
}

// certificates answers with stored certificates.
func (s *Server) certificates(ctx context.Context, d cas.Digest) (answer, error) {
	a, err := s.blob(ctx, d)
	if err == nil {
		a.entity.ctype = []string{keyType}
		a.entity.frozen = true
	}
	a.frozen = true
	return a, err
}

// byHash answers /by-hash/SHA256/<hex>.
func (s *Server) byHash(ctx context.Context, rest string) (answer, error) {
	hx, ok := strings.CutPrefix(rest, "SHA256/")
	if !ok {
		return answer{}, nil
	}
	d, err := cas.ParseDigest(hx)
	if err != nil {
		return answer{}, nil
	}
	return s.blob(ctx, d)
}

// byDigest answers /file/<sha1-or-sha256>.
func (s *Server) byDigest(ctx context.Context, hx string) (answer, error) {
	raw, err := hex.DecodeString(hx)
	switch {
	case err == nil && len(raw) == 20:
		var d cas.Digest
		err := s.view(ctx, func(tx *bolt.Tx) (err error) {
			d, err = tx.Alias(meta.AliasSHA1, raw)
			return err
		})
		if err != nil {
			return answer{}, err
		}
		return s.blob(ctx, d)
	case err == nil && len(raw) == len(cas.Digest{}):
		return s.blob(ctx, cas.Digest(raw))
	}
	return answer{}, nil
}

func (s *Server) blob(ctx context.Context, d cas.Digest) (answer, error) {
	info, err := s.blobs().Stat(ctx, d)
	if err != nil {
		return answer{}, err
	}
	// A blob may go at the next collection, which begins no epoch.
	return answer{entity: blobEntity(d, info.Size, info.ModTime, d.String(), false), volatile: true}, nil
}

// kit answers /iuk/<path>.
func (s *Server) kit(ctx context.Context, rest string) (answer, error) {
	if rest == "" || strings.HasSuffix(rest, "/") {
		l := &listing{}
		seen := map[string]bool{}
		err := s.view(ctx, func(tx *bolt.Tx) error {
			all, err := tx.Kits()
			for _, k := range all {
				name, ok := strings.CutPrefix(k.Path, rest)
				if !ok {
					continue
				}
				if i := strings.IndexByte(name, '/'); i >= 0 {
					name = name[:i+1]
				}
				if !seen[name] {
					seen[name] = true
					l.names = append(l.names, name)
				}
			}
			return err
		})
		if err == nil && rest != "" && len(l.names) == 0 {
			return answer{}, nil
		}
		return answer{listing: l}, err
	}
	var k meta.Kit
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		k, err = tx.Kit(rest)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	info, err := s.blobs().Stat(ctx, k.Digest)
	if err != nil {
		return answer{frozen: true}, err
	}
	return answer{entity: blobEntity(k.Digest, k.Size, info.ModTime, path.Base(k.Path), false)}, nil
}
