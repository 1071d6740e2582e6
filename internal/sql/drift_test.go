package sql_test

import (
	exec_ "os/exec"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// kinds returns the kinds that Compare finds as a role with only the rights of serve.
func kinds(tb testing.TB, dsn, server string) (found []string, all []sql.Finding) {
	tb.Helper()
	conn := pgtest.Connect(tb, dsn)
	if server != "" {
		exec(tb, conn, `set session authorization `+server)
	}
	d, err := sql.Compare(tb.Context(), conn)
	if err != nil {
		tb.Fatalf("compare: %v", err)
	}
	for _, f := range d.Findings {
		kind := f.Kind
		if f.Stale {
			kind += " stale"
		}
		found = append(found, kind)
	}
	slices.Sort(found)
	return slices.Compact(found), d.Findings
}

// undrifted fails the test if Compare finds anything.
func undrifted(tb testing.TB, dsn, server string) {
	tb.Helper()
	if found, all := kinds(tb, dsn, server); len(found) > 0 {
		tb.Errorf("found %+v", all)
	}
}

// served returns a database with the table of audits.sql, installed for a role.
func served(tb testing.TB) (dsn string, conn *pgx.Conn, server string) {
	tb.Helper()
	dsn, conn = audits(tb)
	server = role(tb, dsn)
	install(tb, conn, sql.Options{Role: server})
	undrifted(tb, dsn, server)
	return dsn, conn, server
}

// drifts does damage, and checks that it is found as these kinds, and that an install repairs it if mends is true.
func drifts(t *testing.T, damage string, mends bool, want ...string) {
	t.Helper()
	t.Run(damage, func(t *testing.T) {
		t.Parallel()
		dsn, conn, server := served(t)
		exec(t, conn, strings.ReplaceAll(damage, "SERVER", server))
		found, _ := kinds(t, dsn, server)
		equal(t, "found", found, want)
		plan := install(t, conn, sql.Options{})
		if mends && len(want) > 0 && plan.SQL == "" || !mends && len(plan.Warnings) == 0 {
			t.Errorf("install says that nothing is to change: %+v", plan)
		}
		found, all := kinds(t, dsn, server)
		if mends && len(found) > 0 || !mends && !slices.Equal(found, want) {
			t.Errorf("after an install: %+v", all)
		}
		unchanged(t, conn, sql.Options{})
		if mends {
			exec(t, conn, `update audits set progress = 77`)
			equal(t, "shown", column(t, conn, `select distinct progress::text from auditstream.progress`), []string{"77"})
		}
	})
}

func TestU1ReplacedColumnIsFound(t *testing.T) {
	t.Parallel()
	drifts(t, `alter table audits add p2 int; alter table audits rename progress to progress_old; alter table audits rename p2 to progress`,
		true, "column")
	drifts(t, `alter table audits add p2 int; alter table audits rename progress to "it's ""old"" :key"; alter table audits rename p2 to progress`,
		true, "column")
	drifts(t, `alter table audits rename message to m; alter table audits rename error to message; alter table audits rename m to error`, true, "column")
	drifts(t, `alter table audits rename user_id to user_old; alter table audits add user_id uuid`, true, "column stale")
	drifts(t, `alter table audits rename user_email to e; alter table audits rename user_id to user_email; alter table audits rename e to user_id`,
		true, "column stale")
	drifts(t, `alter table audits rename id to old_id; alter table audits add id bigint generated always as identity unique`, true, "column")
	drifts(t, `alter table audits rename total_pages to pages; alter table audits add total_pages text; alter table audits drop total_pages;
		alter table audits add total_pages int`, true, "column")
}

func TestU1RenameStaysQuiet(t *testing.T) {
	t.Parallel()
	drifts(t, `alter table audits rename message to words`, true)
	drifts(t, `alter table audits rename user_id to owner_id`, true)
	drifts(t, `alter table audits rename id to key`, true)
	drifts(t, `alter table audits rename total_pages to "Percent done"`, true)
	drifts(t, `alter table audits add note text; alter table audits drop url`, true)
	renames := []string{`alter table audits rename to jobs`, `create schema app; alter table audits set schema app`}
	testkit.EachOf(t, renames, func(t *testing.T, rename string) {
		dsn, conn, server := served(t)
		exec(t, conn, rename)
		undrifted(t, dsn, server)
		table := column(t, conn, `select tgrelid::regclass::text from pg_trigger where tgname = 'auditstream_insert'`)[0]
		listen(t, dsn).notifies(t, conn, `update `+table+` set progress = 11`, "1")
		if plan := install(t, conn, sql.Options{Table: table}); plan.SQL == "" {
			t.Error("install did not notice the new name")
		}
		undrifted(t, dsn, server)
		uninstall(t, conn)
	})
}

func TestU2ReplacedTableIsFound(t *testing.T) {
	t.Parallel()
	drifts(t, `create table audits_new (like audits including all); insert into audits_new overriding system value select * from audits;
		alter table audits rename to audits_old; alter table audits_new rename to audits`, true, "table stale")
	drifts(t, `create schema old; alter table audits set schema old; create table audits (like old.audits including all);
		insert into audits overriding system value select * from old.audits`, true, "table stale")
	drifts(t, `alter table audits rename to audits_1; create table audits (like audits_1 including defaults) partition by range (id);
		alter table audits add primary key (id); alter table audits_1 alter id drop identity;
		alter table audits attach partition audits_1 for values from (1) to (1000)`, true, "table stale")
	drifts(t, `create table audits_new (like audits including all); insert into audits_new overriding system value select * from audits;
		drop table audits cascade; alter table audits_new rename to audits`, true, "object")
}

func TestU10WhateverIsChangedIsFound(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{
		`alter table auditstream.choices enable row level security`, `alter table auditstream.choices force row level security`,
		`alter view auditstream.progress set (security_barrier)`, `alter view auditstream.feeds set (security_barrier)`,
		`alter function auditstream.changed() security definer`, `alter function auditstream.changed() set search_path = public`,
		`alter function auditstream.changed() owner to SERVER`,
		`create or replace function auditstream.changed() returns trigger language plpgsql as $$ begin return null; end $$`,
		`drop trigger auditstream_update on audits`, `alter table audits disable trigger auditstream_delete`, `alter table audits disable trigger all`,
		`alter table audits enable replica trigger auditstream_insert`, `alter trigger auditstream_update on audits rename to x`,
		`create or replace trigger auditstream_update after update on audits for each row execute function auditstream.changed()`,
		`alter view auditstream.progress rename column error to e`, `alter view auditstream.feeds rename to f; drop view auditstream.f`,
		`create rule r as on insert to auditstream.progress do instead nothing`, `revoke execute on function auditstream.changed() from public`,
		`create or replace view auditstream.feeds as select 'audits'::text as feed, 1635087465::int as class, 64::int as buckets`,
		`create or replace view auditstream.feeds as select 'audits'::text as feed, 7 as class, 1 as buckets`, `drop view auditstream.feeds`,
		`drop view auditstream.feeds; create view auditstream.feeds as select 'by hand' as something; grant select on auditstream.feeds to SERVER`,
		`drop view auditstream.progress`, `drop function auditstream.changed() cascade`, `drop view auditstream.progress, auditstream.feeds`,
		`grant all on auditstream.choices to SERVER`, `grant insert on auditstream.choices to public`,
		`create trigger t after insert on auditstream.choices execute function auditstream.changed()`,
		`alter table auditstream.choices set unlogged`, `alter table auditstream.choices alter made set default '{}'`,
		`alter table auditstream.choices add note text`,
		`alter table auditstream.choices add check (feed <> '')`, `update auditstream.choices set made = '{}'`,
		`alter function auditstream.changed() rename to other`, `alter function auditstream.changed() set schema public`,
		`drop trigger auditstream_delete on audits;
			create constraint trigger auditstream_delete after delete on audits for each row execute function auditstream.changed()`,
		`create or replace view auditstream.progress as select id as audit_id, user_id, user_email, 'x'::text collate "C" as status, 1 as progress,
			message, geo_score, total_pages, error from audits`,
		`drop view auditstream.progress; create view auditstream.progress as select id from audits;
			comment on view auditstream.progress is 'auditstream 1 of an earlier program'; grant select on auditstream.progress to SERVER`,
		`drop view auditstream.progress; create view auditstream.progress as
			select id as audit_id, user_id, user_email, status, progress, message, geo_score,
			total_pages, error from audits; comment on view auditstream.progress is 'auditstream 5 by hand'; grant select on auditstream.progress to SERVER`,
		// Both are in the way of a new type, and the view's column has another collation afterwards.
		`drop view auditstream.progress; drop trigger auditstream_update on audits; alter table audits alter message type varchar collate "C";
			alter table audits alter message type text`,
	}, func(t *testing.T, damage string) {
		dsn, conn, server := served(t)
		before := catalog(t, conn)
		exec(t, conn, strings.ReplaceAll(damage, "SERVER", server))
		found, all := kinds(t, dsn, server)
		if len(found) == 0 || len(difference(found, []string{"object", "owner", "choices"})) > 0 {
			t.Errorf("found %+v", all)
		}
		if plan := install(t, conn, sql.Options{}); plan.SQL == "" {
			t.Error("install says that nothing is to change")
		}
		undrifted(t, dsn, server)
		unchanged(t, conn, sql.Options{})
		// What install does not know stays, and so does a number of buckets that an install may have chosen.
		if !strings.Contains(damage, "to other") && !strings.Contains(damage, "set schema public") && !strings.Contains(damage, "64::int") {
			equal(t, "after the repair", difference(catalog(t, conn), before), nil)
		}
		exec(t, conn, `set session authorization `+server)
		equal(t, "what the role may write", column(t, conn, writable), nil)
	})
	drifts(t, `drop table auditstream.choices`, true, "choices")
	drifts(t, `delete from auditstream.choices`, true, "choices")
	drifts(t, `revoke select on auditstream.progress from SERVER`, true, "rights")
	drifts(t, `revoke select on auditstream.feeds from SERVER`, true, "rights")
	drifts(t, `revoke usage on schema auditstream from SERVER`, true, "choices", "rights")
	drifts(t, `revoke execute on function pg_catalog.pg_notify(text, text) from public`, false, "rights")
	drifts(t, `alter table audits drop constraint audits_pkey`, false, "key")
	drifts(t, `create table other (id int); create trigger ring after insert on audits for each row execute function auditstream.changed()`,
		false, "object")
}

