package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"auditstream/integration/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// shape is a table that somebody has already, how it is adopted, and what a viewer then sees of a row that lives and ends.
type shape struct {
	table   string // its name
	ddl     string
	install []string
	insert  string   // of alice's row, returning its key
	steps   []string // SQL, with KEY, and what is shown after it, in turn
	status  string   // of the stream's end: terminal, or deleted
}

// The published tables of job queues, by their columns' names and types, and tables that applications have of their own.
var shapes = map[string]shape{
	"river": {
		table: "river_job",
		ddl: `create type river_job_state as enum ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
			create table river_job (id bigserial primary key, state river_job_state not null default 'available', attempt smallint not null default 0, max_attempts smallint not null default 25,
				attempted_at timestamptz, created_at timestamptz not null default now(), finalized_at timestamptz, scheduled_at timestamptz not null default now(), priority smallint not null default 1,
				args jsonb not null default '{}', attempted_by text[], errors jsonb[], kind text not null, metadata jsonb not null default '{}', queue text not null default 'default', tags varchar(255)[] not null default '{}')`,
		install: []string{"--column", "status=state", "--status", "discarded=failed", "--status", "cancelled=failed", "--status", "available=pending", "--status", "scheduled=pending", "--status", "retryable=pending",
			"--column", "progress=metadata.output.progress", "--column", "user_id=args.user_id", "--field", "kind", "--field", "attempt"},
		insert: `insert into river_job (kind, args) values ('report', '{"user_id": "alice"}') returning id`,
		steps: []string{
			``, `{"id":KEY,"status":"pending","progress":0,"kind":"report","attempt":0}`,
			`update river_job set state = 'running', attempt = 1`, `{"id":KEY,"status":"running","progress":0,"kind":"report","attempt":1}`,
			`update river_job set metadata = '{"output": {"progress": 40.9}}'`, `{"id":KEY,"status":"running","progress":40,"kind":"report","attempt":1}`,
			`update river_job set metadata = '{"output": {"progress": "a lot"}}'`, `{"id":KEY,"status":"running","progress":0,"kind":"report","attempt":1}`,
			`update river_job set state = 'discarded'`, `{"id":KEY,"status":"failed","progress":0,"kind":"report","attempt":1}`,
		},
	},
	"pg-boss": {
		table: "pgboss.job",
		ddl: `create schema pgboss; create type pgboss.job_state as enum ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
			create table pgboss.job (id uuid not null default gen_random_uuid() primary key, name text not null, priority integer not null default 0, data jsonb, state pgboss.job_state not null default 'created',
				retry_limit integer not null default 2, retry_count integer not null default 0, started_on timestamptz, created_on timestamptz not null default now(), completed_on timestamptz, output jsonb)`,
		install: []string{"--column", "status=state", "--status", "created=pending", "--status", "retry=pending", "--status", "active=running", "--ends", "cancelled",
			"--column", "progress=output.progress", "--column", "message=output.message", "--column", "user_id=data.user", "--column", "error=output.error", "--field", "job=name", "--field", "data.parts"},
		insert: `insert into pgboss.job (name, data) values ('mail', '{"user": "alice", "parts": [1, {"a": "\n"}]}') returning id`,
		steps: []string{
			``, `{"id":"KEY","status":"pending","progress":0,"job":"mail","data_parts":[1, {"a": "\n"}]}`,
			`update pgboss.job set state = 'active', output = '{"progress": 5e1, "message": "half"}'`, `{"id":"KEY","status":"running","progress":50,"message":"half","job":"mail","data_parts":[1, {"a": "\n"}]}`,
			`update pgboss.job set state = 'cancelled'`, `{"id":"KEY","status":"cancelled","progress":50,"message":"half","job":"mail","data_parts":[1, {"a": "\n"}]}`,
		},
	},
	"laravel batches": {
		table: "job_batches",
		ddl: `create table job_batches (id varchar(255) primary key, name varchar(255) not null, total_jobs integer not null, pending_jobs integer not null, failed_jobs integer not null, failed_job_ids text not null,
			options text, cancelled_at integer, created_at integer not null, finished_at integer, user_id bigint)`,
		install: []string{"--column", "status=finished_at", "--status", "null=running", "--status", "set=completed", "--column", "progress=failed_jobs/total_jobs", "--hide", "cancelled_at", "--field", "name"},
		insert:  `insert into job_batches values ('9b:1/ä,2', 'import', 7, 7, 0, '', null, null, 1, null, 42) returning id`,
		steps: []string{
			``, `{"id":"KEY","status":"running","progress":0,"name":"import"}`,
			`update job_batches set failed_jobs = 2`, `{"id":"KEY","status":"running","progress":28,"name":"import"}`,
			`update job_batches set failed_jobs = 7, finished_at = 5`, `{"id":"KEY","status":"completed","progress":100,"name":"import"}`,
		},
	},
	"words, several owners": {
		table: "exports",
		ddl: `create table users (id int primary key, uid text not null); insert into users values (7, 'alice'), (8, 'bob');
			create table exports (id uuid primary key default gen_random_uuid(), state text, done bigint, total bigint, created_by int, org text, deleted_at timestamptz, started timestamptz, cost numeric, big bigint, ok boolean)`,
		install: []string{"--column", "status=state", "--status", "SUCCESS=completed", "--status", "null=waiting", "--column", "progress=done/total", "--column", "user_id=created_by", "--lookup", "created_by=public.users.id:uid",
			"--column", "group_id=org", "--hide", "deleted_at", "--field", "started", "--field", "cost", "--field", "big", "--field", "ok"},
		insert: `insert into exports (created_by, started) values (7, '2026-01-02 03:04:05.6+00') returning id`,
		steps: []string{
			``, `{"id":"KEY","status":"waiting","progress":0,"started":"2026-01-02T03:04:05.600000Z"}`,
			`update exports set state = ' Running ', done = 29, total = 100, cost = 'NaN', big = 9007199254740993, ok = false, started = 'infinity'`, `{"id":"KEY","status":"running","progress":29,"big":"9007199254740993","ok":false}`,
			`update exports set total = 0, cost = 12345678901234567890.5, big = -5`, `{"id":"KEY","status":"running","progress":0,"cost":12345678901234567890.5,"big":-5,"ok":false}`,
			`update exports set state = 'success', done = 3, total = 3, cost = null`, `{"id":"KEY","status":"completed","progress":100,"big":-5,"ok":false}`,
		},
	},
	"deleted at the end": {
		table:   "solid_queue_ready_executions",
		ddl:     `create table solid_queue_ready_executions (id bigserial primary key, job_id bigint not null, queue_name varchar not null, priority integer default 0 not null, created_at timestamp not null default '2026-05-06 07:08:09', user_id text)`,
		install: []string{"--column", "status=created_at", "--status", "set=running", "--column", "progress=", "--deleted", "completed", "--field", "created_at"},
		insert:  `insert into solid_queue_ready_executions (job_id, queue_name, user_id) values (1, 'default', 'alice') returning id`,
		steps: []string{
			``, `{"id":KEY,"status":"running","progress":0,"created_at":"2026-05-06T07:08:09.000000Z"}`,
			`delete from solid_queue_ready_executions`, `{"id":KEY,"status":"completed","progress":100,"created_at":"2026-05-06T07:08:09.000000Z"}`,
		},
	},
}

