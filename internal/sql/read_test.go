package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// TestReadsUseTheIndex: the server's query, on as many rows as the key allows.
func TestReadsUseTheIndex(t *testing.T) {
	t.Parallel()
	type test struct{ table, ids string }
	testkit.Each(t, map[string]test{
		"bigint":      {`(id bigint primary key, status text, progress integer)`, `1, 100000`},
		"integer":     {`(id integer primary key, status text, progress integer)`, `1, 100000`},
		"smallint":    {`(id smallint primary key, status text, progress integer)`, `-32768, 32767`},
		"domain":      {`(id key primary key, status text, progress integer)`, `1, 100000`},
		"partitioned": {`(id integer, status text, progress integer, primary key (id)) partition by hash (id)`, `1, 100000`},
	}, func(t *testing.T, name string, test test) {
		_, conn := database(t)
		exec(t, conn, `create domain key as integer; create table audits `+test.table)
		for i := 0; name == "partitioned" && i < 4; i++ {
			exec(t, conn, fmt.Sprintf(`create table audits_%d partition of audits for values with (modulus 4, remainder %d)`, i, i))
		}
		exec(t, conn, `insert into audits select i, 'running', 1 from generate_series(`+test.ids+`) i; analyze audits`)
		install(t, conn, sql.Options{})
		const query = `select p.* from unnest($1::bigint[]) k join auditstream.progress p on p.audit_id = k`
		exec(t, conn, `set plan_cache_mode = force_generic_plan; prepare generic as `+query)
		for name, statement := range map[string]string{
			"generic": `explain execute generic('{1,2,300}')`,
			"custom":  `explain ` + strings.Replace(query, "$1", `'{1,2,300}'`, 1),
			"one":     `explain select * from auditstream.progress where audit_id = 7`,
		} {
			plan := strings.Join(column(t, conn, statement), "\n")
			if strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, "Index Cond") {
				t.Errorf("%s reads the whole table:\n%s", name, plan)
			}
		}
	})
}

func TestInspect(t *testing.T) {
	t.Parallel()
	const view = `create schema auditstream; create view auditstream.progress as select id::bigint as audit_id, null::text as user_id,
		null::text as user_email, status, progress, null::text as message, null::float8 as geo_score, null::int as total_pages,
		null::text as error from audits`
	const table = `create table audits (id integer primary key, status text, progress integer); `
	type test struct{ setup, view, index string }
	testkit.Each(t, map[string]test{
		"nothing": {``, `there is no view auditstream.progress: run auditstream install --table YOUR_TABLE`, ``},
		"a view by hand, whose cast hides the index": {table + view, ``,
			`every read by audit_id scans the whole of public.audits: create an index of it that begins with id`},
		"a view by hand, with an index": {strings.Replace(table, "integer", "bigint", 1) + view, ``, ``},
		"a materialized view by hand": {table + strings.Replace(view, "create view", "create materialized view", 1) +
			`; create index on auditstream.progress (audit_id)`, ``, ``},
		"wrong columns": {`create schema auditstream; create view auditstream.progress as select 1 as audit_id, 'x'::text as status, 1 as progress,
			''::varchar as message, null::text as user_id, null::text as user_email, null::int as total_pages, null::text as error`,
			`auditstream.progress is not what serve reads: the column audit_id is integer instead of bigint; ` +
				`the column message is character varying instead of text; the column geo_score (double precision) is missing`, ``},
		"a view that reads nothing any more": {table + view + `; alter view auditstream.progress owner to OWNER`,
			`auditstream.progress cannot be read: explain a read of auditstream.progress: ERROR: permission denied for table audits (SQLSTATE 42501)`, ``},
	}, func(t *testing.T, _ string, test test) {
		dsn, conn := database(t)
		reader := role(t, dsn)
		exec(t, conn, strings.Replace(test.setup, "OWNER", role(t, dsn), 1)+
			fmt.Sprintf(`; do $$ begin if to_regclass('auditstream.progress') is not null then
			grant usage on schema auditstream to %[1]s; grant select on auditstream.progress to %[1]s; end if; end $$`, reader))
		serve := pgtest.Connect(t, dsn)
		exec(t, serve, `set role `+reader)
		s, err := sql.Inspect(t.Context(), serve)
		testkit.NoError(t, err)
		got := []string{message(s.View), message(s.Index)}
		for _, trigger := range s.Triggers {
			got = append(got, trigger.Enabled)
		}
		equal(t, "view, index and triggers", got, []string{test.view, test.index, "missing", "missing", "missing", "missing", "missing"})
	})
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestInspectAsTheServersRole(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	reader := role(t, dsn)
	serve := pgtest.Connect(t, dsn)
	exec(t, serve, `set role `+reader)
	s, err := sql.Inspect(t.Context(), serve)
	want := `the role ` + reader + ` may not read auditstream.progress: run auditstream install --role ` + reader
	if err != nil || message(s.View) != want {
		t.Errorf("got %v, %v, want %s", s.View, err, want)
	}
	install(t, conn, sql.Options{Role: reader})
	exec(t, conn, `alter table audits disable trigger auditstream_update; alter table audits enable replica trigger auditstream_insert;
		alter table audits enable always trigger auditstream_delete; drop trigger auditstream_truncate on audits`)
	s, err = sql.Inspect(t.Context(), serve)
	if err != nil || s.View != nil || s.Index != nil || s.Table != `"public"."audits"` {
		t.Errorf("inspect: %+v, %v", s, err)
	}
	var got []string
	for _, trigger := range s.Triggers {
		got = append(got, trigger.Name+" "+trigger.Enabled+" on "+trigger.Table)
	}
	equal(t, "triggers", got, []string{
		`auditstream_delete enabled on "public"."audits"`, `auditstream_insert replica only on "public"."audits"`,
		`auditstream_owner enabled on "public"."audits"`, `auditstream_rekey enabled on "public"."audits"`,
		`auditstream_update disabled on "public"."audits"`, `auditstream_truncate missing on "public"."audits"`})
	exec(t, conn, `drop index if exists audits_x; alter table audits drop constraint audits_pkey`)
	s, err = sql.Inspect(t.Context(), serve)
	if err != nil || message(s.Index) != `every read by audit_id scans the whole of public.audits: create an index of it that begins with id` {
		t.Errorf("inspect: %+v, %v", s, err)
	}
}
