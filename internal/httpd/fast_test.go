package httpd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/httpd/fastfile/fastfiletest"
	"example.org/snapd/internal/repo/deb/debtest"
)

func (s *site) line(t *testing.T) *fastfiletest.Line {
	t.Helper()
	return fastfiletest.Dial(t, s.conf.Server.Listen)
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
			// net/http answers the first request of a connection, and those that come before it
			// has given the connection back: then there is another connection.
			var n int64
			for range 5 {
				first := s.line(t)
				first.Send(get)
				want := first.Answer("GET")
				if !strings.Contains(want, "Etag: ") || !strings.HasSuffix(want, "bodybody") {
					t.Fatalf("net/http's answer: %q", want)
				}
				before := seen.Load()
				for range 3 {
					first.Send(get)
					if got := first.Answer("GET"); got != want {
						t.Errorf("answers differ (-net/http +fast):\n%s", cmp.Diff(want, got))
					}
				}
				if n = seen.Load() - before; n == 0 {
					break
				}
			}
			if n != 0 {
				t.Errorf("net/http saw %d requests of each connection, expected none", n)
			}

			// Nothing remembered is served of a corrupt blob.
			l := s.line(t)
			l.Send(get)
			l.Answer("GET")
			l.Send(get)
			l.Answer("GET")
			body, err := os.ReadFile(s.blobFile(bytes.Repeat([]byte("body"), 2500)))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.MarkCorrupt(t.Context(), cas.Sum(body), "test", "for the test"); err != nil {
				t.Fatal(err)
			}
			l.Send(get)
			if got := l.Answer("GET"); !strings.HasPrefix(got, "HTTP/1.1 500") {
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
			l.Send(get)
			if got := l.Answer("GET"); !strings.HasSuffix(got, string(s.Archive.Get("dists/stable/InRelease"))) {
				t.Fatalf("after %d syncs: an old InRelease", i)
			}
		}
		s.Archive.Add(pkg(fmt.Sprint("new", i), "1"))
		s.publish()
		s.sync()
	}
}

// A server that stops does not wait for a client that takes nothing. A request that
// comes before net/http has given its connection back is answered by net/http, which
// does wait: then the clients are made again.
func TestFastShutdown(t *testing.T) {
	for range 5 {
		if err := shutDown(t); err == nil {
			return
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("shutdown: %v", err)
		}
	}
	t.Error("the server waited for clients that take nothing")
}

// shutDown ends a server with three clients that take nothing and an idle one.
func shutDown(t *testing.T) error {
	t.Helper()
	s := newSite(t, nil)
	s.Archive.Add(debtest.Package{Name: "big", Body: bytes.Repeat([]byte("0123456789abcdef"), 12<<10)}) // 192 KiB: from memory
	s.publish()
	path := "/archive/debian/" + s.sync() + "/" + s.Archive.Default().PathOf("big")
	s.get(path)
	get := "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"
	for range 3 {
		l := s.line(t)
		l.Send(get)
		l.Answer("GET")
		if err := l.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		l.Send(strings.Repeat(get, 20)) // and nothing of it is read
	}
	idle := s.line(t)
	idle.Send(get)
	idle.Answer("GET")
	idle.Send(get)
	idle.Answer("GET")
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.public.Config.Shutdown(ctx); err != nil {
		return errors.Join(err, s.public.Config.Close())
	}
	if _, err := idle.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection: %v", err)
	}
	return nil
}
