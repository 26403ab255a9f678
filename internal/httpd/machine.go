package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

const jsonType = "application/json"

// actsAs returns the URL of the requested host if this server acts as that host,
// otherwise "".
func (s *Server) actsAs(r *http.Request) string {
	hosts := s.cfg.Conf.Server.ActAs
	if len(hosts) == 0 || r.Method == http.MethodConnect {
		return ""
	}
	host := r.Host // in the absolute form, the host of the URL
	if r.URL.Scheme != "" && r.URL.Scheme != "http" {
		return ""
	}
	host = strings.ToLower(strings.TrimSuffix(host, ":80"))
	if !slices.Contains(hosts, host) {
		return ""
	}
	return "http://" + host
}

// machine answers the machine interface of snapshot.debian.org, and what fepitre's
// server adds to it: tree is "mr" or "by-timestamp", p the path below it.
func (s *Server) machine(w *response, r *http.Request, tree, p string) {
	if tree == "by-timestamp" {
		s.timestampList(w, r, p)
		return
	}
	el := strings.Split(strings.TrimSuffix(p, "/"), "/")
	if len(el) == 3 && el[0] == "file" && el[2] == "download" {
		a, err := s.translate("file")(s.catalog.DigestEntry(r.Context(), el[1]))
		if err != nil {
			s.failMachine(w, r, err)
			return
		}
		s.answer(w, r, "/file/"+el[1], a, nil)
		return
	}
	v, err := s.machineAnswer(r.Context(), el, r.URL.Query())
	if err != nil {
		s.failMachine(w, r, err)
		return
	}
	s.json(w, r, v)
}

// machineAnswer answers a path below /mr.
func (s *Server) machineAnswer(ctx context.Context, el []string, q url.Values) (any, error) {
	info := q.Get("fileinfo") == "1"
	kind, n := el[0], len(el)
	last := el[n-1]
	switch {
	case kind == "package" && n == 1:
		return s.history.SourceNames(ctx)
	case kind == "package" && n == 2:
		return s.history.Versions(ctx, el[1])
	case kind == "package" && n == 4 && last == "srcfiles":
		return s.history.SourceFiles(ctx, el[1], el[2], info)
	case kind == "package" && n == 4 && last == "binpackages":
		return s.history.BinaryPackages(ctx, el[1], el[2])
	case kind == "package" && n == 4 && last == "allfiles":
		return s.history.AllFiles(ctx, el[1], el[2], info)
	case kind == "package" && n == 6 && el[3] == "binfiles":
		return s.history.BinaryFiles(ctx, repo.Ref{Name: el[1], Version: el[2]}, el[4], el[5], info)
	case kind == "binary" && n == 2:
		return s.history.BinaryVersions(ctx, el[1])
	case kind == "binary" && n == 4 && last == "binfiles":
		return s.history.BinaryFiles(ctx, repo.Ref{}, el[1], el[2], info)
	case kind == "file" && n == 3 && last == "info":
		return s.history.File(ctx, el[1])
	case kind == "timestamp" && n <= 3:
		return s.timestamps(ctx, el[1:], q)
	}
	return nil, fmt.Errorf("/mr/%s: %w", strings.Join(el, "/"), meta.ErrNotFound)
}

// answerOf is an answer about timestamps.
type answerOf[T any] struct {
	Comment string `json:"_comment"`
	Result  T      `json:"result"`
}

// timestamps answers /mr/timestamp/[ARCHIVE[/TIMESTAMP]]; the timestamp may be
// "latest".
func (s *Server) timestamps(ctx context.Context, el []string, q url.Values) (any, error) {
	var bounds [2]time.Time
	for i, name := range []string{"after", "before"} {
		if v := q.Get(name); v != "" {
			var err error
			if bounds[i], err = catalog.ParseTimestamp(v); err != nil {
				return nil, err
			}
		}
	}
	switch len(el) {
	case 1:
		list, err := s.history.Timestamps(ctx, s.catalog.MirrorOf(el[0]), bounds[0], bounds[1])
		return answerOf[[]string]{history.Comment, list}, err
	case 2:
		snap, err := s.catalog.ResolveSnapshot(ctx, string(s.catalog.MirrorOf(el[0]))+"@"+el[1])
		if err != nil {
			return nil, err
		}
		return answerOf[string]{history.Comment, meta.FormatTimestamp(snap.Timestamp)}, nil
	}
	mirrors, err := s.meta.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	if archive := q.Get("archive"); archive != "" {
		mirrors = []meta.MirrorName{s.catalog.MirrorOf(archive)}
	}
	out := answerOf[map[string][]string]{history.Comment, map[string][]string{}}
	for _, m := range mirrors {
		if out.Result[s.catalog.ArchiveOf(m)], err = s.history.Timestamps(ctx, m, bounds[0], bounds[1]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// timestampList answers /by-timestamp/ARCHIVE.txt: a timestamp per line.
func (s *Server) timestampList(w *response, r *http.Request, p string) {
	archive, ok := strings.CutSuffix(p, ".txt")
	if !ok {
		s.notFound(w, r)
		return
	}
	list, err := s.history.Timestamps(r.Context(), s.catalog.MirrorOf(archive), time.Time{}, time.Time{})
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	s.serve(w, r, newBytes([]byte(strings.Join(append(list, ""), "\n")), textPlain, time.Time{}), nil)
}

// json sends an answer.
func (s *Server) json(w *response, r *http.Request, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		s.fail(w, r, err, false)
		return
	}
	s.serve(w, r, newBytes(b.Bytes(), jsonType, time.Time{}), nil)
}

// failMachine sends an error. "Not found" is answered in JSON, as clients expect.
func (s *Server) failMachine(w *response, r *http.Request, err error) {
	if status, _ := statusOf(err); status != http.StatusNotFound || r.Context().Err() != nil || s.meta.Damage() != nil {
		s.fail(w, r, err, false)
		return
	}
	text, _ := json.Marshal(struct {
		Comment string `json:"_comment"`
		Error   string `json:"error"`
	}{history.Comment, err.Error()})
	h := w.Header()
	h["Cache-Control"] = cacheNone
	h.Set("Content-Type", jsonType)
	h["X-Content-Type-Options"] = noSniff
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write(append(text, '\n'))
}
