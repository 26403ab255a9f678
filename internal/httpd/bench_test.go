package httpd_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// BenchmarkServing compares this server with nginx on the same files, both
// asked by wrk on loopback: requests a second of each, and their ratio.
//
//	small   10 kB from the memory cache
//	disk    10 kB without a cache
//	large   10 MB
func BenchmarkServing(b *testing.B) {
	for _, tool := range []string{"wrk", "nginx"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skip(err)
		}
	}
	for _, c := range []struct {
		name  string
		size  int
		cache config.Size
	}{{"small", 10_000, 64 << 20}, {"disk", 10_000, 0}, {"large", 10 << 20, 64 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			body := bytes.Repeat([]byte("snapd"), c.size/5)
			s := newSite(b, nil, func(conf *config.Config) { conf.Server.CacheSize = c.cache })
			s.Archive.Add(debtest.Package{Name: "a", Body: body})
			s.publish()
			path := s.Archive.Default().PathOf("a")
			ours := s.conf.Server.PublicURL + "/archive/debian/" + s.sync() + "/" + path
			theirs := nginx(b, "a.deb", body)
			for range b.N {
				var best [2]float64
				for range 3 { // in turns: the machine is not ours alone
					for i, u := range []string{theirs, ours} {
						best[i] = max(best[i], wrk(b, u, int64(len(body))))
					}
				}
				b.ReportMetric(best[0], "nginx-req/s")
				b.ReportMetric(best[1], "snapd-req/s")
				b.ReportMetric(best[1]/best[0], "ratio")
			}
		})
	}
}

// BenchmarkAnswer measures one request on a connection that is kept open, and what
// it allocates: the client here allocates nothing.
//
//	fast    10 kB from the memory cache, before net/http sees the request
//	memory  the same through net/http
//	disk    10 kB without a cache, before net/http sees it
//	blob    1 MB by sendfile(2)
func BenchmarkAnswer(b *testing.B) {
	for _, c := range []struct {
		name, header string
		size         int
		cache        config.Size
	}{{"fast", "", 10_000, 64 << 20}, {"memory", "X-Other: 1\r\n", 10_000, 64 << 20}, {"disk", "", 10_000, 0}, {"blob", "", 1_000_000, 0}} {
		b.Run(c.name, func(b *testing.B) {
			s := newSite(b, nil, func(conf *config.Config) { conf.Server.CacheSize = c.cache })
			s.Archive.Add(debtest.Package{Name: "a", Body: bytes.Repeat([]byte("snapd"), c.size/5)})
			s.publish()
			path := "/archive/debian/" + s.sync() + "/" + s.Archive.Default().PathOf("a")
			conn, err := net.Dial("tcp", s.conf.Server.Listen)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			request := []byte("GET " + path + " HTTP/1.1\r\nHost: snapd.example.org\r\n" + c.header + "\r\n")
			size := len(s.Archive.Get(s.Archive.Default().PathOf("a")))
			buf := make([]byte, size+64<<10)
			answer := func() {
				if _, err := conn.Write(request); err != nil {
					b.Fatal(err)
				}
				n, want := 0, 0
				for want == 0 || n < want {
					m, err := conn.Read(buf[n:])
					if err != nil {
						b.Fatal(err)
					}
					n += m
					if end := bytes.Index(buf[:n], []byte("\r\n\r\n")); want == 0 && end >= 0 {
						want = end + 4 + size
					}
				}
			}
			for range 3 { // it is looked up, read and checked
				answer()
				time.Sleep(5 * time.Millisecond) // net/http sees that the connection is idle
			}
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				answer()
			}
		})
	}
}

var rateRE = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

// wrk asks for one URL with 16 connections for two seconds.
func wrk(b *testing.B, url string, size int64) float64 {
	b.Helper()
	for range 2 {
		resp, err := http.Get(url) // it is here, and checked
		if err != nil {
			b.Fatal(err)
		}
		n, _ := bytes.NewBuffer(nil).ReadFrom(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || n != size {
			b.Fatalf("%s: status %d, %d bytes", url, resp.StatusCode, n)
		}
	}
	out, err := exec.Command("wrk", "-t1", "-c16", "-d2s", url).CombinedOutput()
	m := rateRE.FindSubmatch(out)
	if err != nil || m == nil {
		b.Fatalf("wrk: %v\n%s", err, out)
	}
	rate, _ := strconv.ParseFloat(string(m[1]), 64)
	return rate
}

// nginx serves one file and returns its URL.
func nginx(b *testing.B, name string, body []byte) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "nginx")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `worker_processes 2; pid %s/pid; error_log %s/err; daemon off;
events { worker_connections 4096; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; open_file_cache max=1000;
server { listen %s; root %s; } }
`, dir, dir, addr, dir), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("nginx", "-c", conf, "-e", filepath.Join(dir, "err"))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() })
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return "http://" + addr + "/" + name
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Fatal("nginx does not answer")
	return ""
}