// U26: the view's owner is subject to the table's policies.
func TestU26RowSecurityIsFound(t *testing.T) {
	t.Parallel()
	const on, force = `alter table audits enable row level security; `, `alter table audits force row level security; `
	testkit.Each(t, map[string]int{
		on:         0, // which the owner is not subject to
		on + force: 1,
		on + force + `create policy p on audits using (user_id = 'me')`:  1,
		on + force + `create policy p on audits for select using (true)`: 0,
		force: 0,
	}, func(t *testing.T, rls string, want int) {
		dsn, conn := database(t)
		owner, server := installer(t, dsn), role(t, dsn)
		exec(t, conn, `set session authorization `+owner)
		install(t, conn, sql.Options{Create: true, Role: server})
		exec(t, conn, rls)
		found, all := kinds(t, dsn, server)
		if len(found) != want || want > 0 && found[0] != "row_security" {
			t.Errorf("found %+v", all)
		}
		plan := install(t, conn, sql.Options{})
		if plan.Unmended != want {
			t.Errorf("%d are unmended, want %d: %q", plan.Unmended, want, plan.Warnings)
		}
		exec(t, conn, `reset session authorization`) // whom no policy binds
		install(t, conn, sql.Options{})
		undrifted(t, dsn, server)
	})
}

// A view that has taken the table's name and reads the table is a rename; what install cannot adopt has a remedy that works.
func TestU2NameIsHeldByNoTable(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string][]string{
		`create view audits as select * from then`:                                  nil,
		`create table other (like then); create view audits as select * from other`: {"table stale"},
		`create materialized view audits as select * from then`:                     {"table stale"},
		`create foreign data wrapper w; create server s foreign data wrapper w;
			create foreign table audits (id bigint) server s`: {"table stale"},
	}, func(t *testing.T, change string, want []string) {
		dsn, conn, server := served(t)
		exec(t, conn, `alter table audits rename to "then"; `+strings.ReplaceAll(change, "then", `"then"`))
		found, all := kinds(t, dsn, server)
		if !slices.Equal(found, want) || want != nil && !strings.HasPrefix(all[0].Remedy, `auditstream install --table '"public"."then"'`) {
			t.Errorf("found %+v, want %q", all, want)
		}
		if plan := install(t, conn, sql.Options{Table: `"public"."then"`}); plan.Unmended != 0 {
			t.Errorf("warnings: %q", plan.Warnings)
		}
		undrifted(t, dsn, server)
	})
}

