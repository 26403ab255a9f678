package fetch

import (
	"bytes"
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
// whole messages. BASE stands for the server's URL. Long because of its table of
// cases.
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
			"get BASE/f: upstream unavailable: 429 Too Many Requests, retry after 10m0s", 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/f", http.StatusFound) }, Request{}, ErrRefused,
			"get BASE/f: refused: more than 10 redirects, the last to BASE/f", 11},
		{"redirect to a file", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(301)
		}, Request{}, ErrRefused,
			"get BASE/f: refused: a redirect to file:///etc/passwd", 1},
		{"redirect to nowhere", answer(301, nil), Request{}, ErrRefused, "get BASE/f: refused: 301 Moved Permanently without a usable Location", 1},
		{"partial content not asked for", answer(206, http.Header{"Content-Range": {"bytes 0-9/10"}}), Request{}, ErrRefused,
			"get BASE/f: refused: unexpected response 206 Partial Content", 1},
		{"not modified not asked for", answer(304, nil), Request{}, ErrRefused, "get BASE/f: refused: unexpected response 304 Not Modified", 1},
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
	// An unknown certificate authority is not a transient error.
	_, _, err = client(t, Config{}).GetBytes(t.Context(), Request{URLs: remote.NewURLs(secure.URL + "/f"), Size: -1, MaxSize: 100})
	if !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
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
