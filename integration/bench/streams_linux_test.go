package bench

import (
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
)

// bench is one run.
type bench struct {
	scale    scale
	pg       *localpg.Server
	postgres int // its process
	variants []variant
	apps     map[appKey]*application
	figures  Figures
}

type appKey struct {
	variant string
	rows    int
}

// app returns the variant's database with so many rows, made when it is first asked for.
func (b *bench) app(t testing.TB, v variant, rows int) *application {
	t.Helper()
	k := appKey{v.name, rows}
	if b.apps[k] == nil {
		b.apps[k] = newApplication(t, b.pg, v, rows, b.scale.audits)
	}
	return b.apps[k]
}

// streams measures a server that is started for it: its memory, its connects, and its deliveries.
func (b *bench) streams(t testing.TB, v variant, n, rows int) {
	t.Helper()
	add := func(measure, unit string, value float64) {
		b.figures.Add(Key{Measure: measure, Unit: unit, Variant: v.name, Streams: n, Rows: rows}, value)
	}
	a := b.app(t, v, rows)
	harness.Exec(t, a.admin, "vacuum audits")
	s := v.start(t, a)
	time.Sleep(b.scale.settle) // for what a start leaves to do
	before := memoryOf(t, s.pid())
	beforeConnects := cpuOf(t, s.pid())

	c := gather(t, s, n, b.scale.audits)
	add(connectTime, "s", c.connect.Seconds())
	time.Sleep(b.scale.settle)
	add(connectCPU, "µs", micros(cpuOf(t, s.pid())-beforeConnects)/float64(n))
	settled := memoryOf(t, s.pid())
	add(rssSettled, "kB", (settled.resident-before.resident)/float64(n)/1e3)

	server, database := cpuOf(t, s.pid()), cpuOf(t, b.postgres)
	updates := a.run(t, s, b.scale.audits, b.scale.rate, b.scale.load)
	c.arrived(t, a)
	server, database = cpuOf(t, s.pid())-server, cpuOf(t, b.postgres)-database
	loaded := memoryOf(t, s.pid())
	samples := c.take(t)
	delays := a.delays(samples)
	add(rssLoaded, "kB", (loaded.resident-before.resident)/float64(n)/1e3)
	add(pssLoaded, "kB", (loaded.proportional-before.proportional)/float64(n)/1e3)
	add(deliveryCPU, "µs", micros(server)/float64(len(samples)))
	add(databaseCPU, "µs", micros(database)/float64(updates))
	add(latencyMedian, "ms", Quantile(delays, 0.5))
	add(latency99, "ms", Quantile(delays, 0.99))
	c.leave(t)
	s.stop(t)
}

// fanOut measures one audit that all clients watch.
func (b *bench) fanOut(t testing.TB, v variant, n, rows int) {
	t.Helper()
	a := b.app(t, v, rows)
	s := v.start(t, a)
	c := gather(t, s, n, 1)
	a.run(t, s, 1, b.scale.fanOutRate, b.scale.fanOut)
	c.arrived(t, a)
	delays := a.delays(c.take(t))
	k := Key{Measure: fanOutMedian, Unit: "ms", Variant: v.name, Streams: n, Rows: rows}
	b.figures.Add(k, Quantile(delays, 0.5))
	k.Measure = fanOut99
	b.figures.Add(k, Quantile(delays, 0.99))
	c.leave(t)
	s.stop(t)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
