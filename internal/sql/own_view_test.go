package sql_test

import (
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// everything watches whatever there may be, of any feed.
func everything(tb testing.TB, dsn string) listener {
	tb.Helper()
	b := listener{pgtest.Connect(tb, dsn)}
	exec(tb, b.conn, `listen `+sql.Channel+`; select pg_advisory_lock_shared(class, k) from auditstream.feeds, generate_series(0, buckets + 63) k`)
	return b
}

const jobsWithSteps = `create schema app; create table app.jobs (id uuid primary key, title text, owner text, state text);
	create table app.steps (n bigserial primary key, job_id uuid references app.jobs on delete cascade, done boolean not null default false);
	insert into app.jobs values ('00000000-0000-0000-0000-000000000001', 'one', 'alice', 'Busy'),
		('00000000-0000-0000-0000-000000000002', 'two', 'bob', 'busy');
	create index on app.steps (job_id)`

const stepsView = `-- progress is in the steps
select j.id, j.state as status, j.owner as user_id, j.title, (select 100 * count(*) filter (where s.done) / nullif(count(*), 0) from app.steps s
where s.job_id = j.id) as progress
from app.jobs j -- and that is all`

func feedShown(tb testing.TB, conn *pgx.Conn, view string) []string {
	tb.Helper()
	return column(tb, conn, `select json_strip_nulls(row_to_json(p))::text from auditstream.`+view+` p order by 1`)
}

// --ring notifies of changes in other tables, and --view shows them.
func TestRingsAndOwnView(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, jobsWithSteps)
	before := catalog(t, conn)
	o := sql.Options{Feed: "jobs", Table: "app.jobs", View: stepsView, Rings: []string{"steps=job_id"}, Fields: []string{"title"},
		Words: []sql.Word{{Stored: "busy", Shown: "running"}}}
	plan := install(t, conn, o)
	equal(t, "warnings", plan.Warnings, nil)
	for _, again := range []sql.Options{o, {Feed: "jobs", Table: "app.jobs"}} { // which is remembered
		unchanged(t, conn, again)
	}
	b := everything(t, dsn)
	const one, two = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
	b.notifies(t, conn, `insert into app.steps (job_id) values ('`+one+`'), ('`+one+`'), ('`+two+`'), (null)`, "jobs:"+one, "jobs:"+two)
	b.notifies(t, conn, `update app.steps set done = true where n = 1`, "jobs:"+one)
	equal(t, "shown", feedShown(t, conn, "progress_jobs"), []string{
		`{"id":"` + one + `","user_id":"alice","status":"running","progress":50,"fields":",\"title\":\"one\""}`,
		`{"id":"` + two + `","user_id":"bob","status":"running","progress":0,"fields":",\"title\":\"two\""}`})
	b.notifies(t, conn, `update app.steps set job_id = '`+two+`' where n = 1`, "jobs:"+one, "jobs:"+two)
	b.notifies(t, conn, `update app.steps set job_id = null where n = 1`, "jobs:"+two)
	b.notifies(t, conn, `delete from app.steps where n in (1, 2)`, "jobs:"+one)
	b.notifies(t, conn, `update app.jobs set state = 'completed' where id = '`+one+`'`, "jobs:"+one)
	b.notifies(t, conn, `truncate app.steps`, "*")
	exec(t, conn, `alter table app.steps rename to parts; alter table app.jobs rename to work`)
	b.notifies(t, conn, `insert into app.parts (job_id) values ('`+two+`')`, "jobs:"+two)
	exec(t, conn, `alter table app.parts rename to steps; alter table app.work rename to jobs`)
	undrifted(t, dsn, "")
	exec(t, conn, `alter table app.steps disable trigger "auditstream_jobs$update"`)
	found, _ := kinds(t, dsn, "")
	equal(t, "found of a ring's trigger that is off", found, []string{"object"})
	install(t, conn, sql.Options{Feed: "jobs", Table: "app.jobs"})
	undrifted(t, dsn, "")
	install(t, conn, sql.Options{Feed: "jobs", Table: "app.jobs", Rings: []string{}})
	b.heard(t, conn)
	b.notifies(t, conn, `insert into app.steps (job_id) values ('`+two+`')`) // rings no more
	install(t, conn, o)
	uninstall(t, conn)
	equal(t, "after uninstall", catalog(t, conn), before)
}

