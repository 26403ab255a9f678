package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
)

// After a host answered no attempt of a request, the client sends it each other request
// once, until the host answers or some minutes have passed.
func TestSilentHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent, n := true, 0
		c := New(Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			n++
			switch {
			case r.URL.Host == "broken.example.org":
				return reply(r, http.StatusInternalServerError, nil, 0, http.NoBody), nil
			case silent:
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return reply(r, http.StatusOK, nil, 1, io.NopCloser(strings.NewReader("x"))), nil
		})})
		get := func(want int, urls ...string) {
			t.Helper()
			n = 0
			_, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(urls...), Size: 1})
			if silent != errors.Is(err, ErrUnavailable) || n != want {
				t.Errorf("%v after %d requests, expected %d", err, n, want)
			}
		}
		const file, broken = "http://mirror.example.org/f", "http://broken.example.org/f"
		get(5, file)
		get(1, file)
		get(10, file, broken) // a broken one may recover at any time
		time.Sleep(silenceTime)
		get(5, file)
		silent = false
		get(1, file)
		silent = true
		get(5, file)

		// A caller that stops waiting proves nothing about the host.
		other := "http://other.example.org/f"
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := c.GetBytes(ctx, Request{URLs: remote.NewURLs(other), Size: 1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		get(5, other)
	})
}

// A host that answers some attempts is not silent, nor is one that redirects to a silent
// one: the next attempt may lead elsewhere.
func TestNotSilentHost(t *testing.T) {
	answer := func(r *http.Request, n int) (*http.Response, error) {
		switch {
		case r.URL.Host == "broken.example.org" && n < 5:
			return reply(r, http.StatusInternalServerError, nil, 0, http.NoBody), nil
		case r.URL.Host == "redirects.example.org":
			return reply(r, http.StatusFound, http.Header{"Location": {"http://silent.example.org/f"}}, 0, http.NoBody), nil
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	for host, want := range map[string]int{"broken.example.org": 5, "redirects.example.org": 10} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			c := New(Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				n++
				return answer(r, n)
			})})
			for range 2 {
				before := n
				_, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://" + host + "/f"), Size: 1})
				if got := n - before; !errors.Is(err, ErrUnavailable) || got != want {
					t.Errorf("%s: %v after %d requests, expected %d", host, err, got, want)
				}
			}
		})
	}
}

// TestRetryAfter: whatever a host asks for, and however often it asks, ten
// minutes later it gets requests again.
func TestRetryAfter(t *testing.T) {
	const none = -1 // no pause: retries as after any other answer
	for _, tt := range []struct {
		value string
		pause time.Duration
	}{
		{"0", 0}, {"1", time.Second}, {"600", 10 * time.Minute}, {"601", 10 * time.Minute},
		{"2147483647", 10 * time.Minute}, {"2147483648", 10 * time.Minute},
		{"9223372036", 10 * time.Minute}, {"9223372037", 10 * time.Minute}, // seconds whose nanoseconds overflow
		{"9223372036854775807", 10 * time.Minute}, {"18446744073709551616", 10 * time.Minute},
		{strings.Repeat("9", 1000), 10 * time.Minute}, {strings.Repeat("0", 1000) + "1", time.Second},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 10 * time.Minute}, {"Friday, 31-Dec-60 23:59:59 GMT", 10 * time.Minute}, // 2060
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0}, {"Sat, 01 Jan 0000 00:00:00 GMT", 0},
		{"-1", none}, {"+60", none}, {"1e9", none}, {"60.5", none}, {"0x7fffffff", none}, {"60 s", none}, {"soon", none}, {"", none}, {"６０", none},
	} {
		for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprintf("%d %.30q", code, tt.value), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := 0
					c := New(Config{Retries: -1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						if n++; n > 3 {
							return reply(r, 200, nil, 1, io.NopCloser(strings.NewReader("x"))), nil
						}
						return reply(r, code, http.Header{"Retry-After": {tt.value}}, 0, http.NoBody), nil
					})})
					get := func() error {
						_, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 1})
						return err
					}
					for i := range 3 {
						if err := get(); !errors.Is(err, ErrUnavailable) || n != i+1 {
							t.Fatalf("%v after %d requests", err, n)
						}
						if tt.pause > 0 {
							time.Sleep(tt.pause - time.Millisecond)
							if err := get(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the host asked for a pause") {
								t.Errorf("before the pause is over: %v", err)
							}
							time.Sleep(2 * time.Millisecond)
						}
					}
					if err := get(); err != nil {
						t.Errorf("after the pause: %v", err)
					}
				})
			})
		}
	}
}

