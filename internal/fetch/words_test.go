package fetch

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"example.org/snapd/internal/fetch/remote"
)

// raw answers each request with the same bytes, whatever they are, and closes.
func raw(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestNothingIsQuoted: errors hold no body, and nothing that net/http would
// quote of an answer that it cannot read; what they hold is short and printable.
func TestNothingIsQuoted(t *testing.T) {
	const s, head = "s3cret\x1b[31m\u202e", "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct{ name, answer string }{
		{"another protocol", "SSH-2.0-" + s + "\r\n"},
		{"no line", s},
		{"status code", "HTTP/1.1 " + s + " OK\r\n\r\n"},
		{"version", "HTTP/" + s + " 200 OK\r\n\r\n"},
		{"header", head + s + "\r\n\r\n"},
		{"header name", head + s + " x: y\r\n\r\n"},
		{"length", head + "Content-Length: " + s + "\r\n\r\n"},
		{"lengths", head + "Content-Length: 1\r\nContent-Length: 2" + s + "\r\n\r\n"},
		{"transfer encoding", head + "Transfer-Encoding: " + s + "\r\n\r\n"},
		{"trailer key", head + "Transfer-Encoding: chunked\r\nTrailer: Content-Length, " + s + "\r\n\r\n0\r\n\r\n"},
		{"chunk", head + "Transfer-Encoding: chunked\r\n\r\n" + s + "\r\n"},
		{"trailer", head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + s + "\r\n\r\n"},
		{"reason of 404", "HTTP/1.1 404 " + s + "\r\nContent-Length: 0\r\n\r\n"},
		{"reason of a redirect", "HTTP/1.1 302 " + s + "\r\nContent-Length: 0\r\n\r\n"},
		{"reason of 599", "HTTP/1.1 599 " + s + "\r\nContent-Length: 0\r\n\r\n"},
		{"reason of 299", "HTTP/1.1 299 " + s + "\r\nContent-Length: 0\r\n\r\n"},
		{"body of 403", "HTTP/1.1 403 Forbidden\r\n\r\n" + s},
		{"body of 500", "HTTP/1.1 500 Broken\r\n\r\n" + s},
		{"body of 200", head + "Content-Type: text/html\r\n\r\n<html>" + s},
		{"body of 302", "HTTP/1.1 302 Found\r\nLocation: file:///x\r\n\r\n" + s},
		{"retry-after", "HTTP/1.1 503 Busy\r\nRetry-After: " + s + "\r\nContent-Length: 0\r\n\r\n"},
		{"location", "HTTP/1.1 302 Found\r\nLocation: http://[" + s + "\r\n\r\n"},
		{"location as long as headers", "HTTP/1.1 302 Found\r\nLocation: file:///" + strings.Repeat("s3cret", 10_000) + "\r\n\r\n"},
		{"endless 1xx", strings.Repeat("HTTP/1.1 103 "+s+"\r\nLink: <s3cret>\r\n\r\n", 10_000)},
		{"switching protocols", "HTTP/1.1 101 " + s + "\r\nUpgrade: s3cret\r\nConnection: Upgrade\r\n\r\n" + s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkText(t, raw(t, tt.answer), "s3cret")
		})
	}
	// These are told, in short.
	for _, tt := range []struct{ name, answer string }{
		{"encoding", head + "Content-Encoding: " + s + strings.Repeat("x", 30_000) + "\r\n\r\n"},
		{"type", head + "Content-Type: text/html" + s + strings.Repeat("x", 30_000) + "\r\n\r\n<html>"},
		{"range", "HTTP/1.1 206 Partial\r\nContent-Range: " + s + strings.Repeat("x", 30_000) + "\r\n\r\n"},
		{"location", "HTTP/1.1 302 Found\r\nLocation: ftp://x\u202e/" + strings.Repeat("\u202e", 1000) + "?\u202e\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkText(t, raw(t, tt.answer), "\x1b")
		})
	}
}

func checkText(t *testing.T, base, not string) {
	t.Helper()
	c := client(t, Config{Retries: -1, HeaderTimeout: 5 * time.Second})
	for _, req := range []Request{
		{URLs: remote.NewURLs(base + "/f"), Size: -1, MaxSize: 2000, Dest: &Buffer{}},
		{URLs: remote.NewURLs(base + "/f"), Size: 1000, Want: want(pattern(1000)), Dest: &Buffer{}},
	} {
		_, err := c.Get(t.Context(), req)
		if err == nil {
			t.Fatal("no error")
		}
		text := err.Error()
		if strings.Contains(text, not) || len(text) > 600 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%d bytes: %.1000q", len(text), text)
		}
	}
}

// TestEntityTag: only a single tag of reasonable length is kept to be sent back.
func TestEntityTag(t *testing.T) {
	for tag, ok := range map[string]bool{
		`"a"`: true, `W/"a"`: true, `""`: true, `"a,b"`: true, `"` + strings.Repeat("x", 254) + `"`: true,
		`*`: false, `a`: false, `"a", "b"`: false, `"a","b"`: false, `"a`: false, `"`: false, `w/"a"`: false, "\"a\tb\"": false, `"é"`: false,
		`"` + strings.Repeat("x", 255) + `"`: false,
	} {
		u := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header()["Etag"] = []string{tag} })
		_, res, err := client(t, Config{}).GetBytes(t.Context(), Request{URLs: remote.NewURLs(u.URL), Size: -1, MaxSize: 1})
		if err != nil || (res.ETag == tag) != ok || !ok && res.ETag != "" {
			t.Errorf("%.20q: kept %.20q, %v", tag, res.ETag, err)
		}
	}
}

// TestModifiedInFuture: a time that later files would be older than is not
// believed.
func TestModifiedInFuture(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", time.Now().Add(1000*time.Hour).UTC().Format(http.TimeFormat))
	})
	_, res, err := client(t, Config{}).GetBytes(t.Context(), Request{URLs: remote.NewURLs(u.URL), Size: -1, MaxSize: 1})
	if err != nil || res.LastModified.After(time.Now()) {
		t.Errorf("%v, %v", res.LastModified, err)
	}
}
