package ops

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// What people paste, with passwords of any characters, encoded by nobody.
var (
	pasted = []string{
		"postgres://app:PASSWORD@127.0.0.1:1/app", "postgresql://app:PASSWORD@127.0.0.1:1/app?schema=public&connection_limit=5&pgbouncer=true",
		"postgres://app:PASSWORD@127.0.0.1:port/app", "postgresql+asyncpg://app:PASSWORD@127.0.0.1:1/app?ssl=require", "app:PASSWORD@127.0.0.1:1/app",
		"jdbc:postgresql://127.0.0.1:1/app?user=app&password=PASSWORD", "mysql://app:PASSWORD@127.0.0.1:1/app", `"postgres://app:PASSWORD@127.0.0.1:1/app"`,
		"host=127.0.0.1 port=1 user=app password=PASSWORD dbname=app", "host=127.0.0.1 port=1 user=app password='PASSWORD' bogus=1",
		"Host=127.0.0.1;Port=1;Username=app;Password=PASSWORD;Database=app", "postgres://127.0.0.1:1/app?user=app&password=PASSWORD&sslmode=no-verify",
		"redis://:PASSWORD@127.0.0.1:1/0",
	}
	passwords = []string{"hunter2-hunter", "p@ss#w/rd?x", "a:b@c/d?e#f", "50%sure-thing", "it's a secret", `back\slash"q`, "semi;co&lon", "12/3456@789"}
	// shownAtEnd is what serve and relay say last when they have tried to connect.
	shownAtEnd = regexp.MustCompile(`reconnecting|polling only|takes no hints`)
)

