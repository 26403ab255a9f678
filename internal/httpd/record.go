package httpd

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
)

// record serves /record/<name>/<mirror>/<path>.
func (s *Server) record(w *response, r *http.Request, p string) {
	name, rest, _ := strings.Cut(p, "/")
	if name == "" {
		s.notFound(w, r)
		return
	}
	rec, err := s.catalog.RunningRecording(r.Context(), name)
	if err != nil {
		s.failRecord(w, r, err)
		return
	}
	mirror, rest, slash := strings.Cut(rest, "/")
	if mirror == "" {
		l := &listing{}
		for _, pin := range rec.Pins {
			l.names = append(l.names, string(pin.Mirror)+"/")
		}
		s.answer(w, r, "/record/"+name+"/", answer{listing: l}, nil)
		return
	}
	full := "/record/" + name + "/" + mirror
	if slash {
		full += "/" + rest
	}
	s.recorded(w, r, rec, catalog.Upstream{Mirror: meta.MirrorName(mirror), Path: rest}, full)
}

func (s *Server) failRecord(w *response, r *http.Request, err error) {
	if errors.Is(err, catalog.ErrStopped) {
		// The recording has stopped: a fetch that cannot be noted is refused.
		s.text(w, http.StatusForbidden, err.Error()+"\n")
		return
	}
	s.fail(w, r, err, false)
}

// recorded serves a path of a mirror through a recording, and notes packages.
// full is the path that the client requested.
func (s *Server) recorded(w *response, r *http.Request, rec *meta.Recording, at catalog.Upstream, full string) {
	a, note, err := s.recordedAnswer(r.Context(), rec, at)
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	s.answer(w, r, full, a, note)
}

func (s *Server) recordedAnswer(ctx context.Context, rec *meta.Recording, at catalog.Upstream) (answer, noteFunc, error) {
	snap, err := s.catalog.RecordedSnapshot(ctx, rec, at.Mirror)
	if err != nil {
		return answer{}, nil, err
	}
	if rec.Resigned && at.Path != "" {
		data, modified, ok, err := s.cfg.Freezer.Resigned(ctx, snap, at.Path)
		if err != nil {
			return answer{}, nil, err
		}
		if ok {
			e := newBytes(data, textPlain, modified)
			e.ctype = contentType(at.Path)
			return answer{entity: e}, nil, nil
		}
	}
	a, err := s.translate("record")(s.catalog.RecordedEntry(ctx, rec, snap, at.Path))
	if err != nil || a.entity == nil || a.entity.found.Package == nil {
		return a, nil, err
	}
	if err := s.acquirer.CheckSpace(ctx); err != nil {
		return answer{}, nil, err
	}
	return a, func(ctx context.Context, info cas.Info) error {
		now := s.now().UTC().Truncate(time.Second)
		return s.noter.note(ctx, meta.Fetch{Recording: rec.Name, Entry: meta.RecordEntry{
			Mirror: at.Mirror, Path: at.Path, SHA256: info.Digest, Size: info.Size, First: now, Last: now, Count: 1,
		}})
	}, nil
}
