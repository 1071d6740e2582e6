package server

import (
	"sync"
	"time"

	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	streams *prometheus.GaugeVec
	events  *prometheus.CounterVec
	ended   *prometheus.CounterVec
	refused *prometheus.CounterVec
	latency *prometheus.HistogramVec
	feeds   *sync.Map // *feedMetrics by the feed's name
}

// feedMetrics are the metrics of one feed, cached so that no event needs a lookup of labels.
type feedMetrics struct {
	streams prometheus.Gauge
	events  prometheus.Counter
	latency prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, maxStreams int) metrics {
	to := promauto.With(reg)
	limit := to.NewGauge(prometheus.GaugeOpts{Name: "auditstream_streams_max", Help: "Most open streams, by SSE_MAX_STREAMS; 0: no limit."})
	limit.Set(float64(maxStreams))
	counter := func(name, help, label string) *prometheus.CounterVec {
		return to.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := metrics{
		feeds:   new(sync.Map),
		streams: to.NewGaugeVec(prometheus.GaugeOpts{Name: "auditstream_streams_open", Help: "Open streams."}, []string{"feed"}),
		events:  counter("auditstream_events_sent_total", "States sent to streams.", "feed"),
		ended:   counter("auditstream_streams_ended_total", "Streams that ended, by reason.", "reason"),
		refused: counter("auditstream_requests_refused_total", "Requests that were not served, by reason.", "reason"),
		// The notification's arrival stands for the commit: PostgreSQL sends it right after the commit, and the commit's own time would need
		// another column in the application's table.
		latency: to.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "auditstream_commit_to_flush_seconds",
			Help:    "From the arrival of the first notification of a change to the flush of its event, once for each stream; changes found without a notification are not counted.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}, []string{"feed"}),
	}
	m.forFeed(store.DefaultFeed)
	for _, reason := range []string{endTerminal, endClient, endTimeout, endExpired, endForbidden, endDeleted, endShutdown, endFeed, endError} {
		m.ended.WithLabelValues(reason)
	}
	for _, label := range refusedLabels {
		m.refused.WithLabelValues(label)
	}
	m.refused.WithLabelValues(refusedOther)
	m.refused.WithLabelValues(refusedGone)
	return m
}

// forFeed returns the metrics of a feed.
func (m metrics) forFeed(feed string) *feedMetrics {
	f, ok := m.feeds.Load(feed)
	if !ok {
		f, _ = m.feeds.LoadOrStore(feed, &feedMetrics{m.streams.WithLabelValues(feed), m.events.WithLabelValues(feed), m.latency.WithLabelValues(feed)})
	}
	return f.(*feedMetrics)
}

// sent counts a written state and its latency. A stream's first states have none: no notification caused them.
func (m *feedMetrics) sent(state *store.State, first bool) {
	m.events.Inc()
	if !first && !state.Noticed.IsZero() {
		m.latency.Observe(time.Since(state.Noticed).Seconds())
	}
}

const (
	refusedOther = "other"
	refusedGone  = "client gone" // the client disconnected before the answer
)

var refusedLabels = map[*apiError]string{
	errMissingToken:   "missing token",
	errInvalidToken:   "invalid token",
	errTokenInURL:     "token in URL",
	errMalformedAuth:  "malformed authorization",
	errInvalidKey:     "invalid audit id",
	errInvalidKeys:    "invalid audit ids",
	errForbidden:      "forbidden",
	errNoRow:          "not found",
	errNoFeed:         "no such feed",
	errInternal:       "internal error",
	errUnavailable:    "database unavailable",
	errNoKeys:         "signing keys unavailable",
	errTooManyStreams: "too many streams",
	errTooManyConns:   "too many connections",
	errTooManyRefused: "too many refusals",
	errShuttingDown:   "shutting down",
}

func refusedLabel(answer *apiError) string {
	if label, ok := refusedLabels[answer.withoutDetail()]; ok {
		return label
	}
	return refusedOther
}
