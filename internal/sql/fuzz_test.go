package sql_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A columnType is the type of a fuzzed column, and for which of our columns it may be used.
type columnType struct {
	declared            string
	key, status, number bool
}

var columnTypes = []columnType{
	{declared: "integer", key: true, number: true},
	{declared: "bigint", key: true, number: true},
	{declared: "smallint", key: true, number: true},
	{declared: "fuzz.whole", key: true, number: true},
	{declared: "text", status: true},
	{declared: "varchar(3)", status: true},
	{declared: "char(5)", status: true},
	{declared: "name", status: true},
	{declared: "fuzz.state", status: true},
	{declared: "fuzz.label", status: true},
	{declared: `text collate "und-x-icu"`, status: true},
	{declared: "numeric", number: true},
	{declared: "numeric(5,2)", number: true},
	{declared: "real", number: true},
	{declared: "double precision", number: true},
	{declared: "boolean"}, {declared: "uuid"}, {declared: "json"}, {declared: "jsonb"}, {declared: "bytea"}, {declared: "timestamptz"},
	{declared: "interval"}, {declared: "point"}, {declared: "text[]"}, {declared: "int4range"}, {declared: "bit(3)"}, {declared: "money"},
	{declared: "inet"}, {declared: "tsvector"}, {declared: "xml"}, {declared: "fuzz.pair"}, {declared: "fuzz.int4"}, {declared: "oid"},
}

// identifier makes a name that PostgreSQL can hold of any text.
func identifier(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "")
	if text == "" {
		return "x"
	}
	cut := min(len(text), 63)
	for cut < len(text) && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

