package httpd

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.org/snapd/internal/control"
)

// metrics are the numbers of /metrics, in a registry that nothing else uses.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	ok       [areas]prometheus.Counter // requests of GET with status 200
	bytes    [areas]prometheus.Counter
	seconds  [areas]prometheus.Observer
	syncs    *prometheus.CounterVec
	syncTime *prometheus.HistogramVec
	fetched  *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_http_requests_total", Help: "Requests answered on the public listener."}, []string{"area", "method", "code"}),
		syncs:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_sync_total", Help: "Syncs by outcome: new, unchanged, failed, refused (a check of trust failed)."}, []string{"mirror", "result"}),
		syncTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "snapd_sync_duration_seconds", Help: "Time of a sync.", Buckets: prometheus.ExponentialBuckets(0.05, 3, 10)}, []string{"mirror"}),
		fetched:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_sync_fetched_bytes_total", Help: "Bytes that syncs fetched."}, []string{"mirror"}),
	}
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "snapd_http_response_bytes_total", Help: "Body bytes sent on the public listener."}, []string{"area"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "snapd_http_request_duration_seconds", Help: "Time until a request was answered whole.", Buckets: prometheus.ExponentialBuckets(0.0005, 5, 9)}, []string{"area"})
	for a := range areas {
		m.bytes[a] = sent.WithLabelValues(areaNames[a])
		m.ok[a] = m.requests.WithLabelValues(areaNames[a], "GET", "200")
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
			status = 499 // the client left before an answer
		}
		m.requests.WithLabelValues(areaNames[a], name, codeNames[status]).Inc()
	}
	m.bytes[a].Add(float64(n))
	m.seconds[a].Observe(took.Seconds())
}

// synced counts a sync.
func (m *metrics) synced(e control.SyncEvent) {
	m.syncTime.WithLabelValues(e.Mirror).Observe(e.Took.Seconds())
	m.syncs.WithLabelValues(e.Mirror, e.Result).Inc()
	if e.Result == control.SyncNew {
		m.fetched.WithLabelValues(e.Mirror).Add(float64(e.Bytes))
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Timeout: 20 * time.Second})
}

// stateCollector reads gauges when they are asked for.
type stateCollector struct{ s *Server }

var (
	descFree      = prometheus.NewDesc("snapd_free_bytes", "Free bytes of the data directory.", nil, nil)
	descReserve   = prometheus.NewDesc("snapd_reserve_bytes", "Free bytes below which syncs and recordings stop.", nil, nil)
	descBlobs     = prometheus.NewDesc("snapd_blobs", "Blobs stored, as last counted.", nil, nil)
	descBlobBytes = prometheus.NewDesc("snapd_blob_bytes", "Bytes of the blobs stored, as last counted.", nil, nil)
	descDamaged   = prometheus.NewDesc("snapd_damaged_blobs", "Blobs known to be damaged.", nil, nil)
	descSnapshots = prometheus.NewDesc("snapd_latest_snapshot_timestamp_seconds", "Timestamp of a mirror's newest snapshot.", []string{"mirror"}, nil)
	descSuccess   = prometheus.NewDesc("snapd_sync_last_success_timestamp_seconds", "When a mirror was last found up to date or synced.", []string{"mirror"}, nil)
	descFrozen    = prometheus.NewDesc("snapd_frozen_snapshots", "Frozen snapshots.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descFree, descReserve, descBlobs, descBlobBytes, descDamaged, descSnapshots, descSuccess, descFrozen} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if s.cfg.Free != nil {
		if free, err := s.cfg.Free(); err == nil {
			gauge(descFree, float64(free))
		}
	}
	gauge(descReserve, float64(s.cfg.Conf.Store.Reserve))
	if u, ok := s.control.LastUsage(); ok {
		gauge(descBlobs, float64(u.Blobs))
		gauge(descBlobBytes, float64(u.BlobBytes))
	}
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
	var names []string
	for _, m := range c.s.e.Mirrors() {
		names = append(names, m.Name)
	}
	states, err := c.s.meta.MirrorStates(ctx, names)
	for _, st := range states {
		if ok := st.Check.OK; !ok.IsZero() {
			gauge(descSuccess, float64(ok.Unix()), st.Mirror)
		}
		if st.Latest != nil {
			gauge(descSnapshots, float64(st.Latest.Timestamp.Unix()), st.Mirror)
		}
	}
	return err
}
