package fetch

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
)

var old = time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)

// pattern is content whose every part is distinct.
func pattern(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%09d\n", i)
	}
	return b.Bytes()[:n]
}

func want(b []byte) Digests { return Digests{SHA256: cas.Sum(b)} }

// upstream is a test server that notes what it was asked.
type upstream struct {
	*httptest.Server
	mu  sync.Mutex
	log []string // "path range if-range"
}

func serve(t testing.TB, h http.HandlerFunc) *upstream {
	t.Helper()
	u := new(upstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.log = append(u.log, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")+" "+r.Header.Get("If-Range")))
		u.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) asked() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.log...)
}

// client is one that does not wait long.
func client(t testing.TB, cfg Config) *Client {
	t.Helper()
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = time.Millisecond
	}
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

// cut sends the head of an answer that announces all of content, and breaks the
// connection.
func cut(w http.ResponseWriter, content []byte, n int, etag string) {
	w.Header().Set("ETag", etag)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.Write(content[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestGet(t *testing.T) {
	content := pattern(300_000)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if enc := r.Header.Get("Accept-Encoding"); enc != "" {
			t.Errorf("Accept-Encoding %q", enc)
		}
		if ua := r.Header.Get("User-Agent"); ua != "snapd" {
			t.Errorf("User-Agent %q", ua)
		}
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "x.deb", old, bytes.NewReader(content))
	})
	c := client(t, Config{})
	s1, s512 := sha1.Sum(content), sha512.Sum512(content)
	var seen int64
	req := Request{
		URLs: remote.NewURLs(u.URL + "/x.deb"), Size: int64(len(content)),
		Want:    Digests{SHA256: cas.Sum(content), SHA512: strings.ToUpper(hex.EncodeToString(s512[:])), SHA1: hex.EncodeToString(s1[:])},
		OnBytes: func(n int64) { seen += n },
	}
	got, res, err := c.GetBytes(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Error("other bytes")
	}
	wantRes := Result{URL: u.URL + "/x.deb", Size: int64(len(content)), SHA256: cas.Sum(content), ETag: `"v1"`, LastModified: old, ContentType: "application/vnd.debian.binary-package"}
	wantRes.ContentType = res.ContentType // the machine's own table
	if diff := cmp.Diff(wantRes, res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if seen != int64(len(content)) {
		t.Errorf("OnBytes saw %d", seen)
	}
	req.ETag, req.IfModifiedSince = `"v1"`, old
	if _, res, err := c.GetBytes(t.Context(), req); err != nil || !res.NotModified {
		t.Errorf("conditional: %+v, %v", res, err)
	}
	if diff := cmp.Diff(Stats{Requests: 2, Files: 1, Bytes: int64(len(content))}, c.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

// TestWrongAnswers lists what an upstream may answer and what comes of it, in
// whole messages. BASE stands for the server's URL.
func TestWrongAnswers(t *testing.T) {
	content := pattern(1000)
	other := append([]byte("x"), content[1:]...)
	full := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write(b) }
	}
	for _, tt := range []struct {
		name     string
		h        http.HandlerFunc
		req      Request // Size -1, MaxSize 2000 when zero
		sentinel error
		msg      string
		requests int
	}{
		{"wrong digest", full(other), Request{Size: 1000, Want: want(content)}, ErrMismatch,
			"get BASE/f: mismatch: SHA256 of BASE/f: expected " + cas.Sum(content).String() + ", found " + cas.Sum(other).String(), 1},
		{"wrong weak digest", full(content), Request{Size: 1000, Want: Digests{MD5: "00112233445566778899aabbccddeeff"}}, ErrMismatch,
			"get BASE/f: mismatch: MD5 of BASE/f: expected 00112233445566778899aabbccddeeff, found " + md5hex(content), 1},
		{"announced too short", full(content[:999]), Request{Size: 1000, Want: want(content)}, ErrMismatch,
			"get BASE/f: mismatch: size of BASE/f: expected 1000, found 999", 1},
		{"announced too long", full(content), Request{Size: 999, Want: want(content)}, ErrMismatch,
			"get BASE/f: mismatch: size of BASE/f: expected 999, found 1000", 1},
		{"chunked and too short", func(w http.ResponseWriter, r *http.Request) {
			w.Write(content[:500])
			w.(http.Flusher).Flush()
		}, Request{Size: 1000, Want: want(content)}, ErrMismatch,
			"get BASE/f: mismatch: size of BASE/f: expected 1000, found 500", 1},
		{"endless, size known", endless, Request{Size: 1000, Want: want(content)}, ErrMismatch,
			"get BASE/f: mismatch: size of BASE/f: expected 1000, found more", 1},
		{"endless, size unknown", endless, Request{}, ErrTooLarge,
			"get BASE/f: too large: more than 2000 bytes", 1},
		{"announced too large", full(make([]byte, 2001)), Request{}, ErrTooLarge,
			"get BASE/f: too large: 2001 bytes, at most 2000 allowed", 1},
		{"a page with status 200", full([]byte("\n<!DOCTYPE HTML><title>Log in</title>")), Request{}, ErrNotRepository,
			`get BASE/f: not a repository: expected a repository file, found an HTML page (Content-Type "text/html; charset=utf-8"); is the URL right?`, 1},
		{"a page in place of a package", full([]byte("<html>")), Request{Size: 1000, Want: want(content)}, ErrNotRepository,
			`get BASE/f: not a repository: expected a repository file, found an HTML page (Content-Type "text/html; charset=utf-8"); is the URL right?`, 1},
		{"encoded", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(content)
		}, Request{}, ErrRefused, `get BASE/f: refused: Content-Encoding "gzip", expected none`, 1},
		{"not found", http.NotFound, Request{}, ErrNotFound, "get BASE/f: not found upstream: 404 Not Found", 1},
		{"gone", answer(410, nil), Request{}, ErrNotFound, "get BASE/f: not found upstream: 410 Gone", 1},
		{"forbidden", answer(403, nil), Request{}, ErrDenied, "get BASE/f: denied by upstream: 403 Forbidden", 1},
		{"broken", answer(500, nil), Request{}, ErrUnavailable, "get BASE/f: upstream unavailable: 500 Internal Server Error", 3},
		{"too many", answer(429, nil), Request{}, ErrUnavailable, "get BASE/f: upstream unavailable: 429 Too Many Requests", 3},
		{"too many for an hour", answer(429, http.Header{"Retry-After": {"3600"}}), Request{}, ErrUnavailable,
			"get BASE/f: upstream unavailable: 429 Too Many Requests, to be tried again after 10m0s", 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/f", http.StatusFound) }, Request{}, ErrRefused,
			"get BASE/f: refused: more than 10 redirects, the last to BASE/f", 11},
		{"redirect to a file", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(301)
		}, Request{}, ErrRefused,
			"get BASE/f: refused: a redirect to file:///etc/passwd", 1},
		{"redirect to nowhere", answer(301, nil), Request{}, ErrRefused, "get BASE/f: refused: 301 Moved Permanently without a usable Location", 1},
		{"partial content not asked for", answer(206, http.Header{"Content-Range": {"bytes 0-9/10"}}), Request{}, ErrRefused,
			"get BASE/f: refused: unexpected answer 206 Partial Content", 1},
		{"not modified not asked for", answer(304, nil), Request{}, ErrRefused, "get BASE/f: refused: unexpected answer 304 Not Modified", 1},
		{"huge headers", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, Request{}, ErrUnavailable,
			`get BASE/f: upstream unavailable: the headers of the answer have more than 65536 bytes`, 3},
		{"listed larger than allowed", nil, Request{Size: 3000, MaxSize: 2000}, ErrTooLarge,
			"fetch BASE/f: too large: 3000 bytes listed, at most 2000 allowed", 0},
		{"a bad digest", nil, Request{Size: 10, Want: Digests{SHA512: "abc"}}, ErrRefused,
			`fetch BASE/f: refused: "abc" is not a SHA512 digest`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := serve(t, tt.h)
			c := client(t, Config{Retries: 2})
			tt.req.URLs = remote.NewURLs(u.URL + "/f")
			if tt.req.Size == 0 {
				tt.req.Size, tt.req.MaxSize = -1, 2000
			}
			_, _, err := c.GetBytes(t.Context(), tt.req)
			if !errors.Is(err, tt.sentinel) {
				t.Errorf("error %v, want one that is %v", err, tt.sentinel)
			}
			if diff := cmp.Diff(tt.msg, strings.ReplaceAll(fmt.Sprint(err), u.URL, "BASE")); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			if n := len(u.asked()); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			// Open judges alike: either at once or by the end of the body.
			if tt.h == nil {
				return
			}
			s, err := client(t, Config{Retries: -1}).Open(t.Context(), tt.req)
			if err == nil {
				_, err = io.Copy(io.Discard, s)
				s.Close()
			}
			if !errors.Is(err, tt.sentinel) {
				t.Errorf("stream: error %v, want one that is %v", err, tt.sentinel)
			}
		})
	}
}

