package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// A boolean that is never null hid every row, without a word.
func TestHideOfABooleanHidesWhatIsTrue(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string]string{
		"never null":      `deleted boolean not null default false`,
		"with nulls":      `deleted boolean`,
		"generated":       `flag boolean, deleted boolean generated always as (coalesce(flag, false)) stored not null`,
		"a domain":        `deleted flag`,
		"a domain, never": `deleted strict_flag`,
	}, func(t *testing.T, _, definition string) {
		_, conn := database(t)
		exec(t, conn, `create domain flag as boolean; create domain strict_flag as flag not null;
			create table jobs (id int primary key, status text, progress int, `+definition+`)`)
		set := "deleted"
		if strings.Contains(definition, "generated") {
			set = "flag"
		}
		exec(t, conn, `insert into jobs (id, status, `+set+`) values (1, 'running', false), (2, 'running', true)`)
		want := []string{"1"}
		if !strings.Contains(definition, "not null") && !strings.Contains(definition, "strict") {
			exec(t, conn, `insert into jobs (id, status) values (3, 'running')`)
			want = []string{"1", "3"}
		}
		o := sql.Options{Feed: "jobs", Hide: "deleted", Public: true}
		install(t, conn, o)
		equal(t, "shown", column(t, conn, `select id::text from auditstream.progress_jobs order by 1`), want)
		unchanged(t, conn, o)
		unchanged(t, conn, sql.Options{Feed: "jobs"})
	})
}

// The condition of a hidden boolean runs no operator and no cast of somebody else.
func TestHideOfATypeThatOnlyLooksLikeABoolean(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create schema app; create type app.bool as enum ('yes'); create table jobs (id int primary key, status text, progress int, deleted app.bool);
		insert into jobs values (1, 'running', 1, null), (2, 'running', 1, 'yes')`)
	install(t, conn, sql.Options{Feed: "jobs", Hide: "deleted", Public: true})
	equal(t, "shown", column(t, conn, `select id::text from auditstream.progress_jobs`), []string{"1"})
	exec(t, conn, `delete from jobs where id = 1; alter table jobs alter deleted set not null`)
	refusedWith(t, sql.Install, conn, sql.Options{Feed: "jobs"}, `never null`)
}

// Such a column hid every row, without a word.
func TestHideOfAColumnThatIsNeverNullIsRefused(t *testing.T) {
	t.Parallel()
	const why = ` and never null, so every row would be hidden: name a column that is null in the rows to show, or a boolean that is not true in them;` +
		` or give --view FILE with a query that has a where clause`
	type test struct{ setup, want string }
	testkit.Each(t, map[string]test{
		"a time": {`create table jobs (id int primary key, status text, progress int, gone timestamptz not null default 'infinity')`,
			`--hide gone: column gone of public.jobs is timestamp with time zone` + why},
		"a text": {`create table jobs (id int primary key, status text, progress int, gone text not null default '')`,
			`--hide gone: column gone of public.jobs is text` + why},
		"a domain": {`create domain mark as text not null default ''; create domain gone as mark; create table jobs (id int primary key, status text, progress int, gone gone)`,
			`--hide gone: column gone of public.jobs is public.gone` + why},
		"each partition": {`create table jobs (id int primary key, status text, progress int, gone date) partition by range (id);
			create table jobs_1 partition of jobs (gone not null default 'infinity') for values from (0) to (9) partition by range (id);
			create table jobs_11 partition of jobs_1 for values from (0) to (5);
			create table jobs_2 partition of jobs (gone not null default 'infinity') for values from (9) to (99)`,
			`--hide gone: column gone of public.jobs is date` + why},
	}, func(t *testing.T, _ string, test test) {
		_, conn := database(t)
		exec(t, conn, test.setup)
		refused(t, sql.Install, conn, sql.Options{Feed: "jobs", Hide: "gone", Public: true}, test.want)
	})
}

// Of a table with one partition for the rows that are gone, the others are shown.
func TestHideOfAColumnThatIsNeverNullInOnePartition(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id int, status text, progress int, gone boolean, at date) partition by list (gone);
		create table jobs_live partition of jobs for values in (false); create table jobs_gone partition of jobs (at not null) for values in (true);
		insert into jobs values (1, 'running', 1, false, null), (2, 'running', 1, true, '2026-01-01')`)
	install(t, conn, sql.Options{Feed: "jobs", Hide: "at", Public: true})
	equal(t, "shown", column(t, conn, `select id::text from auditstream.progress_jobs`), []string{"1"})
}

// The choice of an earlier install cannot be left out of a later one, so the refusal says how to take it back.
func TestHideOfAColumnThatBecameNeverNullSaysHowToTakeItBack(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id int primary key, status text, progress int, gone date)`)
	install(t, conn, sql.Options{Feed: "jobs", Hide: "gone", Public: true})
	exec(t, conn, `alter table jobs alter gone set not null`)
	refusedWith(t, sql.Install, conn, sql.Options{Feed: "jobs"}, `; this --hide is of the last install, and auditstream uninstall --feed jobs takes it back`)
	uninstall(t, conn, "jobs")
	install(t, conn, sql.Options{Feed: "jobs", Public: true})
}
