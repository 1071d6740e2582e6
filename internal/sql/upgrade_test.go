package sql_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
)

// released returns the install.sql of an earlier version.
func released(tb testing.TB, version int) string {
	tb.Helper()
	name := fmt.Sprintf("testdata/schema-%d.sql", version)
	if version == sql.SchemaVersion {
		name = "install.sql"
	}
	return file(tb, name)
}

// old makes the table of audits.sql and runs the install of an earlier version.
func old(tb testing.TB, dsn string, version int) {
	tb.Helper()
	pgtest.Psql(tb, dsn, file(tb, "audits.sql"))
	pgtest.Psql(tb, dsn, released(tb, version))
	pgtest.Psql(tb, dsn, `insert into audits (url, status, progress) values ('https://example.com', 'running', 10)`)
}

// The sum by which install notices is not part of a version.
var state = regexp.MustCompile(`(?s)-- state: .*?-- end of state\n`)

var comments = regexp.MustCompile(`(?m)^\s*--.*\n|\s+-- .*`)

// What has been installed somewhere under a number must stay what that number means.
func TestSchemaVersionIsRaisedByEveryChange(t *testing.T) {
	t.Parallel()
	now := file(t, "install.sql")
	objects := func(script string) string {
		return comments.ReplaceAllString(state.ReplaceAllString(script, ""), "\n")
	}
	if got, want := objects(now), objects(released(t, sql.SchemaVersion)); got != want {
		t.Errorf("install.sql is not that of version %d any more: raise sql.SchemaVersion, and the number in install.sql, to %d; "+
			"then cp install.sql testdata/schema-%[2]d.sql",
			sql.SchemaVersion, sql.SchemaVersion+1)
	}
	for _, number := range []string{`is 'auditstream %d by`, `::int > %d then`, `of version %d'`} {
		if number = fmt.Sprintf(number, sql.SchemaVersion); !strings.Contains(now, number) {
			t.Errorf("install.sql does not say %q", number)
		}
	}
}

// damages are done to what a version installed.
var damages = []struct {
	name    string
	version int
	damage  string
}{
	{name: "as it was"},
	{name: "from before the number", version: 3, damage: `
		comment on view auditstream.progress is 'auditstream 1 psql d41d8cd98f00b204e9800998ecf8427e'`},
	{name: "half of the triggers", version: 1, damage: `drop trigger auditstream_update on audits; drop trigger auditstream_insert on audits`},
	{name: "triggers of the first for the second", version: 2, damage: `drop table auditstream.watch; drop function auditstream.unwatch`},
	{name: "no feeds", version: 5, damage: `drop view auditstream.feeds`},
	{name: "the objects of the fourth beside", version: 5, damage: `create table auditstream.watch (audit_id bigint, instance bigint);
		create function auditstream.unwatch(bigint, bigint[]) returns bigint language sql as 'select 1::bigint';
		create function auditstream.prepare_watch() returns void language sql as '';
		create function auditstream.notify_change() returns trigger language plpgsql as 'begin return null; end';
		create trigger auditstream_key after update of id on audits for each row execute function auditstream.notify_change()`},
	{name: "nothing but the table", version: 2, damage: `drop view auditstream.progress; drop function auditstream.notify_change cascade;
		drop function auditstream.unwatch`},
	{name: "rows for statements", version: 3, damage: `drop trigger auditstream_key on audits; drop trigger auditstream_update on audits;
		create trigger auditstream_update
		after update on audits for each row when (old.progress <> new.progress) execute function auditstream.notify_change()`},
}

// Whatever was there: what an upgrade leaves is what an install into an empty database does.
func TestUpgradeIsAsNew(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	fresh := catalog(t, conn)
	for _, d := range damages {
		for version := 1; version <= sql.SchemaVersion; version++ {
			if d.version != 0 && d.version != version {
				continue
			}
			for _, way := range []string{"install", "psql"} {
				t.Run(fmt.Sprintf("%s/%d/%s", d.name, version, way), func(t *testing.T) {
					t.Parallel()
					dsn, conn := database(t)
					old(t, dsn, version)
					exec(t, conn, d.damage)
					w := pgtest.Connect(t, dsn) // the application's connection, with plans and a prepared statement of before
					write := func() {
						for range 8 {
							if _, err := w.Exec(t.Context(), `update audits set progress = progress + 1 where id = $1`, 1); err != nil {
								t.Fatal(err)
							}
						}
					}
					write()
					if way == "psql" {
						pgtest.Psql(t, dsn, file(t, "install.sql"))
					} else {
						plan := install(t, conn, sql.Options{})
						gone := strings.Contains(d.damage, "drop view") || strings.Contains(d.damage, "drop table")
						if plan.SQL == "" || plan.Schema != version && !gone {
							t.Errorf("found version %d, want %d; script of %d bytes", plan.Schema, version, len(plan.SQL))
						}
						unchanged(t, conn, sql.Options{})
					}
					equal(t, "catalog", difference(catalog(t, conn), fresh), nil)
					equal(t, "catalog of a new install", difference(fresh, catalog(t, conn)), nil)
					b := listen(t, dsn)
					b.unwatch(t)
					write()
					equal(t, "while nobody watches", b.heard(t, conn), nil)
					b.watchAll(t)
					write()
					equal(t, "rang", b.heard(t, conn), slices.Repeat([]string{"1"}, 8))
				})
			}
		}
	}
}

