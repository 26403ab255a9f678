package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/fetch/remote"
)

// TestRateLimit: what all connections together take stays below the limit, over
// every span of a second and more, for small files and large ones; and no
// connection waits for so long that upstream takes it for dead.
func TestRateLimit(t *testing.T) {
	for _, tt := range []struct {
		rate         int64
		parallel     int
		files, bytes int
	}{
		{20 << 10, 8, 40, 10_000}, {20 << 10, 8, 4, 200_000}, {1 << 20, 8, 64, 1 << 20}, {1 << 20, 8, 3000, 5000}, {50 << 20, 8, 16, 64 << 20},
	} {
		t.Run(fmt.Sprintf("%d at %d", tt.bytes, tt.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content := make([]byte, tt.bytes)
				var mu sync.Mutex
				var total, most int64
				type at struct {
					t time.Time
					n int64
				}
				var log []at
				var gap time.Duration
				took := func(n int) {
					mu.Lock()
					defer mu.Unlock()
					total += int64(n)
					log = append(log, at{time.Now(), int64(n)})
				}
				c := New(Config{RateLimit: tt.rate, Parallel: tt.parallel, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					b := &counted{r: bytes.NewReader(content), took: took, last: time.Now(), gap: func(d time.Duration) {
						mu.Lock()
						defer mu.Unlock()
						gap = max(gap, d)
					}}
					return reply(r, 200, nil, int64(len(content)), b), nil
				})})
				start := time.Now()
				var wg sync.WaitGroup
				sem := make(chan bool, 16)
				for range tt.files {
					sem <- true
					wg.Go(func() {
						defer func() { <-sem }()
						if _, err := c.Get(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: int64(tt.bytes), Dest: &discard{}}); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				all := time.Since(start)
				want := time.Duration(float64(total) / float64(tt.rate) * float64(time.Second))
				if all < want*9/10-time.Second || all > want*11/10+time.Second {
					t.Errorf("%d bytes took %v, expected about %v", total, all, want)
				}
				// The most in any second: the limit, a burst, and what each connection has read ahead.
				j, sum := 0, int64(0)
				for i := range log {
					sum += log[i].n
					for log[i].t.Sub(log[j].t) >= time.Second {
						sum -= log[j].n
						j++
					}
					most = max(most, sum)
				}
				if allowed := tt.rate + 2*max(tt.rate/10, minPiece) + int64(tt.parallel)*min(chunk, max(tt.rate/10, minPiece)); most > allowed {
					t.Errorf("%d bytes in a second, expected at most %d", most, allowed)
				}
				if gap > 10*time.Second {
					t.Errorf("a connection was not read from for %v", gap)
				}
			})
		})
	}
}

// counted is a body that notes when it is read.
type counted struct {
	r    io.Reader
	took func(int)
	gap  func(time.Duration)
	last time.Time
}

func (c *counted) Read(p []byte) (int, error) {
	c.gap(time.Since(c.last))
	n, err := c.r.Read(p)
	c.took(n)
	c.last = time.Now()
	return n, err
}

func (*counted) Close() error { return nil }

// TestConnections: as many connections to a host as configured, large bodies
// or small, and they are used again.
func TestConnections(t *testing.T) {
	for _, size := range []int{100, 300_000} {
		var open, most, made atomic.Int32
		content := pattern(size)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(content) }))
		srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				made.Add(1)
				for n, m := open.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
			case http.StateClosed:
				open.Add(-1)
			}
		}
		srv.Start()
		c := client(t, Config{Parallel: 4})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(srv.URL + "/f"), Size: int64(size), Want: want(content)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() > 4 || made.Load() > 8 {
			t.Errorf("%d bytes: %d connections at one time, %d in all", size, most.Load(), made.Load())
		}
		c.Close()
		srv.Close()
	}
}

