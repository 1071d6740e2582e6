package pgnotify

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// No label ever carries an audit id or a user: their number is unbounded, and /metrics is not where they belong.

type hubMetrics struct {
	reads     *prometheus.HistogramVec
	batch     prometheus.Histogram
	coalesced prometheus.Counter
	missed    prometheus.Counter
}

func newHubMetrics(h *Hub, reg prometheus.Registerer) hubMetrics {
	m := hubMetrics{
		reads: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "auditstream_read_duration_seconds",
			Help:    "Duration of the hub's reads, each of which loads up to 500 audits in one query.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15),
		}, []string{"result"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "auditstream_read_audits",
			Help:    "Audits asked for by one read.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditstream_states_coalesced_total",
			Help: "States that a newer one replaced before a stream had taken them.",
		}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditstream_notifications_missed_total",
			Help: "Changes that a read found and no notification announced within 2 seconds.",
		}),
	}
	m.reads.WithLabelValues("ok")
	m.reads.WithLabelValues("error")
	if reg != nil {
		reg.MustRegister(m.reads, m.batch, m.coalesced, m.missed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditstream_watched_audits",
			Help: "Audits that at least one stream watches.",
		}, func() float64 { return float64(h.watched()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditstream_flooded",
			Help: "1 while changes are so many that all that is watched is read on a short timer, and nothing is announced.",
		}, func() float64 { return oneIf(h.pace.flooded()) }))
	}
	return m
}

// watched is how many rows somebody watches.
func (h *Hub) watched() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries)
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (m hubMetrics) observeRead(d time.Duration, audits int, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.reads.WithLabelValues(result).Observe(d.Seconds())
	m.batch.Observe(float64(audits))
}

// listenerMetrics are the same whatever a listener listens to, so that alerts are, too.
type listenerMetrics struct {
	connects      prometheus.Counter
	failures      *prometheus.CounterVec
	notifications *prometheus.CounterVec
	canary        prometheus.Histogram
}

// Why a connection that listened, or tried to, ended.
const (
	failConnect = "connect" // no connection, or LISTEN refused
	failSilent  = "silent"  // a canary did not come back
	failLost    = "lost"    // the connection broke
)

// What a notification was.
const (
	notifyRow     = "row"
	notifyResync  = "resync"
	notifyCanary  = "canary"
	notifyIgnored = "ignored"
)

// newListenerMetrics registers the metrics of the one listener of a process, and of whether it is up; nil: nowhere.
func newListenerMetrics(reg prometheus.Registerer, up func() bool) listenerMetrics {
	m := listenerMetrics{
		connects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditstream_listener_connects_total",
			Help: "Listening connections (LISTEN, or a Redis subscription); all but the first are reconnects.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "auditstream_listener_failures_total",
			Help: "Ends of listening connections, by reason: connect, silent (a canary did not come back), lost.",
		}, []string{"reason"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "auditstream_notifications_total",
			Help: "Notifications received, by kind: row, resync (TRUNCATE), canary, ignored (not understood).",
		}, []string{"kind"}),
		canary: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "auditstream_canary_seconds",
			Help:    "Time from sending a canary over another connection to its arrival on the listening one.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14),
		}),
	}
	for _, reason := range []string{failConnect, failSilent, failLost} {
		m.failures.WithLabelValues(reason)
	}
	for _, kind := range []string{notifyRow, notifyResync, notifyCanary, notifyIgnored} {
		m.notifications.WithLabelValues(kind)
	}
	if reg != nil {
		reg.MustRegister(m.connects, m.failures, m.notifications, m.canary, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditstream_listener_up",
			Help: "1 while notifications are proven to arrive, 0 while the safety net alone finds changes.",
		}, func() float64 { return oneIf(up()) }))
	}
	return m
}

// NewUnheld returns the metric of a Registrar.
func NewUnheld(r *Registrar) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "auditstream_unannounced_buckets",
		Help: "Buckets of keys in which somebody watches and of which writers announce nothing, because the lock is not held: the safety net finds their changes.",
	}, func() float64 { return float64(r.Unheld()) })
}
