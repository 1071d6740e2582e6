package harness

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// ServeRole is the role that serve connects as.
const ServeRole = "auditstream_test_serve"

// Database is an empty database with the table of audits.sql, installed for a role that may do no more than serve.
type Database struct {
	Admin string // superuser
	Serve string // the role
}

// NewDatabase is a database of the test's own, installed.
func NewDatabase(t testing.TB) Database {
	t.Helper()
	return Adopted(t, installed.New(t))
}

// installed is what NewDatabase copies.
var installed = pgtest.Template{Prepare: func(tb testing.TB, admin string) { Install(tb, admin) }}

// Adopt is NewDatabase in the database of an admin URL, for tests that have a server of their own.
func Adopt(t testing.TB, admin string) Database {
	t.Helper()
	Install(t, admin)
	return Adopted(t, admin)
}

// Install runs install with its own table in a database.
func Install(t testing.TB, admin string) {
	t.Helper()
	MakeRole(t, admin)
	RunCommand(t, []string{"DATABASE_URL=" + admin}, "install", "--create", "--role", ServeRole)
}

// MakeRole makes the role if the server does not have it.
func MakeRole(t testing.TB, admin string) {
	t.Helper()
	pgtest.Psql(t, admin, `do $$ begin
		create role `+ServeRole+` login password 'serve-password' nosuperuser;
	exception when duplicate_object or unique_violation then null; end $$`)
}

// Adopted is a database after install.
func Adopted(t testing.TB, admin string) Database {
	t.Helper()
	Database{Admin: admin}.KeepsRowTexts(t)
	return Database{Admin: admin, Serve: As(t, admin, ServeRole, "serve-password")}
}

// As is the URL of a database for another role.
func As(t testing.TB, dsn, role, password string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	NoError(t, err)
	u.User = url.UserPassword(role, password)
	return u.String()
}

// Insert adds an audit of alice's and returns its id.
func (d Database) Insert(t testing.TB, columns, values string) string {
	t.Helper()
	if columns != "" {
		columns, values = ", "+columns, ", "+values
	}
	return d.SQL(t, "insert into audits (url, user_id"+columns+") values ('https://example.com', 'alice'"+values+") returning id")
}

// SQL runs a statement in a psql process and returns its output, trimmed.
func (d Database) SQL(t testing.TB, statement string) string {
	t.Helper()
	rememberTexts(t, statement)
	return strings.TrimSpace(pgtest.Psql(t, d.Admin, statement))
}

// WantSQL compares the output of a statement.
func (d Database) WantSQL(t testing.TB, statement, want string) {
	t.Helper()
	if got := d.SQL(t, statement); got != want {
		t.Fatalf("%s: %s, want %s", statement, got, want)
	}
}

// WaitSQL waits until a statement's output is as wanted.
func (d Database) WaitSQL(t testing.TB, statement, want string) {
	t.Helper()
	Eventually(t, func() error {
		if got := d.SQL(t, statement); got != want {
			return fmt.Errorf("%s: %s, want %s", statement, got, want)
		}
		return nil
	})
}

// NewFeedsDatabase is a database with feeds of each kind of key: exports (uuid), whose rows end by a word of its own, too; imports (text); and
// mails (integers), which are deleted when they are done.
func NewFeedsDatabase(t testing.TB) Database {
	t.Helper()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, `create table exports (id uuid primary key default gen_random_uuid(), state text not null default 'queued', done int not null default 0, total int not null default 4, kind text, owner text default 'alice');
		create table imports (name varchar(255) primary key, state text, percent int, owner text default 'alice');
		create table mails (id bigserial primary key, created_at timestamptz not null default now(), owner text default 'alice')`)
	db := Adopt(t, dsn)
	for _, args := range []string{
		"--feed exports --table exports --column status=state --column progress=done/total --column user_id=owner --field kind --ends cancelled --status done=completed",
		"--feed imports --table imports --column id=name --column status=state --column progress=percent --column user_id=owner",
		"--feed mails --table mails --column status=created_at --status set=running --column progress= --column user_id=owner --deleted completed",
	} {
		RunCommand(t, []string{"DATABASE_URL=" + dsn}, append([]string{"install", "--role", ServeRole}, strings.Fields(args)...)...)
	}
	return db
}

// HeldLocks are the locks by which writers see what is watched: of each the bucket and the session.
const HeldLocks = `(select l.objid::bigint as bucket, l.pid, f.buckets from pg_locks l, auditstream.feeds f
	where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid::bigint = f.class and l.mode = 'ShareLock'
	  and l.database = (select oid from pg_database where datname = current_database())) held`

// WatchedBy waits until so many instances tell writers that an audit is watched; of "new", that whatever begins is.
func (d Database) WatchedBy(t testing.TB, id string, instances int) {
	t.Helper()
	bucket := "hashint8(" + id + ") & (buckets - 1)"
	if id == "new" {
		bucket = "buckets"
	}
	d.WaitSQL(t, "select count(distinct pid) from "+HeldLocks+" where bucket = "+bucket, strconv.Itoa(instances))
}

// Script runs statements as one simple query, as psql does with a file; they must succeed.
func Script(t testing.TB, conn *pgx.Conn, script string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

// SetAll commits state n of all audits in a psql process.
func (d Database) SetAll(t testing.TB, n int) {
	t.Helper()
	d.SQL(t, fmt.Sprintf("update audits set total_pages = %d, progress = %d", n, n%100))
}

// InsertMany adds running audits of alice's, in state 0.
func (d Database) InsertMany(t testing.TB, n int) []string {
	t.Helper()
	return strings.Fields(d.SQL(t, fmt.Sprintf(`insert into audits (url, user_id, status, total_pages)
		select 'https://example.com', 'alice', 'running', 0 from generate_series(1, %d) returning id`, n)))
}

// Exec runs a statement, which must succeed.
func Exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// LockUp takes from PUBLIC what PostgreSQL grants it in a new database, as careful owners do.
func (d Database) LockUp(t testing.TB) {
	t.Helper()
	u, err := url.Parse(d.Admin)
	NoError(t, err)
	d.SQL(t, `revoke all on database `+pgx.Identifier{strings.TrimPrefix(u.Path, "/")}.Sanitize()+` from public;
		revoke all on schema public from public`)
	// Whoever locks a database up installs afterwards, or again: only then is CONNECT the role's own.
	RunCommand(t, []string{"DATABASE_URL=" + d.Admin}, "install", "--role", ServeRole)
}

// NewFirstAuditDatabase is a database whose audit 1 is that of FirstEvent.
func NewFirstAuditDatabase(t testing.TB) Database {
	t.Helper()
	db := NewDatabase(t)
	db.Insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")
	return db
}
