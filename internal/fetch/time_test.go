package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.org/snapd/internal/fetch/remote"
)

// roundTripper is a transport made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slowBody yields its parts with pauses, and ends with the request's context.
type slowBody struct {
	ctx   context.Context
	parts [][]byte
	pause time.Duration
	end   error // instead of io.EOF; nil: stall
}

func (s *slowBody) Read(p []byte) (int, error) {
	t := time.NewTimer(s.pause)
	defer t.Stop()
	if len(s.parts) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	}
	select {
	case <-t.C:
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

func (s *slowBody) Close() error { return nil }

func reply(r *http.Request, code int, h http.Header, length int64, body io.ReadCloser) *http.Response {
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: code, Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), Header: h, Body: body, ContentLength: length, Request: r}
}

func each(b []byte, n int) (parts [][]byte) {
	for len(b) > 0 {
		parts = append(parts, b[:min(n, len(b))])
		b = b[min(n, len(b)):]
	}
	return parts
}

// TestTime runs what depends on time in a bubble where it passes at once. Long
// because of its table of cases.
func TestTime(t *testing.T) {
	content := pattern(100_000)
	get := func(t *testing.T, cfg Config, size int64, rt roundTripper) (time.Duration, error) {
		cfg.Transport = rt
		start := time.Now()
		_, _, err := New(cfg).GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: size, Want: want(content)})
		return time.Since(start), err
	}
	check := func(t *testing.T, took, atLeast, atMost time.Duration, err error, msg string) {
		t.Helper()
		if fmt.Sprint(err) != msg {
			t.Errorf("error %v, want %s", err, msg)
		}
		if took < atLeast || took > atMost {
			t.Errorf("took %v, expected %v to %v", took, atLeast, atMost)
		}
	}
	for _, tt := range []struct {
		name            string
		cfg             Config
		rt              func(n int, r *http.Request) (*http.Response, error)
		atLeast, atMost time.Duration
		msg             string
	}{
		{"no answer", Config{Retries: -1}, func(n int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 30 * time.Second, 30 * time.Second, "get http://mirror.example.org/f: upstream unavailable: no response within 30s"},
		{"stall in the body", Config{Retries: -1, StallTimeout: 10 * time.Second, MinRate: -1}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content[:1000], 100), pause: 9 * time.Second}), nil
		}, 100 * time.Second, 100 * time.Second, "get http://mirror.example.org/f: upstream unavailable: no byte within 10s"},
		{"a byte at a time", Config{Retries: -1}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 1), pause: time.Second}), nil
		}, time.Minute, time.Minute, "get http://mirror.example.org/f: upstream unavailable: 60 bytes in 1m0s, expected at least 1024 a second"},
		{"slow but fast enough", Config{Retries: -1, MinRate: 90}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 100), pause: time.Second, end: io.EOF}), nil
		}, 1000 * time.Second, 1001 * time.Second, "<nil>"},
		{"stalls once, then goes on", Config{}, func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: [][]byte{content[:50_000]}}), nil
			}
			if got := r.Header.Get("Range"); got != "bytes=50000-" {
				return nil, fmt.Errorf("range %q", got)
			}
			h := http.Header{"Content-Range": {"bytes 50000-99999/100000"}}
			return reply(r, 206, h, 50_000, io.NopCloser(bytes.NewReader(content[50_000:]))), nil
		}, 30 * time.Second, 31 * time.Second, "<nil>"},
		{"back-off", Config{Retries: 6, MaxBackoff: 4 * time.Second}, func(n int, r *http.Request) (*http.Response, error) {
			return nil, syscall.ECONNREFUSED
		}, time.Millisecond, (500 + 1000 + 2000 + 4000 + 4000 + 4000) * time.Millisecond,
			"get http://mirror.example.org/f: upstream unavailable: connection refused"},
		{"Retry-After in seconds", Config{}, func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				return reply(r, 503, http.Header{"Retry-After": {"100"}}, 0, http.NoBody), nil
			}
			return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
		}, 100 * time.Second, 101 * time.Second, "<nil>"},
		{"Retry-After as a date", Config{}, func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				return reply(r, 429, http.Header{"Retry-After": {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}}, 0, http.NoBody), nil
			}
			return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
		}, 59 * time.Second, 61 * time.Second, "<nil>"},
		{"rate limit", Config{RateLimit: 10_000}, func(n int, r *http.Request) (*http.Response, error) {
			return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 1000), end: io.EOF}), nil
		}, 9 * time.Second, 10 * time.Second, "<nil>"}, // less the first burst
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := -1
				took, err := get(t, tt.cfg, 100_000, func(r *http.Request) (*http.Response, error) { n++; return tt.rt(n, r) })
				check(t, took, tt.atLeast, tt.atMost, err, tt.msg)
			})
		})
	}
	t.Run("rate limit over several files", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := New(Config{RateLimit: 100_000, StallTimeout: time.Second, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
			})})
			start := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000, Want: want(content)}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			// 2 MB at 100 kB a second, less the first burst.
			if took := time.Since(start); took < 18*time.Second || took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("a host that wants a pause gets one from all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int32
			c := New(Config{Parallel: 2, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if n.Add(1) == 1 {
					return reply(r, 429, http.Header{"Retry-After": {"60"}}, 0, http.NoBody), nil
				}
				return reply(r, 200, nil, 100_000, io.NopCloser(bytes.NewReader(content))), nil
			})})
			start := time.Now()
			for range 3 {
				if _, _, err := c.GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000}); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(start); took < time.Minute || took > 61*time.Second || n.Load() != 4 {
				t.Errorf("took %v, %d requests", took, n.Load())
			}
		})
	})
	t.Run("cancel", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Second, cancel)
			c := New(Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				return reply(r, 200, nil, 100_000, &slowBody{ctx: r.Context(), parts: each(content, 10000), pause: time.Second}), nil
			})})
			var b Buffer
			start := time.Now()
			_, err := c.Get(ctx, Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: 100_000, Dest: &b})
			if !errors.Is(err, context.Canceled) || time.Since(start) != 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			held := b.Offset()
			synctest.Wait()
			if b.Offset() != held {
				t.Error("the sink was written to after Get returned")
			}
		})
	})
}
