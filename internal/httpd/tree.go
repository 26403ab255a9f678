package httpd

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
)

// Public returns the handler of the public listener, which accepts only GET and
// HEAD.
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
				panic(http.ErrAbortHandler) // reset the connection, so that the response cannot look complete
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
	areaChannel
	areaRecord
	areaProxy
	areaBlob
	areaKit
	areaLog
	areaMachine
	areaPages
	areas
)

var areaNames = [areas]string{"other", "archive", "frozen", "channel", "record", "proxy", "blob", "iuk", "log", "machine", "pages"}

func areaOf(r *http.Request) area {
	p := r.URL.Path
	switch {
	case r.Method == http.MethodConnect || r.URL.Host != "" || r.URL.Scheme != "":
		return areaProxy
	case strings.HasPrefix(p, "/archive/"):
		return areaArchive
	case strings.HasPrefix(p, "/frozen/"):
		return areaFrozen
	case strings.HasPrefix(p, "/channel/"):
		return areaChannel
	case strings.HasPrefix(p, "/record/"):
		return areaRecord
	case strings.HasPrefix(p, "/by-hash/"), strings.HasPrefix(p, "/file/"):
		return areaBlob
	case strings.HasPrefix(p, "/mr/"), p == metasnapPath, strings.HasPrefix(p, "/by-timestamp/"):
		return areaMachine
	case strings.HasPrefix(p, "/iuk/"):
		return areaKit
	case strings.HasPrefix(p, "/log/"):
		return areaLog
	}
	return areaOther
}

