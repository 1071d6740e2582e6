package bench

import (
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// bulk measures one statement that updates every row, with the triggers off and on while nobody watches: how long it takes,
// and the most memory that the session's process had. Each is a session of its own, so that none finds the other's memory.
func (b *bench) bulk(t testing.TB, v variant, round int) {
	t.Helper()
	a := b.app(t, v, b.scale.bulk)
	s := v.start(t, a)
	for _, state := range inTurn([]string{triggersOff, unwatched}, round) {
		if state == triggersOff {
			harness.Exec(t, a.admin, "alter table audits disable trigger user")
		}
		harness.Exec(t, a.admin, "vacuum full audits") // each writes the same pages
		harness.Exec(t, a.admin, "vacuum analyze audits")
		harness.Exec(t, a.admin, "checkpoint")
		conn := pgtest.Connect(t, a.dsn)
		pid := int(conn.PgConn().PID())
		began := time.Now()
		harness.Exec(t, conn, "update audits set progress = (progress + 1) % 101")
		took := time.Since(began)
		k := Key{Measure: bulkTime, Unit: "ms", Variant: v.name, State: state, Rows: b.scale.bulk}
		b.figures.Add(k, float64(took)/float64(time.Millisecond))
		k.Measure, k.Unit = bulkMemory, "kB"
		b.figures.Add(k, field(t, pid, "status", "VmHWM:")/1024)
		harness.NoError(t, conn.Close(t.Context()))
		if state == triggersOff {
			harness.Exec(t, a.admin, "alter table audits enable trigger user")
		}
		t.Logf("%s: update of %d rows, triggers %s: %v", v.name, b.scale.bulk, state, took.Round(time.Millisecond))
	}
	s.stop(t)
}
