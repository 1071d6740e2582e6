package sql_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// nasty has in each column values that could raise an error when they are shown: the limits of its type, texts that are not numbers, and null.
const nasty = `
	create type mood as enum ('', 'glad', ' Sad ');
	create domain percent as int check (value < 1000);
	create table nasty (id int generated always as identity primary key, status text, user_id text,
		i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, t text, v varchar(400), c char(9),
		j json, b jsonb, o boolean, at timestamptz, local timestamp, d date, m mood, a int[], u uuid, p percent, y bytea, iv interval);
	insert into nasty (i2, i4, i8, f4, f8, n, t, v, c, j, b, o, at, local, d, m, a, u, p, y, iv) values
		(-32768, -2147483648, -9223372036854775808, 'NaN', 'NaN', 'NaN', '', '', '', 'null', 'null', true,
			'-infinity', '-infinity', '-infinity', '', '{}', gen_random_uuid(), -5, '\x00', '-1 year'),
		(32767, 2147483647, 9223372036854775807, '-Infinity', 'Infinity', 'Infinity', '1e99', '-1e-99', '1e309', '"\u0000"', '"1e99"', false,
			'infinity', 'infinity', 'infinity', ' Sad ', '{1,null}', null, 999, '\xff', '1 day'),
		(0, 0, 0, 0, 0, 0, ' 55.5 % ', '99999999999999999999', '0', '{"x": {"y": "\ud800"}, "z": 1e400}', '{"x": {"y": 12}, "z": 1e400, "` + "k''\\\"k" +
	`": "1"}', null, '4713-01-01 bc', '294276-12-31', '5874897-12-31', 'glad', null, null, 0, '', 'P1Y'),
		(1, 1, 1, 1e-45, 5e-324, 1e-400, 'x', '0x10', 'NaN', '[1,
		2]', '[1, 2]', true, '0001-01-01', '2026-01-01 00:00:00.000001', '2026-02-28', null, '{1}', null, 1, null, null),
		(2, 2, 2, 3.4e38, 1.7e308, 1e130000, repeat('9', 5000), repeat('9', 400), '+1.', '12', '12', true,
			now(), now(), now(), 'glad', '{1}', null, 2, null, null),
		(-1, -1, -1, -3.4e38, -1.7e308, -1e130000, '-0', '.5', '1e5', '"12"', '"12"', false, now(), now(), now(), 'glad', '{1}', null, 2, null, null);
	insert into nasty default values`

