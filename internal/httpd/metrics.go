package httpd

import (
	"context"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.org/snapd/internal/control"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// metrics are the metrics of /metrics, in a separate registry.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	ok       [areas]prometheus.Counter // GET requests with status 200
	bytes    [areas]prometheus.Counter
	seconds  [areas]prometheus.Observer
	syncs    *prometheus.CounterVec
	syncTime *prometheus.HistogramVec
	fetched  *prometheus.CounterVec
	hits     atomic.Int64 // see stored
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_http_requests_total", Help: "Requests on the public listener."}, []string{"area", "method", "code"}),
		syncs:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_sync_total", Help: "Syncs by outcome: new, unchanged, failed, refused (a security check failed)."}, []string{"mirror", "result"}),
		syncTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "snapd_sync_duration_seconds", Help: "Duration of syncs.", Buckets: prometheus.ExponentialBuckets(0.05, 3, 10)}, []string{"mirror"}),
		fetched:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_sync_fetched_bytes_total", Help: "Bytes downloaded by syncs."}, []string{"mirror"}),
	}
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_http_response_bytes_total", Help: "Body bytes sent on the public listener."}, []string{"area"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "snapd_http_request_duration_seconds", Help: "Time to answer a request completely.", Buckets: prometheus.ExponentialBuckets(0.0005, 5, 9)}, []string{"area"})
	for a := range areas {
		m.bytes[a] = sent.WithLabelValues(areaNames[a])
		m.ok[a] = m.requests.WithLabelValues(areaNames[a], "GET", "200")
		for _, code := range codesFromTheStart {
			m.requests.WithLabelValues(areaNames[a], "GET", code)
		}
		m.seconds[a] = took.WithLabelValues(areaNames[a])
	}
	m.registry.MustRegister(m.requests, sent, took, m.syncs, m.syncTime, m.fetched,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &stateCollector{s})
	return m
}

var methodNames = map[string]string{http.MethodGet: "GET", http.MethodHead: "HEAD"}

var codeNames = func() (t [600]string) {
	for i := range t {
		t[i] = strconv.Itoa(i)
	}
	return t
}()

func (m *metrics) request(a area, method string, status int, n int64, took time.Duration) {
	if method == http.MethodGet && status == http.StatusOK {
		m.ok[a].Inc()
	} else {
		name, ok := methodNames[method]
		if !ok {
			name = "other"
		}
		if status <= 0 || status >= len(codeNames) {
			status = 499 // the client left before the response
		}
		m.requests.WithLabelValues(areaNames[a], name, codeNames[status]).Inc()
	}
	m.bytes[a].Add(float64(n))
	m.seconds[a].Observe(took.Seconds())
}

// stored counts a request for a package of a snapshot that was answered without
// acquire.Acquirer, which counts the others.
func (m *metrics) stored(e *entity) {
	if e.found.Want.Record != nil {
		m.hits.Add(1)
	}
}

// codesFromTheStart are the statuses whose counters exist before the first answer: an
// alert cannot use a counter that is absent until something fails.
var codesFromTheStart = []string{"200", "206", "302", "304", "404", "410", "416", "500", "502", "503"}

// prime makes the counters of a mirror exist before its first sync.
func (m *metrics) prime(mirror meta.MirrorName) {
	for _, result := range control.SyncResults {
		m.syncs.WithLabelValues(string(mirror), result)
	}
	m.syncTime.WithLabelValues(string(mirror))
	m.fetched.WithLabelValues(string(mirror))
}

// synced counts a sync.
func (m *metrics) synced(e control.SyncEvent) {
	m.syncTime.WithLabelValues(string(e.Mirror)).Observe(e.Took.Seconds())
	m.syncs.WithLabelValues(string(e.Mirror), e.Result).Inc()
	if e.Result == control.SyncNew {
		m.fetched.WithLabelValues(string(e.Mirror)).Add(float64(e.Bytes))
	}
}

func (m *metrics) handler(s *Server) http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Timeout: 20 * time.Second})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, mi := range s.catalog.Mirrors() {
			m.prime(mi.Name)
		}
		h.ServeHTTP(w, r)
	})
}

// stateCollector reads gauges on request.
type stateCollector struct{ s *Server }