// TestPauseIsNotWaitedFor: another URL takes the place of one whose host wants a
// pause; only where all do, the shortest is waited for.
func TestPauseIsNotWaitedFor(t *testing.T) {
	for _, tt := range []struct {
		name            string
		a, b            string // Retry-After of each host's first answer; "": it has the file
		atLeast, atMost time.Duration
	}{
		{"the other has it", "100", "", 0, 0},
		{"both", "100", "20", 20 * time.Second, 21 * time.Second},
		{"one for long", "3600", "20", 20 * time.Second, 21 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := map[string]bool{}
				c := New(Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					after := map[string]string{"a.example.org": tt.a, "b.example.org": tt.b}[r.URL.Host]
					if !asked[r.URL.Host] && after != "" {
						asked[r.URL.Host] = true
						return reply(r, 503, http.Header{"Retry-After": {after}}, 0, http.NoBody), nil
					}
					return reply(r, 200, nil, 1, io.NopCloser(strings.NewReader("x"))), nil
				})})
				start := time.Now()
				for range 2 {
					if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://a.example.org/f", "http://b.example.org/f"), Size: 1}); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(start); took < tt.atLeast || took > tt.atMost {
					t.Errorf("took %v, expected %v to %v", took, tt.atLeast, tt.atMost)
				}
			})
		})
	}
}

// TestPauseOfRedirected: a pause is the answering host's: neither the host that
// redirected to it pauses, nor does a redirect lead around the pause.
func TestPauseOfRedirected(t *testing.T) {
	asked := map[string]int{}
	c := client(t, Config{Retries: -1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		asked[r.URL.Host]++
		switch {
		case r.URL.Host == "away.example.org":
			return reply(r, 429, http.Header{"Retry-After": {"600"}}, 0, http.NoBody), nil
		case r.URL.Path == "/away":
			return reply(r, 302, http.Header{"Location": {"http://away.example.org/f"}}, 0, http.NoBody), nil
		}
		return reply(r, 200, nil, 1, io.NopCloser(strings.NewReader("x"))), nil
	})})
	for _, tt := range []struct {
		path  string
		fails bool
	}{{"/away", true}, {"/here", false}, {"/away", true}} {
		_, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org" + tt.path), Size: 1})
		if tt.fails != errors.Is(err, ErrUnavailable) || !tt.fails && err != nil {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
	if asked["mirror.example.org"] != 3 || asked["away.example.org"] != 1 {
		t.Errorf("asked %v", asked)
	}
}

// TestIgnorePauses: a request can ignore the pauses that stood when it was
// decided on, and no later ones. When the host answers it well they are over.
func TestIgnorePauses(t *testing.T) {
	n := 0
	c := client(t, Config{Retries: -1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if n++; n != 2 && n != 3 {
			return reply(r, 503, http.Header{"Retry-After": {"600"}}, 0, http.NoBody), nil
		}
		return reply(r, 200, nil, 1, io.NopCloser(strings.NewReader("x"))), nil
	})})
	var before int64
	for i, tt := range []struct {
		ignore bool
		asked  int
		fails  bool
	}{{false, 1, true}, {false, 1, true}, {true, 2, false}, {false, 3, false}, {true, 4, true}, {true, 4, true}, {false, 4, true}} {
		req := Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 1}
		if i == 2 {
			before = c.Stats().Pauses
		}
		if tt.ignore {
			req.IgnorePauses = before
		}
		if _, _, err := c.GetBytes(t.Context(), req); (err != nil) != tt.fails || n != tt.asked {
			t.Errorf("request %d: %v, %d asked", i, err, n)
		}
	}
}

// trickle serves content at /slow/ a piece each step, and at once elsewhere. It
// tells how many of its slow answers are under way.
func trickle(t *testing.T, content []byte, piece int, step time.Duration, ranges bool) (u *upstream, slow *atomic.Int32) {
	slow = new(atomic.Int32)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !ranges {
			r.Header.Del("Range")
		}
		if !strings.HasPrefix(r.URL.Path, "/slow/") {
			w.Write(content)
			return
		}
		slow.Add(1)
		defer slow.Add(-1)
		w.Header().Set("ETag", `"v"`)
		http.ServeContent(&pacer{w, r, piece, step}, r, "", old, bytes.NewReader(content))
	}), slow
}

type pacer struct {
	http.ResponseWriter
	r     *http.Request
	piece int
	step  time.Duration
}

func (p *pacer) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		select {
		case <-p.r.Context().Done():
			return done, p.r.Context().Err()
		case <-time.After(p.step):
		}
		n, err := p.ResponseWriter.Write(b[done:min(len(b), done+p.piece)])
		if done += n; err != nil {
			return done, err
		}
		if err := http.NewResponseController(p.ResponseWriter).Flush(); err != nil {
			return done, err
		}
	}
	return len(b), nil
}