// TestProxyEnvironment runs a child with the environment, since Go reads it once.
func TestProxyEnvironment(t *testing.T) {
	if url := os.Getenv("FETCH_TEST_URL"); url != "" {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		b, _, err := New(Config{Retries: -1}).GetBytes(ctx, Request{URLs: remote.NewURLs(url), Size: -1, MaxSize: 100})
		fmt.Printf("got %q %v\n", b, err)
		return
	}
	var mu sync.Mutex
	var seen []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+r.Header.Get("Proxy-Authorization")))
		if r.Method == http.MethodConnect {
			http.Error(w, "no tunnel here", http.StatusForbidden)
			return
		}
		io.WriteString(w, "through the proxy")
	}))
	defer proxy.Close()
	with := strings.Replace(proxy.URL, "//", "//user:secret@", 1)
	for _, tt := range []struct {
		name, url string
		env       []string
		says      string
		seen      []string
	}{
		{"http", "http://mirror.example.org/f", []string{"http_proxy=" + proxy.URL}, `got "through the proxy" <nil>`, []string{"GET http://mirror.example.org/f"}},
		{"in capitals, with a password", "http://mirror.example.org/f", []string{"HTTP_PROXY=" + with}, `got "through the proxy" <nil>`,
			[]string{"GET http://mirror.example.org/f Basic dXNlcjpzZWNyZXQ="}},
		{"https", "https://mirror.example.org/f", []string{"https_proxy=" + with}, "Forbidden", []string{"CONNECT mirror.example.org:443 Basic dXNlcjpzZWNyZXQ="}},
		{"only for https", "http://127.0.0.1:1/f", []string{"https_proxy=" + proxy.URL}, "connection refused", nil},
		{"none for this host", "http://mirror.example.invalid/f", []string{"http_proxy=" + proxy.URL, "no_proxy=example.invalid"}, "mirror.example.invalid", nil},
		{"loopback is not proxied", "http://127.0.0.1:1/f", []string{"http_proxy=" + proxy.URL}, "connection refused", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mu.Lock()
			seen = nil
			mu.Unlock()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyEnvironment$", "-test.v")
			cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool {
				name, _, _ := strings.Cut(strings.ToLower(e), "=")
				return strings.HasSuffix(name, "_proxy") || name == "request_method"
			})
			cmd.Env = append(append(cmd.Env, "FETCH_TEST_URL="+tt.url), tt.env...)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.says) {
				t.Errorf("%v, expected %q in\n%s", err, tt.says, out)
			}
			if strings.Contains(string(out), "secret") {
				t.Errorf("the password stands in\n%s", out)
			}
			mu.Lock()
			defer mu.Unlock()
			if d := cmp.Diff(tt.seen, seen); d != "" {
				t.Errorf("the proxy saw: -want +got\n%s", d)
			}
		})
	}
}

// TestBackoff: the waits between rounds grow, stay below their bounds, and are
// drawn anew each time, so that clients that failed together do not come back
// together.
func TestBackoff(t *testing.T) {
	const clients, retries = 200, 5
	bounds := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		var sums [retries]time.Duration
		seen := map[time.Duration]bool{}
		for range clients {
			var at []time.Time
			c := New(Config{Retries: retries, MaxBackoff: 4 * time.Second, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				at = append(at, time.Now())
				return reply(r, 502, nil, 0, http.NoBody), nil
			})})
			if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 1}); err == nil {
				t.Fatal("succeeded")
			}
			if len(at) != retries+1 {
				t.Fatalf("%d attempts", len(at))
			}
			for i, bound := range bounds {
				d := at[i+1].Sub(at[i])
				if d <= 0 || d > bound {
					t.Errorf("wait %d is %v, expected at most %v", i, d, bound)
				}
				sums[i] += d
				seen[d] = true
			}
		}
		for i, bound := range bounds {
			if mean := sums[i] / clients; mean < bound*4/10 || mean > bound*6/10 {
				t.Errorf("mean of wait %d is %v, expected about %v", i, mean, bound/2)
			}
		}
		if len(seen) < clients*retries*9/10 {
			t.Errorf("%d different waits of %d", len(seen), clients*retries)
		}
	})
}

// New limits hold for downloads that wait and for those in progress.
func TestSetLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		var active atomic.Int64
		release := make(chan struct{})
		c := New(Config{Parallel: 1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			active.Add(1)
			<-release
			return reply(r, 200, nil, size, io.NopCloser(bytes.NewReader(make([]byte, size)))), nil
		})})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: size, Dest: &discard{}}); err != nil {
					t.Error(err)
				}
			})
		}
		for _, want := range []int64{1, 3} {
			c.SetLimits(int(want), size/10)
			synctest.Wait()
			if got := active.Load(); got != want {
				t.Errorf("%d requests at a time, expected %d", got, want)
			}
		}
		start := time.Now()
		close(release)
		wg.Wait()
		if took := time.Since(start); took < 45*time.Second || took > 55*time.Second {
			t.Errorf("5 MiB at a tenth of a MiB per second took %v", took)
		}
	})
}
