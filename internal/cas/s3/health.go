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
	// askAgain is how long after a failed request the server is tried again.
	askAgain = 5 * time.Second
	// askTime limits that request.
	askTime = 3 * time.Second
)

// health passes requests on and records whether they are answered.
type health struct {
	next http.RoundTripper
	now  func() time.Time

	mu    sync.Mutex
	since time.Time // of the first failure; zero: the last request was answered
	last  time.Time // of the last one
	err   error
}

// RoundTrip implements http.RoundTripper.
func (h *health) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := h.next.RoundTrip(r)
	switch {
	case errors.Is(err, context.Canceled) || r.Context().Err() == context.Canceled:
	case err != nil:
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
