package fastfile_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/httpd/fastfile"
	"example.org/snapd/internal/httpd/fastfile/fastfiletest"
)

const target = "/archive/file%20name"

var (
	body     = bytes.Repeat([]byte("body"), 2500)
	modified = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
)

// server serves one file, which is answered fast, by two ways: net/http and fast.
type server struct {
	*httptest.Server
	seen atomic.Int64  // requests that net/http saw
	idle chan struct{} // net/http waits for another request
}

// ServeHTTP implements http.Handler with net/http's own way to serve a file.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.seen.Add(1)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "read-only", http.StatusMethodNotAllowed)
		return
	}
	if r.RequestURI != target {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Etag", `"tag"`)
	http.ServeContent(w, r, "", modified, bytes.NewReader(body))
}

// AnswerFast implements fastfile.Handler.
func (s *server) AnswerFast(c *fastfile.Conn, uri []byte) (bool, error) {
	if string(uri) != target {
		return false, nil
	}
	_, err := c.Send(time.Now(), fastfile.Head(
		fastfile.Field{Name: "Accept-Ranges", Values: []string{"bytes"}}, fastfile.Field{Name: "Content-Length", Values: []string{fmt.Sprint(len(body))}},
		fastfile.Field{Name: "Content-Type", Values: []string{"text/plain"}}, fastfile.Field{Name: "Etag", Values: []string{`"tag"`}},
		fastfile.Field{Name: "Last-Modified", Values: []string{modified.Format(http.TimeFormat)}},
	), body)
	return true, err
}

// listener makes the connections of a server.
type listener struct {
	net.Listener
	s *server
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fastfile.NewConn(c.(*net.TCPConn), l.s, func() {}), nil
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{idle: make(chan struct{}, 1000)}
	s.Server = httptest.NewUnstartedServer(s)
	s.Listener = listener{s.Listener, s}
	s.Config.ConnContext, s.Config.DisableGeneralOptionsHandler = fastfile.ConnContext, true
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		fastfile.ConnState(c, state)
		if state == http.StateIdle {
			s.idle <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *server) line(t *testing.T) *fastfiletest.Line {
	t.Helper()
	return fastfiletest.Dial(t, s.Listener.Addr().String())
}

const (
	host = " HTTP/1.1\r\nHost: snapd.example.org\r\n"
	get  = "GET " + target + host + "User-Agent: Debian APT-HTTP/1.3 (2.6.1)\r\n\r\n"
)

// Requests that are answered before net/http sees them get what net/http answers.
func TestSameAnswers(t *testing.T) {
	s := start(t)
	l := s.line(t)
	l.Send(get)
	want := l.Answer("GET") // net/http's: the first of a connection
	if s.seen.Load() != 1 || !strings.HasSuffix(want, "bodybody") {
		t.Fatalf("net/http's answer: %q", want)
	}
	<-s.idle // what comes earlier is net/http's, too, and so is all that follows
	for range 3 {
		l.Send(get)
		if got := l.Answer("GET"); got != want {
			t.Errorf("answers differ (-net/http +fast):\n%s", cmp.Diff(want, got))
		}
	}
	// Three at once, then the end of one that came in two parts.
	l.Send(get + get + get + get[:40])
	for range 3 {
		if got := l.Answer("GET"); got != want {
			t.Errorf("one of several differs:\n%s", cmp.Diff(want, got))
		}
	}
	if n := s.seen.Load(); n != 1 {
		t.Errorf("net/http saw %d requests, expected 1", n)
	}
	l.Send(get[40:])
	if got := l.Answer("GET"); got != want || s.seen.Load() != 2 {
		t.Errorf("in two parts, %d seen:\n%s", s.seen.Load(), cmp.Diff(want, got))
	}
}

// net/http sees every request that is not one of the plainest: each of these,
// between two plain ones, is answered as on a connection of its own.
func TestOtherRequests(t *testing.T) {
	s := start(t)
	plain := s.line(t)
	plain.Send(get)
	want := plain.Answer("GET")
	for _, other := range []string{
		"HEAD " + target + host + "\r\n",
		"GET " + target + host + "Range: bytes=2-5\r\n\r\n",
		"GET " + target + host + "If-Modified-Since: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n\r\n",
		"GET " + target + host + "If-None-Match: *\r\n\r\n",
		"GET " + target + host + "If-Match: \"other\"\r\n\r\n",
		"GET " + target + host + "Content-Length: 3\r\n\r\nabc",
		"GET " + target + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"GET " + target + host + "Connection: close\r\n\r\n",
		"GET " + target + host + "Host: other\r\n\r\n",
		"GET " + target + host + "X-Bad\x01: 1\r\n\r\n",
		"GET " + target + " HTTP/1.1\r\n\r\n",
		"GET " + target + " HTTP/1.0\r\n\r\n",
		"GET " + target + " HTTP/1.1\nHost: snapd.example.org\n\n",
		"GET " + target + "?x" + host + "\r\n",
		"GET /absent" + host + "\r\n",
		"GET http://elsewhere.example.org" + target + host + "\r\n",
		"POST " + target + host + "Content-Length: 0\r\n\r\n",
		"DELETE " + target + host + "\r\n",
		"CONNECT snapd.example.org:80" + host + "\r\n",
		"GEGET " + target + host + "\r\n",
		"nonsense\r\n\r\n",
	} {
		method, _, _ := strings.Cut(other, " ")
		alone := s.line(t)
		alone.Send(other)
		expected := alone.Answer(method)
		l := s.line(t)
		for range 2 {
			l.Send(get)
			l.Answer("GET")
		}
		before := s.seen.Load()
		l.Send(other)
		if got := l.Answer(method); got != expected {
			t.Errorf("%q: answers differ:\n%s", other, cmp.Diff(expected, got))
		}
		if strings.Contains(expected, "\r\nConnection: close") {
			if _, err := l.ReadByte(); err != io.EOF {
				t.Errorf("%q: the connection stays open: %v", other, err)
			}
			continue
		}
		if s.seen.Load() == before {
			t.Errorf("%q: net/http did not see it", other)
		}
		l.Send(get)
		if got := l.Answer("GET"); got != want {
			t.Errorf("after %q: answers differ:\n%s", other, cmp.Diff(want, got))
		}
	}
}

// A part of a request beside a whole one stays with net/http.
func TestPartOfRequest(t *testing.T) {
	l := start(t).line(t)
	l.Send(get + "GE")
	l.Answer("GET")
	time.Sleep(20 * time.Millisecond)
	l.Send(get)
	if got := l.Answer("GET"); !strings.Contains(got, "405") {
		t.Errorf("GEGET in two parts: %q", got)
	}
}

// SendFile sends a part of a body, of which net/http counts every byte.
func TestSendFile(t *testing.T) {
	for _, part := range []int64{1, 5000, int64(len(body))} {
		s := start(t)
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			rc := http.NewResponseController(w)
			if err := rc.Flush(); err != nil {
				t.Error(err)
			}
			src := bytes.NewReader(body)
			if err := fastfile.FromContext(r.Context()).SendFile(w.(io.ReaderFrom), src, part); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(w, src); err != nil {
				t.Error(err)
			}
			if _, err := w.Write([]byte("more")); err != http.ErrContentLength {
				t.Errorf("more than was announced: %v, expected ErrContentLength", err)
			}
		})
		l := s.line(t)
		l.Send(get)
		if got := l.Answer("GET"); !strings.HasSuffix(got, "\r\n\r\n"+string(body)) {
			t.Errorf("%d bytes by SendFile: %d bytes in all", part, len(got))
		}
	}
}
