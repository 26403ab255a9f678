package httpd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
)

// proxy answers requests in absolute form, GET http://upstream/path, for
// configured upstreams. The user in Proxy-Authorization names a recording or a
// freeze; a password is ignored. Clients that send no name are asked for one.
func (s *Server) proxy(w *response, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.refuseProxy(w, "%s is not supported, only GET and HEAD of the configured mirrors by http", clipText(r.Method))
		return
	}
	if r.URL.Scheme != "http" {
		s.refuseProxy(w, "%s is not supported, only http", clipText(r.URL.Scheme))
		return
	}
	p, ok := cleanPath(r.URL.Path)
	if !ok {
		s.notFound(w, r)
		return
	}
	candidates := s.catalog.Upstreams(r.URL.Host, p)
	if len(candidates) == 0 {
		s.refuseProxy(w, "http://%s%s is not below a configured mirror", clipText(r.URL.Host), clipText(p))
		return
	}
	name, ok := proxyUser(r)
	if !ok {
		// Many clients send no name until they are asked for one.
		w.Header().Set("Proxy-Authenticate", `Basic realm="name of a recording or freeze", charset="UTF-8"`)
		w.Header()["Cache-Control"] = cacheNone
		s.text(w, http.StatusProxyAuthRequired, "proxy: no name: put the name of a recording or freeze into the proxy URL, http://NAME:x@"+s.cfg.Conf.Server.Listen+" (some clients send no name without a password, so give any)\n")
		return
	}
	fr, err := s.meta.Freeze(r.Context(), meta.FreezeName(name))
	if err == nil {
		s.replay(w, r, fr, candidates)
		return
	}
	if !errors.Is(err, meta.ErrNotFound) {
		s.fail(w, r, err, false)
		return
	}
	rec, rerr := s.catalog.RunningRecording(r.Context(), name)
	switch {
	case rerr == nil:
	case !errors.Is(rerr, meta.ErrNotFound):
		s.failRecord(w, r, rerr)
		return
	case errors.Is(err, meta.ErrGone):
		s.fail(w, r, err, false)
		return
	default:
		s.refuseProxy(w, "no recording or freeze is called %q", clipText(name))
		return
	}
	for _, c := range candidates {
		if rec.Pin(c.Mirror) >= 0 {
			s.recorded(w, r, rec, c, p)
			return
		}
	}
	s.refuseProxy(w, "recording %s has no mirror %s", name, candidates[0].Mirror)
}

func (s *Server) refuseProxy(w *response, format string, args ...any) {
	w.Header()["Cache-Control"] = cacheNone
	s.text(w, http.StatusForbidden, "proxy: "+fmt.Sprintf(format, args...)+"\n")
}

// replay serves upstream's own indices and signatures, as the freeze was made from them,
// but only the packages of the freeze.
func (s *Server) replay(w *response, r *http.Request, fr *meta.Frozen, candidates []catalog.Upstream) {
	for _, c := range candidates {
		i := fr.MirrorIndex(c.Mirror)
		if i < 0 {
			continue
		}
		f, err := s.catalog.Replay(r.Context(), fr, i, c.Path)
		if errors.Is(err, catalog.ErrNoUpstreamIndices) {
			s.text(w, http.StatusForbidden, "proxy: freeze "+string(fr.Name)+" was imported and has no upstream indices to serve\n")
			return
		} else if err != nil {
			s.fail(w, r, err, false)
			return
		}
		e := newEntity(f, c.Path, false)
		e.frozen = f.Package != nil
		s.serve(w, r, e, nil)
		return
	}
	s.refuseProxy(w, "freeze %s has nothing from mirror %s", fr.Name, candidates[0].Mirror)
}

// proxyUser returns the user of a Basic Proxy-Authorization (RFC 7617).
func proxyUser(r *http.Request) (string, bool) {
	kind, cred, ok := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	if !ok || !strings.EqualFold(kind, "Basic") {
		return "", false
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(cred))
	if err != nil {
		return "", false
	}
	user, _, _ := strings.Cut(string(raw), ":")
	return user, user != ""
}

// clipText shortens and quotes text from a request for a response.
func clipText(t string) string {
	if len(t) > 200 {
		t = t[:200] + "…"
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, t)
}