// The same in the feed audits, with integers, and beside another feed of the same tables.
func TestRingsOfTwoFeeds(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress int, user_id text);
		create table events (no bigserial, audit integer, job smallint);
		create table jobs (id smallint primary key, status text, progress int, user_id text); insert into audits values (1, 'running', 1, 'a');
		insert into jobs values (2, 'running', 1, 'b')`)
	before := catalog(t, conn)
	install(t, conn, sql.Options{Rings: []string{"events=audit"}})
	install(t, conn, sql.Options{Feed: "jobs", Table: "jobs", Rings: []string{`public."events"=job`}})
	b := everything(t, dsn)
	b.notifies(t, conn, `insert into events (audit, job) values (1, 2)`, "1", "jobs:2")
	b.notifies(t, conn, `update events set job = 3`, "1", "jobs:2", "jobs:3")
	undrifted(t, dsn, "")
	unchanged(t, conn, sql.Options{})
	uninstall(t, conn, "jobs")
	b.heard(t, conn)
	b.notifies(t, conn, `delete from events`, "1")
	uninstall(t, conn)
	equal(t, "after uninstall", catalog(t, conn), before)
}

func TestRefusedRingsAndViews(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, jobsWithSteps)
	exec(t, conn, `create view app.look as select * from app.jobs`)
	before := catalog(t, conn)
	for name, test := range map[string]struct {
		view  string
		rings []string
		want  string
	}{
		"no table":  {stepsView, []string{"nothing=job_id"}, `--ring nothing=job_id: there is no table app.nothing: name it with its schema`},
		"no column": {stepsView, []string{"steps=x"}, `--ring steps=x: app.steps has no column x (it has n, job_id, done)`},
		"another type": {stepsView, []string{"steps=n"},
			`--ring steps=n: n of app.steps is bigint, and the id, id, is uuid, and both must be integers, both uuids, or both texts: name the column that holds the id; ` +
				`where it is this one, change its type, or leave out the --ring: then a change there is found by the safety net, within 10 s`},
		"no equals sign": {stepsView, []string{"steps"}, `--ring steps: give TABLE=COLUMN`},
		"a view rings":   {stepsView, []string{"look=id"}, `app.look cannot be adopted: it is a view`},
		"twice":          {stepsView, []string{"steps=job_id", "app.steps=job_id"}, `--ring app.steps=job_id: app.steps is named already`},
		"itself":         {stepsView, []string{"jobs=id"}, `--ring jobs=id: app.jobs is named already`},
		"no schema": {`select id, state as status, 0 as progress from jobs`, nil,
			`the view of --view: relation "jobs" does not exist: give each table with its schema, like public.jobs`},
		"no id": {`select state as status, 0 as progress from app.jobs`, nil,
			`the view of --view has no column id: it selects id, status and progress`},
		"another id": {`select 1 as id, state as status, 0 as progress, owner as user_id from app.jobs`, nil,
			`the view of --view shows an id that is integer, and id of app.jobs is uuid`},
		"twice the column": {`select id, state as status, 0 as progress, title as status from app.jobs`, nil,
			`the view of --view has two columns status: name each with as`},
		"a parameter": {`select id, state as status, 0 as progress from app.jobs where owner = $1`, nil,
			`the view of --view has a parameter, $1: write its value instead`},
		"two statements":    {`select id, state as status, 0 as progress from app.jobs; drop table app.steps`, nil, `the view of --view: `},
		"out of the braces": {`select 1) a; drop table app.steps; select * from (select 1`, nil, `the view of --view: `},
		"it writes":         {`delete from app.jobs returning id, state as status, 0 as progress`, nil, `the view of --view: `},
		"it writes inside":  {`with d as (delete from app.jobs returning *) select id, state as status, 0 as progress from d`, nil, `the view of --view: `},
		"no number": {`select id, state as status, now() as progress, owner as user_id from app.jobs`, nil,
			`column progress of the view of --view is timestamp with time zone: progress must be a number`},
		"nobody's": {`select id, state as status, 0 as progress from app.jobs`, nil,
			`no column of the view of --view says whose a row is, so that nobody would see any: select one as user_id, user_email or group_id`},
		"nothing": {`select now() as at`, nil,
			`the view of --view has no column id and no column status and no column progress: it selects id, status and progress`},
		"two rings": {stepsView, []string{"steps=x", "nothing=y"},
			"--ring steps=x: app.steps has no column x (it has n, job_id, done)\n--ring nothing=y: there is no table app.nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			refusedWith(t, sql.Install, conn, sql.Options{Feed: "jobs", Table: "app.jobs", View: test.view, Rings: test.rings}, test.want)
		})
	}
	equal(t, "catalog", catalog(t, conn), before)
}

// When a superuser installs again, the objects that the query names may belong to somebody else by then, and so may the choices.
func TestKeptViewOfAStrangerIsNotRun(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner := installer(t, dsn)
	exec(t, conn, `create schema app authorization `+owner+`; create table public.ran (by text); grant insert, select on public.ran to public`)
	theirs := pgtest.Connect(t, dsn)
	exec(t, theirs, `set session authorization `+owner+`; create table app.jobs (id int primary key, state text, progress int, owner text);
		insert into app.jobs values (1, 'x', 1, 'a'); create table app.more (id int)`)
	view := `select j.id, j.state as status, j.progress, j.owner as user_id from app.jobs j where exists (select from app.more)`
	install(t, theirs, sql.Options{Feed: "jobs", Table: "app.jobs", View: view})
	exec(t, theirs, `create function app.evil() returns int language plpgsql immutable as $f$ begin insert into public.ran values (current_user);
		return 1; end $f$;
		create function app.eviler() returns int language plpgsql as $f$ begin insert into public.ran values (current_user); return 1; end $f$;
		alter table app.more rename to more_of_then; create view app.more as select app.evil() as id where app.eviler() = app.evil();
		update auditstream.choices set options = jsonb_set(options, '{view}',
			to_jsonb('select app.evil() as id, ''x'' as status, app.eviler() as progress, ''a'' as user_id'::text))`)
	for _, kept := range []sql.Options{{Feed: "jobs", Table: "app.jobs"}, {Feed: "jobs", Table: "app.jobs", Rings: []string{"more_of_then=id"}}} {
		for _, run := range []operation{sql.PlanInstall, sql.Install} {
			refusedWith(t, run, conn, kept, `is kept in auditstream.choices, which belongs to `+owner+`: give it again`)
		}
		kept.View = view
		install(t, conn, kept)
	}
	kinds(t, dsn, "")
	uninstall(t, conn)
	equal(t, "run", column(t, conn, `select by from public.ran`), nil)
}
