package sql_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"auditstream/sql"
)

// nasty has in each column what could raise an error where it is shown: the ends of its type, what is no number, and what is null.
const nasty = `
	create type mood as enum ('', 'glad', ' Sad ');
	create domain percent as int check (value < 1000);
	create table nasty (id int generated always as identity primary key, status text, user_id text, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, t text, v varchar(400), c char(9),
		j json, b jsonb, o boolean, at timestamptz, local timestamp, d date, m mood, a int[], u uuid, p percent, y bytea, iv interval);
	insert into nasty (i2, i4, i8, f4, f8, n, t, v, c, j, b, o, at, local, d, m, a, u, p, y, iv) values
		(-32768, -2147483648, -9223372036854775808, 'NaN', 'NaN', 'NaN', '', '', '', 'null', 'null', true, '-infinity', '-infinity', '-infinity', '', '{}', gen_random_uuid(), -5, '\x00', '-1 year'),
		(32767, 2147483647, 9223372036854775807, '-Infinity', 'Infinity', 'Infinity', '1e99', '-1e-99', '1e309', '"\u0000"', '"1e99"', false, 'infinity', 'infinity', 'infinity', ' Sad ', '{1,null}', null, 999, '\xff', '1 day'),
		(0, 0, 0, 0, 0, 0, ' 55.5 % ', '99999999999999999999', '0', '{"x": {"y": "\ud800"}, "z": 1e400}', '{"x": {"y": 12}, "z": 1e400, "` + "k''\\\"k" + `": "1"}', null, '4713-01-01 bc', '294276-12-31', '5874897-12-31', 'glad', null, null, 0, '', 'P1Y'),
		(1, 1, 1, 1e-45, 5e-324, 1e-400, 'x', '0x10', 'NaN', '[1,
		2]', '[1, 2]', true, '0001-01-01', '2026-01-01 00:00:00.000001', '2026-02-28', null, '{1}', null, 1, null, null),
		(2, 2, 2, 3.4e38, 1.7e308, 1e130000, repeat('9', 5000), repeat('9', 400), '+1.', '12', '12', true, now(), now(), now(), 'glad', '{1}', null, 2, null, null),
		(-1, -1, -1, -3.4e38, -1.7e308, -1e130000, '-0', '.5', '1e5', '"12"', '"12"', false, now(), now(), now(), 'glad', '{1}', null, 2, null, null);
	insert into nasty default values`

// What install offers as a source is shown of every row, whatever is in it, and fields are always JSON.
func TestSourcesNeverRaise(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, nasty)
	columns := strings.Fields("i2 i4 i8 f4 f8 n t v c j b o at local d m a u p y iv j.x.y b.x.y j.z b.z")
	feed := 0
	adopt := func(o sql.Options) error {
		feed++
		o.Feed, o.Table = fmt.Sprintf("f%d", feed), "nasty"
		if o.Columns["status"] == "" {
			o.Columns["status"] = "status"
		}
		if _, err := sql.Install(t.Context(), conn, o); err != nil {
			return err
		}
		for _, row := range column(t, conn, fmt.Sprintf(`select concat_ws(' ', id, status, progress, message is null, '{"":0' || fields || '}') from auditstream.progress_f%d`, feed)) {
			_, text, ok := strings.Cut(row, "{")
			if ok && !json.Valid([]byte("{"+text)) {
				t.Errorf("%+v: no JSON: %s", o, row)
			}
		}
		if got := column(t, conn, fmt.Sprintf(`select count(*)::text from auditstream.progress_f%d where progress between 0 and 100 and status is not null`, feed)); got[0] != "7" {
			t.Errorf("%+v: %s of 7 rows are shown as they should be", o, got[0])
		}
		return nil
	}
	refused := 0
	for n, c := range columns {
		other := columns[(n+7)%len(columns)]
		for _, source := range []string{c, c + "*1000000000.5", c + "*100", c + "/" + other, other + "/" + c} {
			if err := adopt(sql.Options{Columns: map[string]string{"progress": source, "message": source}, Fields: []string{"f=" + source, "g=" + c}}); err != nil {
				refused++ // by its type
			}
		}
		for _, words := range [][]sql.Word{{{Stored: "null", Shown: "waiting"}, {Stored: "set", Shown: "completed"}}, {{Stored: "true", Shown: "completed"}, {Stored: "sad", Shown: "failed"}}, nil} {
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