// TestSlowDownloads: eight downloads that trickle do not keep the ninth request
// waiting, nor a hundred, and go on when nobody waits.
func TestSlowDownloads(t *testing.T) {
	content := pattern(40_000)
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges %t", ranges), func(t *testing.T) {
			t.Parallel()
			// 4 s each without competition.
			u, slow := trickle(t, content, 100, 10*time.Millisecond, ranges)
			c := client(t, Config{Patience: 50 * time.Millisecond, MinRate: -1, Retries: -1})
			get := func(path string, pinned bool) error {
				req := Request{URLs: remote.NewURLs(u.URL + path), Size: int64(len(content))}
				if pinned {
					req.Want = want(content)
				}
				got, _, err := c.GetBytes(t.Context(), req)
				if err == nil && !bytes.Equal(got, content) {
					err = errors.New("other bytes")
				}
				return err
			}
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					if err := get(fmt.Sprintf("/slow/%d", i), i%2 == 0); err != nil {
						t.Errorf("slow download: %v", err)
					}
				})
			}
			for slow.Load() < 8 {
				time.Sleep(time.Millisecond)
			}
			start := time.Now()
			if err := get("/ninth", true); err != nil {
				t.Errorf("ninth request: %v", err)
			}
			// Its patience doubles the floor until that is 10 kB a second, after
			// 4 times 50 ms; the first download may be cut after 150 ms. The rest is
			// for machines that do much else.
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the ninth request took %v", took)
			}
			var many sync.WaitGroup
			start = time.Now()
			for i := range 100 {
				many.Go(func() {
					if err := get(fmt.Sprintf("/%d", i), true); err != nil {
						t.Errorf("request %d: %v", i, err)
					}
				})
			}
			many.Wait()
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("a hundred requests took %v", took)
			}
			all.Wait()
		})
	}
}

// TestSlowDownloadAlone: a server may be as slow as MinRate where nobody else
// waits, and a slow one comes to an end with many files, with and without ranges.
func TestSlowDownloadAlone(t *testing.T) {
	content := pattern(20_000)
	for _, tt := range []struct {
		name   string
		ranges bool
		files  int
	}{{"one file", true, 1}, {"as many as connections", true, 2}, {"more", true, 12}, {"more, without ranges", false, 12}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u, _ := trickle(t, content, 400, 10*time.Millisecond, tt.ranges)
			c := client(t, Config{Parallel: 2, Patience: 25 * time.Millisecond, MinRate: 1024, Retries: -1})
			var wg sync.WaitGroup
			for i := range tt.files {
				wg.Go(func() {
					if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs(fmt.Sprintf("%s/slow/%d", u.URL, i)), Size: int64(len(content)), Want: want(content)}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if tt.files <= 2 && len(u.asked()) != tt.files {
				t.Errorf("asked %d times for %d files", len(u.asked()), tt.files)
			}
		})
	}
}

// TestSlowHostile: a server that sends much and then trickles, that starts again
// each time, or that sends as little as is allowed keeps nobody out for long.
func TestSlowHostile(t *testing.T) {
	const size = 1 << 40
	zero := make([]byte, 1<<20)
	for _, tt := range []struct {
		name     string
		requests int // one each second
		atMost   time.Duration
		body     func(r *http.Request) io.ReadCloser
	}{
		{"trickles", 1000, 30 * time.Minute, func(r *http.Request) io.ReadCloser {
			return &endlessBody{r: r, pause: time.Second, piece: zero[:1100]}
		}},
		{"a burst, then trickles", 1000, 40 * time.Minute, func(r *http.Request) io.ReadCloser {
			return &endlessBody{r: r, pause: time.Second, piece: zero[:1100], burst: 100, zero: zero}
		}},
		{"a hundred times as fast", 300, 20 * time.Minute, func(r *http.Request) io.ReadCloser {
			return &endlessBody{r: r, pause: time.Second, piece: zero[:110_000]}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/good" {
						return reply(r, 200, nil, 1000, io.NopCloser(bytes.NewReader(zero[:1000]))), nil
					}
					return reply(r, 200, nil, size, tt.body(r)), nil
				})})
				for i := range 8 {
					go c.Get(t.Context(), Request{URLs: remote.NewURLs(fmt.Sprintf("http://mirror.example.org/%d", i)), Size: size, Want: Digests{SHA256: cas.Sum([]byte("x"))}, Dest: &discard{}})
				}
				time.Sleep(100 * time.Second)
				start := time.Now()
				for i := range tt.requests {
					before := time.Now()
					if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/good"), Size: 1000}); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(before); took > 2*time.Minute {
						t.Errorf("request %d took %v", i, took)
					}
					time.Sleep(time.Second)
				}
				if took := time.Since(start); took > tt.atMost {
					t.Errorf("%d requests took %v, expected at most %v", tt.requests, took, tt.atMost)
				}
			})
		})
	}
}

type endlessBody struct {
	r     *http.Request
	pause time.Duration
	piece []byte
	burst int
	zero  []byte
}

func (b *endlessBody) Read(p []byte) (int, error) {
	if b.burst > 0 {
		b.burst--
		return copy(p, b.zero), nil
	}
	select {
	case <-b.r.Context().Done():
		return 0, b.r.Context().Err()
	case <-time.After(b.pause):
		return copy(p, b.piece), nil
	}
}

func (*endlessBody) Close() error { return nil }

// TestSlowErrorPage: the page of an error is not worth waiting for.
func TestSlowErrorPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Retries: -1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return reply(r, 404, nil, -1, &endlessBody{r: r, pause: time.Second, piece: []byte("x")}), nil
		})})
		start := time.Now()
		_, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 1})
		if took := time.Since(start); !errors.Is(err, ErrNotFound) || took > 3*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}
