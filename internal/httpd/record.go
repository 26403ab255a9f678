package httpd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// errStopped means that a recording takes no more.
var errStopped = errors.New("the recording has been stopped")

// record answers /record/<name>/<mirror>/<path>.
func (s *Server) record(w *response, r *http.Request, rest string) {
	name, rest, _ := strings.Cut(rest, "/")
	mname, p, slash := strings.Cut(rest, "/")
	if name == "" {
		s.notFound(w, r)
		return
	}
	rec, err := s.recording(r.Context(), name)
	if err != nil {
		s.failRecord(w, r, err)
		return
	}
	if mname == "" {
		l := &listing{}
		for _, pin := range rec.Pins {
			l.names = append(l.names, pin.Mirror+"/")
		}
		s.answer(w, r, "/record/"+name+"/"+rest, answer{listing: l}, nil)
		return
	}
	full := "/record/" + name + "/" + mname
	if slash {
		full += "/" + p
	}
	s.recorded(w, r, rec, mname, p, full)
}

func (s *Server) recording(ctx context.Context, name string) (*meta.Recording, error) {
	var rec *meta.Recording
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		rec, err = tx.Recording(name)
		return err
	})
	if err == nil && !rec.Stopped.IsZero() {
		return rec, fmt.Errorf("recording %s: %w at %s", name, errStopped, rec.Stopped.Format(time.RFC3339))
	}
	return rec, err
}

func (s *Server) failRecord(w *response, r *http.Request, err error) {
	if errors.Is(err, errStopped) {
		// Nothing may be fetched unnoticed.
		s.text(w, http.StatusForbidden, err.Error()+"\n")
		return
	}
	s.fail(w, r, err, false)
}

// recorded answers a path of a mirror through a recording, and notes packages.
func (s *Server) recorded(w *response, r *http.Request, rec *meta.Recording, mname, p, full string) {
	ctx := r.Context()
	var snap *meta.Snapshot
	i := slices.IndexFunc(rec.Pins, func(pin meta.RecordingPin) bool { return pin.Mirror == mname })
	if i < 0 {
		s.fail(w, r, fmt.Errorf("mirror %s in recording %s: %w", mname, rec.Name, meta.ErrNotFound), false)
		return
	}
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		snap, err = tx.Snapshot(mname, rec.Pins[i].Timestamp)
		return err
	})
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	if rec.Resigned && p != "" {
		data, modified, ok, err := s.cfg.Freezer.Resigned(ctx, snap, p)
		if err != nil {
			s.fail(w, r, err, false)
			return
		}
		if ok {
			e := newBytes(data, textPlain, modified)
			e.ctype = contentType(p)
			s.serve(w, r, e, nil)
			return
		}
	}
	a, err := s.inSnapshot(ctx, snap, p, false)
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	if a.listing != nil {
		a.listing.immutable = false
	}
	var note func(context.Context, cas.Info) error
	if a.entity != nil && a.entity.found.Delta {
		// The client takes the package in its place, which the recording is about.
		s.fail(w, r, fmt.Errorf("%s in recording %s: %w", p, rec.Name, meta.ErrNotFound), false)
		return
	}
	if a.entity != nil {
		a.entity.control = cacheNone
		if a.entity.found.Package != nil {
			if err := s.e.CheckSpace(); err != nil {
				s.fail(w, r, err, false)
				return
			}
			note = func(ctx context.Context, info cas.Info) error {
				now := s.now().UTC().Truncate(time.Second)
				return s.noter.note(ctx, rec.Name, meta.RecordEntry{
					Mirror: mname, Path: p, SHA256: info.Digest, Size: info.Size, First: now, Last: now, Count: 1,
				})
			}
		}
	}
	s.answer(w, r, full, a, note)
}

