package sql_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// randomColumns are types, and texts that are values of them; others are of none, or of some.
var randomColumns = map[string][]string{
	"smallint": {"0", "1", "-1", "32767", "50"}, "int": {"0", "7", "-2147483648", "2147483647"}, "bigint": {"9223372036854775807", "-1", "42"},
	"real": {"NaN", "1e-45", "99.9"}, "double precision": {"Infinity", "5e-324", "55.5"}, "numeric": {"NaN", "1e400", "12.5", "1e-400"},
	"text":        {"", " ", "Done", "running", "55 %", "alice", "bob", "a,b/c", "\n", "ß'\"\\", "{\"a\":1}", "'); drop table x"},
	"varchar(20)": {"", "FAILED", "100"}, "char(8)": {"ok", ""},
	"boolean": {"true", "false"}, "uuid": {"00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
	"json":        {"null", `{"a":{"b":5}}`, `{"a":"\ud800"}`, `[1]`, `"\u0000"`, `{"a":1e999}`},
	"jsonb":       {"null", `{"a":{"b":"alice"}}`, `[{"a":1}]`, `{"a":-1e400}`},
	"timestamptz": {"infinity", "2026-01-01", "4713-01-01 bc"}, "date": {"-infinity", "2026-02-28"}, "int[]": {"{}", "{1,null}"}, "bytea": {`\x00ff`},
	"interval": {"1 day"}, "mood": {"glad", " Sad "}, "percent": {"5", "99"},
}

var randomTypes = []string{"smallint", "int", "bigint", "real", "double precision", "numeric", "text", "varchar(20)", "char(8)", "boolean", "uuid",
	"json", "jsonb", "timestamptz", "date", "int[]", "bytea", "interval", "mood", "percent"}

// dice decide what a random table, its options and its writes are.
type dice struct{ *rand.Rand }

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// value is a text for a column of a type, at times one that is not of it.
func (d dice) value(kind string) string {
	if d.IntN(4) == 0 {
		return "null"
	}
	if d.IntN(20) == 0 {
		kind = pick(d, randomTypes...)
	}
	return "'" + strings.ReplaceAll(pick(d, randomColumns[kind]...), "'", "''") + "'"
}

// source is something that may be written for --column, mostly such that it makes sense; word says that it is to be no number.
func (d dice) source(columns, types []string, word bool) string {
	n := d.IntN(len(columns))
	c := columns[n]
	if d.IntN(40) == 0 {
		return pick(d, "", c+"..", "nothing", c+"*"+c, c+`.'"\`, c+".a", c+"/", "/", "*", ".")
	}
	if strings.HasPrefix(types[n], "json") && d.IntN(3) > 0 {
		c = pick(d, c+".a", c+".a.b", c+`.'"\`)
	}
	if word {
		return pick(d, c, c, strings.ToUpper(c))
	}
	return pick(d, c, c, c, c+"/"+pick(d, columns...), c+"*100", c+"*0.5", "100-"+c)
}

// options are those of a feed.
func (d dice) options(feed string, columns, types []string) sql.Options {
	o := sql.Options{Feed: feed, Table: "t_" + feed, Public: d.IntN(8) == 0,
		Columns: map[string]string{"status": d.source(columns, types, true), "progress": d.source(columns, types, false)}}
	if d.IntN(4) == 0 {
		o.Columns["progress"] = ""
	}
	for _, name := range []string{"user_id", "user_id", "user_email", "group_id", "message", "error"} {
		if d.IntN(2) == 0 {
			o.Columns[name] = d.source(columns, types, false)
		}
	}
	if d.IntN(8) == 0 {
		o.Columns["id"] = pick(d, columns...)
	}
	for range d.IntN(4) {
		o.Words = append(o.Words, sql.Word{Stored: pick(d, "done", "1", "true", "glad", "'", "x"),
			Shown: pick(d, "completed", "failed", "running", "o'k", `\`)})
		o.Ends = append(o.Ends, pick(d, "done", "glad", "", "'"))
		o.Fields = append(o.Fields, fmt.Sprintf("f%d=%s", len(o.Fields), d.source(columns, types, false)))
	}
	if d.IntN(2) == 0 { // of any type
		o.Words = []sql.Word{{Stored: "null", Shown: "running"}, {Stored: "set", Shown: "completed"}}
	}
	for range d.IntN(3) { // of any type, too
		w := sql.Word{Source: pick(d, columns...), Stored: pick(d, "set", "null"), Shown: pick(d, "completed", "failed", "o'k")}
		if d.IntN(2) == 0 {
			w.Source, w.Stored = pick(d, "100-"+w.Source, w.Source+"/"+pick(d, columns...), w.Source+"*0.5"), pick(d, "set", "1", "100", "glad", "'")
		}
		o.Words = append(o.Words, w)
	}
	if d.IntN(4) == 0 {
		o.Hide = pick(d, columns...)
	}
	if o.Deleted = pick(d, "", "", "completed", "gone'"); d.IntN(10) > 0 {
		o.Ends = append(o.Ends, o.Deleted)
	}
	return o
}

// FuzzOptions: with any options on any table, writes do the same as on a table without triggers, each row can be read, strangers see none, and
// another feed does not change.
func FuzzOptions(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		t.Parallel()
		dsn, conn := audits(t)
		d := dice{rand.New(rand.NewPCG(seed, 17))}
		exec(t, conn, `create type mood as enum ('glad', ' Sad '); create domain percent as int check (value < 1000); update audits set user_id = 'alice'`)
		b := everything(t, dsn)
		installed := 0
		for n := 0; n < 12 || installed < 3 && n < 100; n++ {
			feed := fmt.Sprintf("f%d", n)
			var columns, types []string
			ddl := "id " + pick(d, "bigserial", "int generated always as identity", "uuid default gen_random_uuid()", "text default md5(random()::text)") +
				" primary key"
			for c := range 3 + d.IntN(6) {
				columns, types = append(columns, fmt.Sprintf(pick(d, "c%d", "C %d", "c''%d", `c\%d`, "ü%d"), c)), append(types, pick(d, randomTypes...))
				ddl += fmt.Sprintf(`, "%s" %s`, columns[c], types[c])
			}
			exec(t, conn, fmt.Sprintf("create table t_%s (%s); create table twin_%[1]s (like t_%[1]s including all)", feed, ddl))
			o := d.options(feed, columns, types)
			what := fmt.Sprintf("seed %d: %+v on (%s)", seed, o, ddl)
			if _, err := sql.Install(t.Context(), conn, o); err != nil {
				if refused := new(pgconn.PgError); errors.As(err, &refused) {
					t.Errorf("%s: not refused but failed: %v", what, err)
				}
				t.Logf("refused: %v", err)
				continue
			}
			installed++
			if plan, err := sql.PlanInstall(t.Context(), conn, o); err != nil || plan.SQL != "" {
				t.Errorf("%s: a second install: %v\n%s", what, err, plan.SQL)
			}
			for range 30 {
				d.writes(t, conn, feed, columns, types)
			}
			b.heard(t, conn) // the notifications are read, as serve reads them
			d.reads(t, conn, o, what)
		}
		if installed < 3 {
			t.Errorf("seed %d: of 100 only %d were installed", seed, installed)
		}
		equal(t, "audits", shown(t, conn), []string{`{"audit_id":1,"user_id":"alice","status":"running","progress":10}`})
		uninstall(t, conn)
	})
}

// writes does the same to the table and to its twin, which has no triggers.
func (d dice) writes(t *testing.T, conn *pgx.Conn, feed string, columns, types []string) {
	t.Helper()
	var names, values, sets []string
	for c := range columns {
		name, value := `"`+columns[c]+`"`, d.value(types[c])
		names, values, sets = append(names, name), append(values, value), append(sets, name+" = "+value)
	}
	statement := pick(d,
		fmt.Sprintf("insert into TABLE (%s) values (%s)", strings.Join(names, ", "), strings.Join(values, ", ")),
		fmt.Sprintf("insert into TABLE (%s) values (%s)", strings.Join(names, ", "), strings.Join(values, ", ")),
		"update TABLE set "+sets[d.IntN(len(sets))], "update TABLE set "+strings.Join(sets, ", "), "delete from TABLE where random() < 0.1",
		"insert into TABLE default values")
	_, err := conn.Exec(t.Context(), strings.Replace(statement, "TABLE", "t_"+feed, 1))
	_, want := conn.Exec(t.Context(), strings.Replace(statement, "TABLE", "twin_"+feed, 1))
	if (err == nil) != (want == nil) {
		t.Errorf("%s: %v, and without triggers %v", statement, err, want)
	}
}

// reads reads all as serve does.
func (d dice) reads(t *testing.T, conn *pgx.Conn, o sql.Options, what string) {
	t.Helper()
	feeds, err := sql.Feeds(t.Context(), conn)
	testkit.NoError(t, err)
	for _, f := range feeds {
		if f.Name != o.Feed {
			continue
		}
		feed := &store.Feed{Name: f.Name, View: f.View, Key: store.KeyType(f.Key), Ends: f.Ends, Public: f.Public, Groups: f.Groups, Fields: f.Fields}
		var keys []store.Key
		for _, text := range column(t, conn, `select id::text from `+f.View+` where id is not null`) {
			if key, ok := feed.Key.Parse(text); ok {
				keys = append(keys, key)
			}
		}
		rows := store.New(conn, feed)
		states, err := rows.Rows(t.Context(), keys)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		stranger := store.Viewer{Subject: "mallory", Email: "m@example.com", Groups: []string{"none", "", " "}}
		for _, s := range states {
			if s.Err != nil {
				t.Errorf("%s: row %s: %v", what, s.ID, s.Err)
			} else if s.Row.OwnedBy(stranger) != f.Public {
				t.Errorf("%s: a stranger sees %s", what, s.JSON)
			}
		}
		if ids, _, err := rows.Owned(t.Context(), feed.Owners(stranger)); err != nil || len(ids) > 0 && !f.Public {
			t.Errorf("%s: all of a stranger's: %q, %v", what, ids, err)
		}
		return
	}
	t.Errorf("%s: the feed is not there", what)
}
