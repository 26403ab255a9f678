package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A header larger than the limit is refused, and the server goes on.
func TestHeaderLimit(t *testing.T) {
	r := start(t, testConfig(t, ""))
	for n, want := range map[int]int{maxHeader / 2: http.StatusOK, 4 * maxHeader: http.StatusRequestHeaderFieldsTooLarge} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", n))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("header of %d bytes: %v", n, err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("header of %d bytes: status %d, expected %d", n, resp.StatusCode, want)
		}
	}
}

// A client that does not finish its header is sent away, and one more
// connection than is allowed waits until another one ends.
func TestConnectionLimits(t *testing.T) {
	t.Parallel() // it waits
	cfg := testConfig(t, "")
	cfg.Server.MaxConnections = 3
	r := start(t, cfg)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(r.public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answered := func(c net.Conn, within time.Duration) bool {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(within))
		_, err := c.Read(make([]byte, 1))
		return err == nil
	}
	start := time.Now()
	slow := dial()
	fmt.Fprint(slow, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	var busy []net.Conn
	for range 2 {
		c := dial()
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if !answered(c, 5*time.Second) {
			t.Fatal("a connection within the limit is not answered")
		}
		busy = append(busy, c)
	}
	more := dial()
	fmt.Fprint(more, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if answered(more, 300*time.Millisecond) {
		t.Error("a connection beyond the limit was answered")
	}
	busy[0].Close()
	if !answered(more, 5*time.Second) {
		t.Error("a connection that waited is not answered")
	}
	if testing.Short() {
		return
	}
	// A byte now and then does not help.
	for ended := false; !ended; {
		if time.Since(start) > headerTime+5*time.Second {
			t.Fatalf("an unfinished header holds its connection for %v", time.Since(start))
		}
		fmt.Fprint(slow, "x")
		slow.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		_, err := io.Copy(io.Discard, slow)
		ended = !errors.Is(err, os.ErrDeadlineExceeded)
	}
	if took := time.Since(start); took < headerTime/2 {
		t.Errorf("sent away after %v, expected about %v", took, headerTime)
	}
}