// proxy answers the absolute form, GET http://upstream/path, for configured
// upstreams. The user of Proxy-Authorization names a recording or a frozen
// snapshot; the password, if any, is not looked at. Clients without a name are
// asked for one.
func (s *Server) proxy(w *response, r *http.Request) {
	refuse := func(format string, args ...any) {
		w.Header()["Cache-Control"] = cacheNone
		s.text(w, http.StatusForbidden, "proxy: "+fmt.Sprintf(format, args...)+"\n")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse("%s is not offered, only GET and HEAD of the configured mirrors by http", clipText(r.Method))
		return
	}
	if r.URL.Scheme != "http" {
		refuse("%s is not offered, only http", clipText(r.URL.Scheme))
		return
	}
	p, ok := cleanPath(r.URL.Path)
	if !ok {
		s.notFound(w, r)
		return
	}
	candidates := s.upstreams(r.URL.Host, p)
	if len(candidates) == 0 {
		refuse("http://%s%s belongs to no configured mirror", clipText(r.URL.Host), clipText(p))
		return
	}
	name, ok := proxyUser(r)
	if !ok {
		// Many clients name nobody before they are asked to.
		w.Header().Set("Proxy-Authenticate", `Basic realm="name of a recording or frozen snapshot", charset="UTF-8"`)
		w.Header()["Cache-Control"] = cacheNone
		s.text(w, http.StatusProxyAuthRequired, "proxy: no name: write it into the proxy's URL, http://NAME:x@"+s.cfg.Conf.Server.Listen+" (some clients send no name without a password; any will do)\n")
		return
	}
	var fr *meta.Frozen
	err := s.view(r.Context(), func(tx *bolt.Tx) (err error) {
		fr, err = tx.Frozen(name)
		return err
	})
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		s.fail(w, r, err, false)
		return
	}
	if err == nil {
		for _, c := range candidates {
			if i := fr.MirrorIndex(c.mirror); i >= 0 {
				s.replay(w, r, fr, i, c.path)
				return
			}
		}
		refuse("frozen snapshot %s holds nothing of mirror %s", name, candidates[0].mirror)
		return
	}
	rec, err := s.recording(r.Context(), name)
	if errors.Is(err, meta.ErrNotFound) {
		refuse("there is no recording or frozen snapshot %q", clipText(name))
		return
	} else if err != nil {
		s.failRecord(w, r, err)
		return
	}
	for _, c := range candidates {
		if slices.ContainsFunc(rec.Pins, func(pin meta.RecordingPin) bool { return pin.Mirror == c.mirror }) {
			s.recorded(w, r, rec, c.mirror, c.path, p)
			return
		}
	}
	refuse("recording %s shows no mirror %s", name, candidates[0].mirror)
}

// replay answers from upstream's own indices and signatures that a frozen
// snapshot rests on, and hands out only its own packages.
func (s *Server) replay(w *response, r *http.Request, fr *meta.Frozen, i int, p string) {
	ctx := r.Context()
	snap := fr.View(i)
	if snap == nil {
		s.text(w, http.StatusForbidden, "proxy: frozen snapshot "+fr.Name+" was imported: it has no upstream indices to replay\n")
		return
	}
	f, err := s.e.Lookup(ctx, snap, p, false)
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	m := &fr.Mirrors[i]
	if f.Delta {
		s.fail(w, r, fmt.Errorf("%s in frozen snapshot %s: %w", p, fr.Name, meta.ErrNotFound), false)
		return
	}
	if f.Package != nil && !m.Whole {
		var node meta.Node
		err := s.view(ctx, func(tx *bolt.Tx) (err error) {
			node, err = tx.Node(fr.Name, m.Mirror+"/"+p)
			return err
		})
		if err == nil && node.Digest != f.Digest {
			err = fmt.Errorf("%s in frozen snapshot %s: %w", p, fr.Name, meta.ErrNotFound)
		}
		if err != nil {
			s.fail(w, r, err, false)
			return
		}
	}
	e := newEntity(f, p, false)
	e.frozen = f.Package != nil
	s.serve(w, r, e, nil)
}

// upstream is a mirror that a proxied URL may belong to.
type upstream struct {
	mirror, path string
}

// upstreams finds the mirrors whose base URL a host and path lie below, the
// longest base first. http and https count as the same upstream.
func (s *Server) upstreams(host, p string) []upstream {
	type hit struct {
		upstream
		base int
	}
	var hits []hit
	for _, m := range s.e.Mirrors() {
		for _, b := range m.BaseURLs() {
			if b.Host() == "" || !sameHost(b, host) {
				continue
			}
			base := strings.TrimRight(b.Path(), "/")
			if rest, ok := strings.CutPrefix(p, base+"/"); ok && rest != "" {
				hits = append(hits, hit{upstream{m.Name, rest}, len(base)})
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return b.base - a.base })
	out := make([]upstream, len(hits))
	for i, h := range hits {
		out[i] = h.upstream
	}
	return out
}

// sameHost compares the host of a configured URL with that of a request, whose
// scheme is http; default ports are left out.
func sameHost(u remote.URL, host string) bool {
	strip := func(h, port string) string {
		if name, p, err := net.SplitHostPort(h); err == nil && p == port {
			return name
		}
		return h
	}
	port := "80"
	if u.Scheme() == "https" {
		port = "443"
	}
	return strings.EqualFold(strip(u.Host(), port), strip(host, "80"))
}

// proxyUser is the user of a Basic Proxy-Authorization (RFC 7617).
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

// clipText shortens and quotes text of a request for an answer.
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
