package httpd

import (
	"context"
	"fmt"
	"sync"

	"example.org/snapd/internal/meta"
)

// noter notes fetches through recordings. Fetches that wait while one transaction
// is committed share the next one.
type noter struct {
	store   Metadata
	mu      sync.Mutex
	waiting []*waitingFetch
	running bool
}

type waitingFetch struct {
	meta.Fetch
	err  error
	done chan struct{}
}

// note returns nil when the fetch is durably noted, and meta.ErrNotFound if the recording
// does not exist.
func (n *noter) note(ctx context.Context, fetch meta.Fetch) error {
	f := &waitingFetch{Fetch: fetch, done: make(chan struct{})}
	n.mu.Lock()
	n.waiting = append(n.waiting, f)
	if !n.running {
		n.running = true
		go n.run()
	}
	n.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes until nothing is waiting.
func (n *noter) run() {
	for {
		n.mu.Lock()
		waiting := n.waiting
		n.waiting = nil
		n.running = len(waiting) > 0
		n.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		fetches := make([]meta.Fetch, len(waiting))
		for i, f := range waiting {
			fetches[i] = f.Fetch
		}
		missing, err := n.store.NoteFetches(context.Background(), fetches)
		for _, f := range waiting {
			if f.err = err; err == nil && missing[f.Recording] {
				f.err = fmt.Errorf("recording %s: %w", f.Recording, meta.ErrNotFound)
			}
			close(f.done)
		}
	}
}
