package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/sql"
)

// An array was shown as the text {a,"b c",NULL}, which every page would have had to parse.
func TestArraysAreShownAsJSON(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create domain tags as text[];
		create table jobs (id int primary key, user_id text, status text, progress int, t text[], v varchar(9)[], g tags, i int[], o bool[], f float8[],
			b bigint[], n numeric[], j jsonb[], k json[], u uuid[], d date[], at timestamptz[], y bytea[]);
		insert into jobs values (1, 'u', 'x', 1, '{a,"b \"c",null}', '{x}', '{y}', '[0:1]={1,2}', '{t,null}', '{1.5,NaN,-Infinity}', '{1,null}', '{1.50,null}',
			array['{"a": [1]}', null]::jsonb[], array['{"a":
1}']::json[], '{00000000-0000-0000-0000-000000000001}', '{infinity,2026-01-02}', '{}', '{"\\x00"}');
		insert into jobs (id, user_id, status, progress, t, v, g, i, o, f, b, n) values (2, 'u', 'x', 1, '{{a,b},{c,d}}', null, '{}', '{{1},{2}}', '{}', '{}', '{9007199254740993,1,null}', '{NaN,1}');
		insert into jobs (id, user_id, status, progress, b, n) values (3, 'u', 'x', 1, '{-9007199254740993}', '{1e400}')`)
	install(t, conn, sql.Options{Feed: "jobs", Fields: strings.Fields("t v g i o f b n j k u d at y")})
	equal(t, "fields", column(t, conn, `select '{' || substr(fields, 2) || '}' from auditstream.progress_jobs order by id`), []string{
		`{"t":["a","b \"c",null],"v":["x"],"g":["y"],"i":[1,2],"o":[true,null],"f":[1.5,"NaN","-Infinity"],"b":[1,null],"n":[1.50,null],` +
			`"j":[{"a": [1]},null],"k":[{"a":` + "\n" + `1}],"u":["00000000-0000-0000-0000-000000000001"],"d":["infinity","2026-01-02"],"at":[],"y":["\\x00"]}`,
		`{"t":[["a","b"],["c","d"]],"g":[],"i":[[1],[2]],"o":[],"f":[],"b":["9007199254740993","1",null],"n":["NaN","1"]}`,
		`{"b":["-9007199254740993"],"n":["1` + strings.Repeat("0", 400) + `"]}`})
}

// S2: an array of a type of the application's is not written in JSON, which would run its casts.
func TestS2ArraysOfTypesOfOthersRunNothing(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	ran(t, conn)
	owner, reader := installer(t, dsn), role(t, dsn)
	mustAs(t, dsn, owner, evil("mine")+`create table public.jobs (id int primary key, user_id text, status text, progress int, e mine.evil[], p mine.pair[],
		o mine.over[], c mine.checked[]); insert into public.jobs values (1, 'u', 'x', 1, '{1,null}', '{"(a,1)"}')`)
	exec(t, conn, `truncate public.called`)
	install(t, conn, sql.Options{Feed: "jobs", Table: "public.jobs", Role: reader, Fields: []string{"e", "p", "o", "c"}})
	equal(t, "fields", column(t, conn, `select fields from auditstream.progress_jobs`), []string{`,"e":"{1,NULL}","p":"{\"(a,1)\"}"`})
	mustAs(t, dsn, reader, `set search_path = mine, public, pg_catalog; select * from auditstream.progress_jobs`)
	equal(t, "the owner's code that ran", others(t, conn, owner), nil)
}