// An object that install neither made nor may drop is reported once, with the statement that drops it; after that, install works.
func TestU10WhatIsInTheWayHasARemedyThatWorks(t *testing.T) {
	t.Parallel()
	const columns = `id as audit_id, user_id, user_email, status, progress, message, geo_score, total_pages, error from audits;
		grant select on auditstream.progress to SERVER`
	testkit.Each(t, map[string]string{
		"drop table auditstream.progress":             `drop view auditstream.progress; create table auditstream.progress as select ` + columns,
		"drop materialized view auditstream.progress": `drop view auditstream.progress; create materialized view auditstream.progress as select ` + columns,
		"drop view auditstream.progress":              `drop view auditstream.progress; create view auditstream.progress as select ` + columns,
		"drop table auditstream.feeds":                `drop view auditstream.feeds; create table auditstream.feeds (feed text)`,
		"drop view auditstream.choices": `alter table auditstream.choices rename to c;
			create view auditstream.choices as table auditstream.c`,
		"drop table auditstream.choices": `alter table auditstream.choices drop made`,
	}, func(t *testing.T, remedy string, damage string) {
		dsn, conn, server := served(t)
		exec(t, conn, strings.ReplaceAll(damage, "SERVER", server))
		_, all := kinds(t, dsn, server)
		if !slices.ContainsFunc(all, func(f sql.Finding) bool { return f.Remedy == remedy+"; and install again" }) ||
			slices.ContainsFunc(all, func(f sql.Finding) bool { return f.Kind == "object" && f.Remedy == "" }) {
			t.Errorf("found %+v", all)
		}
		refusedWith(t, sql.Install, conn, sql.Options{}, "drop")
		exec(t, conn, remedy)
		install(t, conn, sql.Options{Role: server})
		undrifted(t, dsn, server)
	})
}

