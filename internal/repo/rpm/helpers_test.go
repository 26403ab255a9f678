package rpm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
)

var (
	t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	t1 = t0.Add(24 * time.Hour)
)

// upstream is a repo.Getter for a test repository, and the open function of Read.
type upstream struct {
	r        *rpmtest.Repo
	metalink []byte
	asked    []string
	missing  string // a path that does not exist
}

func (u *upstream) Get(_ context.Context, path string, max int64, prev *repo.Doc) (repo.Doc, error) {
	u.asked = append(u.asked, path)
	data := u.r.File(path)
	switch {
	case data == nil || path == u.missing:
		return repo.Doc{}, fmt.Errorf("%s: %w", path, fetch.ErrNotFound)
	case int64(len(data)) > max:
		return repo.Doc{}, fetch.ErrTooLarge
	case prev != nil && bytes.Equal(prev.Data, data):
		return repo.Doc{}, repo.ErrNotModified
	}
	return repo.Doc{Path: path, Data: data, URL: u.BaseURL().Join(path).String()}, nil
}

func (u *upstream) GetURL(_ context.Context, url remote.URL, _ int64) (repo.Doc, error) {
	u.asked = append(u.asked, url.String())
	if u.metalink == nil {
		return repo.Doc{}, fetch.ErrNotFound
	}
	return repo.Doc{Path: "metalink", Data: u.metalink, URL: url.String()}, nil
}

func (u *upstream) BaseURL() remote.URL { return remote.NewURL("https://mirror.example.org/fedora") }

func (u *upstream) open(_ context.Context, l repo.Listed) (io.ReadCloser, error) {
	data := u.r.File(l.Path)
	if data == nil {
		return nil, fmt.Errorf("%s: %w", l.Path, repo.ErrMissing)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func boolp(b bool) *bool { return &b }

// fetchRoot calls FetchRoot as the first sync of a mirror does.
func fetchRoot(t testing.TB, u *upstream, m config.Mirror, kr *sign.Keyring) (*repo.Root, error) {
	t.Helper()
	return Format{}.FetchRoot(t.Context(), u, m, Suite, nil, repo.VerifyParams{Keyring: kr, Now: t1})
}

// readAll calls Plan and Read, and returns all records.
func readAll(t testing.TB, u *upstream, m config.Mirror, root *repo.Root) ([]repo.Record, []repo.Group, error) {
	t.Helper()
	groups, err := Format{}.Plan(m, root)
	if err != nil {
		return nil, nil, err
	}
	var recs []repo.Record
	err = Format{}.Read(t.Context(), root, groups[0], groups[0].Variants[0], u.open, func(r *repo.Record) error {
		c := *r
		c.Bytes, c.Files = bytes.Clone(r.Bytes), slices.Clone(r.Files)
		recs = append(recs, c)
		return nil
	})
	return recs, groups, err
}

// memSink stores a derived repository in memory and serves it together with
// upstream's packages.
type memSink struct {
	files map[string][]byte
	u     *upstream
}

func (s *memSink) Put(_ context.Context, p string, data []byte) (repo.File, error) {
	if s.files[p] != nil {
		return repo.File{}, fmt.Errorf("%s written twice", p)
	}
	s.files[p] = bytes.Clone(data)
	return repo.File{Path: p, Size: int64(len(data)), SHA256: cas.Sum(data)}, nil
}

func (s *memSink) Create(_ context.Context, p string) (repo.SinkWriter, error) {
	return &memFile{s: s, path: p}, nil
}

func (s *memSink) Link(_ context.Context, p string, f repo.File) error {
	data := s.u.r.File(f.Path)
	if cas.Sum(data) != f.SHA256 {
		return fmt.Errorf("%s is not %s", f.Path, f.SHA256)
	}
	s.files[p] = data
	return nil
}

type memFile struct {
	bytes.Buffer
	s    *memSink
	path string
}

func (f *memFile) Commit() (repo.File, error) {
	return f.s.Put(context.Background(), f.path, f.Bytes())
}
func (f *memFile) Abort() {}

// derive freezes the records for which keep returns true, or the whole repository if
// keep is nil.
func derive(t testing.TB, u *upstream, m config.Mirror, root *repo.Root, signer *sign.Signer, date time.Time, keep func(repo.Record) bool) (*memSink, error) {
	t.Helper()
	recs, groups, err := readAll(t, u, m, root)
	if err != nil {
		t.Fatal(err)
	}
	sink := &memSink{files: map[string][]byte{}, u: u}
	c := repo.Choice{Suite: Suite, Root: root, Groups: groups, Whole: keep == nil, Open: u.open,
		Held: func(l repo.Listed) (repo.File, bool) {
			data := u.r.File(l.Path)
			return repo.File{Path: l.Path, Size: int64(len(data)), SHA256: cas.Sum(data)}, data != nil
		},
		Records: func(_ context.Context, index string, emit func(repo.Record) error) error {
			if index != "primary" {
				return fmt.Errorf("records of %q", index)
			}
			for _, r := range recs {
				if keep(r) {
					if err := emit(r); err != nil {
						return err
					}
				}
			}
			return nil
		}}
	err = Format{}.Derive(t.Context(), repo.DeriveParams{Mirror: m, Date: date, Choices: []repo.Choice{c}, Signer: signer}, sink)
	if err == nil {
		for _, r := range recs {
			if keep == nil || keep(r) {
				sink.files[r.Files[0].Path] = u.r.File(r.Files[0].Path)
			}
		}
	}
	return sink, err
}

func (s *memSink) serve(t testing.TB) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := s.files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// plain returns the decompressed content of a derived data type.
func (s *memSink) plain(t testing.TB, typ string) string {
	t.Helper()
	md, err := rpmmd.ParseRepoMD(s.files[repomdPath])
	if err != nil {
		t.Fatal(err)
	}
	d := md.Find(typ)
	if d == nil {
		return ""
	}
	r, err := rpmmd.Decode(d.Path, bytes.NewReader(s.files[d.Path]))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func recordsOf(recs []repo.Record) func(context.Context, string, func(repo.Record) error) error {
	return func(_ context.Context, _ string, emit func(repo.Record) error) error {
		for _, r := range recs {
			if err := emit(r); err != nil {
				return err
			}
		}
		return nil
	}
}
