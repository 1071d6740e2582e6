package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

const (
	secret = "integration-secret-0123456789-abcdefgh"
	// patience bounds every wait for something that must happen.
	patience = time.Minute
	role     = "auditstream_test_serve"
)

// database is an empty database with the table of audits.sql, installed for a role that may do no more than serve.
type database struct {
	Admin string // superuser
	Serve string // the role
}

func newDatabase(t testing.TB) database {
	t.Helper()
	return adopted(t, installed.New(t))
}

// installed is what newDatabase copies.
var installed = pgtest.Template{Prepare: func(tb pgtest.TB, admin string) { install(tb.(testing.TB), admin) }}

// adopt is newDatabase in the database of an admin URL, for tests that have a server of their own.
func adopt(t testing.TB, admin string) database {
	t.Helper()
	install(t, admin)
	return adopted(t, admin)
}

// install runs install with its own table in a database.
func install(t testing.TB, admin string) {
	t.Helper()
	makeRole(t, admin)
	command(t, []string{"DATABASE_URL=" + admin}, "install", "--create", "--role", role)
}

// makeRole makes the role if the server does not have it.
func makeRole(t testing.TB, admin string) {
	t.Helper()
	pgtest.Psql(t, admin, `do $$ begin
		create role `+role+` login password 'serve-password' nosuperuser;
	exception when duplicate_object or unique_violation then null; end $$`)
}

// adopted is a database after install.
func adopted(t testing.TB, admin string) database {
	t.Helper()
	database{Admin: admin}.keepsRowTexts(t)
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "serve-password")
	return database{Admin: admin, Serve: u.String()}
}

// insert adds an audit of alice's and returns its id.
func (d database) insert(t testing.TB, columns, values string) string {
	t.Helper()
	if columns != "" {
		columns, values = ", "+columns, ", "+values
	}
	return d.sql(t, "insert into audits (url, user_id"+columns+") values ('https://example.com', 'alice'"+values+") returning id")
}

// sql runs a statement in a psql process and returns its output, trimmed.
func (d database) sql(t testing.TB, statement string) string {
	t.Helper()
	rememberTexts(t, statement)
	return strings.TrimSpace(pgtest.Psql(t, d.Admin, statement))
}