// A comment is for people, and a dump may leave it out.
func TestU10CommentOfSomebodyElsesIsNoDrift(t *testing.T) {
	t.Parallel()
	for _, comment := range []string{`null`, `'what viewers see'`} {
		dsn, conn, server := served(t)
		exec(t, conn, `comment on view auditstream.progress is `+comment)
		undrifted(t, dsn, server)
		if plan := install(t, conn, sql.Options{}); plan.SQL == "" {
			t.Error("install leaves the comment, which says the version")
		}
		exec(t, conn, `comment on view auditstream.progress is `+comment)
		uninstall(t, conn)
		equal(t, "left", column(t, conn, leftSQL), nil)
	}
}

const leftSQL = `select tgname::text from pg_trigger where tgname like 'auditstream%'
	union all select nspname from pg_namespace where nspname = 'auditstream'`

// Whatever somebody has changed, uninstall leaves no trigger and no object of install's.
func TestU9UninstallFindsAWayOut(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string][]string{
		`alter trigger auditstream_update on audits rename to x`:          nil,
		`alter function auditstream.changed() rename to other`:            {"auditstream"}, // with the function that install does not know
		`alter function auditstream.changed() set schema public`:          nil,
		`alter schema auditstream rename to a; create schema auditstream`: nil,
		`drop table audits cascade`:                                       nil,
		`drop trigger auditstream_delete on audits;
			create constraint trigger auditstream_delete after delete on audits for each row execute function auditstream.changed()`: nil,
		`alter table auditstream.choices rename to c; create view auditstream.choices as table auditstream.c`: {"auditstream"},
		`drop view auditstream.feeds; create table auditstream.feeds (feed text)`:                             {"auditstream"},
		`alter table auditstream.choices add note text; drop view auditstream.progress`:                       nil,
	}, func(t *testing.T, damage string, left []string) {
		_, conn, _ := served(t)
		exec(t, conn, damage)
		if plan := uninstall(t, conn); (len(plan.Warnings) > 0) != (left != nil) {
			t.Errorf("warnings: %q", plan.Warnings)
		}
		equal(t, "left", column(t, conn, leftSQL), left)
	})
	_, conn, _ := served(t)
	exec(t, conn, `alter schema auditstream rename to a`)
	refusedWith(t, sql.Uninstall, conn, sql.Options{}, "with: alter schema a rename to auditstream")
}

