// Package latency counts how long the operations of the stores take, for the metrics.
package latency

import (
	"sync/atomic"
	"time"
)

// bounds are the upper bounds of the buckets. Operations on a local disk take
// microseconds, those in a bucket or on a busy disk up to seconds.
var bounds = [...]time.Duration{
	50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second,
}

// Histogram counts operations by their duration. The zero value is empty. It is safe
// for concurrent use.
type Histogram struct {
	counts [len(bounds) + 1]atomic.Uint64 // the last is of what took longer
	sum    atomic.Int64                   // nanoseconds
}

// Start returns when an operation starts, for Since.
func Start() time.Time { return time.Now() }

// Since counts an operation that ends now.
func (h *Histogram) Since(start time.Time) {
	took := time.Since(start)
	i := 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(took))
}

// Read returns the number of operations, the seconds that they took together, and the
// number of those that took at most some seconds.
func (h *Histogram) Read() (count uint64, seconds float64, buckets map[float64]uint64) {
	seconds = time.Duration(h.sum.Load()).Seconds()
	buckets = make(map[float64]uint64, len(bounds))
	for i, b := range bounds {
		count += h.counts[i].Load()
		buckets[b.Seconds()] = count
	}
	return count + h.counts[len(bounds)].Load(), seconds, buckets
}

// Stores are the latencies of both stores.
type Stores struct {
	Metadata Metadata
	Blobs    Blobs
}

// Metadata are the latencies of transactions.
type Metadata struct {
	Read  Histogram
	Write Histogram // with the commit
}

// Blobs are the latencies of a blob store: of the store itself, not of copies in a cache.
type Blobs struct {
	Stat   Histogram
	Read   Histogram // up to the first byte
	Flush  Histogram // of a batch, until its blobs are durable
	Remove Histogram // to the quarantine
}
