package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.org/snapd/internal/fetch/remote"
)

// Long because of its table of cases.
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
		"file://" + tree + "/link":             ErrRefused,
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
	absent := filepath.Join(dir, "absent")
	if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("file://" + absent + "/f"), Tree: absent, Size: 5000}); !errors.Is(err, ErrLocal) || errors.Is(err, ErrNotFound) {
		t.Errorf("a tree that is not there: %v", err)
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