// The command for the repair names the table and the options even when the choices are not known.
func TestU11CommandIsWholeWithoutTheChoices(t *testing.T) {
	t.Parallel()
	for _, o := range []sql.Options{{Table: "app.jobs"}, {Table: "app.jobs", NotifyAlways: true}, {Table: "app.jobs", NoTriggers: true}} {
		dsn, conn := database(t)
		server := role(t, dsn)
		o.Role = server
		exec(t, conn, `create schema app; create table app.jobs (id int primary key, status text, progress int)`)
		install(t, conn, o)
		for _, loss := range []string{`revoke usage on schema auditstream from ` + server, `delete from auditstream.choices`,
			`drop table auditstream.choices`} {
			exec(t, conn, loss)
			there := pgtest.Connect(t, dsn)
			exec(t, there, `set session authorization `+server)
			d, err := sql.Compare(t.Context(), there)
			if err != nil || len(d.Findings) == 0 || d.Table != `"app"."jobs"` || d.Always != o.NotifyAlways || d.Triggers == o.NoTriggers {
				t.Errorf("%+v after %s: %+v, %v", o, loss, d, err)
			}
		}
	}
}

// A view that is missing is one finding: the triggers are there.
func TestU10MissingViewIsOneFinding(t *testing.T) {
	t.Parallel()
	dsn, conn, server := served(t)
	exec(t, conn, `drop view auditstream.progress`)
	if _, all := kinds(t, dsn, server); len(all) != 1 || all[0].Text != "the view auditstream.progress is missing" {
		t.Errorf("found %+v", all)
	}
}

