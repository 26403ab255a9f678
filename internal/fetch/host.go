package fetch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxPause   = 10 * time.Minute // longest pause that a host may ask for
	maxWait    = 2 * time.Minute  // longest pause that a request waits for
	maxHosts   = 1024             // number of hosts to remember, besides those in use or pausing
	holdFactor = 3                // a download keeps its connection for at least this many times Config.Patience
	maxCuts    = 10               // number of cuts after which the hold of a download no longer doubles
	maxYield   = 3                // the same for the delay with which it queues again
	baseFloor  = 1024             // initial minimum rate for slow downloads, in bytes per second
)

// host distributes the connections to one host.
//
// If all are in use, a request waits. While the first in the queue waits, the
// rate required of downloads rises: it doubles with each Config.Patience. The
// slowest download below it is cut, keeps its bytes, and queues again behind the
// others. So slow downloads cannot block the rest, and a download without
// competition may be as slow as Config.MinRate. To finish even from a server that
// cannot resume, a download that was cut keeps its next connection for twice as
// long.
type host struct {
	patience time.Duration

	mu       sync.Mutex
	parallel int
	holders  map[*turn]struct{}
	queue    []*turn   // by due
	until    time.Time // the host accepts no requests before this time
	number   int64     // number of this pause among all pauses of the client
	silent   time.Time // when a request was given up because the host did not answer; zero if it has answered since
}

// silenceTime is how long, after a host answered no attempt of a request, the client sends
// it each other request only once. A sync would otherwise retry every variant of an index.
const silenceTime = 5 * time.Minute

// setSilent records when the host left a request unanswered; zero means that it has
// answered.
func (h *host) setSilent(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = at
}

func (h *host) isSilent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.silent.IsZero() && time.Since(h.silent) < silenceTime
}

// turn is one request's use of a connection.
type turn struct {
	cuts  int           // how often the download was cut before
	due   time.Time     // start of its wait; for a download that was cut, later than its arrival
	ready chan struct{} // closed when it gets a connection
	start time.Time     // when it got the connection
	end   func()        // cancels the download; set before enter

	cut    atomic.Bool
	got    atomic.Int64 // bytes in the current window of the rate check
	waited atomic.Int64 // nanoseconds spent waiting for them, without the current read
	since  atomic.Int64 // start of the current read, in Unix nanoseconds; 0: none
}

// rate returns the bytes per second that the network delivered while the download
// waited for it, and how long it waited. How fast the bytes are consumed does not
// count.
func (t *turn) rate(now time.Time) (float64, time.Duration) {
	d := time.Duration(t.waited.Load())
	if s := t.since.Load(); s != 0 {
		d += max(now.Sub(time.Unix(0, s)), 0)
	}
	return float64(t.got.Load()) / max(d.Seconds(), 1e-9), d
}

// enter waits for a free connection; leave returns it. It fails at once if the host asked
// for a pause, unless the pause is among the client's first ignore.
func (h *host) enter(ctx context.Context, t *turn, ignore int64) error {
	h.mu.Lock()
	now := time.Now()
	if d := h.pauseLeft(now, ignore); d > 0 {
		h.mu.Unlock()
		return pausing(d)
	}
	t.ready, t.due = make(chan struct{}), now
	if t.cuts > 0 {
		t.due = now.Add(h.hold(min(t.cuts-1, maxYield)))
	}
	at, _ := slices.BinarySearchFunc(h.queue, t, func(a, b *turn) int {
		if a.due.After(b.due) {
			return 1
		}
		return -1
	})
	h.queue = slices.Insert(h.queue, at, t)
	h.serve(now)
	h.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	default:
	}

	tick := time.NewTicker(max(h.patience/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-t.ready:
			if d := h.pauses(ignore); d > 0 { // requested while this request was waiting
				h.leave(t)
				return pausing(d)
			}
			return nil
		case <-ctx.Done():
			h.leave(t)
			return context.Cause(ctx)
		case <-tick.C:
			now := time.Now()
			h.mu.Lock()
			h.serve(now)
			h.press(now)
			h.mu.Unlock()
		}
	}
}

