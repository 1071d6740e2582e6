package sql_test

import (
	"context"
	"crypto/rand"
	"flag"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// TestMain runs four of these tests at a time, however many others may: they do not wait but work, and more of them would only make
// each take longer, and those of integration that run beside them.
func TestMain(m *testing.M) {
	flag.Parse()
	if n, _ := strconv.Atoi(flag.Lookup("test.parallel").Value.String()); n > 4 {
		_ = flag.Set("test.parallel", "4")
	}
	pgtest.Main(m)
}

// database returns an empty database of the test's own and a superuser's connection to it.
func database(tb testing.TB) (dsn string, conn *pgx.Conn) {
	tb.Helper()
	dsn = pgtest.New(tb)
	return dsn, pgtest.Connect(tb, dsn)
}

func exec(tb testing.TB, conn *pgx.Conn, script string) {
	tb.Helper()
	_, err := conn.PgConn().Exec(tb.Context(), script).ReadAll()
	if err != nil {
		tb.Fatalf("%s: %v", script, err)
	}
}

// column returns the first column of every row, as text.
func column(tb testing.TB, conn *pgx.Conn, query string, args ...any) []string {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), query, args...)
	if err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return values
}

func install(tb testing.TB, conn *pgx.Conn, o sql.Options) *sql.Plan {
	tb.Helper()
	plan, err := sql.Install(tb.Context(), conn, o)
	if err != nil {
		tb.Fatalf("install: %v", err)
	}
	return plan
}

func planned(tb testing.TB, conn *pgx.Conn, o sql.Options) *sql.Plan {
	tb.Helper()
	plan, err := sql.PlanInstall(tb.Context(), conn, o)
	if err != nil {
		tb.Fatalf("plan: %v", err)
	}
	return plan
}

// unchanged fails the test if an install with these options wants to run anything.
func unchanged(tb testing.TB, conn *pgx.Conn, o sql.Options) {
	tb.Helper()
	if plan := install(tb, conn, o); plan.SQL != "" {
		tb.Errorf("a second install with %+v wants to run:\n%s", o, plan.SQL)
	}
}

// refused runs an install, or another operation, which has to fail with this text.
func refused(tb testing.TB, run operation, conn *pgx.Conn, o sql.Options, want string) {
	tb.Helper()
	_, err := run(tb.Context(), conn, o)
	if err == nil || err.Error() != want {
		tb.Errorf("%+v:\n got %v\nwant %s", o, err, want)
	}
}

// refusedWith is refused for a part of the text.
func refusedWith(tb testing.TB, run operation, conn *pgx.Conn, o sql.Options, want string) {
	tb.Helper()
	_, err := run(tb.Context(), conn, o)
	fails(tb, err, want)
}

type operation = func(context.Context, *pgx.Conn, sql.Options) (*sql.Plan, error)

// fails fails the test unless the error has this in its text.
func fails(tb testing.TB, err error, want string) {
	tb.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		tb.Errorf("got %v\nwant %s", err, want)
	}
}

// uninstall takes away a feed, or all.
func uninstall(tb testing.TB, conn *pgx.Conn, feed ...string) *sql.Plan {
	tb.Helper()
	plan, err := sql.Uninstall(tb.Context(), conn, sql.Options{Feed: strings.Join(feed, "")})
	if err != nil {
		tb.Fatalf("uninstall: %v", err)
	}
	return plan
}

// audits makes the table of audits.sql, installed, with one row.
func audits(tb testing.TB) (dsn string, conn *pgx.Conn) {
	tb.Helper()
	dsn = installed.New(tb)
	return dsn, pgtest.Connect(tb, dsn)
}

var installed = pgtest.Template{Prepare: func(tb testing.TB, dsn string) {
	conn, err := pgx.Connect(tb.Context(), dsn)
	if err != nil {
		tb.Fatalf("connect: %v", err)
	}
	defer func() { _ = conn.Close(tb.Context()) }()
	install(tb, conn, sql.Options{Create: true})
	exec(tb, conn, `insert into audits (url, status, progress) values ('https://example.com', 'running', 10)`)
}}

// A listener receives the triggers' notifications.
type listener struct{ conn *pgx.Conn }

