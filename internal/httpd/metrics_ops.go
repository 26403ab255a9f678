package httpd

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
)

// Metrics of activity. Those of the stored state are in metrics.go.
var (
	descMaxAge      = prometheus.NewDesc("snapd_max_age_seconds", "The max_age of a mirror; 0: none.", []string{"mirror"}, nil)
	descRunning     = prometheus.NewDesc("snapd_sync_running", "Running syncs of a mirror.", []string{"mirror"}, nil)
	descRunBytes    = prometheus.NewDesc("snapd_sync_running_bytes", "Bytes that the running sync of a mirror has downloaded; 0: none runs.", []string{"mirror"}, nil)
	descKeyring     = prometheus.NewDesc("snapd_keyring_expiry_seconds", "Time from which no key of a mirror's keyring is valid; +Inf: never.", []string{"mirror"}, nil)
	descIndexBlobs  = prometheus.NewDesc("snapd_index_blobs", "Stored blobs that are compressed indices of upstream.", nil, nil)
	descIndexBytes  = prometheus.NewDesc("snapd_index_bytes", "Bytes of these blobs.", nil, nil)
	descImageBlobs  = prometheus.NewDesc("snapd_image_blobs", "Stored blobs that are images of freezes.", nil, nil)
	descImageBytes  = prometheus.NewDesc("snapd_image_bytes", "Bytes of these blobs.", nil, nil)
	descKitBlobs    = prometheus.NewDesc("snapd_kit_blobs", "Stored blobs that are published upgrade kits and upgrade descriptions.", nil, nil)
	descKitBytes    = prometheus.NewDesc("snapd_kit_bytes", "Bytes of these blobs.", nil, nil)
	descMetaBytes   = prometheus.NewDesc("snapd_metadata_bytes", "Bytes of the metadata in use.", nil, nil)
	descQuarantine  = prometheus.NewDesc("snapd_quarantined_blobs", "Blobs in the quarantine.", nil, nil)
	descOnDemand    = prometheus.NewDesc("snapd_on_demand_total", "Requests for packages of snapshots by outcome: stored (no download needed), fetched, failed, joined (waited for the download of another request). All but stored also count other files.", []string{"result"}, nil)
	descGC          = prometheus.NewDesc("snapd_gc_last_success_timestamp_seconds", "Time of the last scheduled garbage collection; 0: never.", nil, nil)
	descGCRunning   = prometheus.NewDesc("snapd_gc_running", "1 while this node collects garbage.", nil, nil)
	descGCBlobs     = prometheus.NewDesc("snapd_gc_removed_blobs_total", "Blobs that garbage collections of this node moved to the quarantine.", nil, nil)
	descGCBytes     = prometheus.NewDesc("snapd_gc_removed_bytes_total", "Bytes of these blobs.", nil, nil)
	descScrub       = prometheus.NewDesc("snapd_scrub_last_success_timestamp_seconds", "Time at which the last scrub had read every blob; 0: never.", nil, nil)
	descScrubbed    = prometheus.NewDesc("snapd_scrub_progress_ratio", "Part of the blobs that the current scrub has read; 0: none runs.", nil, nil)
	descLease       = prometheus.NewDesc("snapd_lease_held", "1 while a node holds a lease.", []string{"lease"}, nil)
	descConnections = prometheus.NewDesc("snapd_http_connections", "Open connections of the public listener.", nil, nil)
	descDeliveries  = prometheus.NewDesc("snapd_webhook_deliveries_total", "Attempts to deliver events to a webhook, by outcome: delivered, retried, failed (given up).", []string{"webhook", "result"}, nil)
	descPending     = prometheus.NewDesc("snapd_webhook_pending", "Events that a webhook has not accepted yet.", []string{"webhook"}, nil)
	descMetaTime    = prometheus.NewDesc("snapd_metadata_duration_seconds", "Duration of transactions of the metadata: read, write (with the commit).", []string{"operation"}, nil)
	descBlobTime    = prometheus.NewDesc("snapd_blob_store_duration_seconds", "Duration of operations of the blob store: stat, read (up to the first byte), flush (until a batch is durable), remove.", []string{"operation"}, nil)
	descConnMax     = prometheus.NewDesc("snapd_http_connections_max", "The max_connections of the public listener.", nil, nil)
)

var opsDescs = []*prometheus.Desc{
	descMaxAge, descRunning, descRunBytes, descKeyring, descIndexBlobs, descIndexBytes, descImageBlobs, descImageBytes, descKitBlobs, descKitBytes, descMetaBytes, descQuarantine, descOnDemand, descGC, descScrub,
	descScrubbed, descLease, descConnections, descConnMax, descDeliveries, descPending, descMetaTime, descBlobTime, descGCRunning, descGCBlobs, descGCBytes,
}