// Who could serve can go on: what the new version needs is granted to whoever was granted the view.
func TestUpgradeGrantsWhatServeNeeds(t *testing.T) {
	t.Parallel()
	for version := 1; version <= sql.SchemaVersion; version++ {
		for _, damage := range []string{"", `drop function if exists auditstream.unwatch`, `drop view if exists auditstream.feeds`} {
			t.Run(fmt.Sprint(version, damage), func(t *testing.T) {
				t.Parallel()
				dsn, conn := database(t)
				old(t, dsn, version)
				server := role(t, dsn)
				exec(t, conn, `grant usage on schema auditstream to `+server+`; grant select on auditstream.progress to `+server)
				if version >= 5 {
					exec(t, conn, `grant select on auditstream.feeds to `+server)
				}
				if version > 1 && version < 5 {
					exec(t, conn, `grant insert on auditstream.watch to `+server+`; grant execute on function auditstream.unwatch(bigint, bigint[]) to `+server)
				}
				exec(t, conn, damage)
				install(t, conn, sql.Options{})
				exec(t, conn, `set role `+server+`; select * from auditstream.progress; select pg_advisory_lock_shared(class, buckets) from auditstream.feeds`)
				equal(t, "what the role may write", column(t, conn, writable), nil)
			})
		}
	}
}

// A later version's objects are not this one's to replace or to take away.
func TestNewerSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	exec(t, conn, `comment on view auditstream.progress is 'auditstream 6 0123 4567'; create table auditstream.later ()`)
	before := versions(t, conn)
	const want = "the installed schema has version 6, newer than this program's, which is 5, so it is left alone: upgrade the program;" +
		" to go back to this one, run the newer program's uninstall first"
	for _, run := range []operation{sql.Install, sql.PlanInstall, sql.Uninstall} {
		refused(t, run, conn, sql.Options{}, want)
	}
	// psql, too: the script itself says no.
	script := strings.ReplaceAll(plainScript(t), "lock_timeout = '200ms'", "lock_timeout = '30s'")
	_, err := pgtest.Connect(t, dsn).PgConn().Exec(t.Context(), script).ReadAll()
	fails(t, err, "newer than this install.sql, which is of version 5")
	equal(t, "rows of the catalogs", versions(t, conn), before)
}

// plainScript is what install runs in an empty database with the table.
func plainScript(t *testing.T) string {
	t.Helper()
	_, conn := database(t)
	plan := planned(t, conn, sql.Options{Create: true})
	return plan.SQL
}

func TestReadSchema(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	nobody := role(t, dsn)
	read := func(want sql.Schema) {
		t.Helper()
		exec(t, conn, `set role `+nobody) // no rights at all
		got, err := sql.ReadSchema(t.Context(), conn)
		exec(t, conn, `reset role`)
		if want.Role = nobody; want.Version == 0 && want.Table == "" {
			want.Role = got.Role
		}
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	read(sql.Schema{})
	for version := 1; version <= sql.SchemaVersion; version++ {
		old(t, dsn, version)
		read(sql.Schema{Version: version, Table: "public.audits", Triggers: true})
		exec(t, conn, `drop schema auditstream cascade; drop table audits`)
	}
	old(t, dsn, sql.SchemaVersion)
	install(t, conn, sql.Options{NotifyAlways: true})
	read(sql.Schema{Version: 5, Table: "public.audits", Triggers: true, Always: true})
	install(t, conn, sql.Options{NoTriggers: true})
	read(sql.Schema{Version: 5, Table: "public.audits"})
	exec(t, conn, `comment on view auditstream.progress is 'auditstream 1 psql'`)
	read(sql.Schema{Version: 1, Table: "public.audits"})
	exec(t, conn, `comment on view auditstream.progress is 'auditstream 12 x'`)
	read(sql.Schema{Version: 12, Table: "public.audits"})
	exec(t, conn, `comment on view auditstream.progress is 'by hand'`)
	read(sql.Schema{Table: "public.audits"})
}

// Whoever only reads the table, as a dump does for hours, does not keep a schema from being upgraded: what cannot be dropped beside him
// is left without an effect, and is dropped later.
func TestUpgradeBesideAReader(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	fresh := catalog(t, conn)
	for _, version := range []int{3, 4} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			old(t, dsn, version)
			reader := pgtest.Connect(t, dsn)
			exec(t, reader, `begin isolation level repeatable read; select count(*) from audits`)
			install(t, conn, sql.Options{})
			listen(t, dsn).notifies(t, conn, `update audits set progress = 5 where id = 1`, "1")
			exec(t, reader, `commit`)
			install(t, conn, sql.Options{})
			equal(t, "catalog", difference(catalog(t, conn), fresh), nil)
			equal(t, "catalog of a new install", difference(fresh, catalog(t, conn)), nil)
		})
	}
}
