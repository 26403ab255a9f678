package httpd

import (
	"context"
	"fmt"
	"sync"

	"example.org/snapd/internal/meta"
)

// noter notes what is fetched through recordings: the fetches that wait while one
// transaction is committed go together into the next.
type noter struct {
	store   meta.Notes
	mu      sync.Mutex
	waiting []*waitingFetch
	running bool
}

type waitingFetch struct {
	meta.Fetch
	err  error
	done chan struct{}
}

// note is durable when it returns nil. meta.ErrNotFound where there is no such
// recording.
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

// run writes until nothing waits.
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