// Nobody is told to grant a superuser's rights.
func TestU9SuperusersRightsAreNotGranted(t *testing.T) {
	t.Parallel()
	dsn, conn, server := served(t)
	owner := role(t, dsn)
	exec(t, conn, `alter table audits owner to `+owner+`; set session authorization `+owner)
	for what, run := range map[string]operation{"install": sql.Install, "uninstall": sql.Uninstall} {
		_, err := run(t.Context(), conn, sql.Options{Role: server})
		if err == nil || strings.Contains(err.Error(), "grant") || !strings.HasSuffix(err.Error(), what+" as a superuser") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestU9TableChangesItsOwner(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{"superuser", "granted", "uninstall by superuser", "uninstall by granted"}, func(t *testing.T, way string) {
		dsn, conn := database(t)
		one, two, server := installer(t, dsn), installer(t, dsn), role(t, dsn)
		exec(t, conn, `set session authorization `+one)
		install(t, conn, sql.Options{Create: true, Role: server})
		exec(t, conn, `reset session authorization`)
		exec(t, conn, `alter table audits owner to `+two)
		found, _ := kinds(t, dsn, server)
		equal(t, "found", found, []string{"owner"})
		for _, name := range []string{one, two} { // neither may alone, and both are told who may
			exec(t, conn, `set session authorization `+name)
			refusedWith(t, sql.Uninstall, conn, sql.Options{}, "uninstall as a superuser, or as a role that has the rights of all, with: grant ")
			refusedWith(t, sql.Install, conn, sql.Options{}, "grant ")
			exec(t, conn, `reset session authorization`)
		}
		if strings.HasSuffix(way, "granted") {
			exec(t, conn, `grant `+one+` to `+two+`; set session authorization `+two)
		}
		if strings.HasPrefix(way, "uninstall") {
			uninstall(t, conn)
			exec(t, conn, `reset session authorization`)
			equal(t, "left", column(t, conn, leftSQL), nil)
			return
		}
		install(t, conn, sql.Options{Role: server})
		unchanged(t, conn, sql.Options{})
		exec(t, conn, `reset session authorization`)
		undrifted(t, dsn, server)
		exec(t, conn, `set session authorization `+server+`; select * from auditstream.progress`)
	})
}

func TestU11HiddenStaysHidden(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{
		`drop table audits cascade; TABLE`, `drop view auditstream.progress`, `drop view auditstream.progress, auditstream.feeds`,
		`alter table audits rename to audits_old; TABLE`, `drop table audits cascade; drop view if exists auditstream.feeds; TABLE`,
		`alter table audits rename message to m; alter table audits rename m to message`,
		`drop function auditstream.changed() cascade; drop view auditstream.progress`,
		`comment on view auditstream.progress is 'auditstream 5 x'`, `comment on view auditstream.progress is null; drop view auditstream.progress`,
	}, func(t *testing.T, loss string) {
		dsn, conn, server := served(t)
		const table = `create table audits (id bigint primary key, url text, user_id text, status text, progress int, message text, error text)`
		install(t, conn, sql.Options{Columns: map[string]string{"message": ""}})
		exec(t, conn, strings.ReplaceAll(loss, "TABLE", table))
		equal(t, "kept", install(t, conn, sql.Options{}).Kept, []string{"message="})
		exec(t, conn, `delete from audits; insert into audits (id, url, status, progress, message) overriding system value
			values (1, 'u', 'running', 5, 'secret')`)
		equal(t, "shown", column(t, conn, `select coalesce(message, 'hidden') from auditstream.progress`), []string{"hidden"})
		undrifted(t, dsn, server)
		uninstall(t, conn)
		install(t, conn, sql.Options{})
		equal(t, "shown after an uninstall", column(t, conn, `select coalesce(message, 'hidden') from auditstream.progress`), []string{"secret"})
	})
}

