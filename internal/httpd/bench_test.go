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