func quoted(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// With any names and types, a table is either adopted and works, or is refused with the column's name. PostgreSQL never finds a mistake in our
// script, and nothing else in the database changes.
func FuzzAdopt(f *testing.F) {
	dsn := pgtest.New(f)
	conn := pgtest.Connect(f, dsn)
	_, err := conn.Exec(f.Context(), `
		create schema fuzz; create type fuzz.state as enum ('run', 'Done', 'it''s\'); create domain fuzz.label as varchar(9) check (value <> 'x');
		create domain fuzz.whole as bigint check (value > 0); create type fuzz.pair as (a integer, b text); create domain fuzz.int4 as uuid;
		create table witness (id integer primary key, status text, progress integer); insert into witness values (1, 'untouched', 1)`,
		pgx.QueryExecModeSimpleProtocol)
	testkit.NoError(f, err)
	ear := pgtest.Connect(f, dsn)
	if _, err := ear.Exec(f.Context(), `listen `+sql.Channel); err != nil {
		f.Fatal(err)
	}
	before := catalog(f, conn)

	f.Add("app", "audits", "id", "status", "progress", "message", "geo_score", []byte{1, 4, 0, 4, 14})
	f.Add("My Schema", "Audit Log", "Audit Id", "State'$1:x", "%", "Why?", "select", []byte{0, 8, 11, 17, 12})
	f.Add(`a"; drop table witness; --`, `b'; drop table witness; --`, `i"d$$'\`, `s'); drop table public.witness; --`, `p"d`,
		`$auditstream$; drop table public.witness; --`, `\`, []byte{2, 9, 13, 30, 3})
	f.Add("user", "table", "select", "from", "where", "primary", "null", []byte{3, 5, 14, 18, 11})
	// The script is a template, and the key's name was put in before the template was read: names that look like a variable
	// or a command of psql became syntax errors, one with \endif ended the program, and empty lines in a name were lost.
	f.Add("public2", "a\n\n\nb", "c\n\n\nd", "e\n\\endif\n", "f\n\\if :no\n", "begin ;", "-- Read committed", []byte{1, 6, 2, 29, 13})
	f.Add(":table", ":'stamp'", ":key", ":error", ":'status'", ":message", "::int", []byte{0, 7, 0, 4, 11})
	f.Add("x", "t", `new."id"`, "status", "progress", "m", "g", []byte{0, 4, 0, 4, 11})
	f.Add("new", "old", "a\n\\endif\n\\endif", `new."id"`, "attname = 'id'", `old."id"`, "-- end of state", []byte{0, 4, 0, 4, 11})
	f.Add("ключ", strings.Repeat("é", 31), strings.Repeat("k", 63), strings.Repeat("日", 21), "\u202e", "\ufeff", " ", []byte{0, 10, 11, 28, 12})
	f.Add("x", "t", "$auditstream$", "status", "progress", "m", "g", []byte{0, 4, 0, 4, 11})
	f.Add("x", "t", "id", "STATUS", "Progress", "tableoid2", "xmin2", []byte{16, 15, 4, 20, 31})
	f.Add("x", "set local search_path = pg_catalog, pg_temp;\n", "audit_id", "user_id", "error", "auditstream", "pg_catalog", []byte{1, 4, 0, 31, 0})
	f.Add("x", "t", "id\tid", "a\rb", "E'", `U&"`, "/*", []byte{1, 4, 0, 21, 0})

	f.Fuzz(func(t *testing.T, schema, relation, key, status, progress, message, score string, types []byte) {
		names := []string{identifier(key), identifier(status), identifier(progress), identifier(message), identifier(score)}
		var is [5]columnType
		var columns []string
		for i, name := range names {
			if i < len(types) {
				is[i] = columnTypes[int(types[i])%len(columnTypes)]
			} else {
				is[i] = columnTypes[0]
			}
			columns = append(columns, quoted(name)+" "+is[i].declared)
		}
		schema = identifier(schema)
		table := quoted(schema, identifier(relation))
		_, err := conn.Exec(t.Context(), "create schema "+quoted(schema)+"; create table "+table+" ("+strings.Join(columns, ", ")+")",
			pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return // a name twice, or one that PostgreSQL keeps for itself: no such table exists
		}
		defer exec(t, conn, "drop schema "+quoted(schema)+" cascade")
		if is[0].key {
			exec(t, conn, "insert into "+table+" ("+quoted(names[0])+") values (1)")
		}
		table1 := catalog(t, conn)

		options := sql.Options{Table: table, Columns: map[string]string{
			"id": names[0], "status": names[1], "progress": names[2], "message": names[3], "geo_score": names[4],
		}}
		adoptable := is[0].key && is[1].status && is[2].number && is[4].number
		_, err = sql.Install(t.Context(), conn, options)
		var pgErr *pgconn.PgError
		switch {
		case errors.As(err, &pgErr):
			t.Fatalf("%s (%s): PostgreSQL found the mistake: %v", table, strings.Join(columns, ", "), err)
		case (err == nil) != adoptable:
			t.Fatalf("%s (%s): error %v, want adopted: %v", table, strings.Join(columns, ", "), err, adoptable)
		case err != nil:
			if !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(err.Error(), name) }) {
				t.Errorf("%s (%s): the refusal names no column: %v", table, strings.Join(columns, ", "), err)
			}
			equal(t, "catalog after the refusal", catalog(t, conn), table1)
			return
		}
		if got := shown(t, conn); len(got) != 1 || !strings.HasPrefix(got[0], `{"audit_id":1,"status":"pending","progress":0`) {
			t.Errorf("shown: %q", got)
		}
		listener{ear}.unwatch(t)
		listener{ear}.watchAll(t)
		equal(t, "the notifications of the install", listener{ear}.heard(t, conn), []string{"*"})
		listener{ear}.notifies(t, conn, "update "+table+" set "+quoted(names[2])+" = 2", "1")
		listener{ear}.notifies(t, conn, "delete from "+table, "1")
		if plan := (listener{ear}).install(t, conn, options); plan.SQL != "" {
			t.Errorf("a second install wants to run:\n%s", plan.SQL)
		}
		uninstall(t, conn)
		equal(t, "catalog after uninstall", catalog(t, conn), table1)
		equal(t, "witness", column(t, conn, "select status from witness"), []string{"untouched"})
	})
	if conn.IsClosed() {
		return // a failure before
	}
	equal(f, "catalog in the end", catalog(f, conn), before)
}
