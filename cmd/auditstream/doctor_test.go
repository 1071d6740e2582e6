package main

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/service"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const testRole = "auditstream_test_doctor"

// installed returns the superuser's URL of a database with the table of audits.sql and all that install adds.
func installed(t testing.TB, o sql.Options) string {
	t.Helper()
	dsn := pgtest.New(t)
	installAt(t, dsn, o)
	return dsn
}

func installAt(t testing.TB, dsn string, o sql.Options) {
	t.Helper()
	o.Create = true
	if _, err := sql.Install(t.Context(), pgtest.Connect(t, dsn), o); err != nil {
		t.Fatal(err)
	}
}

func parseURL(t testing.TB, dsn string) *url.URL {
	t.Helper()
	u, err := url.Parse(dsn)
	testkit.NoError(t, err)
	return u
}

// asTestRole makes a role without rights, and returns its URL for the same database.
func asTestRole(t testing.TB, dsn string) string {
	t.Helper()
	execSQL(t, dsn, `do $$ begin
		create role `+testRole+` login password 'doctor-password' nosuperuser;
	exception when duplicate_object or unique_violation then null; end $$`)
	u := parseURL(t, dsn)
	u.User = url.UserPassword(testRole, "doctor-password")
	return u.String()
}

func execSQL(t testing.TB, dsn, script string) {
	t.Helper()
	if _, err := pgtest.Connect(t, dsn).Exec(t.Context(), script); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

func examine(t testing.TB, dsn string, args ...string) result {
	t.Helper()
	return command(t, append([]string{"doctor", "--database-url=" + dsn, "--jwt-secret=" + testSecret}, args...)...)
}

// With several servers in the URL, doctor names them, and the one that it is connected to.
func TestDoctorNamesTheServerThatAnswers(t *testing.T) {
	t.Parallel()
	u := parseURL(t, pgtest.New(t))
	alive := u.Host
	u.Host = "127.0.0.2:1," + alive
	out := examine(t, u.String()).out
	mustContain(t, out, " at 127.0.0.2:1 or "+alive+" as ", ":"+u.Port()+" in ")
	mustNotContain(t, out, "connected to 127.0.0.2:1 ")
}

// TestDoctorAsSuperuserRunsNothing: a table's owner can write a policy that runs any code with the reader's rights, and an immutable function
// that runs already when a read is planned.
func TestDoctorAsSuperuserRunsNothing(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t)
	owner := asTestRole(t, admin)
	execSQL(t, admin, `do $$ begin execute format('grant create on database %I to `+testRole+`', current_database()); end $$; grant create on schema public to `+testRole)
	installAt(t, owner, sql.Options{})
	execSQL(t, owner, `create function mine() returns boolean immutable language plpgsql as 'begin raise exception ''ran as %'', current_user; end';
		create policy mine on audits using (mine()); alter table audits enable row level security, force row level security`)
	mustContain(t, examine(t, owner).out, "ran as "+testRole)
	out := examine(t, admin).out
	mustContain(t, out, "ok    view auditstream.progress of public.audits: columns and types are right; it is read with the DATABASE_URL of serve alone, not as a superuser\n")
	mustNotContain(t, out, "ran as ")
}

func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t)
	role := asTestRole(t, admin)
	installAt(t, admin, sql.Options{Role: testRole})
	got := examine(t, role).want(t, exitDone)
	mustContain(t, got.out,
		"ok    DATABASE_URL: database ",
		"ok    connected in ",
		"this server is the primary\n",
		"ok    role "+testRole+": no superuser, may not write the table\n",
		"ok    view auditstream.progress of public.audits: columns and types are right, readable\n",
		"ok    index: audits are read through it\n",
		"ok    schema: version 5, this program's\n",
		"ok    locks: an instance of serve takes up to ", " of class 1635087465; the lock table holds ",
		"ok    the table, the views, the function, the triggers and the rights are as they were installed\n",
		"ok    trigger auditstream_owner on public.audits: enabled\n",
		"ok    trigger auditstream_insert on public.audits: enabled\n",
		"ok    trigger auditstream_update on public.audits: enabled\n",
		"ok    trigger auditstream_delete on public.audits: enabled\n",
		"ok    trigger auditstream_truncate on public.audits: enabled\n",
		"ok    LISTEN on DATABASE_URL hears NOTIFY on DATABASE_URL, in ",
		"ok    NOTIFY queue: 0 % full\n",
		"ok    connections: ",
		"ok    clock: ",
		"ok    tokens: HS256 with JWT_SECRET (38 bytes); any iss and aud are accepted\n",
	)
	mustNotContain(t, got.out, "FAIL", "doctor-password", testSecret)
	testkit.Equal(t, got.stderr, "", "standard error")
}

