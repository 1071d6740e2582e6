package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

type change struct {
	statement string
	payloads  []string
}

func notifies(statement string, payloads ...string) change { return change{statement, payloads} }

// An adoption is a table of some application, what viewers see of it, and which notifications its writers send.
type adoption struct {
	setup   string
	options sql.Options
	shown   []string
	changes []change
}

func TestAdoptTables(t *testing.T) {
	t.Parallel()
	adopt(t, map[string]adoption{
		"integer key, serial": {
			setup: `create table audits (id serial primary key, status text, progress integer, message text, geo_score float8,
				total_pages integer, error text, user_id text, user_email text, notes text);
				insert into audits (status, progress, message, geo_score, total_pages, error, user_id, user_email)
				values ('running', 25, 'Analyzing pages...', 78.5, 12, 'none', 'u1', 'a@example.com'), (null, null, null, null, null, null, null, null)`,
			shown: []string{
				`{"audit_id":1,"user_id":"u1","user_email":"a@example.com","status":"running","progress":25,"message":"Analyzing pages...",` +
					`"geo_score":78.5,"total_pages":12,"error":"none"}`,
				`{"audit_id":2,"status":"pending","progress":0}`,
			},
			changes: []change{
				notifies(`insert into audits (status) values ('pending')`, "3"),
				notifies(`update audits set status = 'failed' where id = 1`, "1"),
				notifies(`update audits set progress = 26 where id = 1`, "1"),
				notifies(`update audits set message = 'x' where id = 1`, "1"),
				notifies(`update audits set geo_score = 1 where id = 1`, "1"),
				notifies(`update audits set total_pages = 13 where id = 1`, "1"),
				notifies(`update audits set error = null where id = 1`, "1"),
				notifies(`update audits set user_id = 'u2' where id = 1`, "1"),
				notifies(`update audits set user_email = 'b@example.com' where id = 1`, "1"),
				notifies(`update audits set id = 9 where id = 1`, "1", "9"),
				notifies(`update audits set notes = 'not shown' where id = 2`, "2"), // columns are not compared: serve finds nothing new
				notifies(`update audits set status = 'PENDING', progress = -3 where id = 2`, "2"),
				notifies(`update audits set progress = progress`, "2", "3", "9"),
				notifies(`begin; update audits set progress = 99; rollback`),
				notifies(`begin; update audits set progress = 1 where id = 2; update audits set progress = 2 where id = 2; commit`, "2"),
				notifies(`delete from audits where id = 2`, "2"),
				notifies(`truncate audits`, "*"),
			},
		},
		"bigint key, the table of audits.sql": {
			options: sql.Options{Create: true},
			changes: []change{
				notifies(`insert into audits (url) values ('https://example.com')`, "1"),
				notifies(`update audits set updated_at = now()`, "1"),
				notifies(`update audits set progress = 3`, "1"),
				notifies(`delete from audits`, "1"),
			},
		},
		"smallint key": {
			setup: `create table audits (id smallint primary key, status text, progress smallint);
				insert into audits values (7, 'running', 1000)`,
			shown: []string{`{"audit_id":7,"status":"running","progress":100}`},
			changes: []change{
				notifies(`update audits set progress = 101`, "7"),
				notifies(`update audits set progress = 99`, "7"),
				notifies(`delete from audits`, "7"),
			},
		},
		"nothing but the essentials": {
			setup:   `create table audits (id integer primary key, status text, progress integer); insert into audits values (1, 'running', 1)`,
			shown:   []string{`{"audit_id":1,"status":"running","progress":1}`},
			changes: []change{notifies(`update audits set progress = 2`, "1")},
		},
		"error_message": {
			setup: `create table audits (id integer primary key, status text, progress integer, error_message text);
				insert into audits values (1, 'failed', 1, 'boom')`,
			shown:   []string{`{"audit_id":1,"status":"failed","progress":1,"error":"boom"}`},
			changes: []change{notifies(`update audits set error_message = 'bang'`, "1")},
		},
		"a flag called error beside error_message": {
			setup: `create table audits (id integer primary key, status text, progress integer, error boolean, error_message text);
				insert into audits values (1, 'failed', 1, true, 'boom')`,
			shown:   []string{`{"audit_id":1,"status":"failed","progress":1,"error":"boom"}`},
			changes: []change{notifies(`update audits set error = false`, "1")},
		},
		"names that need quoting, another schema, every column mapped": {
			setup: `create schema "My Schema";
				create table "My Schema"."Audit Log" ("Audit Id" integer primary key, "State'$1:x" text, "%" integer, "Why?" text,
					"select" text, failure_reason text);
				insert into "My Schema"."Audit Log" values (4, 'Failed', 50, 'm', 'u', 'boom')`,
			options: sql.Options{Table: `"My Schema"."Audit Log"`, Columns: map[string]string{"id": `"Audit Id"`, "status": "State'$1:x",
				"progress": "%", "message": "Why?", "user_id": "SELECT", "error": "FAILURE_REASON", "user_email": ""}},
			shown: []string{`{"audit_id":4,"user_id":"u","status":"failed","progress":50,"message":"m","error":"boom"}`},
			changes: []change{
				notifies(`update "My Schema"."Audit Log" set failure_reason = 'bang'`, "4"),
				notifies(`delete from "My Schema"."Audit Log"`, "4"),
			},
		},
		"quotes that a shell ate": {
			setup: `create schema "My Schema"; create table "My Schema"."Audit Log" ("id" integer primary key, status text, progress integer);
				insert into "My Schema"."Audit Log" values (1, 'x', 1)`,
			options: sql.Options{Table: `My Schema.Audit Log`},
			shown:   []string{`{"audit_id":1,"status":"x","progress":1}`},
		},
		"a key and a table whose names try to break out": {
			setup: `create table "a""; drop table b; --" ("i""d$$'\" integer primary key, status text, progress integer, "geo""score" numeric);
				insert into "a""; drop table b; --" values (1, 'x', 1, 2)`,
			options: sql.Options{Table: `"a""; drop table b; --"`, Columns: map[string]string{"geo_score": `geo"score`}},
			shown:   []string{`{"audit_id":1,"status":"x","progress":1,"geo_score":2}`},
			changes: []change{
				notifies(`update "a""; drop table b; --" set progress = 5`, "1"),
				notifies(`delete from "a""; drop table b; --"`, "1"),
			},
		},
		"a primary key of another name": {
			setup: `create table audits (audit_no bigint primary key, status text, progress integer);
				insert into audits values (1, 'x', 1)`,
			shown:   []string{`{"audit_id":1,"status":"x","progress":1}`},
			changes: []change{notifies(`delete from audits`, "1")},
		},
		"a column left out": {
			setup: `create table audits (id bigint primary key, status text, progress integer, geo_score text);
				insert into audits values (1, 'x', 1, 'high')`,
			options: sql.Options{Columns: map[string]string{"geo_score": ""}},
			shown:   []string{`{"audit_id":1,"status":"x","progress":1}`},
			changes: []change{notifies(`update audits set geo_score = 'low'`, "1")},
		},
		"an unlogged table": {
			setup: `create unlogged table audits (id bigint primary key, status text, progress integer);
				insert into audits values (1, 'x', 1)`,
			shown:   []string{`{"audit_id":1,"status":"x","progress":1}`},
			changes: []change{notifies(`update audits set progress = 2`, "1")},
		},
		"a partitioned table": {
			setup: `create table audits (id integer, status text, progress integer, primary key (id)) partition by range (id);
				create table audits_1 partition of audits for values from (0) to (10);
				create table audits_2 partition of audits for values from (10) to (20);
				insert into audits values (1, 'x', 1), (11, 'x', 1)`,
			shown: []string{`{"audit_id":1,"status":"x","progress":1}`, `{"audit_id":11,"status":"x","progress":1}`},
			changes: []change{
				notifies(`insert into audits values (2, 'x', 1)`, "2"),
				notifies(`insert into audits_2 values (12, 'x', 1)`, "12"),
				notifies(`update audits set progress = 2 where id = 1`, "1"),
				notifies(`update audits set id = 13 where id = 2`, "2", "13"),
				notifies(`create table audits_3 partition of audits for values from (20) to (30); insert into audits values (21, 'x', 1)`, "21"),
				notifies(`create table audits_4 (like audits including all); insert into audits_4 values (31, 'x', 1);
					alter table audits attach partition audits_4 for values from (30) to (40); update audits set progress = 9 where id = 31`, "31"),
				notifies(`delete from audits where id = 1`, "1"),
				notifies(`truncate audits`, "*"),
			},
		},
		"one partition": {
			setup: `create table audits (id integer, status text, progress integer, primary key (id)) partition by range (id);
				create table audits_1 partition of audits for values from (0) to (10);
				create table audits_2 partition of audits for values from (10) to (20);
				insert into audits values (1, 'x', 1), (11, 'x', 1)`,
			options: sql.Options{Table: "audits_1"},
			shown:   []string{`{"audit_id":1,"status":"x","progress":1}`},
			changes: []change{notifies(`update audits set progress = 2`, "1")},
		},
		"a key that may be null": {
			setup: `create table audits (id integer unique, status text, progress integer);
				insert into audits values (1, 'x', 1), (null, 'x', 1)`,
			shown: []string{`{"audit_id":1,"status":"x","progress":1}`},
			changes: []change{notifies(`update audits set progress = 2`, "1"), notifies(`delete from audits where id is null`),
				notifies(`insert into audits default values`)},
		},
		"row level security": {
			setup: `create table audits (id integer primary key, status text, progress integer); alter table audits enable row level security;
				insert into audits values (1, 'x', 1)`,
			shown:   []string{`{"audit_id":1,"status":"x","progress":1}`},
			changes: []change{notifies(`update audits set progress = 2`, "1")},
		},
	})
}

