package sql_test

import (
	"testing"

	"auditstream/internal/sql"
)

func TestAdoptTypes(t *testing.T) {
	t.Parallel()
	adopt(t, map[string]adoption{
		"enum status in upper case": {
			setup: `create type audit_status as enum ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED');
				create table audits (id bigint primary key, status audit_status, progress integer);
				insert into audits values (1, 'COMPLETED', 100), (2, null, 0)`,
			shown: []string{`{"audit_id":1,"status":"completed","progress":100}`, `{"audit_id":2,"status":"pending","progress":0}`},
			changes: []change{
				notifies(`update audits set status = 'FAILED' where id = 1`, "1"),
				notifies(`update audits set status = 'PENDING' where id = 2`, "2"),
			},
		},
		"varchar status in mixed case, progress real": {
			setup: `create table audits (id integer primary key, status varchar(20), progress real, geo_score real, total_pages real);
				insert into audits values (1, 'Running', 55.7, 78.1, 12.9), (2, 'FAILED', 'NaN', 'NaN', 'NaN'),
					(3, 'x', 'Infinity', 'Infinity', 'Infinity'), (4, 'x', '-Infinity', '-Infinity', -1), (5, 'x', 99.99, null, 3e30)`,
			shown: []string{
				`{"audit_id":1,"status":"running","progress":55,"geo_score":78.1,"total_pages":12}`,
				`{"audit_id":2,"status":"failed","progress":0}`,
				`{"audit_id":3,"status":"x","progress":100,"total_pages":2147483647}`,
				`{"audit_id":4,"status":"x","progress":0,"total_pages":0}`,
				`{"audit_id":5,"status":"x","progress":99,"total_pages":2147483647}`,
			},
			changes: []change{
				notifies(`update audits set progress = 55.2, total_pages = 12.1 where id = 1`, "1"),
				notifies(`update audits set progress = 'NaN', total_pages = 'Infinity' where id = 1`, "1"),
				notifies(`update audits set progress = -1e30 where id = 1`, "1"),
				notifies(`update audits set status = 'RUNNING' where id = 1`, "1"),
			},
		},
		"progress double precision": {
			setup: `create table audits (id integer primary key, status text, progress double precision, geo_score integer, total_pages bigint);
				insert into audits values (1, 'running', 1e300, 78, 5000000000), (2, 'running', 'NaN', null, -5), (3, 'running', 0.999, 0, null)`,
			shown: []string{
				`{"audit_id":1,"status":"running","progress":100,"geo_score":78,"total_pages":2147483647}`,
				`{"audit_id":2,"status":"running","progress":0,"total_pages":0}`,
				`{"audit_id":3,"status":"running","progress":0,"geo_score":0}`,
			},
			changes: []change{
				notifies(`update audits set progress = -1e300 where id = 2`, "2"),
				notifies(`update audits set progress = 1.5 where id = 2`, "2"),
				notifies(`update audits set progress = 1.9 where id = 2`, "2"),
			},
		},
		"progress numeric": {
			setup: `create table audits (id integer primary key, status text, progress numeric, geo_score numeric, total_pages numeric);
				insert into audits values (1, 'running', 55.2, 78.10, 12.5), (2, 'x', 'NaN', 'NaN', 'NaN'), (3, 'x', 1e400, 1e400, 1e400),
					(4, 'x', 'Infinity', '-Infinity', 'Infinity'), (5, 'x', null, 1e-400, null), (6, 'x', 99.99999, -1e300, '-Infinity')`,
			shown: []string{
				`{"audit_id":1,"status":"running","progress":55,"geo_score":78.1,"total_pages":12}`,
				`{"audit_id":2,"status":"x","progress":0}`,
				`{"audit_id":3,"status":"x","progress":100,"total_pages":2147483647}`,
				`{"audit_id":4,"status":"x","progress":100,"total_pages":2147483647}`,
				`{"audit_id":5,"status":"x","progress":0,"geo_score":0}`,
				`{"audit_id":6,"status":"x","progress":99,"geo_score":-1e+300,"total_pages":0}`,
			},
			changes: []change{
				notifies(`update audits set progress = 55.4 where id = 1`, "1"),
				notifies(`update audits set geo_score = 78.1 where id = 1`, "1"),
				notifies(`update audits set progress = 1e400 where id = 1`, "1"),
				notifies(`update audits set progress = 1e500 where id = 1`, "1"),
			},
		},
		"json columns": {
			setup: `create table audits (id integer primary key, status text, progress integer, message json, error json);
				insert into audits values (1, 'failed', 1, '"text"', '{"code": 7}'), (2, 'x', 1, 'null', null),
					(3, 'x', 1, '"\u0000"', '"\ud83d"'), (4, 'x', 1, '"\ud83d\ude00"', '"\\u0000 \\ud83d"'), (5, 'x', 1, '{"a":"\ude00\ud83d"}', '"\\\ud83d\ude00"'),
					(6, 'x', 1, '"\\\\ud83d\ude00"', '"\u00e9\\"')`,
			shown: []string{
				`{"audit_id":1,"status":"failed","progress":1,"message":"text","error":"{\"code\": 7}"}`,
				`{"audit_id":2,"status":"x","progress":1}`,
				`{"audit_id":3,"status":"x","progress":1,"message":"\"\\u0000\"","error":"\"\\ud83d\""}`,
				`{"audit_id":4,"status":"x","progress":1,"message":"😀","error":"\\u0000 \\ud83d"}`,
				`{"audit_id":5,"status":"x","progress":1,"message":"{\"a\":\"\\ude00\\ud83d\"}","error":"\\😀"}`,
				`{"audit_id":6,"status":"x","progress":1,"message":"\"\\\\\\\\ud83d\\ude00\"","error":"é\\"}`,
			},
			changes: []change{
				notifies(`update audits set error = '{"code": 8}' where id = 1`, "1"),
				notifies(`update audits set error = error`, "1", "2", "3", "4", "5", "6"),
				notifies(`update audits set message = '"\ud83d"'`, "1", "2", "3", "4", "5", "6"),
			},
		},
		"jsonb columns": {
			setup: `create table audits (id integer primary key, status text, progress integer, message jsonb, error jsonb, user_id jsonb);
				insert into audits values (1, 'failed', 1, '"text"', '{"code": 7}', '5'), (2, 'x', 1, 'null', null, null)`,
			shown: []string{
				`{"audit_id":1,"user_id":"5","status":"failed","progress":1,"message":"text","error":"{\"code\": 7}"}`,
				`{"audit_id":2,"status":"x","progress":1}`,
			},
			changes: []change{
				notifies(`update audits set error = '{"code":7}' where id = 1`, "1"),
				notifies(`update audits set error = '{"code":8}' where id = 1`, "1"),
				notifies(`update audits set message = null where id = 2`, "2"),
			},
		},
		"types without equality, or with a coarse one": {
			setup: `create extension citext;
				create table audits (id integer primary key, status citext, progress integer, message point, error char(6), user_id uuid, user_email citext);
				insert into audits values (1, 'Failed', 1, '(1,2)', 'boom', '00000000-0000-0000-0000-000000000001', 'A@example.com')`,
			shown: []string{`{"audit_id":1,"user_id":"00000000-0000-0000-0000-000000000001","user_email":"A@example.com",` +
				`"status":"failed","progress":1,"message":"(1,2)","error":"boom"}`},
			changes: []change{
				notifies(`update audits set message = '(1,3)'`, "1"),
				notifies(`update audits set message = '(1,3)'`, "1"),
				notifies(`update audits set user_email = 'a@example.com'`, "1"),
				notifies(`update audits set status = 'FAILED'`, "1"),
			},
		},
		"a nondeterministic collation": {
			setup: `create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
				create table audits (id integer primary key, status text collate ci, progress integer, message text collate ci, user_id varchar collate ci);
				insert into audits values (1, 'FAILED', 1, 'boom', 'u')`,
			shown: []string{`{"audit_id":1,"user_id":"u","status":"failed","progress":1,"message":"boom"}`},
			changes: []change{
				notifies(`update audits set message = 'Boom'`, "1"),
				notifies(`update audits set user_id = 'U'`, "1"),
				notifies(`update audits set status = 'failed'`, "1"),
			},
		},
		"domains": {
			setup: `create domain audit_key as integer check (value > 0); create domain percent as numeric(5,2) check (value <= 100);
				create domain percent2 as percent; create domain word as text; create domain document as json;
				create table audits (id audit_key primary key, status word, progress percent2, message document, error word);
				insert into audits values (1, 'Running', 12.34, '"m"', 'e')`,
			shown: []string{`{"audit_id":1,"status":"running","progress":12,"message":"m","error":"e"}`},
			changes: []change{
				notifies(`update audits set progress = 12.99`, "1"),
				notifies(`update audits set progress = 13`, "1"),
				notifies(`update audits set message = '"n"'`, "1"),
			},
		},
	})
}

// From PostgreSQL 18 on a generated column may be virtual: it is computed when it is read.
func TestGeneratedColumnsRing(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	kind := "stored"
	if column(t, conn, `select (current_setting('server_version_num')::int >= 180000)::text`)[0] == "true" {
		kind = "virtual"
	}
	exec(t, conn, `create table audits (id bigint primary key, status text, done int, pages int,
			progress int generated always as (100 * done / pages) `+kind+`, message text generated always as ('page ' || done) `+kind+`);
		insert into audits values (1, 'running', 0, 10)`)
	install(t, conn, sql.Options{})
	b := listen(t, dsn)
	b.notifies(t, conn, `update audits set done = 5`, "1")
	equal(t, "the view", shown(t, conn), []string{`{"audit_id":1,"status":"running","progress":50,"message":"page 5"}`})
	b.notifies(t, conn, `update audits set done = 5`, "1")
	b.notifies(t, conn, `insert into audits values (2, 'running', 0, 10)`, "2")
	b.notifies(t, conn, `delete from audits where id = 2`, "2")
	unchanged(t, conn, sql.Options{})
}
