package control

import "sync"

// Running counts work in progress. Unlike a sync.WaitGroup it may be asked for more work
// while it is waited for, and refuses it.
type Running struct {
	work sync.WaitGroup
	mu   sync.Mutex
	over bool // Wait was called
}

// Go runs f until it returns. Once Wait was called, it returns false and f does not run.
func (r *Running) Go(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.work.Go(f)
	}
	return !r.over
}

// Wait lets no more work begin, and waits for what has begun.
func (r *Running) Wait() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.work.Wait()
}