func md5hex(b []byte) string {
	var s sums
	s.init(Digests{MD5: strings.Repeat("0", 32)})
	s.Write(b)
	return hex.EncodeToString(s.also[0].Sum(nil))
}

func answer(code int, h http.Header) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for k, v := range h {
			w.Header()[k] = v
		}
		w.WriteHeader(code)
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for {
		if _, err := w.Write(make([]byte, 32<<10)); err != nil {
			return
		}
	}
}

// TestFailOver: URLs are tried in order, and the error tells about each.
func TestFailOver(t *testing.T) {
	content := pattern(5000)
	bad := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(append(content[:4999:4999], 'x')) })
	gone := serve(t, http.NotFound)
	good := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "f", old, bytes.NewReader(content))
	})
	dead := httptest.NewServer(nil)
	dead.Close()
	c := client(t, Config{Retries: 1})
	req := Request{URLs: remote.NewURLs(dead.URL+"/f", gone.URL+"/f", bad.URL+"/f", good.URL+"/f"), Size: 5000, Want: want(content)}
	got, res, err := c.GetBytes(t.Context(), req)
	if err != nil || !bytes.Equal(got, content) || res.URL != good.URL+"/f" {
		t.Fatalf("%+v, %v", res, err)
	}
	req.URLs = req.URLs[:3]
	_, _, err = c.GetBytes(t.Context(), req)
	var m *MismatchError
	if !errors.Is(err, ErrMismatch) || !errors.As(err, &m) || m.URL != bad.URL+"/f" {
		t.Errorf("error %v", err)
	}
	for _, part := range []string{dead.URL, gone.URL, bad.URL} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not name %s: %v", part, err)
		}
	}
	if n := len(bad.asked()); n != 2 {
		t.Errorf("wrong bytes were asked for %d times in two fetches", n)
	}
	req.URLs = req.URLs[:2]
	if _, _, err = c.GetBytes(t.Context(), req); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
		t.Errorf("one unreachable, one 404: %v", err)
	}
	req.URLs = req.URLs[1:]
	if _, _, err = c.GetBytes(t.Context(), req); !errors.Is(err, ErrNotFound) {
		t.Errorf("404: %v", err)
	}
	s, err := c.Open(t.Context(), Request{URLs: remote.NewURLs(dead.URL, bad.URL+"/404", good.URL+"/f")[:1], Size: 5000})
	if s != nil || !errors.Is(err, ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	if s, err = c.Open(t.Context(), Request{URLs: remote.NewURLs(dead.URL, gone.URL, good.URL+"/f"), Size: 5000, Want: want(content)}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, content) || s.SHA256 != cas.Sum(content) || s.Length != 5000 {
		t.Errorf("stream: %v, %+v", err, s.Result)
	}
}

