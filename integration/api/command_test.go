package api

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

func TestAPICommandHelp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"", []string{"serve", "dev", "relay", "install", "uninstall", "doctor", "token", "watch", "version", "DATABASE_URL"}},
		{"--help", []string{"serve", "dev", "relay", "install", "uninstall", "doctor", "token", "watch", "version", "DATABASE_URL"}},
		{"serve --help", []string{
			"$DATABASE_URL", "$DATABASE_LISTEN_URL", "$REDIS_URL", "$REDIS_RELAY", "$SSE_SOURCE", "$SSE_MAX_DURATION", "$SSE_HEARTBEAT_SECONDS", "$SSE_FALLBACK_DB_INTERVAL_SECONDS",
			"$SSE_RETRY_MS", "$SSE_MAX_STREAMS", "$SSE_MAX_STREAMS_PER_USER", "$HTTP_ADDR", "$ADMIN_ADDR", "$JWT_SECRET", "$JWT_SECRET_PREVIOUS",
			"$JWT_JWKS_URL", "$JWT_ISSUER", "$JWT_AUDIENCE", "$TLS_CERT_FILE", "$TLS_KEY_FILE", "$SSE_AUTH_COOKIE", "$CORS_ALLOWED_ORIGINS",
			"$LOG_LEVEL", "$LOG_FORMAT", "$SSE_UI",
			"--sse-max-duration=3600", "--sse-heartbeat-seconds=30", "--sse-fallback-db-interval-seconds=10", "--sse-retry-ms=5000",
			"--sse-max-streams=10000", "--sse-max-streams-per-user=100", `--http-addr=":8080"`, `--admin-addr="127.0.0.1:9090"`,
		}},
		{"dev --help", []string{"PostgreSQL", "--http-addr"}},
		{"relay --help", []string{"$DATABASE_URL", "$DATABASE_LISTEN_URL", "$REDIS_URL", "$ADMIN_ADDR", `"127.0.0.1:9091"`}},
		{"install --help", []string{"$DATABASE_URL", "--table", "public.audits", "--create", "--role", "--column", "--dry-run"}},
		{"uninstall --help", []string{"$DATABASE_URL", "--dry-run"}},
		{"doctor --help", []string{"$DATABASE_URL", "$DATABASE_LISTEN_URL", "$JWT_SECRET", "$JWT_JWKS_URL"}},
		{"token --help", []string{"$JWT_SECRET", "--sub", "--email", "--ttl"}},
		{"watch --help", []string{"$AUDITSTREAM_URL", "$AUDITSTREAM_TOKEN", "--until", "Exit status"}},
		{"version --help", []string{"Usage: auditstream version"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := harness.TryCommand(t, nil, strings.Fields(tt.args)...)
			if code != 0 || stderr != "" {
				t.Errorf("exit status %d, errors %q, want 0 and none", code, stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("help does not mention %s:\n%s", want, stdout)
				}
			}
		})
	}
}

func TestAPICommandUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		env  []string
		want []string
	}{
		{"nonsense", nil, []string{"nonsense", "auditstream --help"}},
		{"serve now", nil, []string{"now"}},
		{"serve --nonsense", nil, []string{"--nonsense"}},
		{"serve", nil, []string{"DATABASE_URL is not set"}},
		{"install", nil, []string{"DATABASE_URL is not set"}},
		{"uninstall", nil, []string{"DATABASE_URL is not set"}},
		{"install --column error", []string{nowhere}, []string{"--column", `"error" has no equals sign; give OURS=THEIRS`}},
		{"install --column error=a --column error=b", []string{nowhere}, []string{"--column", "maps error a second time"}},
		{"install --lock-wait=soon", []string{nowhere}, []string{"--lock-wait"}},
		{"token --sub alice", nil, []string{"JWT_SECRET is not set"}},
		{"token --sub alice", []string{"JWT_SECRET=short"}, []string{"JWT_SECRET", "5 bytes are not enough", "32"}},
		{"token", []string{"JWT_SECRET=" + harness.JWTSecret}, []string{"--sub USER or --email ADDRESS is required"}},
		{"token --sub alice --ttl=-1h", []string{"JWT_SECRET=" + harness.JWTSecret}, []string{"--ttl=-1h0m0s is not in the future; give a duration"}},
		{"token --sub alice --ttl=long", []string{"JWT_SECRET=" + harness.JWTSecret}, []string{"--ttl"}},
	} {
		t.Run(fmt.Sprint(tt.args, len(tt.env)), func(t *testing.T) {
			t.Parallel()
			wantUsage(t, tt.env, strings.Fields(tt.args), tt.want...)
		})
	}
}

