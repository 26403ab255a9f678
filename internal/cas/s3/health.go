package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
)

const (
	// askAgain is the time after a failed request until the server is tried again.
	askAgain = 5 * time.Second
	// askTime is the timeout of that request.
	askTime = 3 * time.Second
	// silentFor is the time without any answer after which requests within askAgain of a
	// failed one are refused at once, so that callers do not wait half a minute for each.
	silentFor = 10 * time.Second
)

// health passes requests on and records whether they are answered.
type health struct {
	next http.RoundTripper
	now  func() time.Time

	mu     sync.Mutex
	silent time.Time // time of the first request since the last answer; zero: the last request was answered
	since  time.Time // of the first failure; zero: the last request was answered
	last   time.Time // time of the last failure
	err    error
}

// RoundTrip implements http.RoundTripper.
func (h *health) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := h.gone(); err != nil {
		return nil, err
	}
	resp, err := h.next.RoundTrip(r)
	if err == nil {
		h.heard()
	}
	switch {
	case errors.Is(err, context.Canceled) || r.Context().Err() == context.Canceled:
	case err != nil:
		h.unheard()
		h.note(err)
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized:
		h.note(fmt.Errorf("%s %s: %s", r.Method, r.URL.Path, resp.Status))
	default:
		h.note(nil)
	}
	return resp, err
}

func (h *health) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if err == nil {
		h.since, h.err = time.Time{}, nil
		return
	}
	if h.err == nil {
		h.since = now
	}
	h.last, h.err = now, err
}

// heard records that the server answered.
func (h *health) heard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = time.Time{}
}

// unheard records that the server did not answer.
func (h *health) unheard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent.IsZero() {
		h.silent = h.now()
	}
}

// gone returns the last error if the server has not answered for silentFor, and the last
// request failed less than askAgain ago.
func (h *health) gone() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.now(); !h.silent.IsZero() && now.Sub(h.silent) >= silentFor && now.Sub(h.last) < askAgain {
		return fmt.Errorf("no answer since %s: %w", h.silent.UTC().Format(time.RFC3339), h.err)
	}
	return nil
}

func (h *health) state() (since, last time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.last, h.err
}

// Trouble implements cas.Health.
func (s *Store) Trouble(ctx context.Context) (time.Time, error) {
	since, last, err := s.health.state()
	if err != nil && s.o.Now().Sub(last) > askAgain {
		ask, cancel := context.WithTimeout(ctx, askTime)
		_, _ = s.core.BucketExists(ask, s.location.Bucket)
		cancel()
		since, _, err = s.health.state()
	}
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", cas.ErrUnavailable, s.location, err)
	}
	return since, err
}
