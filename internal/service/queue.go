package service

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// queueTimeout is how long a scrape waits for the database: the other metrics are needed most while it is unreachable.
	queueTimeout = time.Second
	// queueFresh is how long a result, or a failure, is used before the database is asked again.
	queueFresh = 5 * time.Second
	// queueIdle is the same while nobody watches, so that scrapes do not keep an idle database awake.
	queueIdle = 2 * time.Minute
)

// queueUsage is the metric of PostgreSQL's notification queue, read at a scrape. While it cannot be read it is absent: an old value would
// look as if all were well.
type queueUsage struct {
	read func(context.Context) (float64, error)
	idle func() bool
	desc *prometheus.Desc

	mu     sync.Mutex // also held during the query, so that concurrent scrapes share one
	readAt time.Time
	usage  float64
	err    error
}

// newQueueUsage returns the metric of the value that read returns, from 0 to 1. idle reports whether nobody watches.
func newQueueUsage(read func(context.Context) (float64, error), idle func() bool) prometheus.Collector {
	return &queueUsage{read: read, idle: idle, desc: prometheus.NewDesc("auditstream_notification_queue_usage_ratio",
		"How full PostgreSQL's queue of notifications is, from 0 to 1; absent while it cannot be read.", nil, nil)}
}

func (q *queueUsage) Describe(descs chan<- *prometheus.Desc) { descs <- q.desc }

func (q *queueUsage) Collect(metrics chan<- prometheus.Metric) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fresh := queueFresh
	if q.err == nil && q.idle() {
		fresh = queueIdle
	}
	if q.readAt.IsZero() || time.Since(q.readAt) >= fresh {
		ctx, cancel := context.WithTimeout(context.Background(), queueTimeout)
		q.usage, q.err = q.read(ctx)
		cancel()
		q.readAt = time.Now()
	}
	if q.err == nil {
		metrics <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, q.usage)
	}
}
