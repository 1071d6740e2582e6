package integration

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// The likeliest mistakes of a first try. Each command that meets one says what to do about it.

// wantRemedy runs a command that fails with a status, and checks that what it prints names the remedy.
func wantRemedy(t testing.TB, status int, env []string, args string, remedies ...string) {
	t.Helper()
	code, stdout, stderr := try(t, env, strings.Fields(args)...)
	if code != status {
		t.Errorf("auditstream %s: exit status %d, want %d", args, code, status)
	}
	for _, remedy := range remedies {
		if !strings.Contains(stdout+stderr, remedy) {
			t.Errorf("auditstream %s said\n%s%s\nand not %q", args, stdout, stderr, remedy)
		}
	}
}

// wantLogged waits until the log of an instance has a text.
func (i *instance) wantLogged(t testing.TB, texts ...string) {
	t.Helper()
	eventually(t, func() error {
		for _, text := range texts {
			if !strings.Contains(i.log.String(), text) {
				return fmt.Errorf("the log does not say %q:\n%s", text, i.log.String())
			}
		}
		return nil
	})
}

func TestMistakeNoDatabase(t *testing.T) {
	t.Parallel()
	const remedy = "Start it, or correct host and port in DATABASE_URL"
	server := pgtest.NewServer(t)
	dsn := server.DSN("postgres")
	if err := server.StopFast(t.Context()); err != nil {
		t.Fatal(err)
	}
	env := []string{"DATABASE_URL=" + dsn, "JWT_SECRET=" + secret}
	for _, args := range []string{"install", "uninstall", "doctor"} {
		wantRemedy(t, 1, env, args, remedy)
	}
	// It may come up later, so serve serves, and says it.
	serve(t, dsn).wantLogged(t, "the database cannot be read yet, trying again", remedy)
	// dev has a database of its own.
	wantRemedy(t, 2, env, "dev", "unset DATABASE_URL")
}

func TestMistakeNothingServes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log := newLogBuffer()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watch := exec.CommandContext(ctx, binary(t), "watch", "1") // it tries on until it is stopped
	watch.Env, watch.Stderr = environment([]string{"AUDITSTREAM_URL=http://" + addr, "AUDITSTREAM_TOKEN=" + alice(t)}), log
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stop(); _ = watch.Wait() }() // killed
	eventually(t, func() error {
		if got := log.String(); !strings.Contains(got, "is auditstream serve running there? AUDITSTREAM_URL or --url says where") {
			return fmt.Errorf("watch says %q", got)
		}
		return nil
	})
}

func TestMistakeNotInstalled(t *testing.T) {
	t.Parallel()
	const remedy = "run auditstream install --table YOUR_TABLE"
	dsn := pgtest.New(t)
	env := []string{"DATABASE_URL=" + dsn, "JWT_SECRET=" + secret}
	wantRemedy(t, 1, env, "doctor", remedy)
	wantRemedy(t, 1, env, "install", "name yours with --table, or let --create make it")
	serve(t, dsn).wantLogged(t, remedy)
}

func TestMistakeNoTriggers(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	for _, trigger := range []string{"insert", "update", "delete", "truncate"} {
		db.sql(t, "drop trigger auditstream_"+trigger+" on audits")
	}
	env := []string{"DATABASE_URL=" + db.Admin, "JWT_SECRET=" + secret}
	wantRemedy(t, 1, env, "doctor", "Run auditstream install --table 'public.audits' again: it repairs that.")
	i := serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	i.waitMetric(t, listenerUp, atLeast(1))
	s := i.watch(t, "1", alice(t))
	s.next(t)
	// One change alone may be of a transaction that was open when the audit's lock was taken, and need not have been announced:
	// other tests' are in the same server.
	changes := 0
	eventually(t, func() error {
		changes++
		db.sql(t, "update audits set progress = progress % 90 + 1")
		s.next(t)
		const complaint = "is a trigger missing or disabled, or LISTEN blocked by a pooler? Run auditstream doctor: it says which, and what to do"
		if got := i.log.String(); !strings.Contains(got, complaint) {
			return fmt.Errorf("after %d changes the log does not say %q:\n%s", changes, complaint, got)
		}
		return nil
	})
	command(t, env, "install", "--role", role)
	wantRemedy(t, 0, []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + secret}, "doctor", "trigger auditstream_update on public.audits: enabled")
}

func TestMistakeWrongSecret(t *testing.T) {
	t.Parallel()
	const complaint = "a token's signature is refused, and none has been valid yet: set JWT_SECRET, or JWT_JWKS_URL, to the key with which your application signs its users' tokens"
	db := newFirstAudit(t)
	i := serve(t, db.Serve, "LOG_LEVEL=info")
	foreign := remember(strings.TrimSpace(command(t, []string{"JWT_SECRET=" + strings.Repeat("another", 5)}, "token", "--sub", "alice")))
	client := func(token string) []string { return []string{"AUDITSTREAM_URL=" + i.URL, "AUDITSTREAM_TOKEN=" + token} }
	wantRemedy(t, 4, client(foreign), "watch 1", "signed with another key", "auditstream token makes one with serve's JWT_SECRET")
	wantRemedy(t, 4, client(""), "watch 1", "set AUDITSTREAM_TOKEN")
	for range 3 {
		if got := i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+foreign); got.Status != 401 {
			t.Errorf("status %d, want 401", got.Status)
		}
	}
	i.wantLogged(t, complaint)
	if n := strings.Count(i.log.String(), complaint); n != 1 {
		t.Errorf("the log says it %d times, want once", n)
	}
	// Once tokens have been valid a bad one is its client's mistake.
	well := serve(t, db.Serve)
	for _, token := range []string{alice(t), foreign, token(t, jwt.MapClaims{"sub": "alice", "exp": 1})} {
		well.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+token)
	}
	if strings.Contains(well.log.String(), complaint) {
		t.Errorf("the log complains of the key, which is right:\n%s", well.log.String())
	}
}

// That serve says it is tested in TestPitfall06TransactionPoolerWithoutListenURLPolls.
func TestMistakePooler(t *testing.T) {
	t.Parallel()
	const remedy = "DATABASE_LISTEN_URL is needed: set it to a direct connection to the primary. DATABASE_URL may stay as it is."
	db := newDatabase(t)
	pooled := pgbouncer(t, db.Serve)
	env := []string{"DATABASE_URL=" + pooled, "JWT_SECRET=" + secret}
	wantRemedy(t, 1, env, "doctor", "a transaction pooler is in the way", remedy)
	wantRemedy(t, 0, append(env, "DATABASE_LISTEN_URL="+db.Serve), "doctor", "LISTEN on DATABASE_LISTEN_URL hears NOTIFY on DATABASE_URL")
}

func TestMistakePortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	env := []string{"DATABASE_URL=" + newDatabase(t).Serve, "JWT_SECRET=" + secret}
	wantRemedy(t, 1, append(env, "HTTP_ADDR="+addr, "ADMIN_ADDR=127.0.0.1:0"), "serve", "stop the program that has this port, or set HTTP_ADDR to another")
	wantRemedy(t, 1, append(env, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR="+addr), "serve", "stop the program that has this port, or set ADMIN_ADDR to another")
	wantRemedy(t, 1, nil, "dev --http-addr="+addr, "choose another port, or leave --http-addr out, which finds a free one")
}
