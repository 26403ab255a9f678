package squashfs

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// job is one value in a pipeline.
type job[T any] struct {
	v    T
	done chan struct{}
}

// Ordered calls work for the values that produce emits, in several goroutines, and then
// place for each value in the order of emission, in one goroutine. The output of place
// therefore does not depend on the number of workers. At most depth values are in the
// pipeline at once. The first error stops everything.
func Ordered[T any](ctx context.Context, workers, depth int, produce func(ctx context.Context, emit func(T) error) error, work, place func(T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan *job[T])
	order := make(chan *job[T], max(depth, workers))
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		return produce(ctx, func(v T) error {
			j := &job[T]{v: v, done: make(chan struct{})}
			select {
			case order <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case todo <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
			return nil
		})
	})
	for range workers {
		g.Go(func() error {
			for j := range todo {
				if err := work(j.v); err != nil {
					return err
				}
				close(j.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range order {
			select {
			case <-j.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := place(j.v); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// buffers is a pool of byte slices with one capacity.
type buffers struct {
	size int
	pool sync.Pool
}

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, b.size)
}

func (b *buffers) put(p []byte) {
	if cap(p) >= b.size {
		b.pool.Put(&p)
	}
}
