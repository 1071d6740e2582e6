package faults

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// earlier is a database with what an earlier version installed, for the role that serves.
func earlier(t *testing.T, version int) harness.Database {
	t.Helper()
	admin := pgtest.New(t)
	harness.MakeRole(t, admin)
	for _, name := range []string{"audits.sql", fmt.Sprintf("testdata/schema-%d.sql", version)} {
		script, err := os.ReadFile(harness.Path("internal/sql/" + name))
		harness.NoError(t, err)
		pgtest.Psql(t, admin, string(script))
	}
	grants := `grant usage on schema auditstream to ` + harness.ServeRole + `; grant select on auditstream.progress to ` + harness.ServeRole
	if version > 1 {
		grants += `; grant insert on auditstream.watch to ` + harness.ServeRole + `; grant execute on function auditstream.unwatch(bigint, bigint[]) to ` + harness.ServeRole
	}
	pgtest.Psql(t, admin, grants)
	return harness.Adopted(t, admin)
}

const (
	olderSchema = "the database's schema is older than this program: upgrade it with auditstream install"
	sameSchema  = "the database's schema is of this program's version now"
)

// An upgrade under writers at full speed, with streams open: each sees its audit's end, whenever that was. Up to version 4 a
// program of this version finds changes with the safety net, unless the triggers ring for every change as those of the first do.
// Afterwards the triggers look at locks, which nobody held before.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	harness.Binary(t) // a goroutine must not fail the test
	for version := 1; version < 5; version++ {
		t.Run(fmt.Sprint("from ", version), func(t *testing.T) { // in turn: each is a load of its own
			upgradeUnderLoad(t, earlier(t, version), version)
		})
	}
}

func upgradeUnderLoad(t *testing.T, db harness.Database, found int) {
	const writers, each = 3, 15
	interval := "3600"
	if found > 1 {
		interval = "1"
	}
	i := harness.Serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS="+interval, "SSE_POLL_HOT=off")
	i.WaitReady(t, map[bool]string{true: "polling", false: "up"}[found > 1]) // later triggers ask who watches
	older := i.WaitLog(t, olderSchema)
	if older["schema"] != float64(found) || older["program"] != float64(5) {
		t.Errorf("compared %v with %v, want %d with 5", older["schema"], older["program"], found)
	}
	command, _ := older["run"].(string)
	if want := "auditstream install --table public.audits --role " + harness.ServeRole; command != want {
		t.Fatalf("run %s, want %s", command, want)
	}
	args := append(strings.Fields(command)[1:], "--lock-wait=50s")
	ids := db.InsertMany(t, writers*each+2)
	long, old, ids := ids[0], ids[1], ids[2:]
	viewers := i.Crowd(t, len(ids)+2, append([]string{long, old}, ids...), nil)
	stop := make(chan struct{})
	var group sync.WaitGroup
	finish := sync.OnceFunc(func() { close(stop); group.Wait() })
	t.Cleanup(finish)
	for own := range slices.Chunk(ids, each) {
		conn := pgtest.Connect(t, db.Admin) // pgx prepares what it repeats: the plans of before the upgrade are kept
		group.Go(func() { write(t, conn, own, stop) })
	}
	for _, v := range viewers[2:6] { // pushed, as there is no other way here
		v.Reached(t, 1)
	}

	// Whose triggers always ring need not be told; of the others an alert speaks.
	if got := i.Metric(t, "auditstream_unannounced_buckets"); (got > 0) != (found > 1) {
		t.Errorf("%v buckets are not announced, by triggers of version %d", got, found)
	}
	// One writer is in the way of the first attempts, another has a snapshot of before.
	inTheWay, before := pgtest.Connect(t, db.Admin), pgtest.Connect(t, db.Admin)
	harness.Script(t, inTheWay, `begin; update audits set total_pages = 1 where id = `+long)
	harness.Script(t, before, `begin isolation level repeatable read; select count(*) from audits where id < 0`)
	installed := make(chan struct{})
	go func() {
		defer close(installed)
		code, stdout, stderr := harness.TryCommand(t, []string{"DATABASE_URL=" + db.Admin}, args...)
		if want := fmt.Sprintf("the schema was of version %d and is of version 5 now", found); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("install: exit status %d, want %q in\n%s%s", code, want, stdout, stderr)
		}
	}()
	db.WaitSQL(t, `select count(*) from pg_stat_activity where datname = current_database() and application_name = 'auditstream' and wait_event_type = 'Lock'`, "1")
	harness.Script(t, inTheWay, `update audits set total_pages = 2, status = 'completed' where id = `+long+`; commit`)
	<-installed
	harness.Script(t, before, `update audits set total_pages = 2, status = 'completed' where id = `+old+`; commit`)
	finish()
	for _, v := range viewers {
		if got := v.Ended(t); got.Status != "completed" {
			t.Errorf("audit %s ended as %s", v.ID, harness.Describe(got))
		}
	}
	i.WaitLog(t, sameSchema)
	// It tells the triggers now what it watches, and hears of that.
	last := db.Insert(t, "status", "'running'")
	v := i.View(t, last, nil)
	db.WatchedBy(t, last, 1)
	db.SQL(t, `update audits set total_pages = 1 where id = `+last)
	v.Reached(t, 1)
}

// write updates audits as fast as it can, and completes one of them every now and then; at the end what is left.
func write(t *testing.T, conn *pgx.Conn, own []string, stop chan struct{}) {
	update := func(id string, n int, status string) {
		if _, err := conn.Exec(t.Context(), `update audits set total_pages = $2, status = $3 where id = $1`, id, n, status); err != nil {
			t.Errorf("a writer failed: %v", err)
		}
	}
	n := 1
	for over := false; !over && !t.Failed(); n++ {
		update(own[n%len(own)], n, "running")
		if n%40 == 0 && len(own) > 5 {
			update(own[0], n, "completed")
			own = own[1:]
		}
		select {
		case <-stop:
			over = true
		default:
		}
	}
	for _, id := range own {
		update(id, n, "running")
		update(id, n+1, "completed")
	}
}