// What install offers as a source is shown of every row, whatever is in it, and fields are always JSON.
func TestSourcesNeverRaise(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, nasty)
	columns := strings.Fields("i2 i4 i8 f4 f8 n t v c j b o at local d m a u p y iv j.x.y b.x.y j.z b.z t.x v.x")
	feed := 0
	adopt := func(o sql.Options) error {
		feed++
		o.Feed, o.Table = "f", "nasty"
		all := map[string]string{"status": "status", "message": ""} // nothing is left of the install before
		maps.Copy(all, o.Columns)
		if o.Columns = all; o.Words == nil {
			o.Words = []sql.Word{}
		}
		if _, err := sql.Install(t.Context(), conn, o); err != nil {
			return err
		}
		for _, row := range column(t, conn, `select concat_ws(' ', id, status, progress, message is null, '{"":0' || fields || '}')
			from auditstream.progress_f`) {
			_, text, ok := strings.Cut(row, "{")
			if ok && !json.Valid([]byte("{"+text)) {
				t.Errorf("%+v: no JSON: %s", o, row)
			}
		}
		if got := column(t, conn, `select count(*)::text from auditstream.progress_f
			where progress between 0 and 100 and status is not null`); got[0] != "7" {
			t.Errorf("%+v: %s of 7 rows are shown as they should be", o, got[0])
		}
		return nil
	}
	refused := 0
	for n, c := range columns {
		other := columns[(n+7)%len(columns)]
		for _, source := range []string{c, c + "*1000000000.5", c + "*100", c + "/" + other, other + "/" + c, "100-" + c, "100-" + c + "/" + other} {
			fields := []string{"f=" + source, "g=" + c}
			if err := adopt(sql.Options{Columns: map[string]string{"progress": source, "message": source}, Fields: fields}); err != nil {
				refused++ // by its type
			}
		}
		for _, stored := range []string{"set", "100"} {
			of := []sql.Word{{Source: c + "/" + other, Stored: stored, Shown: "failed"}, {Source: "100-" + c, Stored: stored, Shown: "x"},
				{Source: c, Stored: "null", Shown: "completed"}}
			if err := adopt(sql.Options{Columns: map[string]string{"progress": ""}, Fields: []string{"g=id"}, Words: of}); err != nil {
				t.Errorf("%+v: %v", of, err) // every type has a text, and a text may be a number
			}
			of = []sql.Word{{Source: c, Stored: stored, Shown: "completed"}}
			if err := adopt(sql.Options{Columns: map[string]string{"progress": ""}, Fields: []string{"g=id"}, Words: of}); err != nil {
				refused++
			}
		}
		for _, words := range [][]sql.Word{{{Stored: "null", Shown: "waiting"}, {Stored: "set", Shown: "completed"}},
			{{Stored: "true", Shown: "completed"}, {Stored: "sad", Shown: "failed"}}, nil} {
			if err := adopt(sql.Options{Columns: map[string]string{"status": c, "progress": ""}, Words: words, Fields: []string{"f=" + c}}); err != nil {
				refused++
			}
		}
	}
	if refused > feed/2 {
		t.Errorf("%d of %d were refused", refused, feed)
	}
	t.Logf("%d installed, %d refused", feed-refused, refused)
}

// What is shown of a row by words of several columns, by what is left, and by numbers in a text.
func TestWordsOfOtherSources(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table batches (id int primary key, pending int, failed int, total int, "cancelledAt" timestamptz,
			finished_at timestamptz, result text, user_id text, flag boolean, options jsonb);
		insert into batches (id, pending, failed, total, result) values (1, 7, 0, 7, null), (2, 5, 0, 7, '{"a": {"current": 3}, "total":10}'),
			(3, 2, 2, 7, '{"current": "55.5", "total": 0}'),
			(4, 0, 0, 7, '{''current'': 1e1, ''total'': 20}'), (5, 3, 1, 7, '{"current":-5,"total":null}'),
			(6, 3, 0, 0, '{"mycurrent": 1, "current ": 2, "total": 3}'), (7, null, null, null, repeat('"current":', 1000)),
			(8, 1, 0, 2, '{"current": 1e99, "total": 1e-99}'), (9, 1, 0, 2, '{"current": 99999999999999999999999999, "total": +-.e}');
		update batches set finished_at = now() where id in (4, 5, 6); update batches set "cancelledAt" = now(), options = '{"by": " Admin "}'
		where id in (5, 6); update batches set flag = true where id = 7`)
	words, err := sql.ParseWords([]string{"failed/pending=100=failed", "flag=TRUE=odd", "null=running", "options.by=admin=removed",
		"cancelledAt=set=cancelled", "set=completed"})
	testkit.NoError(t, err)
	for _, c := range []struct{ feed, progress, shown string }{
		{"left", "100-pending/total", "running 0, running 28, failed 71, completed 100, removed 57, removed 0, odd 0, running 50, running 50"},
		{"in_text", "result.current/result.total",
			"running 0, running 30, failed 0, completed 50, removed 0, removed 0, odd 0, running 100, running 0"},
		{"number", "result.current", "running 0, running 3, failed 55, completed 10, removed 0, removed 0, odd 0, running 100, running 0"},
	} {
		o := sql.Options{Feed: c.feed, Table: "batches", Columns: map[string]string{"status": "finished_at", "progress": c.progress}, Words: words}
		install(t, conn, o)
		o.Words = nil // which are remembered
		unchanged(t, conn, o)
		equal(t, c.feed, column(t, conn, `select string_agg(status || ' ' || progress, ', ' order by id) from auditstream.progress_`+c.feed),
			[]string{c.shown})
	}
	exec(t, conn, `alter table batches rename "cancelledAt" to gone_at`)
	refusedWith(t, sql.Install, conn, sql.Options{Feed: "left", Table: "batches"}, "no column cancelledAt, which --status=cancelledAt names")
}

// A column of which a part is shown is renamed: install does not go on with the whole of it.
func TestRenamedColumnOfAPathIsNotShownWhole(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id int primary key, status text, meta jsonb, args jsonb)`)
	install(t, conn, sql.Options{Feed: "jobs", Table: "jobs", Columns: map[string]string{"progress": "meta.progress", "user_id": "args.user"}})
	exec(t, conn, `alter table jobs rename args to arguments`)
	refusedWith(t, sql.Install, conn, sql.Options{Feed: "jobs", Table: "jobs"}, "no column args.user, which --column user_id=args.user names")
	install(t, conn, sql.Options{Feed: "jobs", Table: "jobs", Columns: map[string]string{"user_id": "arguments.user"}})
	exec(t, conn, `insert into jobs values (1, 'completed', '{}', '{"user": "alice"}'), (2, 'completed', '{"progress": 3}', '{"user": "bob"}')`)
	equal(t, "what is shown", column(t, conn, `select concat_ws(' ', id, user_id, progress) from auditstream.progress_jobs order by id`),
		[]string{"1 alice 100", "2 bob 3"})
}