// TestResume: a body that was cut goes on where it stopped, if that is safe.
func TestResume(t *testing.T) {
	content := pattern(200_000)
	// handler cuts the first answer after half; later ones are up to next.
	handler := func(etag string, next http.HandlerFunc) http.HandlerFunc {
		var n atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				cut(w, content, 100_000, etag)
			}
			next(w, r)
		}
	}
	file := func(etag string, b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", etag)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		}
	}
	newer := append([]byte("another generation"), content[18:]...)
	for _, tt := range []struct {
		name  string
		h     http.HandlerFunc
		want  Digests
		bytes []byte
		err   error
		asked []string
	}{
		{"strong tag", handler(`"a"`, file(`"a"`, content)), Digests{}, content, nil, []string{"/f", `/f bytes=100000- "a"`}},
		{"weak tag, no digest", handler(`W/"a"`, file(`W/"a"`, content)), Digests{}, content, nil, []string{"/f", "/f"}},
		{"weak tag, digest", handler(`W/"a"`, file(`W/"a"`, content)), want(content), content, nil, []string{"/f", "/f bytes=100000-"}},
		{"no ranges", handler(`"a"`, func(w http.ResponseWriter, r *http.Request) { w.Write(content) }), want(content), content, nil,
			[]string{"/f", `/f bytes=100000- "a"`}},
		{"changed, told by If-Range", handler(`"a"`, file(`"b"`, newer)), Digests{}, newer, nil, []string{"/f", `/f bytes=100000- "a"`}},
		{"changed, If-Range ignored", handler(`"a"`, func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("If-Range")
			file(`"b"`, newer)(w, r)
		}), Digests{}, newer, nil, []string{"/f", `/f bytes=100000- "a"`, "/f"}},
		{"changed, tag lies, digest tells", handler(`"a"`, func(w http.ResponseWriter, r *http.Request) {
			file(`"a"`, newer)(w, r)
		}), want(newer), newer, nil, []string{"/f", `/f bytes=100000- "a"`, "/f"}},
		{"pieces and whole wrong", handler(`"a"`, file(`"a"`, content)), want(newer), nil, ErrMismatch, []string{"/f", `/f bytes=100000- "a"`, "/f"}},
		{"another range", handler(`"a"`, func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=5-")
			file(`"a"`, content)(w, r)
		}), want(content), nil, ErrRefused, []string{"/f", `/f bytes=100000- "a"`}},
		{"range not satisfiable", handler(`"a"`, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(416)
				return
			}
			w.Write(content)
		}), want(content), content, nil, []string{"/f", `/f bytes=100000- "a"`, "/f"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := serve(t, tt.h)
			var seen int64
			got, res, err := client(t, Config{}).GetBytes(t.Context(), Request{
				URLs: remote.NewURLs(u.URL + "/f"), Size: int64(len(content)), Want: tt.want, OnBytes: func(n int64) { seen += n },
			})
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.asked, u.asked()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if tt.err != nil {
				return
			}
			if !bytes.Equal(got, tt.bytes) || res.SHA256 != cas.Sum(tt.bytes) {
				t.Errorf("other bytes, %+v", res)
			}
			if seen != int64(len(got)) {
				t.Errorf("OnBytes adds up to %d", seen)
			}
		})
	}
}

