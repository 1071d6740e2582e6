package bench

import (
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// sessions measures what a trigger costs an application whose sessions are short: pgbench with a connection a statement, and the
// first UPDATE of sessions that have done nothing else, with the triggers off and on while nobody watches.
func (b *bench) sessions(t testing.TB, v variant, round int) {
	t.Helper()
	a := b.app(t, v, b.scale.audits)
	s := v.start(t, a)
	a.forgotten(t)
	for _, state := range inTurn([]string{triggersOff, unwatched}, round) {
		if state == triggersOff {
			harness.Exec(t, a.admin, "alter table audits disable trigger user")
		}
		harness.Exec(t, a.admin, "vacuum audits")
		rate, _ := b.pgbench(t, a, 1, "-C")
		k := Key{Measure: commitsConnecting, Unit: "/s", Variant: v.name, State: state, Rows: b.scale.audits, Writers: 1}
		b.figures.Add(k, rate)
		k.Measure, k.Unit = firstStatement, "ms"
		b.figures.Add(k, a.firstUpdates(t, b.scale.sessions))
		if state == triggersOff {
			harness.Exec(t, a.admin, "alter table audits enable trigger user")
		}
	}
	s.stop(t)
}

// firstUpdates is the median, in milliseconds, of the first UPDATE of n sessions.
func (a *application) firstUpdates(t testing.TB, n int) float64 {
	t.Helper()
	var took []float64
	for range n {
		conn := pgtest.Connect(t, a.dsn)
		began := time.Now()
		harness.Exec(t, conn, "update audits set progress = (progress + 1) % 101 where id = 10")
		took = append(took, float64(time.Since(began))/float64(time.Millisecond))
		harness.NoError(t, conn.Close(t.Context()))
	}
	return Quantile(took, 0.5)
}
