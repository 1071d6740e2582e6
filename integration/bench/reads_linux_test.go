package bench

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// reads counts what the server asks of the database, in PostgreSQL's own log: at rest, each tick of the safety net, with
// few streams and with many; and while many clients connect at once.
func (b *bench) reads(t testing.TB, v variant) {
	t.Helper()
	a := b.app(t, v, b.scale.audits)
	harness.Exec(t, a.admin, "alter system set log_statement = 'all'")
	harness.Exec(t, a.admin, "select pg_reload_conf()")
	defer func() {
		harness.Exec(t, a.admin, "alter system reset log_statement")
		harness.Exec(t, a.admin, "select pg_reload_conf()")
	}()

	s := v.start(t, a)
	time.Sleep(b.scale.settle)
	mark := b.log(t)
	c := gather(t, s, b.scale.connects, b.scale.audits)
	reads, all := statements(b.log(t)[len(mark):])
	k := Key{Measure: readsConnect, Unit: "reads", Variant: v.name, Streams: b.scale.connects}
	b.figures.Add(k, float64(reads))
	k.Measure, k.Unit = statementsConnect, "statements"
	b.figures.Add(k, float64(all))
	c.leave(t)
	s.stop(t)

	fast := v
	fast.serve = append([]string{"SSE_FALLBACK_DB_INTERVAL_SECONDS=1"}, v.serve...)
	s = fast.start(t, a)
	for _, n := range []int{b.scale.audits, b.scale.connects} {
		c := gather(t, s, n, b.scale.audits)
		time.Sleep(b.scale.settle)
		mark := b.log(t)
		time.Sleep(b.scale.idle)
		reads, all := statements(b.log(t)[len(mark):])
		ticks := b.scale.idle.Seconds()
		k := Key{Measure: readsIdle, Unit: "reads", Variant: v.name, Streams: n}
		b.figures.Add(k, float64(reads)/ticks)
		k.Measure, k.Unit = statementsIdle, "statements"
		b.figures.Add(k, float64(all)/ticks)
		c.leave(t)
	}
	s.stop(t)
}

func (b *bench) log(t testing.TB) string {
	t.Helper()
	log, err := os.ReadFile(b.pg.LogFile())
	harness.NoError(t, err)
	return string(log)
}

var statement = regexp.MustCompile(`^ +(?:statement|execute [^:]*): `)

// statements counts those that read our view, and all of them.
func statements(log string) (reads, all int) {
	for entry := range strings.SplitSeq(log, "LOG:") {
		if !statement.MatchString(entry) {
			continue
		}
		all++
		if strings.Contains(entry, "auditstream.progress") {
			reads++
		}
	}
	return reads, all
}
