package ops

import (
	"context"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// The likeliest mistakes of a first try. Each command that meets one says what to do about it.

// wantRemedy runs a command that fails with a status, and checks that what it prints names the remedy.
func wantRemedy(t testing.TB, status int, env []string, args string, remedies ...string) {
	t.Helper()
	code, stdout, stderr := harness.TryCommand(t, env, strings.Fields(args)...)
	harness.Equal(t, code, status, "exit status of auditstream", args)
	harness.WantIn(t, stdout+stderr, remedies...)
}

func TestMistakeNoDatabase(t *testing.T) {
	t.Parallel()
	const remedy = "Start it, or correct host and port in DATABASE_URL"
	server := pgtest.NewServer(t)
	dsn := server.DSN("postgres")
	harness.NoError(t, server.StopFast(t.Context()))
	env := []string{"DATABASE_URL=" + dsn, "JWT_SECRET=" + harness.JWTSecret}
	for _, args := range []string{"install", "uninstall", "doctor"} {
		wantRemedy(t, 1, env, args, remedy)
	}
	// It may come up later, so serve serves, and says it.
	harness.WaitIn(t, harness.Serve(t, dsn).Log.String, "the database cannot be read yet, trying again", remedy)
	// dev has a database of its own.
	wantRemedy(t, 2, env, "dev", "unset DATABASE_URL")
	wantRemedy(t, 1, nil, "doctor", "auditstream: 2 checks failed")
}

func TestMistakeNothingServes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.NoError(t, err)
	addr := l.Addr().String()
	harness.NoError(t, l.Close())
	log := harness.NewLogBuffer()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watch := exec.CommandContext(ctx, harness.Binary(t), "watch", "1") // it tries on until it is stopped
	watch.Env, watch.Stderr = harness.Environment([]string{"AUDITSTREAM_URL=http://" + addr, "AUDITSTREAM_TOKEN=" + harness.AliceToken(t)}), log
	harness.NoError(t, watch.Start())
	defer func() { stop(); _ = watch.Wait() }() // killed
	harness.WaitIn(t, log.String, "is auditstream serve running there? AUDITSTREAM_URL or --url says where")
}

func TestMistakeNotInstalled(t *testing.T) {
	t.Parallel()
	const remedy = "run auditstream install --table YOUR_TABLE"
	dsn := pgtest.New(t)
	env := []string{"DATABASE_URL=" + dsn, "JWT_SECRET=" + harness.JWTSecret}
	wantRemedy(t, 1, env, "doctor", remedy)
	wantRemedy(t, 1, env, "install", "name yours with --table, or let --create make it")
	i := harness.Serve(t, dsn)
	harness.WaitIn(t, i.Log.String, remedy)
	harness.Adopt(t, dsn)
	i.WaitReady(t, "up") // by itself
	wantRemedy(t, 0, env, "uninstall --feed jobs", "There is no feed jobs in this database; nothing to change.")
}

// What another try cannot mend ends serve.
func TestMistakeWrongPasswordOrDatabase(t *testing.T) {
	t.Parallel()
	env := []string{"JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0"}
	u, err := url.Parse(harness.NewDatabase(t).Serve)
	harness.NoError(t, err)
	wantRemedy(t, 1, append(env, "DATABASE_URL="+harness.As(t, u.String(), harness.ServeRole, "hush")), "serve", "DATABASE_URL", "password")
	u.Path = "/no_such_database" // which the log does not name
	wantRemedy(t, 1, append(env, "DATABASE_URL="+u.String()), "serve", "the database's name in DATABASE_URL", "does not exist")
}

func TestMistakeWrongSecret(t *testing.T) {
	t.Parallel()
	const complaint = "a token's signature is refused, and none has been valid yet: set JWT_SECRET, or JWT_JWKS_URL, to the key with which your application signs its users' tokens"
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve, "LOG_LEVEL=info")
	foreign := harness.Remember(strings.TrimSpace(harness.RunCommand(t, []string{"JWT_SECRET=" + strings.Repeat("another", 5)}, "token", "--sub", "alice")))
	client := func(token string) []string { return []string{"AUDITSTREAM_URL=" + i.URL, "AUDITSTREAM_TOKEN=" + token} }
	wantRemedy(t, 4, client(foreign), "watch 1", "signed with another key", "auditstream token makes one with serve's JWT_SECRET")
	wantRemedy(t, 4, client(""), "watch 1", "set AUDITSTREAM_TOKEN")
	for range 3 {
		i.AskAs(t, foreign, harness.StatusPath("1")).WantStatus(t, 401)
	}
	harness.WaitIn(t, i.Log.String, complaint)
	harness.Equal(t, strings.Count(i.Log.String(), complaint), 1, "times that the log says it")
	// Once tokens have been valid a bad one is its client's mistake.
	well := harness.Serve(t, db.Serve)
	for _, token := range []string{harness.AliceToken(t), foreign, harness.Token(t, jwt.MapClaims{"sub": "alice", "exp": 1})} {
		well.AskAs(t, token, harness.StatusPath("1"))
	}
	harness.WantNoneIn(t, well.Log.String(), complaint)
}

// That serve says it is tested in TestPitfall06TransactionPoolerWithoutListenURLPolls.
func TestMistakePooler(t *testing.T) {
	t.Parallel()
	const remedy = "DATABASE_LISTEN_URL is needed: set it to a direct connection to the primary. DATABASE_URL may stay as it is."
	db := harness.NewDatabase(t)
	pooled := harness.StartPgBouncer(t, db.Serve)
	env := []string{"DATABASE_URL=" + pooled, "JWT_SECRET=" + harness.JWTSecret}
	wantRemedy(t, 1, env, "doctor", "a transaction pooler is in the way", remedy)
	wantRemedy(t, 0, append(env, "DATABASE_LISTEN_URL="+db.Serve), "doctor", "LISTEN on DATABASE_LISTEN_URL hears NOTIFY on DATABASE_URL")
}

func TestMistakePortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	harness.NoError(t, err)
	defer taken.Close()
	addr := taken.Addr().String()
	env := []string{"DATABASE_URL=" + harness.NewDatabase(t).Serve, "JWT_SECRET=" + harness.JWTSecret}
	wantRemedy(t, 1, append(env, "HTTP_ADDR="+addr, "ADMIN_ADDR=127.0.0.1:0"), "serve", "stop the program that has this port, or set HTTP_ADDR to another")
	wantRemedy(t, 1, append(env, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR="+addr), "serve", "stop the program that has this port, or set ADMIN_ADDR to another")
	wantRemedy(t, 1, []string{"HTTP_ADDR=" + addr}, "dev", "choose another port, or none, and a free one is found")
}