// collectOps collects the metrics that need no metadata, and those of the others that can
// be read.
func (c *stateCollector) collectOps(ctx context.Context, ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.s
	for _, m := range s.catalog.Mirrors() {
		gauge(descMaxAge, m.MaxAge.D().Seconds(), string(m.Name))
		n, bytes := s.control.Syncing(m.Name)
		gauge(descRunning, float64(n), string(m.Name))
		gauge(descRunBytes, float64(bytes), string(m.Name))
		if at, ok := c.keyringExpiry(m.Name); ok {
			gauge(descKeyring, at, string(m.Name))
		}
	}
	demand := s.acquirer.OnDemand()
	for result, n := range map[string]int64{"fetched": demand.Fetched, "failed": demand.Failed, "joined": demand.Joined, "stored": demand.Stored + s.metrics.hits.Load()} {
		ch <- prometheus.MustNewConstMetric(descOnDemand, prometheus.CounterValue, float64(n), result)
	}
	if l := s.listening.Load(); l != nil {
		l.mu.Lock()
		open, limit := l.open, l.max
		l.mu.Unlock()
		// One slot is always held for the next connection.
		gauge(descConnections, float64(max(0, open-1)))
		gauge(descConnMax, float64(limit))
	}
	gc := s.control.Collections()
	running := 0.0
	if gc.Running {
		running = 1
	}
	gauge(descGCRunning, running)
	ch <- prometheus.MustNewConstMetric(descGCBlobs, prometheus.CounterValue, float64(gc.Blobs))
	ch <- prometheus.MustNewConstMetric(descGCBytes, prometheus.CounterValue, float64(gc.Bytes))
	c.collectLatency(ch)
	c.collectWebhooks(ctx, ch, gauge)
	c.collectWork(ctx, gauge)
}

// collectLatency collects how long the stores take.
func (c *stateCollector) collectLatency(ch chan<- prometheus.Metric) {
	l := c.s.cfg.Latency
	if l == nil {
		l = new(latency.Stores)
	}
	add := func(d *prometheus.Desc, operation string, h *latency.Histogram) {
		count, sum, buckets := h.Read()
		ch <- prometheus.MustNewConstHistogram(d, count, sum, buckets, operation)
	}
	add(descMetaTime, "read", &l.Metadata.Read)
	add(descMetaTime, "write", &l.Metadata.Write)
	add(descBlobTime, "stat", &l.Blobs.Stat)
	add(descBlobTime, "read", &l.Blobs.Read)
	add(descBlobTime, "flush", &l.Blobs.Flush)
	add(descBlobTime, "remove", &l.Blobs.Remove)
}

// collectWebhooks collects the counts of deliveries.
func (c *stateCollector) collectWebhooks(ctx context.Context, ch chan<- prometheus.Metric, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	counts, pending, _ := c.s.control.WebhookCounts(ctx) // without the database, there are counts but nothing is pending
	for name, n := range counts {
		for result, v := range map[string]int64{"delivered": n.Delivered, "retried": n.Retried, "failed": n.Failed} {
			ch <- prometheus.MustNewConstMetric(descDeliveries, prometheus.CounterValue, float64(v), name, result)
		}
	}
	for name, n := range pending {
		gauge(descPending, float64(n), name)
	}
}

// collectWork collects the progress of periodic work, and the leases. It leaves out
// values that cannot be read; the collector of the metadata's metrics logs the reason.
func (c *stateCollector) collectWork(ctx context.Context, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	st := c.s.meta
	for name, d := range map[string]*prometheus.Desc{"last.gc": descGC, "scrub.done": descScrub} {
		note, err := st.Note(ctx, name)
		if err != nil {
			return
		}
		at, err := time.Parse(time.RFC3339, note)
		if err != nil {
			at = time.Time{}
		}
		gauge(d, seconds(at))
	}
	at, err := st.Note(ctx, "scrub.at")
	if err != nil {
		return
	}
	gauge(descScrubbed, scrubbed(at))
	leases, err := st.LeaseStates(ctx)
	if err != nil {
		return
	}
	for _, l := range leases {
		held := 0.0
		if l.Held {
			held = 1
		}
		gauge(descLease, held, l.Name)
	}
}

// scrubbed returns how much of the blobs comes before a digest: a scrub reads them
// in the order of their digests, which are spread evenly.
func scrubbed(digest string) float64 {
	hex := strings.TrimPrefix(digest, "sha256:")
	if len(hex) < 8 {
		return 0
	}
	n, err := strconv.ParseUint(hex[:8], 16, 32)
	if err != nil {
		return 0
	}
	return float64(n) / float64(math.MaxUint32)
}

// keyringExpiry returns when the last key of a mirror's keyring expires. ok is false
// for a mirror without a keyring, and for one that cannot be read.
func (c *stateCollector) keyringExpiry(mirror meta.MirrorName) (at float64, ok bool) {
	ring, err := c.s.acquirer.Keyring(mirror)
	if err != nil || ring == nil {
		return 0, false
	}
	for _, k := range ring.Keys() {
		switch {
		case k.Revoked:
		case k.Expires.IsZero():
			return math.Inf(1), true
		default:
			at = max(at, float64(k.Expires.Unix()))
		}
		ok = true
	}
	return at, ok
}