// What doctor finds of an install that somebody has damaged.
func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	type test struct {
		options sql.Options
		damage  string
		as      string // the role that doctor connects as; "" is a superuser
		code    int
		want    []string
	}
	testkit.Each(t, map[string]test{
		"a superuser":           {code: exitDone, want: []string{"warn  role ", "is a superuser", "install --role NAME"}},
		"a role without rights": {as: testRole, code: exitFailed, want: []string{"FAIL  view: ", "--role", "ok    LISTEN"}},
		"a role that may write": {options: sql.Options{Role: testRole}, damage: "grant insert, update on audits to " + testRole, as: testRole, code: exitDone,
			want: []string{"ok    role " + testRole + ": no superuser, but it may also insert, update the table's rows\n"}},
		"a disabled trigger": {damage: "alter table audits disable trigger auditstream_update", code: exitFailed,
			want: []string{"FAIL  trigger auditstream_update on public.audits: disabled", "install --table 'public.audits' again"}},
		"a trigger for replicas only": {damage: "alter table audits enable replica trigger auditstream_update", code: exitFailed,
			want: []string{"FAIL  trigger auditstream_update on public.audits: replica only"}},
		"a dropped trigger": {damage: "drop trigger auditstream_delete on audits", code: exitFailed,
			want: []string{"FAIL  trigger auditstream_delete on public.audits: missing", "ok    trigger auditstream_update"}},
		"all triggers dropped": {damage: `drop trigger auditstream_insert on audits; drop trigger auditstream_update on audits;
			drop trigger auditstream_delete on audits; drop trigger auditstream_truncate on audits`, code: exitFailed,
			want: []string{"FAIL  trigger auditstream_insert on public.audits: missing"}},
		"a condition that somebody has changed": {damage: `create or replace trigger auditstream_update after update on audits
			for each row when (false) execute function auditstream.changed()`, code: exitFailed,
			want: []string{"FAIL  the trigger auditstream_update is not as install made it", "Run auditstream install --table public.audits",
				"ok    trigger auditstream_update"}},
		"a number of buckets that somebody has changed": {damage: `create or replace view auditstream.feeds as
			select 'audits'::text as feed, 1635087465 as class, 1000 as buckets`, code: exitFailed,
			want: []string{"FAIL  locks: auditstream.feeds says 1000 buckets, want a power of two",
				"FAIL  the view auditstream.feeds is not as install made it"}},
		"no feeds": {damage: `drop view auditstream.feeds`, code: exitFailed,
			want: []string{"FAIL  there is no view auditstream.feeds", "install again"}},
		"a role that may not read the feeds": {damage: `grant usage on schema auditstream to ` + testRole + `;
			grant select on auditstream.progress to ` + testRole, as: testRole, code: exitFailed,
			want: []string{"FAIL  role " + testRole + " may not read auditstream.feeds", "--role " + testRole}},
		"writers who may not take locks": {damage: `revoke execute on function pg_catalog.pg_try_advisory_lock(int, int) from public`, code: exitFailed,
			want: []string{"FAIL  not everybody may execute pg_try_advisory_lock(integer,integer)",
				"grant execute on function pg_catalog.pg_try_advisory_lock(integer,integer) to public"}},
		"no triggers on purpose": {options: sql.Options{NoTriggers: true}, code: exitDone,
			want: []string{"warn  no triggers: changes are found by polling alone", "--no-triggers"}},
		"no index": {options: sql.Options{Role: testRole}, damage: "alter table audits drop constraint audits_pkey", as: testRole, code: exitFailed,
			want: []string{"warn  index: every read by audit_id scans the whole of", "FAIL  the index that made", "create unique index concurrently on"}},
	}, func(t *testing.T, _ string, f test) {
		dsn := pgtest.New(t)
		role := asTestRole(t, dsn)
		installAt(t, dsn, f.options)
		execSQL(t, dsn, f.damage)
		if f.as == "" {
			role = dsn
		}
		checkFinding(t, role, f.code, f.want...)
	})
}

func checkFinding(t *testing.T, dsn string, code int, want ...string) {
	t.Helper()
	got := examine(t, dsn).want(t, code)
	mustContain(t, got.out, want...)
	mustNotContain(t, got.out, "geheimnis", "doctor-password", testSecret)
	if failed := strings.Contains(got.out, "FAIL"); failed != (code == exitFailed) {
		t.Errorf("FAIL in the output: %v, but exit status %d\n%s", failed, got.code, got.out)
	}
}

// What it finds where nothing is installed, or nothing answers.
func TestDoctorFindsNoInstall(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	checkFinding(t, dsn, exitFailed, "FAIL  view: there is no view auditstream.progress: run auditstream install --table YOUR_TABLE", "ok    LISTEN")
	checkFinding(t, "postgres://u:geheimnis@127.0.0.1:1/x", exitFailed, "FAIL  no connection: ", "is PostgreSQL running", "ok    tokens: ")
	checkFinding(t, strings.Replace(asTestRole(t, dsn), "doctor-password", "geheimnis", 1), exitFailed,
		"FAIL  no connection: ", "check user and password in DATABASE_URL", "ok    tokens: ")
	missing := parseURL(t, dsn)
	missing.Path += "_not"
	checkFinding(t, missing.String(), exitFailed, "FAIL  no connection: ", "check the database's name")
}