// triggersOf returns how many triggers a plan makes. With a column that names an owner there is one more, for changed owners.
func triggersOf(plan *sql.Plan) int {
	if strings.Contains(plan.SQL, "create or replace trigger auditstream_owner") {
		return 6
	}
	return 5
}

func adopt(t *testing.T, tests map[string]adoption) {
	t.Helper()
	testkit.Each(t, tests, func(t *testing.T, _ string, test adoption) {
		dsn, conn := database(t)
		exec(t, conn, test.setup)
		plan := planned(t, conn, test.options)
		ran := install(t, conn, test.options)
		if ran.SQL != plan.SQL || ran.Table != plan.Table {
			t.Errorf("install ran another script than planned:\n%s\nplanned:\n%s", ran.SQL, plan.SQL)
		}
		if strings.Contains(ran.SQL, `\`+"if") || strings.Contains(ran.SQL, ":table") {
			t.Errorf("psql is left in the script:\n%s", ran.SQL)
		}
		equal(t, "the view", shown(t, conn), test.shown)
		unchanged(t, conn, test.options)
		b := listen(t, dsn)
		for _, c := range test.changes {
			b.notifies(t, conn, c.statement, c.payloads...)
		}
		_ = shown(t, conn) // whatever the changes made of it, it can be read
		s, err := sql.Inspect(t.Context(), conn)
		if err != nil || s.View != nil || s.Index != nil || s.Table != plan.Table || len(s.Triggers) != triggersOf(ran) {
			t.Errorf("inspect: %+v, %v", s, err)
		}
		for _, trigger := range s.Triggers {
			if trigger.Enabled != "enabled" || trigger.Table != plan.Table {
				t.Errorf("inspect: %+v", trigger)
			}
		}
	})
}
