package control

import (
	"context"
	"sync"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
)

// progressInterval is the time between two reports of an operation's progress.
const progressInterval = 200 * time.Millisecond

// Counted runs f and reports the progress that f counts. report may be nil; it is not
// called after Counted has returned.
func Counted[Res any](ctx context.Context, task string, report func(api.Progress), f func(*acquire.Progress) (Res, error)) (Res, error) {
	p := &acquire.Progress{}
	defer watch(ctx, task, func() api.Progress { return progressOf(task, p) }, report)()
	return f(p)
}

// watch reports the progress of a task until ctx ends or the returned function is called.
func watch(ctx context.Context, task string, now func() api.Progress, report func(api.Progress)) (end func()) {
	if report == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() {
		t := time.NewTicker(progressInterval)
		defer t.Stop()
		var last api.Progress
		for {
			if p := now(); p != last {
				last = p
				report(p)
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
	return func() {
		cancel()
		reporting.Wait()
	}
}

// progressOf returns the progress of a task as clients get it.
func progressOf(task string, p *acquire.Progress) api.Progress {
	return api.Progress{
		Task: task, Phase: p.Phase(), Files: p.Files.Load(), FilesTotal: p.FilesTotal.Load(),
		Bytes: p.Bytes.Load(), BytesTotal: p.BytesTotal.Load(),
	}
}