// partFile is a Sink in a file that is left from an earlier run.
type partFile struct {
	*os.File
	n int64
}

func (p *partFile) Write(b []byte) (int, error) {
	n, err := p.File.WriteAt(b, p.n)
	p.n += int64(n)
	return n, err
}
func (p *partFile) Offset() int64 { return p.n }
func (p *partFile) Reset() error  { p.n = 0; return p.Truncate(0) }

// TestResumeLater: a part from an earlier process, and one from another URL.
func TestResumeLater(t *testing.T) {
	content := pattern(100_000)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	for _, tt := range []struct {
		name  string
		part  []byte
		asked []string
	}{
		{"good part", content[:60_000], []string{"/f bytes=60000-"}},
		{"bad part", append([]byte("x"), content[1:60_000]...), []string{"/f bytes=60000-", "/f"}},
		{"all of it", content, nil},
		{"too much", append(content[:len(content):len(content)], "xx"...), []string{"/f"}},
		{"all of it, bad", append([]byte("x"), content[1:]...), []string{"/f"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u.mu.Lock()
			u.log = nil
			u.mu.Unlock()
			f, err := os.Create(filepath.Join(t.TempDir(), "part"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := &partFile{File: f}
			p.Write(tt.part)
			res, err := client(t, Config{}).Get(t.Context(), Request{URLs: remote.NewURLs(u.URL + "/f"), Size: int64(len(content)), Want: want(content), Dest: p})
			if err != nil {
				t.Fatal(err)
			}
			got, _ := os.ReadFile(f.Name())
			if !bytes.Equal(got, content) || res.SHA256 != cas.Sum(content) || res.Size != int64(len(content)) {
				t.Errorf("%d bytes, %+v", len(got), res)
			}
			if diff := cmp.Diff(tt.asked, u.asked()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("another URL", func(t *testing.T) {
		first := serve(t, func(w http.ResponseWriter, r *http.Request) { cut(w, content, 70_000, `"q"`) })
		got, res, err := client(t, Config{}).GetBytes(t.Context(), Request{URLs: remote.NewURLs(first.URL+"/f", u.URL+"/f"), Size: int64(len(content)), Want: want(content)})
		if err != nil || !bytes.Equal(got, content) || res.URL != u.URL+"/f" {
			t.Errorf("%+v, %v", res, err)
		}
		if a := u.asked(); a[len(a)-1] != "/f bytes=70000-" {
			t.Errorf("asked %q", a)
		}
	})
}

// errSink fails like a full disk.
type errSink struct{ Buffer }

func (*errSink) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestSinkError(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(pattern(1000)) })
	_, err := client(t, Config{}).Get(t.Context(), Request{URLs: remote.NewURLs(u.URL+"/f", u.URL+"/g"), Size: 1000, Dest: new(errSink)})
	if !errors.Is(err, syscall.ENOSPC) || len(u.asked()) != 1 {
		t.Errorf("%v after %q", err, u.asked())
	}
}

func TestNoDowngrade(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/f", http.StatusFound))
	defer secure.Close()
	c := client(t, Config{Transport: secure.Client().Transport})
	_, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(secure.URL + "/f"), Size: -1, MaxSize: 100})
	if msg := fmt.Sprintf("get %s/f: refused: a redirect from https to %s/f", secure.URL, plain.URL); err == nil || err.Error() != msg || !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want %s", err, msg)
	}
	if n := len(plain.asked()); n != 0 {
		t.Errorf("%d plain requests", n)
	}
	// An unknown authority is no passing trouble.
	_, _, err = client(t, Config{}).GetBytes(t.Context(), Request{URLs: remote.NewURLs(secure.URL + "/f"), Size: -1, MaxSize: 100})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("got %v", err)
	}
}

