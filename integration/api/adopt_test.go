package api

import (
	"net/url"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// latentgeo is a table as an ORM of another language makes it: an integer key, an enum in capitals, progress in fractions,
// columns of type json, timestamps without a zone, and the text of an error in error_message.
const latentgeo = `
create type auditstatus as enum ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED');
create table audits (
	id serial primary key,
	url varchar(2048) not null,
	domain varchar(255),
	user_id varchar(255),
	user_email varchar(255),
	status auditstatus default 'PENDING',
	progress double precision default 0,
	error_message text,
	geo_score double precision,
	total_pages integer,
	language varchar(10) default 'en',
	competitors json,
	target_audit json,
	fix_plan json,
	is_ymyl boolean default false,
	created_at timestamp without time zone default now(),
	updated_at timestamp without time zone default now(),
	started_at timestamp without time zone,
	completed_at timestamp without time zone
);
create index ix_audits_status on audits (status);
create role :writer;
grant select, insert, update, delete on audits to :writer;
grant usage on sequence audits_id_seq to :writer;`

func TestAPIAdoptedTable(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t) // a role that writes is the server's, not the database's
	admin := server.DSN("postgres")
	pgtest.Psql(t, admin, "\\set writer application\n"+latentgeo)
	db := harness.Adopt(t, admin)
	db.SQL(t, "alter role application login password 'application-password'")
	u, err := url.Parse(admin)
	harness.NoError(t, err)
	u.User = url.UserPassword("application", "application-password")
	application := harness.Database{Admin: u.String()} // knows nothing of the schema auditstream

	i := harness.ServeReady(t, db.Serve)
	id := application.SQL(t, `insert into audits (url, user_email, competitors) values ('https://example.com', 'Alice@Example.com', '["a"]') returning id`)
	s := i.Watch(t, id, harness.Token(t, jwt.MapClaims{"sub": "auth0|1", "email": "alice@example.com"}))
	for _, step := range []struct{ set, want string }{
		{"", `{"audit_id":1,"status":"pending","progress":0}`},
		{"status = 'RUNNING', started_at = now(), progress = 12.9", `{"audit_id":1,"status":"running","progress":12}`},
		{"progress = 13", `{"audit_id":1,"status":"running","progress":13}`},
		{"target_audit = '{\"pages\": [1, 2]}', updated_at = now(), progress = 13.999", ""}, // nothing that is shown
		{"progress = 'NaN'", `{"audit_id":1,"status":"running","progress":0}`},
		{"progress = 130, total_pages = 17", `{"audit_id":1,"status":"running","progress":100,"total_pages":17}`},
		{"error_message = 'retrying'", ""},
		{"status = null, progress = null", `{"audit_id":1,"status":"pending","progress":0,"total_pages":17}`},
		{"status = 'FAILED', progress = 99.99, error_message = 'PageSpeed: <429> & quota'",
			`{"audit_id":1,"status":"failed","progress":99,"total_pages":17,"error":"PageSpeed: <429> & quota"}`},
	} {
		if step.set != "" {
			application.SQL(t, "update audits set "+step.set)
		}
		if step.want != "" {
			s.WantEvent(t, step.want)
		}
	}
	s.Ended(t)
	application.SQL(t, "delete from audits")
	i.AskAs(t, harness.AliceToken(t), harness.StatusPath(id)).WantRefusal(t, 404, auditNotFound, "")
}

func TestAPIAdoptedColumns(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t)
	pgtest.Psql(t, admin, `create schema "My App"; create table "My App"."Audit Runs" (
		"Run" smallint primary key, state varchar(20), pct numeric(6,3), note text, failure_reason text, owner integer)`)
	adopted := adoptTable(t, admin, `"My App"."Audit Runs"`, "id=Run", "status=state", "progress=pct", "message=note", "error=failure_reason", "user_id=owner")
	i := harness.ServeReady(t, adopted.Serve)
	adopted.SQL(t, `insert into "My App"."Audit Runs" values (7, 'Running', 33.999, 'half way', 'none yet', 42)`)
	s := i.Watch(t, "7", harness.Token(t, jwt.MapClaims{"sub": "42"}))
	s.WantEvent(t, `{"audit_id":7,"status":"running","progress":33,"message":"half way"}`)
	adopted.SQL(t, `update "My App"."Audit Runs" set state = 'FAILED', note = null, failure_reason = 'out of memory'`)
	s.WantEvent(t, `{"audit_id":7,"status":"failed","progress":33,"error":"out of memory"}`)
	s.Ended(t)
	i.AskAs(t, harness.AliceToken(t), harness.StatusPath("7")).WantRefusal(t, 403, harness.CrossUser, "")
}

// adoptTable is harness.Adopt for a table that is there, with its columns mapped.
func adoptTable(t testing.TB, admin, table string, columns ...string) harness.Database {
	t.Helper()
	db := harness.NewDatabase(t) // makes the role
	args := []string{"install", "--table", table, "--role", harness.ServeRole}
	for _, c := range columns {
		args = append(args, "--column", c)
	}
	harness.RunCommand(t, []string{"DATABASE_URL=" + admin}, args...)
	u, err := url.Parse(admin)
	harness.NoError(t, err)
	serve, err := url.Parse(db.Serve)
	harness.NoError(t, err)
	u.User = serve.User
	return harness.Database{Admin: admin, Serve: u.String()}
}
