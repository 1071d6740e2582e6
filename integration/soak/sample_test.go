package soak

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"auditstream/integration/harness"
	"auditstream/integration/series"

	"github.com/jackc/pgx/v5"
)

const (
	mebi = 1024.0 * 1024
	// heapAllowance is for what is kept for good reasons: buffers of the pool's connections, which are replaced.
	heapAllowance = 0.25 * mebi
)

// sampled is the server at one moment.
type sampled struct {
	at                                     time.Time
	resident, heapInUse                    float64 // bytes
	goroutines, files                      float64
	streams, watched, events               float64
	connections, queue, tableBytes, visits float64
	heapLive                               float64 // what the last collection found to be in use
}

// sampler measures from outside: /metrics and PostgreSQL's statistics.
type sampler struct {
	server *harness.Instance
	admin  *pgx.Conn
}

func (s *sampler) take(ctx context.Context) (sampled, error) {
	got := sampled{at: time.Now()}
	metrics, err := scrape(ctx, s.server)
	if err != nil {
		return got, err
	}
	for name, field := range map[string]*float64{
		"process_resident_memory_bytes": &got.resident, "go_memstats_heap_inuse_bytes": &got.heapInUse,
		"go_gc_heap_live_bytes": &got.heapLive, "go_goroutines": &got.goroutines, "process_open_fds": &got.files,
		harness.StreamsOpen: &got.streams, "auditstream_watched_audits": &got.watched, "auditstream_events_sent_total": &got.events,
	} {
		value, ok := metrics[name]
		if !ok {
			return got, fmt.Errorf("no metric %s", name)
		}
		*field = value
	}
	err = s.admin.QueryRow(ctx, `select (select count(*)::float8 from pg_stat_activity where usename = $1),
		pg_notification_queue_usage(), pg_total_relation_size('audits')::float8`, harness.ServeRole).
		Scan(&got.connections, &got.queue, &got.tableBytes)
	return got, err
}

// scrape reads all samples of /metrics that have no labels but the feed audits.
func scrape(ctx context.Context, i *harness.Instance) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.Admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept-Encoding", "identity") // a compressor takes 0.9 MiB of the heap that is measured
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	all := make(map[string]float64)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, text, _ := strings.Cut(harness.OfAudits.Replace(lines.Text()), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil { // comments are none
			all[name] = value
		}
	}
	return all, lines.Err()
}

// recorder turns samples into series.
type recorder struct {
	every  time.Duration
	before sampled
	last   sampled
	began  time.Time
	times  []time.Duration
	series []*series.Series
	value  []func(now, last sampled) float64
}

// newRecorder fixes what is measured and how much of it may grow in a run.
func newRecorder(duration time.Duration, before sampled) *recorder {
	r := &recorder{every: max(duration/240, 500*time.Millisecond), before: before}
	limit := func(share, absolute float64) *series.Limit { return &series.Limit{Share: share, Absolute: absolute} }
	perSecond := func(of func(sampled) float64) func(now, last sampled) float64 {
		return func(now, last sampled) float64 { return (of(now) - of(last)) / now.at.Sub(last.at).Seconds() }
	}
	for _, s := range []struct {
		name, unit string
		limit      *series.Limit
		value      func(now, last sampled) float64
	}{
		{"resident memory", "MiB", limit(0.10, 4), func(now, _ sampled) float64 { return now.resident / mebi }},
		{"Go heap in use", "MiB", limit(0.10, 3), func(now, _ sampled) float64 { return now.heapInUse / mebi }},
		{"goroutines", "", limit(0.10, 15), func(now, _ sampled) float64 { return now.goroutines }},
		{"file descriptors", "", limit(0.10, 10), func(now, _ sampled) float64 { return now.files }},
		{"database connections", "", limit(0.10, 1), func(now, _ sampled) float64 { return now.connections }},
		{"NOTIFY queue usage", "%", limit(0, 0.01), func(now, _ sampled) float64 { return 100 * now.queue }},
		{"open streams", "", limit(0.10, 10), func(now, _ sampled) float64 { return now.streams }},
		{"table with its indexes", "MiB", nil, func(now, _ sampled) float64 { return now.tableBytes / mebi }},
		{"events delivered", "/s", nil, perSecond(func(s sampled) float64 { return s.events })},
		{"visits", "/s", nil, perSecond(func(s sampled) float64 { return s.visits })},
	} {
		r.series = append(r.series, &series.Series{Name: s.name, Unit: s.unit, Limit: s.limit, Start: unknown, End: unknown})
		r.value = append(r.value, s.value)
	}
	return r
}

// start is the moment from which rates are taken.
func (r *recorder) start(now sampled) { r.began, r.last = now.at, now }

func (r *recorder) add(now sampled) {
	r.times = append(r.times, now.at.Sub(r.began))
	for k, s := range r.series {
		s.Values = append(s.Values, r.value[k](now, r.last))
	}
	r.last = now
}

// finish adds what was measured at rest. Rates are nothing there.
func (r *recorder) finish(after sampled) {
	for k, s := range r.series {
		if s.Unit == "/s" {
			continue
		}
		s.Start, s.End = r.value[k](r.before, r.before), r.value[k](after, after)
	}
	// Measured at rest alone, and drawn nowhere: what lives in the heap says most, but only when nothing else does.
	r.series = append(r.series, &series.Series{Name: "Go heap after collection", Unit: "MiB",
		Start: r.before.heapLive / mebi, End: after.heapLive / mebi})
}

func (r *recorder) record(duration time.Duration) *series.Record {
	return &series.Record{Title: fmt.Sprintf("auditstream serve under constant churn for %s", series.Clock(duration)),
		Times: r.times, WarmUp: duration / 5, Series: r.series}
}