// TestCredentials: those in a URL are sent to its host and shown nowhere.
func TestCredentials(t *testing.T) {
	content := pattern(10)
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went to another host")
		}
		http.NotFound(w, r)
	})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "me" || pass != "secret" {
			t.Errorf("user %q, password %q at %s", user, pass, r.URL)
		}
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/f", http.StatusTemporaryRedirect)
		case "/away":
			http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/f", http.StatusFound)
		default:
			w.Write(content)
		}
	})
	base := strings.Replace(u.URL, "http://", "http://me:secret@", 1)
	c := client(t, Config{})
	_, res, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(base + "/moved"), Size: 10})
	if err != nil || res.URL != u.URL+"/f" {
		t.Errorf("%+v, %v", res, err)
	}
	_, _, err = c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(base+"/away", base+"/%zz", base+"\x7f"), Size: 10})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	content := pattern(5000)
	for name, data := range map[string][]byte{"tree/pool/a b.deb": content, "outside": []byte("secret"), "tree2/f": content} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(p, old, old)
	}
	os.Symlink(filepath.Join(dir, "outside"), filepath.Join(tree, "link"))
	os.Symlink("pool/a b.deb", filepath.Join(tree, "inner"))
	if err := syscall.Mkfifo(filepath.Join(tree, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "s") // a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(short, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, err := range []error{
		os.Rename(filepath.Join(short, "s"), filepath.Join(tree, "socket")),
		os.WriteFile(filepath.Join(tree, "giant"), content, 0o644),
		os.Truncate(filepath.Join(tree, "giant"), 200<<30),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := client(t, Config{})
	get := func(u string) ([]byte, Result, error) {
		return c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(u), Tree: "file://" + tree, Size: 5000, Want: want(content)})
	}
	for _, u := range []string{"file://" + tree + "/pool/a%20b.deb", tree + "/pool/a b.deb", "file://" + tree + "/inner"} {
		got, res, err := get(u)
		if err != nil || !bytes.Equal(got, content) || !res.LastModified.Equal(old) {
			t.Errorf("%s: %+v, %v", u, res, err)
		}
	}
	for u, sentinel := range map[string]error{
		"file://" + tree + "/../outside":       ErrRefused,
		"file://" + tree + "/pool/%2e%2e/link": ErrRefused,
		"file://" + tree + "/link":             ErrDenied,
		"file://" + tree + "/fifo":             ErrRefused,
		"file://" + tree + "/socket":           ErrRefused,
		"file://" + tree + "/giant":            ErrMismatch,
		"file://" + tree + "/pool":             ErrRefused,
		"file://" + tree + "/none":             ErrNotFound,
		"file://" + dir + "/outside":           ErrRefused,
		"file://" + dir + "/tree2/f":           ErrRefused,
		"file://elsewhere" + tree + "/inner":   ErrRefused,
		"ftp://mirror.example.org/f":           ErrRefused,
		"relative":                             ErrRefused,
	} {
		if _, _, err := get(u); !errors.Is(err, sentinel) {
			t.Errorf("%s: error %v, want %v", u, err, sentinel)
		}
	}
	if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(tree + "/inner"), Size: 5000}); !errors.Is(err, ErrRefused) {
		t.Errorf("without a tree: %v", err)
	}
	_, res, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(tree + "/inner"), Tree: tree, Size: 5000, IfModifiedSince: old})
	if err != nil || !res.NotModified {
		t.Errorf("conditional: %+v, %v", res, err)
	}
	var b Buffer
	b.Write(content[:100])
	if _, err := c.Get(t.Context(), Request{URLs: remote.NewURLs(tree + "/inner"), Tree: tree, Size: 5000, Want: want(content), Dest: &b}); err != nil || !bytes.Equal(b.Bytes(), content) {
		t.Errorf("over a part: %v", err)
	}
}