func TestDoctorListensWhereItIsTold(t *testing.T) {
	t.Parallel()
	dsn, other := installed(t, sql.Options{}), pgtest.New(t)
	got := examine(t, dsn, "--database-listen-url="+dsn).want(t, exitDone)
	mustContain(t, got.out, "ok    LISTEN on DATABASE_LISTEN_URL hears NOTIFY on DATABASE_URL, in ")
	got = examine(t, dsn, "--database-listen-url="+other).want(t, exitFailed)
	mustContain(t, got.out, "FAIL  LISTEN: DATABASE_LISTEN_URL leads to another database")
	got = examine(t, dsn, "--database-listen-url=postgres://u:geheimnis@127.0.0.1:1/x").want(t, exitFailed)
	mustContain(t, got.out, "FAIL  LISTEN: cannot connect to DATABASE_LISTEN_URL", "ok    clock")
	mustNotContain(t, got.out, "geheimnis")
}

// TestDoctorHearsSilence: behind a transaction pooler LISTEN succeeds, and then no notification arrives.
func TestDoctorHearsSilence(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	testkit.NoError(t, err)
	defer pool.Close()
	d := &doctor{pool: pool}
	if _, err := d.notify(t.Context(), pgtest.Connect(t, dsn), "nobody_listens"); !errors.Is(err, errSilence) {
		t.Errorf("notify: %v, want %v", err, errSilence)
	}
	mustContain(t, explainSilence(false).String(), "FAIL  LISTEN on DATABASE_URL", "pooler", "DATABASE_LISTEN_URL is needed")
	mustContain(t, explainSilence(true).String(), "FAIL  LISTEN on DATABASE_LISTEN_URL", "around the pooler")
}

// TestDoctorFindsServerStopped: the server stops while the pool has connections; every check reports it, and none hangs.
func TestDoctorFindsServerStopped(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	dsn := server.DSN("postgres")
	mustContain(t, examine(t, dsn).want(t, exitFailed).out, "ok    connected in ", "FAIL  view: ")
	testkit.NoError(t, server.StopFast(t.Context()))
	mustContain(t, examine(t, dsn).want(t, exitFailed).out, "FAIL  no connection: ")
}

func TestJudgeVersion(t *testing.T) {
	t.Parallel()
	for number, want := range map[int]string{
		130020: "FAIL  PostgreSQL X is too old\n      Upgrade to PostgreSQL 14 or later.\n",
		140020: "warn  ", 140021: "ok    PostgreSQL X\n",
		150015: "warn  ", 150016: "ok    ",
		160011: "warn  ", 160012: "ok    ",
		170007: "warn  ", 170008: "ok    ",
		180001: "warn  ", 180002: "ok    ",
		190000: "ok    ",
	} {
		if got := judgeVersion(number, "X").String(); !strings.HasPrefix(got, want) {
			t.Errorf("judgeVersion(%d): %q, want %q", number, got, want)
		}
	}
}

func TestJudgeLocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		buckets, table int
		want           string
	}{
		{1024, 6400, "ok    locks: an instance of serve takes up to 1024 of class 7; the lock table holds 6400\n"},
		{1024, 3072, "ok    "},
		{1024, 3071, "warn  locks: "},
		{1000, 6400, "FAIL  locks: auditstream.feeds says 1000 buckets, want a power of two\n"},
		{0, 6400, "FAIL  locks: "},
	} {
		if got := judgeLocks(7, c.buckets, c.table).String(); !strings.HasPrefix(got, c.want) {
			t.Errorf("judgeLocks(7, %d, %d): %q, want %q", c.buckets, c.table, got, c.want)
		}
	}
}

func TestJudgeSkew(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]string{
		0:                "ok    ",
		2 * time.Second:  "ok    ",
		-2 * time.Second: "ok    ",
		3 * time.Second:  "warn  clock: the database's is 3s ahead of this machine's\n      Synchronise",
		-3 * time.Second: "warn  clock: the database's is 3s behind this machine's\n      Synchronise",
	} {
		if got := judgeSkew(skew, 100*time.Millisecond).String(); !strings.HasPrefix(got, want) {
			t.Errorf("judgeSkew(%v): %q, want %q", skew, got, want)
		}
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"public.audits": "public.audits", "app.Audit Log": `app."Audit Log"`, `we"ird`: `"we""ird"`} {
		testkit.Equal(t, service.Plain(pgx.Identifier(strings.Split(name, ".")).Sanitize()), want, name)
	}
}
