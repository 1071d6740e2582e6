package pgnotify

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// No label has a key or a user as its value: their number is unbounded, and /metrics must not name them.

type hubMetrics struct {
	reads     *prometheus.HistogramVec
	batch     prometheus.Histogram
	coalesced prometheus.Counter
	missed    prometheus.Counter
}

func newHubMetrics(h *Hub, reg prometheus.Registerer) hubMetrics {
	to := promauto.With(reg)
	gauge(to, "auditstream_watched_audits", "Audits that at least one stream watches.", func() float64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		return float64(len(h.entries))
	})
	gauge(to, "auditstream_flooded", "1 during a flood: changes are so many that nothing is announced, and all that is watched is read on a short timer.",
		func() float64 { return oneIf(h.pace.flooded()) })
	m := hubMetrics{
		reads: to.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "auditstream_read_duration_seconds",
			Help:    "Duration of the hub's reads, each of which loads up to 500 audits in one query.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15),
		}, []string{"result"}),
		batch:     histogram(to, "auditstream_read_audits", "Audits asked for by one read.", prometheus.ExponentialBuckets(1, 4, 8)),
		coalesced: counter(to, "auditstream_states_coalesced_total", "States that a newer one replaced before a stream had taken them."),
		missed:    counter(to, "auditstream_notifications_missed_total", "Changes that a read found and no notification announced within 2 seconds."),
	}
	m.reads.WithLabelValues("ok")
	m.reads.WithLabelValues("error")
	return m
}

// listenerMetrics are the same for every Source, so that alerts need not know it.
type listenerMetrics struct {
	connects      prometheus.Counter
	failures      *prometheus.CounterVec
	notifications *prometheus.CounterVec
	canary        prometheus.Histogram
}

const (
	// Why a listening connection, or an attempt to open one, has ended.
	failConnect = "connect" // no connection, or LISTEN refused
	failSilent  = "silent"  // a canary did not come back
	failLost    = "lost"    // the connection broke
	// The kinds of notifications.
	notifyRow     = "row"
	notifyResync  = "resync"
	notifyCanary  = "canary"
	notifyIgnored = "ignored"
)

func newListenerMetrics(reg prometheus.Registerer, up func() bool) listenerMetrics {
	to := promauto.With(reg)
	gauge(to, "auditstream_listener_up", "1 while notifications are proven to arrive, 0 while the safety net alone finds changes.", func() float64 { return oneIf(up()) })
	return listenerMetrics{
		connects: counter(to, "auditstream_listener_connects_total", "Listening connections (LISTEN, or a Redis subscription); all but the first are reconnects."),
		failures: counters(to, "auditstream_listener_failures_total", "Ends of listening connections, by reason: connect, silent (a canary did not come back), lost.",
			"reason", failConnect, failSilent, failLost),
		notifications: counters(to, "auditstream_notifications_total", "Notifications received, by kind: row, resync (TRUNCATE), canary, ignored (not understood).",
			"kind", notifyRow, notifyResync, notifyCanary, notifyIgnored),
		canary: histogram(to, "auditstream_canary_seconds", "Time from sending a canary over another connection to its arrival on the listening one.", prometheus.ExponentialBuckets(0.00025, 2, 14)),
	}
}

func gauge(to promauto.Factory, name, help string, value func() float64) {
	to.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func counter(to promauto.Factory, name, help string) prometheus.Counter {
	return to.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func histogram(to promauto.Factory, name, help string, buckets []float64) prometheus.Histogram {
	return to.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// counters returns a counter with a label, whose values are all there from the first scrape on.
func counters(to promauto.Factory, name, help, label string, values ...string) *prometheus.CounterVec {
	vec := to.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	for _, value := range values {
		vec.WithLabelValues(value)
	}
	return vec
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