// roundTripper is a transport made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slowBody yields its parts with pauses, and ends with the request's context.
type slowBody struct {
	ctx   context.Context
	parts [][]byte
	pause time.Duration
	end   error // instead of io.EOF; nil: stall
}

func (s *slowBody) Read(p []byte) (int, error) {
	t := time.NewTimer(s.pause)
	defer t.Stop()
	if len(s.parts) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	}
	select {
	case <-t.C:
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}
func (s *slowBody) Close() error { return nil }

func reply(r *http.Request, code int, h http.Header, length int64, body io.ReadCloser) *http.Response {
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: code, Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), Header: h, Body: body, ContentLength: length, Request: r}
}

func each(b []byte, n int) (parts [][]byte) {
	for len(b) > 0 {
		parts = append(parts, b[:min(n, len(b))])
		b = b[min(n, len(b)):]
	}
	return parts
}

// TestTime runs what depends on time in a bubble where it passes at once.
func TestTime(t *testing.T) {
	content := pattern(100_000)
	get := func(t *testing.T, cfg Config, size int64, rt roundTripper) (time.Duration, error) {
		cfg.Transport = rt
		start := time.Now()
		_, _, err := New(cfg).GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: size, Want: want(content)})
		return time.Since(start), err
	}
	check := func(t *testing.T, took, atLeast, atMost time.Duration, err error, msg string) {
		t.Helper()
		if fmt.Sprint(err) != msg {
			t.Errorf("error %v, want %s", err, msg)
		}
		if took < atLeast || took > atMost {
			t.Errorf("took %v, expected %v to %v", took, atLeast, atMost)
		}
	}
	for _, tt := range []struct {
		name            string
		cfg             Config
		rt              func(n int, r *http.Request) (*http.Response, error)
		atLeast, atMost time.Duration
		msg             string
	}{
		{"no answer", Config{Retries: -1}, func(n int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 30 * time.Second, 30 * time.Second, "get http://mirror.example.org/f: upstream unavailable: no answer within 30s"},
		{"stall in the body", Config{Retries: -1, StallTimeout: 10 * time.Second, MinRate: -1}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content[:1000], 100), pause: 9 * time.Second}), nil
		}, 100 * time.Second, 100 * time.Second, "get http://mirror.example.org/f: upstream unavailable: no byte within 10s"},
		{"a byte at a time", Config{Retries: -1}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 1), pause: time.Second}), nil
		}, time.Minute, time.Minute, "get http://mirror.example.org/f: upstream unavailable: 60 bytes in 1m0s, expected at least 1024 a second"},
		{"slow but fast enough", Config{Retries: -1, MinRate: 90}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 100), pause: time.Second, end: io.EOF}), nil
		}, 1000 * time.Second, 1001 * time.Second, "<nil>"},
		{"stalls once, then goes on", Config{}, func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: [][]byte{content[:50_000]}}), nil
			}
			if got := r.Header.Get("Range"); got != "bytes=50000-" {
				return nil, fmt.Errorf("range %q", got)
			}
			h := http.Header{"Content-Range": {"bytes 50000-99999/100000"}}
			return reply(r, 206, h, 50_000, io.NopCloser(bytes.NewReader(content[50_000:]))), nil
		}, 30 * time.Second, 31 * time.Second, "<nil>"},
		{"back-off", Config{Retries: 6, MaxBackoff: 4 * time.Second}, func(n int, r *http.Request) (*http.Response, error) {
			return nil, syscall.ECONNREFUSED
		}, time.Millisecond, (500 + 1000 + 2000 + 4000 + 4000 + 4000) * time.Millisecond,
			"get http://mirror.example.org/f: upstream unavailable: connection refused"},
		{"Retry-After in seconds", Config{}, func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				return reply(r, 503, http.Header{"Retry-After": {"100"}}, 0, http.NoBody), nil
			}
			return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
		}, 100 * time.Second, 101 * time.Second, "<nil>"},
		{"Retry-After as a date", Config{}, func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				return reply(r, 429, http.Header{"Retry-After": {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}}, 0, http.NoBody), nil
			}
			return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
		}, 59 * time.Second, 61 * time.Second, "<nil>"},
		{"rate limit", Config{RateLimit: 10_000}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 1000), end: io.EOF}), nil
		}, 9 * time.Second, 10 * time.Second, "<nil>"}, // less the first burst
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := -1
				took, err := get(t, tt.cfg, 100_000, func(r *http.Request) (*http.Response, error) { n++; return tt.rt(n, r) })
				check(t, took, tt.atLeast, tt.atMost, err, tt.msg)
			})
		})
	}
	t.Run("rate limit over several files", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := New(Config{RateLimit: 100_000, StallTimeout: time.Second, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
			})})
			start := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000, Want: want(content)}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			// 2 MB at 100 kB a second, less the first burst.
			if took := time.Since(start); took < 18*time.Second || took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("a host that wants a pause gets one from all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int32
			c := New(Config{Parallel: 2, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if n.Add(1) == 1 {
					return reply(r, 429, http.Header{"Retry-After": {"60"}}, 0, http.NoBody), nil
				}
				return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
			})})
			start := time.Now()
			for range 3 {
				if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000}); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(start); took < time.Minute || took > 61*time.Second || n.Load() != 4 {
				t.Errorf("took %v, %d requests", took, n.Load())
			}
		})
	})
	t.Run("cancel", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Second, cancel)
			c := New(Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 10000), pause: time.Second}), nil
			})})
			var b Buffer
			start := time.Now()
			_, err := c.Get(ctx, Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000, Dest: &b})
			if !errors.Is(err, context.Canceled) || time.Since(start) != 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			held := b.Offset()
			synctest.Wait()
			if b.Offset() != held {
				t.Error("the sink was written to after Get returned")
			}
		})
	})
}

