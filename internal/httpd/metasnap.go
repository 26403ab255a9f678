package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
)

// metasnapPath is where metasnap.debian.net answers.
const metasnapPath = "/cgi-bin/api"

// maxQuestion bounds the body of a POST request, in bytes.
const maxQuestion = 8 << 20

// metasnap answers the interface of metasnap.debian.net. For one package (GET) or many
// (POST) it lists the suites that had the package, and from when to when.
func (s *Server) metasnap(w *response, r *http.Request) {
	var text string
	var err error
	status := http.StatusOK
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		text, err = s.metasnapGet(r)
	case http.MethodPost:
		text, status, err = s.metasnapPost(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		s.text(w, http.StatusMethodNotAllowed, "use GET, HEAD or POST\n")
		return
	}
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	w.Header()["Cache-Control"] = cacheNone
	s.text(w, status, text)
}

// metasnapGet answers ?timestamps=ARCHIVE, and ?archive=A&pkg=NAME&arch=ARCH with
// lines "version suite component first last".
func (s *Server) metasnapGet(r *http.Request) (string, error) {
	q := r.URL.Query()
	if archive := q.Get("timestamps"); archive != "" {
		list, err := s.history.Timestamps(r.Context(), s.catalog.MirrorOf(archive), time.Time{}, time.Time{})
		return strings.Join(append(list, ""), "\n"), err
	}
	archive, pkg, arch := q.Get("archive"), q.Get("pkg"), q.Get("arch")
	if archive == "" || pkg == "" || arch == "" {
		return "", fmt.Errorf("%w: expected timestamps=ARCHIVE, or archive, pkg and arch", errclass.Usage)
	}
	found, err := s.history.Where(r.Context(), s.catalog.MirrorOf(archive), []history.Wanted{{Name: pkg, Arch: arch}})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range found[0] {
		fmt.Fprintln(&b, p.Version, p.Suite, p.Component, meta.FormatTimestamp(p.First), meta.FormatTimestamp(p.Last))
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("package %q for %q in %q: %w", pkg, arch, archive, meta.ErrNotFound)
	}
	return b.String(), nil
}

// metasnapPost answers the fields archive, arch and pkgs, which is a list of
// NAME:ARCH=VERSION, with lines "name arch version suite component first last". If
// packages are unknown, the answer is 404 with a list of them.
func (s *Server) metasnapPost(w *response, r *http.Request) (text string, status int, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxQuestion)
	if err := r.ParseForm(); err != nil {
		return "", 0, fmt.Errorf("%w: form: %w", errclass.Usage, err)
	}
	if err := r.ParseMultipartForm(maxQuestion); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return "", 0, fmt.Errorf("%w: form: %w", errclass.Usage, err)
	}
	field := map[string]string{}
	for _, name := range []string{"archive", "arch", "pkgs"} {
		if field[name], err = formField(r, name); err != nil {
			return "", 0, err
		}
	}
	var wanted []history.Wanted
	for el := range strings.SplitSeq(field["pkgs"], ",") {
		if el = strings.TrimSpace(el); el == "" {
			continue
		}
		p, err := parseWanted(el, field["arch"])
		if err != nil {
			return "", 0, err
		}
		wanted = append(wanted, p)
	}
	return s.metasnapLines(r.Context(), s.catalog.MirrorOf(field["archive"]), wanted)
}

// metasnapLines answers a list of packages of a mirror.
func (s *Server) metasnapLines(ctx context.Context, mirror meta.MirrorName, wanted []history.Wanted) (text string, status int, err error) {
	found, err := s.history.Where(ctx, mirror, wanted)
	if err != nil {
		return "", 0, err
	}
	var lines, unknown strings.Builder
	for i, p := range wanted {
		if len(found[i]) == 0 {
			fmt.Fprintln(&unknown, p.Name, p.Arch, p.Version)
		}
		for _, at := range found[i] {
			fmt.Fprintln(&lines, p.Name, p.Arch, p.Version, at.Suite, at.Component, meta.FormatTimestamp(at.First), meta.FormatTimestamp(at.Last))
		}
	}
	if unknown.Len() > 0 {
		if err := s.meta.Damage(); err != nil {
			return "", 0, err // damage may be why a package was not found
		}
		return unknown.String(), http.StatusNotFound, nil
	}
	return lines.String(), http.StatusOK, nil
}

// parseWanted parses NAME:ARCH=VERSION or NAME=VERSION.
func parseWanted(el, arch string) (history.Wanted, error) {
	name, version, ok := strings.Cut(el, "=")
	if n, a, qualified := strings.Cut(name, ":"); qualified {
		name, arch = n, a
	}
	if !ok || name == "" || version == "" || arch == "" {
		return history.Wanted{}, fmt.Errorf("%w: pkgs: %q: expected NAME:ARCH=VERSION", errclass.Usage, clipText(el))
	}
	return history.Wanted{Name: name, Arch: arch, Version: version}, nil
}

// formField reads a field of a form. Some clients send fields as files.
func formField(r *http.Request, name string) (string, error) {
	if r.MultipartForm == nil || len(r.MultipartForm.File[name]) == 0 {
		return r.PostForm.Get(name), nil
	}
	f, err := r.MultipartForm.File[name][0].Open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}