func listen(tb testing.TB, dsn string) listener {
	tb.Helper()
	conn := pgtest.Connect(tb, dsn)
	exec(tb, conn, `listen `+sql.Channel)
	b := listener{conn}
	b.watchAll(tb)
	return b
}

// watchAll watches the rows that tests write, because the triggers notify of no others.
func (b listener) watchAll(tb testing.TB) {
	tb.Helper()
	ids := []int64{}
	for id := range int64(201) {
		ids = append(ids, id-100)
	}
	b.watch(tb, ids...)
	b.watchNew(tb)
}

// watch takes the locks that serve holds while somebody watches these rows. The listening session takes them, because a session's own locks do
// not conflict with each other.
func (b listener) watch(tb testing.TB, ids ...int64) {
	tb.Helper()
	switch column(tb, b.conn, `select coalesce(to_regclass('auditstream.feeds')::text, to_regclass('auditstream.watch')::text, '')`)[0] {
	case "auditstream.feeds":
		_ = column(tb, b.conn, `select count(pg_advisory_lock_shared(class, bucket))::text from auditstream.feeds,
			lateral (select distinct hashint8(id) & (buckets - 1) as bucket from unnest($1::bigint[]) id) x`, ids)
	case "auditstream.watch": // of versions 2 to 4
		_ = column(tb, b.conn, `insert into auditstream.watch select id, 1 from unnest($1::bigint[]) id on conflict do nothing returning ''`, ids)
	}
}

// watchNew takes the locks that serve holds while somebody watches all rows of an owner.
func (b listener) watchNew(tb testing.TB) {
	tb.Helper()
	if column(tb, b.conn, `select (to_regclass('auditstream.feeds') is null)::text`)[0] == "false" {
		_ = column(tb, b.conn, `select pg_advisory_lock_shared(class, buckets + k)::text from auditstream.feeds, generate_series(0, 63) k`)
	}
}

// unwatch watches nothing any more.
func (b listener) unwatch(tb testing.TB) {
	tb.Helper()
	exec(tb, b.conn, `select pg_advisory_unlock_all()`)
}

// heard returns the payloads up to now. The sentinel is committed after everything that writer has done, and
// notifications arrive in the order of commits, so nothing has to be waited for in vain.
func (b listener) heard(tb testing.TB, writer *pgx.Conn) []string {
	tb.Helper()
	sentinel := rand.Text()
	// Not as the writer's role, which may know nothing of us.
	exec(tb, writer, `select pg_catalog.pg_notify('auditstream', '`+sentinel+`')`)
	heard := []string{}
	for {
		n, err := b.conn.WaitForNotification(tb.Context())
		if err != nil {
			tb.Fatalf("wait for a notification: %v", err)
		}
		if n.Payload == sentinel {
			return heard
		}
		heard = append(heard, n.Payload)
	}
}

// notifies runs a statement and compares the notifications that it causes.
func (b listener) notifies(tb testing.TB, writer *pgx.Conn, statement string, want ...string) {
	tb.Helper()
	exec(tb, writer, statement)
	got := b.heard(tb, writer)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		tb.Errorf("%s: rang %q, want %q", statement, got, want)
	}
}

// The install notifies with *, for a serve that runs meanwhile.
func (b listener) install(tb testing.TB, conn *pgx.Conn, o sql.Options) *sql.Plan {
	tb.Helper()
	plan := install(tb, conn, o)
	equal(tb, "the notifications of the install", b.heard(tb, conn), []string{"*"})
	return plan
}

func shown(tb testing.TB, conn *pgx.Conn) []string {
	tb.Helper()
	return column(tb, conn, `select json_strip_nulls(row_to_json(p))::text from auditstream.progress p order by audit_id`)
}

func equal(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		if len(want) > 10 {
			got, want = difference(got, want), difference(want, got)
		}
		tb.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// role makes a role of the test's own; roles belong to the whole server.
func role(tb testing.TB, dsn string) string {
	tb.Helper()
	name := "auditstream_test_" + strings.ToLower(rand.Text())
	pgtest.Psql(tb, dsn, `create role `+name)
	tb.Cleanup(func() {
		ctx := context.WithoutCancel(tb.Context())
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			tb.Errorf("drop role %s: %v", name, err)
			return
		}
		_, err = conn.Exec(ctx, `drop owned by `+name+` cascade; drop role `+name)
		if err != nil {
			tb.Errorf("drop role %s: %v", name, err)
		}
		_ = conn.Close(ctx)
	})
	return name
}