// TestStream: a body that the caller reads.
func TestStream(t *testing.T) {
	content := pattern(100_000)
	t.Run("cut", func(t *testing.T) {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) { cut(w, content, 60_000, `"a"`) })
		s, err := client(t, Config{}).Open(t.Context(), Request{URLs: remote.NewURLs(u.URL), Size: 100_000, Want: want(content)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, err := io.ReadAll(s); !errors.Is(err, ErrUnavailable) || len(got) != 60_000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("once more: %v", err)
		}
	})
	t.Run("not modified", func(t *testing.T) {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", old, bytes.NewReader(content))
		})
		s, err := client(t, Config{}).Open(t.Context(), Request{URLs: remote.NewURLs(u.URL), Size: 100_000, IfModifiedSince: old})
		if err != nil || !s.NotModified {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); err != nil || len(got) != 0 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		s.Close()
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("after close: %v", err)
		}
	})
	t.Run("slow reader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := New(Config{Parallel: 1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
			})})
			s, err := c.Open(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000, Want: want(content)})
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			buf := make([]byte, 1000)
			for err == nil {
				var n int
				n, err = s.Read(buf)
				got = append(got, buf[:n]...)
				time.Sleep(10 * time.Minute)
			}
			if err != io.EOF || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			// Its connection is taken until it is closed.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req := Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000}
			if _, _, err := c.GetBytes(ctx, req); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("second request: %v", err)
			}
			s.Close()
			if _, _, err := c.GetBytes(t.Context(), req); err != nil {
				t.Errorf("after close: %v", err)
			}
		})
	})
}

