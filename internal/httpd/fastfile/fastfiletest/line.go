// Package fastfiletest sends raw HTTP requests over one connection, for tests that compare
// the answers of package fastfile with those of net/http.
package fastfiletest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"testing"
	"time"
)

var dateRE = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// Line is a connection on which requests follow each other.
type Line struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// Dial connects to a server. The connection is closed when the test ends.
func Dial(t *testing.T, addr string) *Line {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &Line{c, t, bufio.NewReader(c)}
}

// Send writes text as it is.
func (l *Line) Send(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		l.t.Fatal(err)
	}
}

// ReadByte reads a byte that is not part of an answer: io.EOF when the server has closed
// the connection.
func (l *Line) ReadByte() (byte, error) { return l.r.ReadByte() }

// Answer reads one whole answer to a request with this method, and returns it without its
// date. A success must have a date.
func (l *Line) Answer(method string) string {
	l.t.Helper()
	resp, err := http.ReadResponse(l.r, &http.Request{Method: method})
	if err != nil {
		l.t.Fatalf("answer: %v", err)
	}
	defer resp.Body.Close()
	if _, err := http.ParseTime(resp.Header.Get("Date")); err != nil && resp.StatusCode < 400 {
		l.t.Errorf("date: %v", err)
	}
	text, err := httputil.DumpResponse(resp, true)
	if err != nil {
		l.t.Fatalf("answer: %v", err)
	}
	return dateRE.ReplaceAllString(string(text), "")
}