// Each is adopted by one command, its viewer sees the whole of a row's life, a stranger nothing, and uninstall leaves no trace.
func TestFeedsOfOtherPeoplesTables(t *testing.T) {
	t.Parallel()
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.New(t)
			pgtest.Psql(t, dsn, s.ddl)
			db := adopt(t, dsn) // audits beside it
			command(t, []string{"DATABASE_URL=" + dsn}, append([]string{"install", "--feed", "jobs", "--table", s.table, "--role", role}, s.install...)...)
			again := command(t, []string{"DATABASE_URL=" + dsn}, append([]string{"install", "--feed", "jobs", "--table", s.table}, s.install...)...)
			if !strings.Contains(again, "nothing to change") {
				t.Errorf("a second install: %s", again)
			}
			i := serve(t, db.Serve, "JWT_GROUPS_CLAIM=groups")
			i.waitReady(t, "up")
			key := strings.SplitN(db.sql(t, s.insert), "\n", 2)[0]
			path := "/api/v1/sse/jobs/" + url.PathEscape(key) + "/progress"
			if name == "laravel batches" { // whose user is a number
				db.sql(t, `update job_batches set user_id = 1`)
			}
			user := map[bool]string{true: "1", false: "alice"}[name == "laravel batches"]
			mine := token(t, jwt.MapClaims{"sub": user})
			if got := i.ask(t, "GET", path, "Authorization", "Bearer "+token(t, jwt.MapClaims{"sub": "mallory", "groups": []string{"none", ""}})); got.Status != http.StatusForbidden {
				t.Errorf("a stranger: %d %s", got.Status, got.Body)
			}
			if got := i.ask(t, "GET", "/api/v1/sse/audits/1/progress", "Authorization", "Bearer "+mine); got.Status != http.StatusNotFound || got.Body != `{"error":"Audit not found"}` {
				t.Errorf("a row of the other feed: %d %s", got.Status, got.Body)
			}
			st := i.open(t, path, mine)
			all := i.open(t, "/api/v1/sse/jobs/progress", mine)
			for n := 0; n < len(s.steps); n += 2 {
				if s.steps[n] != "" {
					db.sql(t, s.steps[n])
				}
				want := strings.ReplaceAll(s.steps[n+1], "KEY", key)
				for _, stream := range []*stream{st, all} {
					if got := stream.next(t).Data; got != want {
						t.Fatalf("after %q\n got %s\nwant %s", s.steps[n], got, want)
					}
				}
				if got := i.ask(t, "GET", "/api/v1/jobs/"+url.PathEscape(key)+"/status", "Authorization", "Bearer "+mine); got.Body != want && !strings.HasPrefix(s.steps[n], "delete") {
					t.Errorf("status: %d %s, want %s", got.Status, got.Body, want)
				}
			}
			st.ended(t)
			if missed := i.metric(t, `auditstream_notifications_missed_total{feed="jobs"}`); missed != 0 {
				t.Errorf("%v changes were not announced", missed)
			}
			before := db.sql(t, `select count(*) from pg_trigger where tgname ~ '^auditstream_[a-z]+$'`)
			command(t, []string{"DATABASE_URL=" + dsn}, "uninstall", "--feed", "jobs")
			eventually(t, func() error {
				if got := i.ask(t, "GET", path, "Authorization", "Bearer "+mine); got.Status != http.StatusNotFound {
					return fmt.Errorf("a feed that is gone: %d %s", got.Status, got.Body)
				}
				return nil
			})
			if got := db.sql(t, `select count(*) from pg_trigger where tgname ~ '^auditstream_'`); got != before {
				t.Errorf("%s triggers are left, want audits' %s", got, before)
			}
			command(t, []string{"DATABASE_URL=" + dsn}, "uninstall")
			if got := db.sql(t, `select (select count(*) from pg_trigger where tgname ~ '^auditstream_') + (select count(*) from pg_namespace where nspname = 'auditstream')`); got != "0" {
				t.Errorf("%s things of ours are left", got)
			}
		})
	}
}