// told runs a command until it ends, or has said what it has to say of a database that is not there, and returns all that it showed.
func told(t *testing.T, env []string, args ...string) string {
	t.Helper()
	path := harness.PlainBinary(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = harness.Environment(append([]string{"JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug"}, env...))
	var out bytes.Buffer
	log := harness.NewLogBuffer()
	cmd.Stdout, cmd.Stderr = &out, log
	done := harness.StartProcess(t, cmd)
	pages := ""
	for running := true; running; {
		changed := log.Changed()
		if text := log.String(); pages == "" && shownAtEnd.MatchString(text) {
			pages = " " + operatorsPages(text)
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		select {
		case <-changed:
		case <-done:
			running = false
		}
	}
	if ctx.Err() != nil {
		t.Errorf("%s said nothing to the end: %s", args, log.String())
	}
	return out.String() + log.String() + pages
}

var bound = regexp.MustCompile(`\b(?:addr|admin_addr)=(127\.0\.0\.1:\d+)`)

// operatorsPages are what a running instance shows.
func operatorsPages(log string) (all string) {
	c := http.Client{Timeout: 10 * time.Second}
	for _, addr := range bound.FindAllStringSubmatch(log, -1) {
		for _, path := range []string{"/readyz", "/metrics", "/debug/pprof/goroutine?debug=2"} {
			resp, err := c.Get("http://" + addr[1] + path)
			if err != nil {
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			all += string(body)
		}
	}
	return all
}

// A string of another tool was parsed as what it is not, and its password shown, as a host, a port, or a parameter of the server's.
func TestU17NoCommandShowsAPassword(t *testing.T) {
	t.Parallel()
	nowhere := "postgres://app:other-password@127.0.0.1:1/app"
	n := 0
	for _, text := range pasted {
		for _, password := range passwords {
			n++
			url := strings.ReplaceAll(text, "PASSWORD", password)
			others := [][]string{{"install", "DATABASE_URL"}, {"uninstall", "DATABASE_URL"}, {"relay", "DATABASE_URL"}, {"serve", "DATABASE_LISTEN_URL"}, {"relay", "REDIS_URL"}}
			other := others[n%len(others)]
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				for _, run := range [][]string{{"serve", "DATABASE_URL"}, {"doctor", "DATABASE_URL", "DATABASE_LISTEN_URL"}, other, {"serve", "REDIS_URL"}} {
					env := []string{"DATABASE_URL=" + nowhere, "SSE_SOURCE=redis"}
					for _, name := range run[1:] {
						env = append(env, name+"="+url)
					}
					shown := told(t, env, run[0])
					for k := 0; k+6 <= len(password); k++ {
						if piece := password[k : k+6]; strings.Contains(shown, piece) {
							t.Errorf("%s with %s=%s shows %q:\n%s", run[0], run[1], url, piece, shown)
							break
						}
					}
				}
			})
		}
	}
	if n < 100 {
		t.Errorf("only %d strings", n)
	}
}

// A parameter that the server does not know was tried for ever. It is known at the first attempt that it will not become known.
func TestU17ParameterThatTheServerRefusesIsFinal(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	with := func(url, parameter string) string {
		if strings.Contains(url, "?") {
			return url + "&" + parameter
		}
		return url + "?" + parameter
	}
	for _, parameter := range []string{"frobnicate=1", "statement_timeout=soon", "shared_buffers=1MB", "options=-c%20frobnicate%3D1", "options=endpoint%3Dep-x", "session_replication_role=replica"} {
		for _, run := range [][]string{{"serve", "DATABASE_URL"}, {"serve", "DATABASE_LISTEN_URL"}, {"relay", "DATABASE_URL"}, {"install", "DATABASE_URL"}} {
			code, _, stderr := harness.TryCommand(t, []string{"DATABASE_URL=" + db.Serve, run[1] + "=" + with(db.Serve, parameter), "JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=off"}, run[0])
			if code != 1 || !strings.Contains(stderr, "a parameter of the connection string is refused: correct it, or leave it out") {
				t.Errorf("%s with %s in %s: exit status %d\n%s", run[0], parameter, run[1], code, stderr)
			}
		}
	}
}

// Prisma's URL serves, and says what it does not heed.
func TestU17WhatIsLeftOutIsSaidAndTheRestServes(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	separator := "?"
	if strings.Contains(db.Serve, "?") {
		separator = "&"
	}
	url := db.Serve + separator + "schema=public&connection_limit=5&pgbouncer=true"
	i := harness.ServeReady(t, url)
	harness.WantIn(t, i.Log.String(), "DATABASE_URL: the parameter pgbouncer is Prisma's and is left out", "direct connection", "write pool_max_conns=N")
	code, stdout, stderr := harness.TryCommand(t, []string{"DATABASE_URL=" + url, "JWT_SECRET=" + harness.JWTSecret}, "doctor")
	if code != 0 || !strings.Contains(stdout, "warn  DATABASE_URL: the parameter pgbouncer") {
		t.Errorf("doctor: %d\n%s%s", code, stdout, stderr)
	}
	if out := pgtest.Psql(t, db.Admin, "select 1"); strings.TrimSpace(out) != "1" {
		t.Errorf("psql: %s", out)
	}
}

// The log named user and database, which SECURITY.md denied, in each error of connecting.
func TestErrorsNameNoUserAndNoDatabase(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	db.SQL(t, `do $$ begin if to_regrole('ducklings') is null then create role ducklings login password 'quackquack'; end if; exception when unique_violation or duplicate_object then null; end $$`)
	host := regexp.MustCompile(`@[^/]+/`).FindString(db.Serve)
	for name, url := range map[string]string{
		"nobody there":   "postgres://ducklings:quackquack@127.0.0.1:1/swanlake",
		"wrong password": "postgres://ducklings:quack-quack" + host + "swanlake",
		"no database":    "postgres://ducklings:quackquack" + host + "swanlake",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, env := range [][]string{{"DATABASE_URL=" + url}, {"DATABASE_URL=" + db.Serve, "DATABASE_LISTEN_URL=" + url}} {
				shown := told(t, append(env, "LOG_LEVEL=info"), "serve")
				harness.WantNoneIn(t, shown, "ducklings", "swanlake", "quack")
				harness.WantIn(t, shown, "failed to connect:")
			}
		})
	}
	harness.WantIn(t, told(t, []string{"DATABASE_URL=postgres://ducklings:quackquack@127.0.0.1:1/swanlake"}, "serve"), "user=ducklings database=swanlake")
}
