package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// S2: for a column of a type whose cast is the owner's code, to read, compare or notify ran that code as the installer.
func TestS2TypesOfOthersRunNothing(t *testing.T) {
	t.Parallel()
	// A domain's check belongs to whoever writes a value of it, so there is nothing to fill domains with.
	type table struct{ columns, fill string }
	testkit.Each(t, map[string]table{
		"an enum": {`id bigint primary key, status mine.evil, progress int, message mine.evil, error mine.evil, user_id mine.evil, user_email mine.evil`,
			`update public.audits set status = 'running', message = '1', error = '1', user_id = '1', user_email = '1'`},
		"a row": {`id bigint primary key, status text, progress int, message mine.pair, error mine.pair, user_id mine.pair`,
			`update public.audits set status = 'Running', message = '(a,1)', error = '(,)', user_id = '(b,1)'`},
		"domains": {`id mine.checked_key primary key, status mine.checked, progress int, message mine.over, error mine.checked, user_id mine.over`,
			`select 1`},
		"arrays": {`id bigint primary key, status text, progress int, message mine.evil[], error mine.pair[], user_id mine.over[]`,
			`update public.audits set status = 'Running', message = '{1}', error = '{"(a,1)"}'`},
		"partitions of an enum": {`id bigint primary key, status mine.evil, progress int, message mine.pair) partition by range (id`,
			`update public.audits set status = 'running', message = '(a,1)'`},
	}, func(t *testing.T, name string, table table) {
		dsn, conn := database(t)
		ran(t, conn)
		owner, reader, writer, nobody := installer(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn)
		script := evil("mine") + `create table public.audits (` + table.columns + `);`
		if strings.Contains(table.columns, "partition") {
			script += `create table public.audits_1 partition of public.audits for values from (0) to (10);
				create table public.audits_2 partition of public.audits for values from (10) to (20);`
		}
		mustAs(t, dsn, owner, script+`grant all on public.audits to `+writer+`; grant usage on schema mine to `+writer)
		exec(t, conn, `set search_path = mine, public, pg_catalog`)
		install(t, conn, sql.Options{Table: "public.audits", Role: reader})
		b := listen(t, dsn)
		const write = `insert into public.audits (id, progress) values (1, 1), (2, 1); update public.audits set progress = 2;
			update public.audits set id = id operator(pg_catalog.+) 10; delete from public.audits where id operator(pg_catalog.=) 11;`
		exec(t, conn, `reset search_path`)
		for _, who := range []string{"", writer} {
			// A domain's check of a value that somebody writes is the application's own: without it the rest must run nothing.
			run := func(statement string) {
				t.Helper()
				if who != "" {
					if err := as(t, dsn, who, `set search_path = mine, public, pg_catalog; `+statement); err != nil {
						t.Errorf("%s: %v", statement, err)
					}
					return
				}
				exec(t, conn, statement)
			}
			run(write)
			run(table.fill)
			if name == "domains" {
				exec(t, conn, `delete from public.called where what = 'domain'`)
			}
			run(`update public.audits set progress = 5`)
			if got := b.heard(t, conn); len(got) == 0 {
				t.Error("nothing was announced")
			}
			for _, path := range []string{`mine, public, pg_catalog`, `pg_catalog`} {
				exec(t, conn, `set search_path = `+path)
				_ = column(t, conn, `select row_to_json(p)::text
					from auditstream.progress p, unnest('{12}'::pg_catalog.int8[]) k where p.audit_id operator(pg_catalog.=) k`)
				exec(t, conn, `reset search_path`)
			}
			if err := as(t, dsn, reader, `set search_path = mine, public, pg_catalog; select * from auditstream.progress;
				select message, user_id from auditstream.progress where user_id is not null`); err != nil {
				t.Errorf("serve: %v", err)
			}
			if s, err := sql.Inspect(t.Context(), conn); err != nil || s.View != nil {
				t.Errorf("inspect: %+v, %v", s, err)
			}
			exec(t, conn, `delete from public.audits`)
			_ = b.heard(t, conn)
		}
		exec(t, conn, `truncate public.audits`)
		if err := as(t, dsn, nobody, `select * from auditstream.progress`); err == nil {
			t.Error("a role without rights reads the view")
		}
		install(t, conn, sql.Options{Table: "public.audits", NotifyAlways: true})
		uninstall(t, conn)
		equal(t, "the owner's code that ran", others(t, conn, owner), nil)
	})
}

