package fetch

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
)

// cannedServer answers every request with one body, at next to no cost.
func cannedServer(b *testing.B, content string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: \"x\"\r\nLast-Modified: Sat, 29 Feb 2020 12:00:00 GMT\r\nContent-Type: application/octet-stream\r\n\r\n%s", len(content), content)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						if _, err := conn.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// discard is a Sink that only counts.
type discard struct{ n int64 }

func (d *discard) Write(p []byte) (int, error) { d.n += int64(len(p)); return len(p), nil }
func (d *discard) Offset() int64               { return d.n }
func (d *discard) Reset() error                { d.n = 0; return nil }

// BenchmarkTinyFiles is a first sync of small files from loopback, 8 at a time.
func BenchmarkTinyFiles(b *testing.B) {
	content := "a tiny package\n"
	base := cannedServer(b, content)
	want := Digests{SHA256: cas.Digest(sha256.Sum256([]byte(content)))}
	c := New(Config{})
	defer c.Close()
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return nil
				}
				_, err := c.Get(b.Context(), Request{URLs: remote.NewURLs(fmt.Sprintf("%s/pool/main/p/p%d/p%d_1.0_amd64.deb", base, i, i)), Size: int64(len(content)), Want: want, Dest: &discard{}})
				if err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLargeFile measures the throughput of one connection.
func BenchmarkLargeFile(b *testing.B) {
	content := make([]byte, 64<<20)
	base := cannedServer(b, string(content))
	want := Digests{SHA256: cas.Digest(sha256.Sum256(content))}
	c := New(Config{})
	defer c.Close()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := c.Get(b.Context(), Request{URLs: remote.NewURLs(base), Size: int64(len(content)), Want: want, Dest: &discard{}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSHA256 is the floor under BenchmarkLargeFile.
func BenchmarkSHA256(b *testing.B) {
	content := make([]byte, 64<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		io.Discard.Write(sha256.New().Sum(nil))
		sha256.Sum256(content)
	}
}