// public answers a request of the public tree. Long because it has a case for each area.
func (s *Server) public(w *response, r *http.Request) {
	// The proxy form is decided before any path, because its path is upstream's.
	w.base = s.actsAs(r)
	if r.Method == http.MethodConnect || w.base == "" && (r.URL.Host != "" || r.URL.Scheme != "") {
		s.proxy(w, r)
		return
	}
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case metasnapPath:
		s.metasnap(w, r)
		return
	case buildinfoPath:
		s.buildinfo(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		s.text(w, http.StatusMethodNotAllowed, "this server is read-only: use GET or HEAD\n")
		return
	}
	// The body of a GET has no meaning; net/http discards it.
	epoch := s.catalog.Epoch()
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
		var done bool
		if a, done, err = s.archiveMonth(r, rest, r.URL.Query()); done {
			break
		}
		if a, done, err = s.archiveProof(r.Context(), rest); !done {
			a, err = s.translate(first)(s.catalog.ArchiveEntry(r.Context(), rest))
		}
	case "frozen":
		a, err = s.frozen(r.Context(), rest)
	case "channel":
		if name, below, _ := strings.Cut(rest, "/"); name != "" && below == "" {
			s.pages.ServeHTTP(w, r)
			return
		}
		a, err = s.channel(r.Context(), rest)
	case "record":
		s.record(w, r, rest)
		return
	case "by-hash":
		a, err = s.translate(first)(s.catalog.ByHashEntry(r.Context(), rest))
	case "file":
		a, err = s.translate(first)(s.catalog.DigestEntry(r.Context(), rest))
	case "log":
		a, err = s.logEntry(r.Context(), rest)
	case "mr", "by-timestamp":
		s.machine(w, r, first, rest)
		return
	case "iuk":
		var proof bool
		if a, proof, err = s.kitProof(r.Context(), rest); !proof {
			a, err = s.translate(first)(s.catalog.KitEntry(r.Context(), rest))
		}
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

// answer is the result for a path. Exactly one of its first three fields is set.
type answer struct {
	entity   *entity
	redirect string // path to redirect to, not escaped
	listing  *listing
	frozen   bool // with an error: a fault of this server
	volatile bool // do not remember the entity
}

// translate converts the catalog's entries of one tree to answers.
func (s *Server) translate(tree string) func(catalog.Entry, error) (answer, error) {
	return func(e catalog.Entry, err error) (answer, error) {
		a := answer{frozen: e.Frozen, volatile: e.Volatile}
		switch {
		case err != nil:
		case e.File != nil:
			a.entity = newEntity(e.File, e.Name, e.Immutable)
			a.entity.frozen = e.Frozen
			if e.Certificates {
				a.entity.ctype = []string{keyType}
			}
		case e.Redirect != "":
			a.redirect = "/" + tree + "/" + e.Redirect
		case e.Dir != nil:
			a.listing = &listing{names: e.Dir.Names, more: e.Dir.More, immutable: e.Immutable}
		}
		return a, err
	}
}

func (s *Server) answer(w *response, r *http.Request, p string, a answer, note noteFunc) {
	switch {
	case a.entity != nil:
		s.serve(w, r, a.entity, note)
	case a.redirect != "":
		h := w.Header()
		h.Set("Location", w.base+(&url.URL{Path: a.redirect}).EscapedPath())
		h["Cache-Control"] = cacheNone
		s.text(w, http.StatusFound, "see "+a.redirect+"\n")
	case a.listing != nil:
		if !strings.HasSuffix(p, "/") {
			w.Header().Set("Location", w.base+(&url.URL{Path: p + "/"}).EscapedPath())
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

// frozen serves /frozen/<name>/….
func (s *Server) frozen(ctx context.Context, p string) (answer, error) {
	translate := s.translate("frozen")
	name, rest, _ := strings.Cut(p, "/")
	if name == "" {
		return translate(s.catalog.ListFreezes(ctx))
	}
	fr, err := s.meta.Freeze(ctx, meta.FreezeName(name))
	if err != nil {
		return answer{}, err
	}
	if rest == catalog.KeyName && s.cfg.Signer != nil && fr.Key == s.cfg.Signer.Fingerprint() {
		// The key may have been renewed since.
		return answer{entity: newBytes([]byte(s.cfg.Signer.PublicKeyArmored()), keyType, s.cfg.Signer.CreatedAt()), volatile: true}, nil
	}
	if a, ok, err := s.frozenProof(ctx, fr, rest); ok {
		return a, err
	}
	if a, ok, err := s.clientConfig(ctx, fr, rest, string(fr.Name)); ok {
		return a, err
	}
	return translate(s.catalog.FrozenEntry(ctx, fr, rest))
}

// channel serves /channel/<name>/<mirror>/….
func (s *Server) channel(ctx context.Context, p string) (answer, error) {
	translate := s.translate("channel")
	name, rest, _ := strings.Cut(p, "/")
	if name == "" {
		return translate(s.catalog.ListChannels(ctx))
	}
	ref, err := s.catalog.ResolveChannel(ctx, name)
	if err != nil {
		return answer{}, err
	}
	if rest == catalog.KeyName && s.cfg.Signer != nil && ref.Channel.Key == s.cfg.Signer.Fingerprint() {
		// The key may have been renewed since.
		return answer{entity: newBytes([]byte(s.cfg.Signer.PublicKeyArmored()), keyType, s.cfg.Signer.CreatedAt()), volatile: true}, nil
	}
	if a, ok, err := s.clientConfig(ctx, ref.Frozen, rest, name); ok {
		return a, err
	}
	return translate(s.catalog.ChannelEntry(ctx, ref.Channel, ref.Frozen, rest))
}

// clientConfig makes a file that configures clients of a freeze, or of a channel that
// shows it: ref is the name of either. ok is false if p is not such a file.
func (s *Server) clientConfig(ctx context.Context, fr *meta.Frozen, p, ref string) (a answer, ok bool, err error) {
	for _, c := range s.catalog.ClientConfigs(fr) {
		if c.Path != p {
			continue
		}
		res, err := s.control.Sources(ctx, &api.SourcesRequest{Ref: ref, Format: c.Kind})
		if err != nil {
			return answer{}, true, err
		}
		return answer{entity: newBytes([]byte(res.Text), textPlain, time.Time{}), volatile: true}, true, nil
	}
	return answer{}, false, nil
}
