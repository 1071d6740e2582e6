package sql_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"auditstream/internal/sql"
)

// BenchmarkUnwatchedUpdate measures how much more processor time PostgreSQL takes for one update of a row that nobody watches, beside the same
// without triggers. Most of it is for parsing the triggers' conditions, which every statement does.
func BenchmarkUnwatchedUpdate(b *testing.B) {
	_, conn := audits(b)
	const rows = 5000
	exec(b, conn, fmt.Sprintf(`insert into audits (url, status) select 'u', 'running' from generate_series(2, %d)`, rows))
	used := func() float64 { // microseconds
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", conn.PgConn().PID()))
		if err != nil {
			b.Fatal("this benchmark needs Linux, which says how long a process ran: ", err)
		}
		ns, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		return ns / 1000
	}
	took := map[string]float64{}
	for b.Loop() {
		for _, state := range []string{"disable", "enable"} {
			exec(b, conn, "alter table audits "+state+" trigger user")
			exec(b, conn, "vacuum full analyze audits")
			before := used()
			exec(b, conn, fmt.Sprintf(`do $$ begin for i in 1..%d loop update audits set progress = i %% 100 where id = i; end loop; end $$`, rows))
			took[state] += used() - before
		}
	}
	of := float64(b.N * rows)
	b.ReportMetric(took["disable"]/of, "us/update-without")
	b.ReportMetric((took["enable"]-took["disable"])/of, "us/update-more")
}

// An update that does not set the key does not parse what is for the old key.
func TestOldKeyIsAskedForOnlyWhenAStatementSetsTheKey(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer);
		insert into audits values (1, 'running', 1), (2, 'running', 1)`)
	install(t, conn, sql.Options{})
	b := listen(t, dsn)
	b.notifies(t, conn, `update audits set id = 7, progress = 5 where id = 1`, "1", "7")
	b.notifies(t, conn, `insert into audits values (2) on conflict (id) do update set id = 8`, "2", "8")
	b.notifies(t, conn, `alter table audits rename id to number; update audits set number = 9 where number = 8`, "8", "9")
	b.notifies(t, conn, `update audits set number = number`, "7", "9")
	equal(t, "columns", column(t, conn, `select tgname || ' ' || tgattr::text from pg_trigger
		where tgname in ('auditstream_update', 'auditstream_rekey') order by 1`),
		[]string{"auditstream_rekey 1", "auditstream_update "})
}