var (
	descFree      = prometheus.NewDesc("snapd_free_bytes", "Free bytes of the blob store.", nil, nil)
	descReserve   = prometheus.NewDesc("snapd_reserve_bytes", "Free bytes below which syncs and recordings stop.", nil, nil)
	descBlobs     = prometheus.NewDesc("snapd_blobs", "Stored blobs, counted within about a minute.", nil, nil)
	descBlobBytes = prometheus.NewDesc("snapd_blob_bytes", "Bytes of stored blobs, counted within about a minute.", nil, nil)
	descDamaged   = prometheus.NewDesc("snapd_damaged_blobs", "Damaged blobs.", nil, nil)
	descSnapshots = prometheus.NewDesc("snapd_latest_snapshot_timestamp_seconds", "Timestamp of a mirror's newest snapshot; 0 before the first.", []string{"mirror"}, nil)
	descSuccess   = prometheus.NewDesc("snapd_sync_last_success_timestamp_seconds", "Time of a mirror's last successful sync or check; 0: never.", []string{"mirror"}, nil)
	descDate      = prometheus.NewDesc("snapd_upstream_date_seconds", "Date of upstream's Release or repomd.xml in a mirror's newest snapshot; 0 before the first.", []string{"mirror", "suite"}, nil)
	descBuild     = prometheus.NewDesc("snapd_build_info", "Always 1; the labels are the versions of snapd and Go.", []string{"version", "goversion"}, nil)
	descKeyExpiry = prometheus.NewDesc("snapd_signing_key_expiry_seconds", "Expiry time of the signing key; +Inf: never.", nil, nil)
	descLeader    = prometheus.NewDesc("snapd_lease_holder", "Always 1; the labels are a lease and its holder.", []string{"lease", "holder"}, nil)
	descDatabase  = prometheus.NewDesc("snapd_database_up", "1: the database that nodes share answers; 0: the metadata is served from memory.", nil, nil)
	descLag       = prometheus.NewDesc("snapd_database_lag_seconds", "Time since the changes of other nodes were read.", nil, nil)
	descSkew      = prometheus.NewDesc("snapd_clock_skew_seconds", "How far this node's clock is ahead of the database's.", nil, nil)
	descLost      = prometheus.NewDesc("snapd_database_lost_commits_total", "How often the database lost commits that were seen.", nil, nil)
	descStoreUp   = prometheus.NewDesc("snapd_blob_store_up", "1: the blob store answered the last request; 0: only copies on this machine are served.", nil, nil)
	descCache     = prometheus.NewDesc("snapd_cache_bytes", "Bytes of copies of remote blobs.", nil, nil)
	descCacheSize = prometheus.NewDesc("snapd_cache_size_bytes", "Maximum bytes of copies of remote blobs.", nil, nil)
	descCacheHits = prometheus.NewDesc("snapd_cache_hits_total", "Reads of remote blobs that were answered from a copy.", nil, nil)
	descCacheMiss = prometheus.NewDesc("snapd_cache_misses_total", "Reads of remote blobs that made a copy.", nil, nil)
	descFrozen    = prometheus.NewDesc("snapd_frozen_snapshots", "Freezes.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descFree, descReserve, descBlobs, descBlobBytes, descDamaged, descSnapshots, descSuccess, descDate, descBuild, descKeyExpiry, descFrozen,
		descLeader, descDatabase, descLag, descSkew, descLost, descStoreUp, descCache, descCacheSize, descCacheHits, descCacheMiss} {
		ch <- d
	}
	for _, d := range opsDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if free, err := s.blobs().Free(s.base); err == nil {
		gauge(descFree, float64(free))
	}
	gauge(descReserve, float64(s.acquirer.Reserve()))
	gauge(descBuild, 1, s.cfg.Version, runtime.Version())
	expiry := math.Inf(1)
	if e := s.cfg.Signer.Expiry(); !e.IsZero() {
		expiry = float64(e.Unix())
	}
	gauge(descKeyExpiry, expiry)
	if u, ok := s.control.RecentUsage(control.SlowCount); ok {
		gauge(descBlobs, float64(u.Blobs))
		gauge(descBlobBytes, float64(u.BlobBytes))
		gauge(descIndexBlobs, float64(u.Indices))
		gauge(descIndexBytes, float64(u.IndexBytes))
		gauge(descImageBlobs, float64(u.Images))
		gauge(descImageBytes, float64(u.ImageBytes))
		gauge(descKitBlobs, float64(u.Kits))
		gauge(descKitBytes, float64(u.KitBytes))
		gauge(descMetaBytes, float64(u.Meta.Used))
		gauge(descQuarantine, float64(u.Quarantined))
	}
	c.collectOps(s.base, ch)
	c.collectShared(ch, gauge)
	if err := c.collectMetadata(context.Background(), gauge); err != nil {
		s.log.Warn("collect metrics", "err", err)
	}
}

func (c *stateCollector) collectMetadata(ctx context.Context, gauge func(d *prometheus.Desc, v float64, labels ...string)) error {
	corrupt, err := c.s.meta.CorruptBlobs(ctx)
	if err != nil {
		return err
	}
	gauge(descDamaged, float64(len(corrupt)))
	freezes, err := c.s.meta.Freezes(ctx)
	if err != nil {
		return err
	}
	gauge(descFrozen, float64(len(freezes)))
	var names []meta.MirrorName
	for _, m := range c.s.catalog.Mirrors() {
		names = append(names, m.Name)
	}
	states, err := c.s.meta.MirrorStates(ctx, names)
	for _, st := range states {
		gauge(descSuccess, seconds(st.Check.OK), string(st.Mirror))
		latest := time.Time{}
		dates := map[repo.SuiteName]time.Time{}
		if st.Latest != nil {
			latest = st.Latest.Timestamp
			for _, e := range st.Latest.Suites {
				dates[e.Suite] = e.Date
			}
		} else if dates, err = c.configured(string(st.Mirror)); err != nil {
			return err
		}
		gauge(descSnapshots, seconds(latest), string(st.Mirror))
		for suite, date := range dates {
			gauge(descDate, seconds(date), string(st.Mirror), string(suite))
		}
	}
	return err
}

// configured returns the suites of a mirror without a snapshot, without dates.
func (c *stateCollector) configured(name string) (map[repo.SuiteName]time.Time, error) {
	m, err := c.s.catalog.Mirror(meta.MirrorName(name))
	if err != nil {
		return nil, err
	}
	suites, err := c.s.catalog.Suites(m)
	dates := map[repo.SuiteName]time.Time{}
	for _, s := range suites {
		dates[s] = time.Time{}
	}
	return dates, err
}

// seconds returns a time as the value of a gauge; 0 means never.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
