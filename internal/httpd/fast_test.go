package httpd_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

var dateRE = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// line is a connection on which requests follow each other.
type line struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (s *site) line(t *testing.T) *line {
	t.Helper()
	c, err := net.Dial("tcp", s.conf.Server.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &line{t, c, bufio.NewReader(c)}
}

func (l *line) send(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		l.t.Fatal(err)
	}
}

// answer reads one answer, whole, without its date.
func (l *line) answer(method string) string {
	l.t.Helper()
	resp, err := http.ReadResponse(l.r, &http.Request{Method: method})
	if err != nil {
		l.t.Fatalf("answer: %v", err)
	}
	defer resp.Body.Close()
	text, err := httputil.DumpResponse(resp, true)
	if err != nil {
		l.t.Fatalf("answer: %v", err)
	}
	return dateRE.ReplaceAllString(string(text), "")
}

// Requests that are answered before net/http sees them get what net/http
// answers, from memory and from disk, until the blob is known to be corrupt.
func TestFastAnswers(t *testing.T) {
	for name, cache := range map[string]config.Size{"memory": 1 << 20, "disk": 0} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil, func(c *config.Config) { c.Server.CacheSize = cache })
			var seen atomic.Int64 // requests that net/http saw
			handler := s.public.Config.Handler
			s.public.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen.Add(1); handler.ServeHTTP(w, r) })
			s.Archive.Add(debtest.Package{Name: "a", Body: bytes.Repeat([]byte("body"), 2500)})
			s.publish()
			at := s.sync()
			path := "/archive/debian/" + at + "/" + s.Archive.Default().PathOf("a")
			get := "GET " + path + " HTTP/1.1\r\nHost: snapd.example.org\r\nUser-Agent: Debian APT-HTTP/1.3 (2.6.1)\r\n\r\n"
			s.get(path)
			first := s.line(t)
			first.send(get)
			want := first.answer("GET") // net/http's: the first of a connection
			if !strings.Contains(want, "Etag: ") || !strings.HasSuffix(want, "bodybody") {
				t.Fatalf("net/http's answer: %q", want)
			}
			before := seen.Load()
			for range 3 {
				first.send(get)
				if got := first.answer("GET"); got != want {
					t.Errorf("answers differ (-net/http +fast):\n%s", cmp.Diff(want, got))
				}
			}
			if n := seen.Load() - before; n != 0 {
				t.Errorf("net/http saw %d requests, expected none", n)
			}

			// Nothing remembered is served of a corrupt blob.
			l := s.line(t)
			l.send(get)
			l.answer("GET")
			l.send(get)
			l.answer("GET")
			body, err := os.ReadFile(s.blobFile(bytes.Repeat([]byte("body"), 2500)))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.MarkCorrupt(t.Context(), cas.Sum(body), "test", "for the test"); err != nil {
				t.Fatal(err)
			}
			l.send(get)
			if got := l.answer("GET"); !strings.HasPrefix(got, "HTTP/1.1 500") {
				t.Errorf("a corrupt blob: %.60q", got)
			}
		})
	}
}

// What latest means changes under a connection that stays.
func TestFastLatest(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	get := "GET /archive/debian/latest/dists/stable/InRelease HTTP/1.1\r\nHost: x\r\n\r\n"
	l := s.line(t)
	for i := range 5 {
		for range 3 {
			l.send(get)
			if got := l.answer("GET"); !strings.HasSuffix(got, string(s.Archive.Get("dists/stable/InRelease"))) {
				t.Fatalf("after %d syncs: an old InRelease", i)
			}
		}
		s.Archive.Add(pkg(fmt.Sprint("new", i), "1"))
		s.publish()
		s.sync()
	}
}

// A server that stops does not wait for a client that takes nothing.
func TestFastShutdown(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(debtest.Package{Name: "big", Body: bytes.Repeat([]byte("0123456789abcdef"), 12<<10)}) // 192 KiB: from memory
	s.publish()
	path := "/archive/debian/" + s.sync() + "/" + s.Archive.Default().PathOf("big")
	s.get(path)
	get := "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"
	for range 3 {
		l := s.line(t)
		l.send(get)
		l.answer("GET")
		if err := l.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		l.send(strings.Repeat(get, 20)) // and nothing of it is read
	}
	idle := s.line(t)
	idle.send(get)
	idle.answer("GET")
	idle.send(get)
	idle.answer("GET")
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	if err := s.public.Config.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("shutdown took %v", took)
	}
	if _, err := idle.r.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection: %v", err)
	}
}