// Choices are data: the owner of the schema can write anything there, and a superuser's install runs none of it.
func TestU11ChoicesAreData(t *testing.T) {
	t.Parallel()
	const evil = `x"; alter role current_user superuser; --`
	testkit.EachOf(t, []string{
		`update auditstream.choices set options = jsonb_build_object('columns', jsonb_build_object('message', EVIL, 'error', EVIL),
			'roles', jsonb_build_array(EVIL, 'pg_monitor'), 'triggers', true)`,
		`update auditstream.choices set made = made || jsonb_build_object('name', EVIL, 'schema', EVIL, 'owner', EVIL, 'installer', EVIL,
			'sources', jsonb_build_object('user_id', EVIL), 'objects', jsonb_build_object(EVIL, jsonb_build_object('owner', EVIL)))`,
		`update auditstream.choices set options = '{"columns": 1}', made = '[]'`,
		`alter table auditstream.choices rename to c;
			create view auditstream.choices as select feed, (select options from auditstream.c where call()) as options, made from auditstream.c`,
		`create trigger t before insert or update on auditstream.choices for each row execute function trap()`,
		`create rule r as on insert to auditstream.choices do also select call()`,
		`alter table auditstream.choices add check (call())`,
		`alter table auditstream.choices enable row level security; create policy p on auditstream.choices using (call())`,
		`create index on auditstream.choices (quiet(feed))`,
		`create type evil as enum ('audits'); alter table auditstream.choices alter feed type evil using 'audits'`,
	}, func(t *testing.T, attack string) {
		dsn, conn := database(t)
		ran(t, conn)
		owner, server := installer(t, dsn), role(t, dsn)
		exec(t, conn, `set session authorization `+owner)
		install(t, conn, sql.Options{Create: true, Role: server})
		exec(t, conn, `create function call() returns boolean language plpgsql as $$ begin
				insert into public.called values (current_user, session_user, 'choices'); return true; end $$;
			create function trap() returns trigger language plpgsql as $$ begin perform call(); return new; end $$;
			create function quiet(text) returns text immutable language plpgsql as $$ begin perform public.call(); return $1; end $$`)
		exec(t, conn, strings.ReplaceAll(attack, "EVIL", `'`+evil+`'`))
		exec(t, conn, `reset session authorization`)
		conn2 := pgtest.Connect(t, dsn)
		_, _ = sql.Compare(t.Context(), conn2)
		_, _ = sql.Inspect(t.Context(), conn2)
		_, err := sql.Install(t.Context(), conn, sql.Options{})
		if _, again := sql.Install(t.Context(), conn, sql.Options{}); (err == nil) != (again == nil) {
			t.Errorf("install: %v, then %v", err, again)
		}
		equal(t, "ran as somebody else", others(t, conn, owner), nil)
		equal(t, "superusers", column(t, conn, `select rolname::text from pg_roles where rolsuper and rolname = any ($1)`,
			[]string{owner, server}), nil)
		if _, err := sql.Uninstall(t.Context(), conn, sql.Options{}); err != nil && !strings.Contains(attack, "create view") {
			t.Errorf("uninstall: %v", err)
		}
	})
}

// Version 5 kept the choices in the comment on the view while it was made.
func TestU11ChoicesOfTheCommentAreCarriedOver(t *testing.T) {
	t.Parallel()
	dsn, conn, server := served(t)
	const odd = `it's {"odd"} \ :key`
	exec(t, conn, `alter table audits add "it's {""odd""} \ :key" text`)
	install(t, conn, sql.Options{Columns: map[string]string{"message": "", "error": odd}})
	const sum = "0123456789abcdef0123456789abcdef"
	exec(t, conn, `do $$ begin execute (select format('comment on view auditstream.progress is %L',
			'auditstream 5 `+sum+` ' || (options->>'columns') || ' `+sum+`') from auditstream.choices); end $$; drop table auditstream.choices`)
	found, _ := kinds(t, dsn, server)
	equal(t, "found", found, []string{"choices"})
	equal(t, "kept", install(t, conn, sql.Options{}).Kept, []string{"error=" + odd, "message="})
	undrifted(t, dsn, server)
}

// A dump of the whole database keeps the choices, and what is restored from it is as it was installed, also after a rename.
func TestU11DumpAndRestoreKeepTheChoices(t *testing.T) {
	t.Parallel()
	for _, before := range []string{``, `alter table audits rename message to words`,
		`alter table audits add gone int; alter table audits drop gone; alter table audits add later int`} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			dsn, conn, server := served(t)
			install(t, conn, sql.Options{Columns: map[string]string{"error": ""}})
			exec(t, conn, before)
			dump, err := exec_.CommandContext(t.Context(), "pg_dump", "-d", dsn).Output()
			testkit.NoError(t, err)
			restored, there := database(t)
			pgtest.Psql(t, restored, string(dump))
			found, _ := kinds(t, restored, server)
			want := map[bool][]string{true: {"object"}}[strings.Contains(before, "rename")] // PostgreSQL writes the new name, and keeps a new tree
			equal(t, "found", found, want)
			if plan := install(t, there, sql.Options{}); !slices.Contains(plan.Kept, "error=") {
				t.Errorf("kept %q", plan.Kept)
			}
			undrifted(t, restored, server)
		})
	}
}