// A path with quotes was split at the dots within them, and its value was never there.
func TestNamesWithDotsInJSON(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id int primary key, user_id text, status text, progress int, doc jsonb, "my.doc" json);
		insert into jobs values (1, 'u', 'x', 1, '{"a.b": {"c": 1, "d.e": [2]}, "f\"g": 3}', '{"a.b": 4}')`)
	plan := install(t, conn, sql.Options{Feed: "jobs", Fields: []string{`c=Doc."a.b".c`, `e=doc."a.b"."d.e".0`, `f=doc."f""g"`, `m="my.doc"."a.b"`}})
	if want := `c from doc."a.b".c, e from doc."a.b"."d.e".0, f from doc."f""g"`; !strings.Contains(plan.Notes[0], want) {
		t.Errorf("%s\nwant %s", plan.Notes[0], want)
	}
	equal(t, "fields", column(t, conn, `select fields from auditstream.progress_jobs`), []string{`,"c":1,"e":2,"f":3,"m":4`})
	for _, wrong := range []string{`doc."a.b`, `doc.a"b.c"`, `doc."a"b`, `doc."a/b"`} {
		refusedWith(t, sql.Install, conn, sql.Options{Feed: "jobs", Fields: []string{"x=" + wrong}}, `: want quotes around a whole name of the path`)
	}
}

// White space around a status was shown, and ended no row, until some --status was given.
func TestStatusIsTrimmedWithoutWords(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table audits (id int primary key, status text, progress int); create table jobs (id int primary key, user_id text, state char(12), progress int);
		insert into audits values (1, E' \tCompleted\r\n', 1), (2, '', 1), (3, 'a b', 1), (4, null, 1); insert into jobs values (1, 'u', '  Finished', 1)`)
	install(t, conn, sql.Options{})
	equal(t, "statuses", column(t, conn, `select status from auditstream.progress order by audit_id`), []string{"completed", "", "a b", "pending"})
	install(t, conn, sql.Options{Feed: "jobs", Columns: map[string]string{"status": "state"}})
	equal(t, "statuses", column(t, conn, `select status from auditstream.progress_jobs`), []string{"finished"})
}