// pausing returns the failure of a request to a host that asked for a pause.
func pausing(d time.Duration) *failure {
	return &failure{temp: d <= maxWait, pause: d, err: fmt.Errorf("%w: the host asked for a pause that ends in %v", ErrUnavailable, max(d.Round(time.Second), time.Second))}
}

// leave returns a connection, or leaves the queue.
func (h *host) leave(t *turn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.holders, t)
	h.queue = slices.DeleteFunc(h.queue, func(q *turn) bool { return q == t })
	h.serve(time.Now())
}

// serve gives free connections to waiting requests. The caller holds h.mu. The last
// connection is kept for new requests until a download that was cut has waited for its
// time, so that such downloads do not return before others had a chance.
func (h *host) serve(now time.Time) {
	h.queue = slices.DeleteFunc(h.queue, func(t *turn) bool {
		if n := len(h.holders); n >= h.parallel || n == h.parallel-1 && t.due.After(now) {
			return false
		}
		t.start = now
		h.holders[t] = struct{}{}
		close(t.ready)
		return true
	})
}

// setParallel changes the number of connections. Connections in use beyond a lower number
// are not closed.
func (h *host) setParallel(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parallel = n
	h.serve(time.Now())
}

// hold returns how long a download that was cut this often keeps its connection, whatever
// its rate.
func (h *host) hold(cuts int) time.Duration { return holdFactor * h.patience << min(cuts, maxCuts) }

// press cuts one slow download if requests have waited long enough. The caller holds
// h.mu.
func (h *host) press(now time.Time) {
	cut, before := 0, 0 // downloads that are about to leave; downloads that were cut before
	for t := range h.holders {
		if t.cut.Load() {
			cut++
		} else if t.cuts > 0 {
			before++
		}
	}
	if cut >= len(h.queue) || len(h.holders) < h.parallel {
		return
	}
	first := h.queue[cut]
	waited := now.Sub(first.due)
	if waited < h.patience {
		return
	}
	floor := float64(baseFloor) * float64(uint64(1)<<min(waited/h.patience, 50))
	// The longer holds only rank downloads that were cut: together they keep at most a
	// quarter of the connections from new requests.
	crowded := first.cuts == 0 && before > h.parallel/4
	var slowest *turn
	for t := range h.holders {
		hold := h.hold(t.cuts)
		if crowded {
			hold = h.hold(0)
		}
		rate, over := t.rate(now)
		if t.cut.Load() || now.Sub(t.start) < hold || over < h.patience/4 || rate >= floor {
			continue
		}
		if slowest != nil {
			if least, _ := slowest.rate(now); least <= rate {
				continue
			}
		}
		slowest = t
	}
	if slowest != nil {
		slowest.cut.Store(true)
		slowest.end()
	}
}

// pause stops requests to the host for d, but at most for maxPause.
func (h *host) pause(d time.Duration, number int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(min(d, maxPause)); until.After(h.until) {
		h.until, h.number = until, number
	}
}

// pauseLeft returns the rest of a pause, at most maxPause; h.mu must be held.
func (h *host) pauseLeft(now time.Time, ignore int64) time.Duration {
	if h.until.IsZero() || h.number <= ignore {
		return 0
	}
	return min(h.until.Sub(now), maxPause)
}

// pauses is pauseLeft for callers that do not hold h.mu.
func (h *host) pauses(ignore int64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pauseLeft(time.Now(), ignore)
}

// lift ends a pause that was ignored, since the host answered.
func (h *host) lift(ignore int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.number <= ignore {
		h.until = time.Time{}
	}
}

// idle reports whether the state of the host can be forgotten.
func (h *host) idle(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.holders) == 0 && len(h.queue) == 0 && !h.until.After(now)
}
