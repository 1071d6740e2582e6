package api

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// nowhere is a database that nobody serves: what is refused at start is refused before it is asked for.
const nowhere = "DATABASE_URL=postgres://user:hush-password@127.0.0.1:1/none"

// wantUsage checks that a command ends with status 2, prints nothing but a message, and that it holds all of want.
func wantUsage(t testing.TB, env, args []string, want ...string) (stderr string) {
	t.Helper()
	code, stdout, stderr := harness.TryCommand(t, env, args...)
	if code != 2 || stdout != "" {
		t.Errorf("exit status %d, output %q, want 2 and none", code, stdout)
	}
	for _, w := range want {
		if !strings.Contains(stderr, w) {
			t.Errorf("message\n%s\ndoes not say %s", stderr, w)
		}
	}
	return stderr
}

func TestAPIConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	certFile, keyFile, _ := harness.SelfSigned(t)
	otherCert, _, _ := harness.SelfSigned(t)
	absent := filepath.Join(t.TempDir(), "absent.pem")
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	harness.NoError(t, os.WriteFile(noPEM, []byte("nothing"), 0o600))
	const (
		seconds = "a whole number from 1 to "
		address = "give HOST:PORT or :PORT"
		jwks    = "JWT_JWKS_URL=https://issuer.example/jwks"
	)
	for _, tt := range []struct {
		env  string // several are separated by blanks
		want []string
	}{
		{"SSE_SOURCE=kafka", []string{"SSE_SOURCE", `invalid value "kafka"; give db or redis`}},
		{"REDIS_URL=http://user:hush-password@127.0.0.1", []string{"REDIS_URL", "give one like redis://user:password@host:6379/0"}},
		{"REDIS_URL=redis://127.0.0.1/0?password=hush-password", []string{"REDIS_URL", "only db is allowed"}},
		{"REDIS_RELAY=off", []string{"REDIS_RELAY", `invalid value "off"; give auto or on`}},
		{"SSE_MAX_DURATION=0", []string{"SSE_MAX_DURATION", `invalid value "0"; give ` + seconds}},
		{"SSE_MAX_DURATION=-5", []string{"SSE_MAX_DURATION", `invalid value "-5"; give ` + seconds}},
		{"SSE_MAX_DURATION=1.5", []string{"SSE_MAX_DURATION", `invalid value "1.5"; give ` + seconds}},
		{"SSE_MAX_DURATION=1h", []string{"SSE_MAX_DURATION", `invalid value "1h"; give ` + seconds}},
		{"SSE_MAX_DURATION=99999999999999999999", []string{"SSE_MAX_DURATION", `invalid value "99999999999999999999"; give ` + seconds}},
		{"SSE_HEARTBEAT_SECONDS=0", []string{"SSE_HEARTBEAT_SECONDS", `invalid value "0"; give ` + seconds}},
		{"SSE_HEARTBEAT_SECONDS=abc", []string{"SSE_HEARTBEAT_SECONDS", `invalid value "abc"; give ` + seconds}},
		{"SSE_FALLBACK_DB_INTERVAL_SECONDS=0", []string{"SSE_FALLBACK_DB_INTERVAL_SECONDS", `invalid value "0"; give ` + seconds}},
		{"SSE_RETRY_MS=0", []string{"SSE_RETRY_MS", `invalid value "0"; give ` + seconds}},
		{"SSE_RETRY_MS=5s", []string{"SSE_RETRY_MS", `invalid value "5s"; give ` + seconds}},
		{"SSE_MAX_STREAMS=-1", []string{"SSE_MAX_STREAMS", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"SSE_MAX_REFUSED_PER_USER=-1", []string{"SSE_MAX_REFUSED_PER_USER", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"HTTP_MAX_REFUSED_PER_ADDRESS=-1", []string{"HTTP_MAX_REFUSED_PER_ADDRESS", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"GOMAXPROCS=none", []string{"GOMAXPROCS", `invalid value "none"; give a whole number from 0 to 1024`}},
		{"SSE_MAX_STREAMS_PER_USER=many", []string{"SSE_MAX_STREAMS_PER_USER", `invalid value "many"; give a whole number from 0 to 1000000`}},
		{"JWT_CACHED_TOKENS=-1", []string{"JWT_CACHED_TOKENS", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"HTTP_ADDR=localhost", []string{"HTTP_ADDR", `invalid address "localhost"; ` + address}},
		{"HTTP_ADDR=8080", []string{"HTTP_ADDR", `invalid address "8080"; ` + address}},
		{"HTTP_ADDR=:99999", []string{"HTTP_ADDR", `invalid address ":99999"; ` + address}},
		{"ADMIN_ADDR=none", []string{"ADMIN_ADDR", `invalid address "none"; ` + address}},
		{"ADMIN_ADDR=127.0.0.1:x", []string{"ADMIN_ADDR", `invalid address "127.0.0.1:x"; ` + address}},
		{"LOG_LEVEL=loud", []string{"LOG_LEVEL", `invalid value "loud"; give debug or info or warn or error`}},
		{"LOG_FORMAT=xml", []string{"LOG_FORMAT", `invalid value "xml"; give text or json`}},
		{"CORS_ALLOWED_ORIGINS=app.example.com", []string{"CORS_ALLOWED_ORIGINS", `"app.example.com" is no origin; give one like https://app.example.com`}},
		{"CORS_ALLOWED_ORIGINS=https://a.example,https://b.example/", []string{"CORS_ALLOWED_ORIGINS", `"https://b.example/" is no origin; give one like`}},
		{"CORS_ALLOWED_ORIGINS=null", []string{"CORS_ALLOWED_ORIGINS", `"null" is no origin; give one like`}},
		{"SSE_UI=yes", []string{"SSE_UI", `invalid value "yes"; give on or off`}},
		{"SSE_AUTH_COOKIE=a;b", []string{"SSE_AUTH_COOKIE", `"a;b" cannot be a cookie's name; give one`}},
		{"TLS_CERT_FILE=" + certFile, []string{"TLS_CERT_FILE", "TLS_KEY_FILE", "set both or neither"}},
		{"TLS_KEY_FILE=" + keyFile, []string{"TLS_CERT_FILE", "TLS_KEY_FILE", "set both or neither"}},
		{"TLS_CERT_FILE=" + absent + " TLS_KEY_FILE=" + keyFile, []string{"TLS_CERT_FILE", absent, "PEM"}},
		{"TLS_CERT_FILE=" + certFile + " TLS_KEY_FILE=" + noPEM, []string{"TLS_KEY_FILE", noPEM, "PEM"}},
		{"TLS_CERT_FILE=" + otherCert + " TLS_KEY_FILE=" + keyFile, []string{"TLS_CERT_FILE", "TLS_KEY_FILE", "does not match"}},
		{"JWT_SECRET=", []string{"JWT_SECRET", "JWT_JWKS_URL"}},
		{"JWT_SECRET=hush-0123456789-0123456789-0123", []string{"JWT_SECRET", "31 bytes, and HS256 needs at least 32"}},
		{"JWT_SECRET=changeme-changeme-changeme-changeme", []string{"JWT_SECRET", "placeholder"}},
		{"JWT_SECRET_PREVIOUS=hush", []string{"JWT_SECRET_PREVIOUS", "4 bytes, and HS256 needs at least 32"}},
		{"JWT_SECRET= JWT_SECRET_PREVIOUS=" + harness.JWTSecret, []string{"JWT_SECRET"}},
		{jwks, []string{"JWT_ISSUER and JWT_AUDIENCE are required with JWT_JWKS_URL"}},
		{jwks + " JWT_ISSUER=https://issuer.example", []string{"JWT_AUDIENCE"}},
		{jwks + " JWT_AUDIENCE=auditstream", []string{"JWT_ISSUER"}},
		{"JWT_JWKS_URL=http://issuer.example/jwks JWT_ISSUER=i JWT_AUDIENCE=a", []string{"JWT_JWKS_URL", `invalid URL "http://issuer.example/jwks"; give an https URL`}},
		{"JWT_JWKS_URL=keys.json JWT_ISSUER=i JWT_AUDIENCE=a", []string{"JWT_JWKS_URL", `invalid URL "keys.json"; give an https URL`}},
		{"DATABASE_URL=", []string{"DATABASE_URL is not set"}},
		{"DATABASE_URL=mysql://user:hush-password@127.0.0.1:1/none", []string{"DATABASE_URL", "give one like postgres://user:password@host:5432/database"}},
		{"DATABASE_URL=postgres://user:hush-password@127.0.0.1:port/none", []string{"DATABASE_URL", "give one like postgres://user:password@host:5432/database"}},
		{"DATABASE_LISTEN_URL=postgres://user:hush-password@127.0.0.1:port/none", []string{"DATABASE_LISTEN_URL", "give one like postgres://user:password@host:5432/database"}},
	} {
		t.Run(strings.ReplaceAll(tt.env, "/", "_"), func(t *testing.T) {
			t.Parallel()
			env := append([]string{nowhere, "JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0"}, strings.Fields(tt.env)...)
			message := wantUsage(t, env, []string{"serve"}, tt.want...)
			for _, private := range []string{"hush", harness.JWTSecret} {
				if strings.Contains(message, private) {
					t.Errorf("the message tells a secret: %s", message)
				}
			}
		})
	}
	t.Run("as a flag", func(t *testing.T) {
		t.Parallel()
		wantUsage(t, []string{nowhere, "JWT_SECRET=" + harness.JWTSecret}, []string{"serve", "--sse-max-duration=0"}, "--sse-max-duration", `invalid value "0"; give `+seconds)
	})
}

func TestAPIConfigurationIsAccepted(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	// Compose files pass on what is not set as empty; blanks around a number come from them, too. A flag beats its variable.
	i := harness.Serve(t, db.Serve, "SSE_MAX_DURATION=", "SSE_SOURCE=DB", "SSE_RETRY_MS= 750 ", "LOG_LEVEL=DEBUG", "CORS_ALLOWED_ORIGINS=*",
		"JWT_ISSUER=", "SSE_MAX_STREAMS=0", "DATABASE_LISTEN_URL=", "SSE_AUTH_COOKIE=")
	s := i.Watch(t, "1", harness.AliceToken(t), "Origin", "https://anywhere.example")
	s.WantSoFar(t, strings.Replace(harness.FirstEvent, "retry: 5000", "retry: 750", 1))
	s.Cancel()
	if got := s.Response.Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin: %s, want *", got)
	}
}

// Half of the processors are left to PostgreSQL, unless the operator says otherwise.
func TestAPIProcessors(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	const used = "go_sched_gomaxprocs_threads"
	half := float64((runtime.NumCPU() + 1) / 2)
	if got := harness.Serve(t, db.Serve).Metric(t, used); got > half || got < 1 { // a container's limit may leave fewer
		t.Errorf("uses %v processors, want %v", got, half)
	}
	if got := harness.Serve(t, db.Serve, "GOMAXPROCS=3").Metric(t, used); got != 3 {
		t.Errorf("uses %v processors, want the 3 of GOMAXPROCS", got)
	}
}

func TestAPIStartFails(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	fails := func(t *testing.T, env []string, want ...string) {
		t.Helper()
		env = append([]string{"JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0"}, env...)
		code, stdout, stderr := harness.TryCommand(t, env, "serve")
		if code != 1 || stdout != "" {
			t.Errorf("exit status %d, output %q, want 1 and none", code, stdout)
		}
		for _, w := range want {
			if !strings.Contains(stderr, w) {
				t.Errorf("message\n%s\ndoes not say %s", stderr, w)
			}
		}
		for _, private := range []string{"hush", "serve-password", harness.JWTSecret} {
			if strings.Contains(stderr, private) {
				t.Errorf("the message tells a secret: %s", stderr)
			}
		}
	}
	u, err := url.Parse(db.Serve)
	harness.NoError(t, err)
	t.Run("wrong password", func(t *testing.T) {
		wrong := *u
		wrong.User = url.UserPassword(harness.ServeRole, "hush")
		fails(t, []string{"DATABASE_URL=" + wrong.String()}, "DATABASE_URL", "password")
	})
	t.Run("no such database", func(t *testing.T) {
		wrong := *u
		wrong.Path = "/no_such_database"
		fails(t, []string{"DATABASE_URL=" + wrong.String()}, "the database's name in DATABASE_URL", "does not exist") // which the log does not name
	})
	t.Run("port taken", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		harness.NoError(t, err)
		defer taken.Close()
		addr := taken.Addr().String()
		fails(t, []string{"DATABASE_URL=" + db.Serve, "HTTP_ADDR=" + addr}, "HTTP_ADDR", addr, "address already in use")
		fails(t, []string{"DATABASE_URL=" + db.Serve, "ADMIN_ADDR=" + addr}, "ADMIN_ADDR", addr, "address already in use")
	})
}

// Nothing is installed yet, and the role has no rights: serve starts, says what is missing, and heals.
func TestAPIServeBeforeInstall(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t)
	i := harness.Serve(t, admin)
	if got := i.WaitLog(t, "the database cannot be read yet, trying again")["error"]; !strings.Contains(got.(string), "run auditstream install") {
		t.Errorf("log: %v, want what to do", got)
	}
	if ready := i.Ask(t, "GET", "/readyz"); ready.Status != 503 {
		t.Errorf("/readyz: %d, want 503", ready.Status)
	}
	db := harness.Adopt(t, admin)
	i.WaitReady(t, "up")
	db.Insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")
	s := i.Watch(t, "1", harness.AliceToken(t))
	s.WantSoFar(t, harness.FirstEvent)
	s.Cancel()
}
