package latency

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	for _, took := range []time.Duration{0, 3 * time.Millisecond, time.Minute} {
		h.Since(Start().Add(-took))
	}
	count, seconds, buckets := h.Read()
	if count != 3 || seconds < 60 || seconds > 90 {
		t.Errorf("%d operations in %f seconds", count, seconds)
	}
	if buckets[10] != 2 || buckets[0.0002] > 1 {
		t.Errorf("buckets: %v", buckets)
	}
}