// S2: the output function of such a type writes what is shown of it; null stays null.
func TestS2TypesOfOthersAreShownAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	ran(t, conn)
	exec(t, conn, evil("mine")+`create extension citext;
		create table audits (id bigint primary key, status mine.evil, progress int, message mine.pair, error mine.evil[],
			user_id citext, user_email mine.over);
		insert into audits values (1, 'failed', 1, '(a,1)', '{1,running}', 'Ü', '1'), (2, null, 1, '(,)', null, '', null),
			(3, null, null, null, '{}', null, null); truncate called`)
	install(t, conn, sql.Options{})
	equal(t, "the view", shown(t, conn), []string{
		`{"audit_id":1,"user_id":"Ü","user_email":"1","status":"failed","progress":1,"message":"(a,1)","error":"{1,running}"}`,
		`{"audit_id":2,"user_id":"","status":"pending","progress":1,"message":"(,)"}`, `{"audit_id":3,"status":"pending","progress":0,"error":"{}"}`})
	equal(t, "what ran", column(t, conn, `select what from called`), nil)
}

// S2: after the install, the table's owner changes the table in every possible way.
func TestS2OwnerChangesTheTableLater(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string]string{
		"the key is replaced":        `alter table audits rename column id to id0; alter table audits add column id mine.evil`,
		"a shown column is replaced": `alter table audits rename column message to message0; alter table audits add column message mine.evil default '1'`,
		"the key is dropped":         `alter table audits drop column id cascade; alter table audits add column id mine.evil`,
		"the key's type is changed":  `alter table audits alter id type mine.evil using '1'::mine.evil`,
		"a shown type is changed":    `alter table audits alter message type mine.evil using '1'::mine.evil`,
		"the key's type after a detour": `drop trigger auditstream_update on audits; drop trigger auditstream_insert on audits;
			drop trigger auditstream_delete on audits; alter table audits alter id type mine.evil using '1'::mine.evil`,
		"the table is replaced": `alter table audits rename to audits0;
			create table public.audits (id mine.evil, status mine.evil, progress int, message mine.evil)`,
		"a child table": `create table public.child (message mine.checked) inherits (audits)`,
		"a child with more": `create table public.child (more mine.evil default '1') inherits (audits);
			insert into public.child (id, progress) values (50, 1)`,
		"operators of the key's": `create operator public.= (leftarg = bigint, rightarg = bigint, function = mine.any_op);
			create operator public.& (leftarg = integer, rightarg = integer, function = mine.any_and)`,
		"a name of ours": `alter table audits rename column id to "new"; alter table audits rename column progress to old`,
		"our function on his table": `create table public.bait (id mine.evil);
			create trigger t after insert on public.bait for each row execute function auditstream.changed(); insert into public.bait values ('1')`,
		"a trigger of our name": `drop trigger auditstream_update on audits; create trigger auditstream_update after update on audits
			for each row when (old.progress is null) execute function auditstream.changed()`,
	}, func(t *testing.T, _ string, attack string) {
		dsn, conn := database(t)
		ran(t, conn)
		owner, reader := installer(t, dsn), role(t, dsn)
		mustAs(t, dsn, owner, evil("mine")+`create table public.audits (id bigint primary key, status text, progress int, message text);
			insert into public.audits values (1, 'x', 1, 'm')`)
		install(t, conn, sql.Options{Role: reader})
		b := listen(t, dsn)
		err := as(t, dsn, owner, attack)
		t.Log(err) // PostgreSQL refuses some of them
		use := func() {
			for _, statement := range []string{`insert into audits (progress) values (3)`, `insert into audits (id, progress) values (4, 3)`,
				`update audits set progress = 4`, `update audits set message = '1'`, `delete from audits`, `truncate audits cascade`,
				`select * from auditstream.progress`, `select message operator(pg_catalog.||) '' from auditstream.progress`} {
				_, _ = conn.PgConn().Exec(t.Context(), statement).ReadAll() // some of it cannot be done any more
			}
		}
		use()
		exec(t, conn, `set search_path = mine, public, pg_catalog`)
		use()
		_, err = sql.Install(t.Context(), conn, sql.Options{Table: "public.audits", Role: reader})
		t.Log(err)
		_, err = sql.Inspect(t.Context(), conn)
		t.Log(err)
		exec(t, conn, `reset search_path`)
		use()
		_ = as(t, dsn, reader, `select * from auditstream.progress`)
		_ = b.heard(t, conn)
		_, err = sql.Uninstall(t.Context(), conn, sql.Options{})
		t.Log(err)
		// What the application's own statements run of the owner's code, as a domain's check, is not ours.
		exec(t, conn, `delete from called where what = 'domain'`)
		equal(t, "the owner's code that ran", others(t, conn, owner), nil)
	})
}