// TestOpenEnded: an HTTP/1.0 body has no other end than the connection's, so one
// that is short was cut.
func TestOpenEnded(t *testing.T) {
	content := pattern(10_000)
	var n atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			end := 10_000
			if n.Add(1) == 1 {
				end = 4000
			}
			fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\n\r\n%s", content[:end])
			conn.Close()
		}
	}()
	got, _, err := client(t, Config{}).GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://" + l.Addr().String()), Size: 10_000, Want: want(content)})
	if err != nil || !bytes.Equal(got, content) || n.Load() != 2 {
		t.Errorf("%v, %d requests", err, n.Load())
	}
}

// TestParallel: no more connections to a host than configured.
func TestParallel(t *testing.T) {
	content := pattern(50)
	var now, most atomic.Int32
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		w.Write(content)
	})
	c := client(t, Config{Parallel: 3})
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			path := "/f"
			if i%3 == 0 {
				path = "/g"
			}
			if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(u.URL + path), Size: 50, Want: want(content)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m > 3 {
		t.Errorf("%d requests at one time", m)
	}
	if s := c.Stats(); s.Files != 300 || s.Bytes != 300*50 {
		t.Errorf("stats %+v", s)
	}
}

// TestNotFoundKeepsConnections: probing for by-hash names must not cost a
// handshake each.
func TestNotFoundKeepsConnections(t *testing.T) {
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := client(t, Config{})
	for range 20 {
		if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(srv.URL + "/f"), Size: 50}); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// An answer that calls itself a part although the whole was asked for is taken if it
// is the whole.
func TestUnaskedRange(t *testing.T) {
	content := pattern(1000)
	for _, c := range []struct {
		name, contentRange string
		body               []byte
		pinned             bool
		is                 error
	}{
		{"the whole", "bytes 0-999/1000", content, false, nil},
		{"the whole, with a digest", "bytes 0-999/1000", content, true, nil},
		{"the whole of unknown size, with a digest", "bytes 0-999/*", content, true, nil},
		{"the whole of unknown size", "bytes 0-999/*", content, false, ErrRefused},
		{"without a range, with a digest", "", content, true, nil},
		{"without a range", "", content, false, ErrRefused},
		{"the beginning", "bytes 0-499/1000", content[:500], true, ErrRefused},
		{"the end", "bytes 500-999/1000", content[500:], true, ErrRefused},
		{"the beginning as the whole", "bytes 0-499/500", content[:500], true, ErrMismatch},
		{"other bytes", "bytes 0-999/1000", bytes.ToUpper(bytes.Repeat([]byte("x"), 1000)), true, ErrMismatch},
		{"nonsense", "all of it", content, true, ErrRefused},
	} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if c.contentRange != "" {
				w.Header().Set("Content-Range", c.contentRange)
			}
			w.WriteHeader(http.StatusPartialContent)
			w.Write(c.body)
		})
		req := Request{URLs: remote.NewURLs(u.URL + "/f"), Size: -1, MaxSize: 1 << 20}
		if c.pinned {
			req.Size, req.Want = int64(len(content)), want(content)
		}
		got, _, err := client(t, Config{Retries: -1}).GetBytes(t.Context(), req)
		if !errors.Is(err, c.is) || err == nil && !bytes.Equal(got, content) {
			t.Errorf("%s: %v, %d bytes, expected %v", c.name, err, len(got), c.is)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "items 0-1/2", "bytes -1-2/3", "bytes 1-99999999999999999999/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, _, total, ok := contentRange(s)
		if ok && (first < 0 || total != -1 && first >= total) {
			t.Errorf("%q: %d of %d", s, first, total)
		}
	})
}
