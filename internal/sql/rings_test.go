package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// TestEveryWayToWriteRings goes beyond plain statements.
func TestEveryWayToWriteRings(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	exec(t, conn, `create table customers (id bigint primary key); insert into customers values (1);
		alter table audits add customer bigint references customers on delete cascade on update set null`)

	pgtest.Psql(t, dsn, "copy audits (id, url, status) from stdin;\n50\tu\tpending\n51\tu\tpending\n\\.\n")
	equal(t, "what copy rang", b.heard(t, conn), []string{"50", "51"})
	const upsert = `insert into audits (id, url, progress) overriding system value values (50, 'u', 7)
		on conflict (id) do update set progress = excluded.progress`
	b.notifies(t, conn, upsert, "50")
	b.notifies(t, conn, upsert, "50") // the same again
	merge := `merge into audits a using (values (50, 8), (52, 1)) v (id, progress) on a.id = v.id
		when matched then update set progress = v.progress
		when not matched then insert (id, url, progress) overriding system value values (v.id, 'u', v.progress)`
	if column(t, conn, `select current_setting('server_version_num')`)[0] < "150000" {
		merge = `with v (id, progress) as (values (50, 8), (52, 1)), u as (update audits a set progress = v.progress from v where a.id = v.id)
			insert into audits (id, url, progress) overriding system value select id, 'u', progress from v where id = 52`
	}
	b.notifies(t, conn, merge, "50", "52")
	b.notifies(t, conn, `update audits set customer = 1 where id = 50`, "50") // not shown
	b.notifies(t, conn, `delete from customers`, "50")
	b.notifies(t, conn, `prepare p as update audits set progress = $1 where id = 51; execute p (3); execute p (4)`, "51")
	b.notifies(t, conn, `begin; update audits set progress = 5 where id = 51; savepoint s; update audits set progress = 6 where id = 52;
		rollback to s; commit`, "51")
	b.notifies(t, conn, `create function clamp() returns trigger language plpgsql as $$ begin new.progress := 5; return new; end $$;
		create trigger clamp before update on audits for each row execute function clamp(); update audits set progress = 77 where id = 51`, "51")
	b.notifies(t, conn, `drop trigger clamp on audits; begin; insert into audits (id, url) overriding system value values (60, 'u');
		delete from audits where id = 60; commit`, "60")
	b.notifies(t, conn, `truncate customers cascade`, "*")
}

func TestLargeTextDoesNotFailTheWriter(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	b.notifies(t, conn, `update audits set status = 'failed', error = repeat('ä', 500000), message = repeat('x', 1000000)`, "1")
	b.notifies(t, conn, `update audits set error = error || 'x'`, "1")
	b.notifies(t, conn, `update audits set error = error || ''`, "1")
}

// TestRenamedColumns: the view and the conditions know columns by number, so they follow a renamed one by themselves.
func TestRenamedColumns(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string]string{
		"id": `progress = progress + 1`, "status": `state_x = 'failed'`, "progress": `progress_x = 55`, "message": `message_x = 'm'`,
		"geo_score": `geo_score_x = 5`, "total_pages": `total_pages_x = 5`, "error": `error_x = 'e'`, "user_id": `user_id_x = 'u'`,
		"user_email": `user_email_x = 'e'`,
	}, func(t *testing.T, name string, set string) {
		dsn, conn := audits(t)
		b := listen(t, dsn)
		renamed := strings.Replace(name, "status", "state", 1) + "_x"
		exec(t, conn, fmt.Sprintf(`alter table audits rename column %s to %s`, name, renamed))
		b.notifies(t, conn, `update audits set url = 'x', `+set, "1")
		b.notifies(t, conn, `insert into audits (url) values ('u')`, "2")
		b.notifies(t, conn, `delete from audits where url = 'u'`, "2")
		testkit.Equal(t, len(shown(t, conn)), 1, "rows shown")
		// Install puts it right when it is told.
		b.install(t, conn, sql.Options{Columns: map[string]string{name: renamed}})
		b.notifies(t, conn, `insert into audits (url) values ('u')`, "3")
	})
}

// TestDroppedColumn: cascade takes the view and the triggers that know the key with the column; what is left must not hurt.
func TestDroppedColumn(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	exec(t, conn, `alter table audits drop column id cascade`)
	b.notifies(t, conn, `insert into audits (url) values ('u')`)
	b.notifies(t, conn, `update audits set progress = 44`)
	b.notifies(t, conn, `delete from audits`)
	b.notifies(t, conn, `truncate audits`, "*")
	equal(t, "triggers", column(t, conn, `select tgname::text from pg_trigger where tgname ~ '^auditstream'`), []string{"auditstream_truncate"})
}

// TestWriterKnowsNothingOfUs: nobody grants the application's role anything of ours.
func TestWriterKnowsNothingOfUs(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	writer := role(t, dsn)
	exec(t, conn, `grant select, insert, update, delete, truncate on audits to `+writer)
	b := listen(t, dsn)
	app := pgtest.Connect(t, dsn)
	exec(t, app, `set role `+writer)
	equal(t, "usage on the schema", column(t, app, `select has_schema_privilege('auditstream', 'usage')::text`), []string{"false"})
	b.notifies(t, app, `insert into audits (url) values ('u')`, "2")
	b.notifies(t, app, `update audits set progress = 50 where id = 2`, "2")
	b.notifies(t, app, `set search_path = ''; update public.audits set progress = 51 where id = 2`, "2")
	b.notifies(t, app, `delete from public.audits where id = 2`, "2")
	b.notifies(t, app, `truncate public.audits`, "*")
}

// TestImpostors: whatever is in the writer's search_path, the conditions and the function call PostgreSQL's own.
func TestImpostors(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	exec(t, conn, `create schema evil;
		create function evil.pg_notify(text, text) returns void language plpgsql as $$ begin raise 'called'; end $$;
		create function evil.lower(text) returns text language plpgsql as $$ begin raise 'called'; end $$;
		create function evil.differs(bigint, bigint) returns boolean language plpgsql as $$ begin raise 'called'; end $$;
		create operator evil.= (leftarg = bigint, rightarg = bigint, function = evil.differs);
		create function evil.mask(integer, integer) returns integer language plpgsql as $$ begin raise 'called'; end $$;
		create operator evil.& (leftarg = integer, rightarg = integer, function = evil.mask);
		create function evil.hashint8(bigint) returns integer language plpgsql as $$ begin raise 'called'; end $$;
		create function evil.pg_try_advisory_lock(integer, integer) returns boolean language plpgsql as $$ begin raise 'called'; end $$;
		create function evil.pg_advisory_unlock(integer, integer) returns boolean language plpgsql as $$ begin raise 'called'; end $$;
		create domain evil.int8 as bigint check (false); create domain evil.text as pg_catalog.text check (false);
		create temporary table pg_attribute (attrelid oid); set search_path = evil, public, pg_catalog`)
	b.notifies(t, conn, `update audits set progress = 12, status = 'failed'`, "1")
	b.notifies(t, conn, `update audits set id = default`, "1", "2")
	b.notifies(t, conn, `insert into audits (url) values ('u')`, "3")
	b.notifies(t, conn, `delete from audits where url operator(pg_catalog.=) 'u'`, "3")
	b.notifies(t, conn, `truncate audits`, "*")
}
