package redisnotify

import "github.com/prometheus/client_golang/prometheus"

type publisherMetrics struct {
	up        prometheus.Gauge
	published prometheus.Counter
	failures  prometheus.Counter
}

func newPublisherMetrics(reg prometheus.Registerer) publisherMetrics {
	m := publisherMetrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "auditstream_relay_redis_up",
			Help: "1 while Redis takes what the relay publishes.",
		}),
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditstream_relay_published_total",
			Help: "Messages that Redis took: hints, resyncs and beats.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditstream_relay_failures_total",
			Help: "Attempts to publish that Redis did not take; a resync makes up for what was in them.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.up, m.published, m.failures)
	}
	return m
}
