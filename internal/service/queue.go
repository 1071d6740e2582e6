package service

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// queueTimeout bounds what a scrape waits for the database: the other metrics are wanted most while it is away.
	queueTimeout = time.Second
	// queueFresh is how long a reading counts, and how long the database is left alone after one that failed.
	queueFresh = 5 * time.Second
	// queueIdle is the same while nobody watches, so that those who collect metrics do not keep a database awake.
	queueIdle = 2 * time.Minute
)

// queueUsage is the metric of PostgreSQL's notification queue, read when somebody asks for it. While it cannot be read it is
// absent: an old value would say that all is well.
type queueUsage struct {
	read func(context.Context) (float64, error)
	idle func() bool
	desc *prometheus.Desc

	mu    sync.Mutex // also held while reading: many scrapers are one query
	at    time.Time
	usage float64
	err   error
}

// newQueueUsage returns the metric of what read says, from 0 to 1. idle reports whether nobody watches.
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
	if q.at.IsZero() || time.Since(q.at) >= fresh {
		ctx, cancel := context.WithTimeout(context.Background(), queueTimeout)
		q.usage, q.err = q.read(ctx)
		cancel()
		q.at = time.Now()
	}
	if q.err == nil {
		metrics <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, q.usage)
	}
}
