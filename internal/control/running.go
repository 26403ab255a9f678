package control

import "sync"

// Running counts work in progress. Unlike with a sync.WaitGroup, callers may call Go
// after Wait: Running refuses the work.
type Running struct {
	work sync.WaitGroup
	mu   sync.Mutex
	over bool // Wait was called
}

// Go starts f in a goroutine and returns true. After Wait was called, it returns false and
// does not start f.
func (r *Running) Go(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.work.Go(f)
	}
	return !r.over
}

// Wait refuses further work, and waits until all work in progress has ended.
func (r *Running) Wait() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.work.Wait()
}
