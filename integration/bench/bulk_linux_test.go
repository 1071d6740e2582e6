package bench

import (
	"testing"
	"time"

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
			a.exec(t, "alter table audits disable trigger user")
		}
		a.exec(t, "vacuum full audits") // each writes the same pages
		a.exec(t, "vacuum analyze audits")
		a.exec(t, "checkpoint")
		conn := pgtest.Connect(t, a.dsn)
		pid := int(conn.PgConn().PID())
		began := time.Now()
		if _, err := conn.Exec(t.Context(), "update audits set progress = (progress + 1) % 101"); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		k := Key{Measure: bulkTime, Unit: "ms", Variant: v.name, State: state, Rows: b.scale.bulk}
		b.figures.Add(k, float64(took)/float64(time.Millisecond))
		k.Measure, k.Unit = bulkMemory, "kB"
		b.figures.Add(k, field(t, pid, "status", "VmHWM:")/1024)
		if err := conn.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if state == triggersOff {
			a.exec(t, "alter table audits enable trigger user")
		}
		t.Logf("%s: update of %d rows, triggers %s: %v", v.name, b.scale.bulk, state, took.Round(time.Millisecond))
	}
	s.stop(t)
}
