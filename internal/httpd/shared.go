package httpd

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/snapd/internal/cas"
	copies "example.org/snapd/internal/cas/cache"
)

// collectShared collects what this node knows about the shared database, store and
// leases.
func (c *stateCollector) collectShared(ch chan<- prometheus.Metric, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	s := c.s
	if s.cfg.Shared != nil {
		st := s.cfg.Shared.State()
		gauge(descDatabase, truth(st.Down.IsZero()))
		gauge(descLag, s.cfg.Shared.Lag().Seconds())
		gauge(descSkew, st.Skew.Seconds())
		counter(descLost, float64(st.Lost))
	}
	if h, ok := cas.Find[cas.Health](s.blobs()); ok {
		_, err := h.Trouble(s.base)
		gauge(descStoreUp, truth(err == nil))
	}
	if k, ok := cas.Find[*copies.Store](s.blobs()); ok {
		st := k.Stats()
		gauge(descCache, float64(st.Bytes))
		gauge(descCacheSize, float64(s.cfg.Conf.Store.Cache))
		counter(descCacheHits, float64(st.Hits))
		counter(descCacheMiss, float64(st.Misses))
	}
	if _, _, alone := s.alone(); alone {
		return // the rest would need the database
	}
	ctx, cancel := context.WithTimeout(s.base, pageTime)
	defer cancel()
	states, err := s.meta.LeaseStates(ctx)
	if err != nil {
		s.log.Warn("collect metrics", "err", err)
	}
	for _, l := range states {
		if l.Held {
			gauge(descLeader, 1, l.Name, l.Who)
		}
	}
}
