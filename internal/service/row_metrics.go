package service

import (
	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

// rowMetrics count the rows that viewers see cut or not at all.
func rowMetrics(audits *store.Store) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditstream_rows_unreadable",
			Help: "Rows that somebody asks for and that cannot be read, whatever the reason; the others can.",
		}, func() float64 { return float64(audits.Unreadable()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "auditstream_rows_cut_total",
			Help: "Times that a row was read whose text was cut, because it is longer than SSE_MAX_ROW_BYTES.",
		}, func() float64 { return float64(audits.Cut()) }),
	}
}