// command runs the binary to its end and returns what it printed; it must succeed.
func command(t testing.TB, env []string, args ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := try(t, env, args...)
	if code != 0 {
		t.Fatalf("auditstream %s: exit status %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// try runs the binary to its end, however that turns out.
func try(t testing.TB, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path := commandBinary(t) // which may have to be built, for longer than the time below
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environment(env)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	runErr := cmd.Run()
	if exit := new(exec.ExitError); runErr != nil && !errors.As(runErr, &exit) {
		t.Fatalf("run auditstream: %v", runErr)
	}
	own := ownSecrets(cmd.Env, args)
	if len(args) == 0 || args[0] != "token" { // which prints one on purpose
		noLeak(t, "the output of auditstream "+strings.Join(args, " "), out.String(), own)
	}
	noLeak(t, "the error output of auditstream "+strings.Join(args, " "), err.String(), own)
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// environment is ours without anything that would configure the binary, plus env.
func environment(env []string) []string {
	var clean []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !configures(name) {
			clean = append(clean, entry)
		}
	}
	// The race detector makes a process wait for a second before it exits, which these tests would do hundreds of times.
	clean = append(clean, "GORACE=atexit_sleep_ms=10")
	return append(clean, env...)
}

func configures(name string) bool {
	for _, prefix := range []string{"PG", "SSE_", "JWT_", "DATABASE_", "HTTP_", "ADMIN_ADDR", "TLS_", "CORS_", "LOG_", "REDIS_", "OTEL_", "ACCESS_LOG", "AUDITSTREAM_ENV_FILE", "AUDITSTREAM_INSTALL", "GOMAXPROCS"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// instance is a running auditstream serve.
type instance struct {
	URL   string // of the API
	Admin string // of the metrics
	cmd   *exec.Cmd
	log   *logBuffer
	done  chan struct{} // closed when the process has ended

	traffic *traffic
}

// serve starts an instance on free ports and waits until it serves. It is stopped at the end of the test, and must then
// have exited with status 0 and without a data race; a test that ends it otherwise calls end. What begins with -- is a flag.
func serve(t testing.TB, databaseURL string, env ...string) *instance {
	t.Helper()
	return serveBinary(t, binary(t), databaseURL, env...)
}

// serveBinary is serve with a binary of the test's choice.
func serveBinary(t testing.TB, path, databaseURL string, env ...string) *instance {
	t.Helper()
	i, scheme := begin(t, path, databaseURL, env...)
	i.serves(t, scheme)
	return i
}

// serves waits until the instance serves; from then on its answers are judged.
func (i *instance) serves(t testing.TB, scheme string) {
	t.Helper()
	serving := i.waitLog(t, "serving")
	i.URL = scheme + serving["addr"].(string)
	i.Admin = "http://" + serving["admin_addr"].(string)
	i.record(t)
}

// begin is serveBinary for an instance that does not serve yet, or never will; scheme is how its URL begins.
func begin(t testing.TB, path, databaseURL string, env ...string) (i *instance, scheme string) {
	t.Helper()
	i, scheme = start(t, path, append([]string{"DATABASE_URL=" + databaseURL, "LOG_LEVEL=debug"}, env...))
	t.Cleanup(func() {
		ended := i.keepsSecrets(t)
		i.signal(t, syscall.SIGTERM)
		if code := i.end(t); code != 0 {
			t.Errorf("auditstream serve: exit status %d", code)
		}
		ended()
		i.showLog(t)
	})
	return i, scheme
}

// start runs serve with free ports; what ends it is the caller's.
func start(t testing.TB, path string, env []string) (i *instance, scheme string) {
	t.Helper()
	i = &instance{log: newLogBuffer()}
	i.cmd = exec.Command(path, "serve")
	for k, e := range slices.Backward(env) {
		if strings.HasPrefix(e, "--") {
			i.cmd.Args = append(i.cmd.Args, e)
			env = slices.Delete(slices.Clone(env), k, k+1)
		}
	}
	env, scheme = withTLS(t, env)
	i.cmd.Env = environment(append([]string{
		"JWT_SECRET=" + secret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "SSE_MAX_STREAMS_PER_USER=0",
	}, env...))
	i.cmd.Stderr = i.log
	i.done = startProcess(t, i.cmd)
	return i, scheme
}

// showLog adds the log's last lines to that of a test which failed; the whole is in a file.
func (i *instance) showLog(t testing.TB) {
	t.Helper()
	const most = 40
	if !t.Failed() {
		return
	}
	lines := strings.SplitAfter(i.log.String(), "\n")
	if len(lines) <= most {
		t.Logf("log of auditstream serve:\n%s", i.log.String())
		return
	}
	where := "a file that could not be written"
	if file, err := os.CreateTemp("", "auditstream-serve-*.log"); err == nil {
		where = file.Name()
		_, _ = file.WriteString(i.log.String())
		_ = file.Close()
	}
	t.Logf("the last lines of the log of auditstream serve, of which the other %d are in %s:\n%s", len(lines)-most, where,
		strings.Join(lines[len(lines)-most:], ""))
}

// signal sends a signal to the instance, if it still runs.
func (i *instance) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := i.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
}

// end waits for the process to end and returns its exit status; -1 after SIGKILL.
func (i *instance) end(t testing.TB) int {
	t.Helper()
	select {
	case <-i.done:
	case <-time.After(patience):
		_ = i.cmd.Process.Signal(syscall.SIGQUIT) // a stack dump says where it hangs
		<-i.done
		t.Errorf("auditstream serve did not exit within %v:\n%s", patience, i.log.String())
	}
	if strings.Contains(i.log.String(), "DATA RACE") {
		t.Errorf("data race:\n%s", i.log.String())
	}
	return i.cmd.ProcessState.ExitCode()
}

// waitLog waits for a log record with the message and returns its attributes.
func (i *instance) waitLog(t testing.TB, message string) map[string]any {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := i.log.changed()
		for line := range strings.Lines(i.log.String()) {
			var record map[string]any
			if json.Unmarshal([]byte(line), &record) == nil && record["msg"] == message {
				return record
			}
		}
		select {
		case <-changed:
		case <-i.done:
			t.Fatalf("auditstream serve has ended without logging %q:\n%s", message, i.log.String())
		case <-deadline:
			t.Fatalf("no log record %q:\n%s", message, i.log.String())
		}
	}
}

// waitReady waits until /readyz answers 200 and says how changes arrive: "up" or "polling".
func (i *instance) waitReady(t testing.TB, listener string) {
	t.Helper()
	eventually(t, func() error {
		status, body := i.get(t, "/readyz")
		if want := fmt.Sprintf(`{"status":"ready","database":"up","listener":%q}`, listener); status != 200 || body != want {
			return fmt.Errorf("/readyz: %d %s, want 200 %s", status, body, want)
		}
		return nil
	})
}

// get fetches a path of the API without a token.
func (i *instance) get(t testing.TB, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(i.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, readAll(t, resp.Body)
}

// ofAudits takes the feed audits away, which is what a name without a feed means.
var ofAudits = strings.NewReplacer(`{feed="audits"}`, "", `feed="audits",`, "", `,feed="audits"`, "")

// metric returns the value of a sample, named as in the exposition: auditstream_streams_open, or with its labels.
func (i *instance) metric(t testing.TB, name string) float64 {
	t.Helper()
	resp, err := http.Get(i.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(readAll(t, resp.Body)) {
		if rest, ok := strings.CutPrefix(ofAudits.Replace(line), name+" "); ok {
			var value float64
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func readAll(t testing.TB, body io.ReadCloser) string {
	t.Helper()
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually polls until check succeeds: for what another process does and does not announce. A check may start psql or read all metrics, so
// who has waited for long asks more seldom.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	again(t, 100*time.Millisecond, check)
}

// again is eventually for checks that do something, with a pause of most at most between them.
func again(t testing.TB, most time.Duration, check func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		waited := time.Since(start)
		if waited > patience {
			t.Fatal(err)
		}
		<-time.After(min(max(waited/10, 10*time.Millisecond), most))
	}
}

// token signs claims; exp is in an hour unless they say otherwise (nil leaves it out).
func token(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return remember(signed)
}

func alice(t testing.TB) string { return token(t, jwt.MapClaims{"sub": "alice"}) }

// logBuffer collects a process's output and tells when there is more.
type logBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int // of bytes kept, the newest; 0: all
	more  chan struct{}
}

func newLogBuffer() *logBuffer { return &logBuffer{more: make(chan struct{})} }

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	if b.limit > 0 && b.buf.Len() > b.limit {
		b.buf.Next(b.buf.Len() - b.limit/2)
	}
	return b.buf.Write(p)
}

// keep forgets the beginning from now on: for processes that run long.
func (b *logBuffer) keep(limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}