// doctor is asked what is wrong, so what is missing is its answer and not a mistake in asking.
func TestAPICommandDoctorWithoutConfiguration(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := harness.TryCommand(t, nil, "doctor")
	if code != 1 || stderr != "auditstream: 2 checks failed\n" {
		t.Errorf("exit status %d, %q, want 1 and the number of failures", code, stderr)
	}
	for _, want := range []string{"FAIL  DATABASE_URL is not set", "FAIL  tokens: no way to verify tokens: set JWT_SECRET"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("output\n%s\ndoes not say %s", stdout, want)
		}
	}
}

func TestAPICommandVersion(t *testing.T) {
	t.Parallel()
	if got, want := harness.RunCommand(t, nil, "version"), regexp.MustCompile(`^auditstream \S+ \(go1\.\S+, \w+/\w+\)\n$`); !want.MatchString(got) {
		t.Errorf("version %q, want %s", got, want)
	}
}

func TestAPICommandToken(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	byEmail := db.SQL(t, "insert into audits (url, user_email) values ('https://example.com', 'Bob@example.com') returning id")
	i := harness.Serve(t, db.Serve, "JWT_ISSUER=https://issuer.example", "JWT_AUDIENCE=auditstream")
	env := []string{"JWT_SECRET=" + harness.JWTSecret, "JWT_ISSUER=https://issuer.example", "JWT_AUDIENCE=auditstream"}

	made := harness.RunCommand(t, env, "token", "--sub", "alice")
	if !regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+\n$`).MatchString(made) {
		t.Errorf("token %q, want one line with a JWT", made)
	}
	head, _, _ := harness.CutToken(t, made)
	if got, err := base64.RawURLEncoding.DecodeString(head); err != nil || string(got) != `{"alg":"HS256","typ":"JWT"}` {
		t.Errorf("header %s, %v", got, err)
	}
	s := i.Watch(t, "1", strings.TrimSpace(made))
	s.WantSoFar(t, harness.FirstEvent)
	s.Cancel()
	s = i.Watch(t, byEmail, strings.TrimSpace(harness.RunCommand(t, env, "token", "--email", "bob@example.com")))
	s.WantEvent(t, `{"audit_id":2,"status":"pending","progress":0}`)
	s.Cancel()
	i.Ask(t, "GET", harness.StatusPath(byEmail), "Authorization", "Bearer "+strings.TrimSpace(made)).WantRefusal(t, 403, harness.CrossUser, "")
	// Without the issuer it is one of somebody else's.
	other := harness.RunCommand(t, []string{"JWT_SECRET=" + harness.JWTSecret}, "token", "--sub", "alice")
	i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+strings.TrimSpace(other)).WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge)
	// It lasts as long as it says.
	short := strings.TrimSpace(harness.RunCommand(t, env, "token", "--sub", "alice", "--ttl", "3s"))
	i.Watch(t, "1", short).WantWhole(t, harness.FirstEvent+"event: message\ndata: {\"error\":\"Token expired\"}\n\n")
}

// traces are all that install could leave in a database.
const traces = `select
	(select count(*) from pg_namespace where nspname = 'auditstream'),
	(select count(*) from pg_trigger where tgname like 'auditstream%'),
	(select count(*) from pg_proc where proname in ('changed', 'notify_change')),
	(select count(*) from pg_depend d join pg_namespace n on n.oid = d.refobjid where n.nspname = 'auditstream'),
	(select count(*) from pg_database, aclexplode(datacl) a where datname = current_database() and a.grantee = '` + harness.ServeRole + `'::regrole)`

func TestAPIInstallAndUninstall(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t)
	harness.Adopt(t, pgtest.New(t)) // makes the role
	env := []string{"DATABASE_URL=" + admin}
	db := harness.Database{Admin: admin}
	fails := func(t *testing.T, want string, args ...string) {
		t.Helper()
		code, stdout, stderr := harness.TryCommand(t, env, args...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("auditstream %s: exit status %d\n%s%s\nwant 1 and %s", strings.Join(args, " "), code, stdout, stderr, want)
		}
		if got := db.SQL(t, traces); got != "0|0|0|0|0" {
			t.Errorf("a refused install left %s", got)
		}
	}
	wantOutput := func(t *testing.T, want string, args ...string) {
		t.Helper()
		if got := harness.RunCommand(t, env, args...); got != want {
			t.Errorf("auditstream %s: %q, want %q", strings.Join(args, " "), got, want)
		}
	}

	fails(t, "there is no table public.audits in the database", "install")
	wantOutput(t, "auditstream is not installed in this database; nothing to change.\n", "uninstall")
	db.SQL(t, "create table jobs (id integer primary key, progress integer); create table dates (id date primary key, status text, progress int); create view looks as select * from dates")
	fails(t, "public.jobs has no column status: say which column holds it, a text, an enum, an integer or a boolean, with --column status=NAME (it has id, progress)", "install", "--table", "jobs")
	wantUsage(t, env, []string{"install", "--column", "id", "--status", "x"}, "--column=\"id\" has no equals sign; give OURS=THEIRS, like error=failure_reason\ninvalid --status \"x\": want WORD=SHOWN")
	fails(t, "column id of public.dates is date: the id of a row must be smallint, integer, bigint, uuid, text or varchar", "install", "--table", "dates")
	fails(t, "public.looks cannot be adopted: it is a view", "install", "--table", "looks")
	fails(t, "there is no role nobody_of_that_name", "install", "--create", "--role", "nobody_of_that_name")
	wantUsage(t, env, []string{"install", "--create", "--column", "colour=status"}, `there is no column "colour" to map`)

	// Where everybody may connect, there is nothing to grant.
	db.SQL(t, "do $$ begin execute format('revoke connect on database %I from public', current_database()); end $$")

	// --dry-run runs nothing; what it prints is exactly what install runs, so psql can run it instead.
	script := harness.RunCommand(t, env, "install", "--create", "--role", harness.ServeRole, "--dry-run")
	if got := db.SQL(t, traces); got != "0|0|0|0|0" || db.SQL(t, "select to_regclass('public.audits') is null") != "t" {
		t.Errorf("--dry-run left %s", got)
	}
	pgtest.Psql(t, admin, script)
	if got := db.SQL(t, traces); !regexp.MustCompile(`^1\|5\|1\|\d+\|1$`).MatchString(got) {
		t.Errorf("psql with the script of --dry-run made %s, want a schema, five triggers, a function and a grant", got)
	}
	wantOutput(t, "auditstream is installed on \"public\".\"audits\" already; nothing to change.\n", "install", "--role", harness.ServeRole)
	wantOutput(t, "-- nothing to change\n", "install", "--create", "--role", harness.ServeRole, "--dry-run")
	code, _, stderr := harness.TryCommand(t, env, "install", "--table", "jobs", "--column", "status=id")
	if code != 1 || stderr == "" {
		t.Errorf("install on a second table: exit status %d, %s, want 1 and a sentence", code, stderr)
	}

	pgtest.Psql(t, admin, harness.RunCommand(t, env, "uninstall", "--dry-run"))
	if got := db.SQL(t, traces); got != "0|0|0|0|0" {
		t.Errorf("psql with the script of uninstall --dry-run left %s", got)
	}
	wantOutput(t, "Installed on \"public\".\"audits\". Next: auditstream serve\n", "install", "--table", "audits", "--role", harness.ServeRole)
	wantOutput(t, "auditstream is installed on \"public\".\"audits\" already; nothing to change.\n", "install", "--role", harness.ServeRole)
	wantOutput(t, "There is no feed jobs in this database; nothing to change.\n", "uninstall", "--feed", "jobs")
	wantOutput(t, "Uninstalled. Nothing of auditstream is left in this database.\n", "uninstall")
	if got := db.SQL(t, traces); got != "0|0|0|0|0" {
		t.Errorf("uninstall left %s", got)
	}
	if got := db.SQL(t, "insert into audits (url) values ('https://example.com') returning status"); got != "pending" {
		t.Errorf("the table after uninstall: %s", got)
	}
}

// The operator takes auditstream away under a running instance, and puts it back.
func TestAPIUninstallUnderServe(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve, "SSE_HEARTBEAT_SECONDS=1")
	i.WaitReady(t, "up")
	s := i.Watch(t, "1", harness.AliceToken(t))
	s.Next(t)
	env := []string{"DATABASE_URL=" + db.Admin}
	harness.RunCommand(t, env, "uninstall")
	harness.Eventually(t, func() error {
		if ready := i.Ask(t, "GET", "/readyz"); ready.Status != 503 {
			return fmt.Errorf("/readyz after uninstall: %d %s, want 503", ready.Status, ready.Body)
		}
		return nil
	})
	i.Ask(t, "GET", "/healthz").WantOpen(t, 200, `{"status":"ok"}`)
	i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+harness.AliceToken(t)).WantRefusal(t, 503, `{"error":"Internal server error"}`, "")
	withRandomRetry(t, i.Watch(t, "1", harness.AliceToken(t)).Whole(t), "retry: RANDOM\nevent: message\ndata: {\"error\":\"Internal server error\"}\n\n")
	db.SQL(t, "update audits set progress = 60, message = null") // the application does not notice
	s.WantSoFar(t, firstEventEvery(1)+": heartbeat\n\n")

	harness.RunCommand(t, env, "install", "--role", harness.ServeRole)
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":60}`) // what was missed meanwhile
	i.WaitReady(t, "up")
	db.SQL(t, "update audits set progress = 61")
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":61}`)
	s.Cancel()
}