// installer makes a role that may create schemas and tables.
func installer(tb testing.TB, dsn string) string {
	tb.Helper()
	name := role(tb, dsn)
	pgtest.Psql(tb, dsn, `do $$ begin execute format('grant create on database %I to `+name+`', current_database()); end $$;
		grant create on schema public to `+name)
	return name
}

// file is one of the package's scripts.
func file(tb testing.TB, name string) string {
	tb.Helper()
	script, err := os.ReadFile(name)
	testkit.NoError(tb, err)
	return string(script)
}

// catalog describes everything in the database that an install could leave traces in.
func catalog(tb testing.TB, conn *pgx.Conn) []string {
	tb.Helper()
	exec(tb, conn, `begin; set local search_path = pg_catalog, pg_temp`)
	defer exec(tb, conn, `rollback`)
	return column(tb, conn, `
		select concat_ws(' ', 'schema', nspname::text, nspowner, nspacl::text, obj_description(oid, 'pg_namespace'))
		from pg_namespace where nspname !~ '^pg_(toast_)?temp'
		union all
		select concat_ws(' ', 'relation', oid::regclass::text, relkind::text, relowner, relacl::text, reloptions::text,
			case when relkind = 'v' then pg_get_viewdef(oid) end)
		from pg_class where oid >= 16384 and relnamespace <> 'pg_toast'::regnamespace
		union all
		select concat_ws(' ', 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attcollation::regcollation, attacl::text)
		from pg_attribute join pg_class c on c.oid = attrelid where attrelid >= 16384 and relnamespace <> 'pg_toast'::regnamespace
		union all
		select concat_ws(' ', 'function', (select string_agg(x::text, ',' order by x::text) from unnest(proacl) x), pg_get_functiondef(oid))
		from pg_proc where oid >= 16384 and prokind = 'f'
		union all
		select concat_ws(' ', 'trigger', pg_get_triggerdef(oid), tgenabled::text) from pg_trigger
		union all
		select concat_ws(' ', 'description', pg_describe_object(classoid, objoid, objsubid),
			regexp_replace(description, '^(auditstream [0-9]+) (psql|[0-9a-f]{32} \{\})', '\1'))
		from pg_description where objoid >= 16384
		union all
		select concat_ws(' ', 'dependency', pg_describe_object(classid, objid, objsubid), pg_describe_object(refclassid, refobjid, refobjsubid))
		from pg_depend where objid >= 16384 and pg_describe_object(classid, objid, objsubid) !~ 'pg_toast'
		union all
		select concat_ws(' ', 'database', datacl::text) from pg_database where datname = current_database()
		union all
		select concat_ws(' ', 'default', defaclacl::text) from pg_default_acl
		order by 1`)
}

// versions changes whenever a row of the catalogs is written.
func versions(tb testing.TB, conn *pgx.Conn) []string {
	tb.Helper()
	var all []string
	for _, name := range []string{"pg_namespace", "pg_class", "pg_proc", "pg_trigger", "pg_description", "pg_depend", "pg_rewrite", "pg_database"} {
		all = append(all, column(tb, conn, `select concat_ws(' ', '`+name+`', t.xmin, t.ctid, substring(t.*::text, '^[^,]*,[^,]*')) from `+name+` t
			where $1 <> 'pg_database' or t.*::text like '%' || current_database() || '%' order by 1`, name)...)
	}
	return all
}

// temporary is the schema of a session's temporary tables.
var temporary = regexp.MustCompile(`pg_temp_[0-9]+`)

func difference(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// warnings are those about the table; the server of the tests may be anybody's.
func warnings(plan *sql.Plan) []string {
	return slices.DeleteFunc(slices.Clone(plan.Warnings), func(w string) bool { return strings.Contains(w, "two-phase") })
}
