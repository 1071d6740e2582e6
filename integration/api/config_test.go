package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/integration/harness"
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
	harness.WantIn(t, stderr, want...)
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
		{"REDIS_URL=http://user:hush-password@127.0.0.1", []string{"REDIS_URL", "give one like redis://user:password@host:6379/0"}},
		{"REDIS_URL=redis://127.0.0.1/0?password=hush-password", []string{"REDIS_URL", "only db is allowed"}},
		{"REDIS_RELAY=off", []string{"REDIS_RELAY", `invalid value "off"; give auto or on`}},
		{"SSE_MAX_DURATION=1h", []string{"SSE_MAX_DURATION", `invalid value "1h"; give ` + seconds}},
		{"SSE_MAX_DURATION=99999999999999999999", []string{"SSE_MAX_DURATION", `invalid value "99999999999999999999"; give ` + seconds}},
		{"SSE_HEARTBEAT_SECONDS=abc", []string{"SSE_HEARTBEAT_SECONDS", `invalid value "abc"; give ` + seconds}},
		{"SSE_FALLBACK_DB_INTERVAL_SECONDS=0", []string{"SSE_FALLBACK_DB_INTERVAL_SECONDS", `invalid value "0"; give ` + seconds}},
		{"SSE_MAX_REFUSED_PER_USER=-1", []string{"SSE_MAX_REFUSED_PER_USER", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"HTTP_MAX_REFUSED_PER_ADDRESS=-1", []string{"HTTP_MAX_REFUSED_PER_ADDRESS", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"GOMAXPROCS=none", []string{"GOMAXPROCS", `invalid value "none"; give a whole number from 0 to 1024`}},
		{"JWT_CACHED_TOKENS=-1", []string{"JWT_CACHED_TOKENS", `invalid value "-1"; give a whole number from 0 to 1000000`}},
		{"HTTP_ADDR=8080", []string{"HTTP_ADDR", `invalid address "8080"; ` + address}},
		{"HTTP_ADDR=:99999", []string{"HTTP_ADDR", `invalid address ":99999"; ` + address}},
		{"ADMIN_ADDR=127.0.0.1:x", []string{"ADMIN_ADDR", `invalid address "127.0.0.1:x"; ` + address}},
		{"CORS_ALLOWED_ORIGINS=https://a.example,https://b.example/", []string{"CORS_ALLOWED_ORIGINS", `"https://b.example/" is no origin; give one like`}},
		{"SSE_UI=yes", []string{"SSE_UI", `invalid value "yes"; give on or off`}},
		{"SSE_AUTH_COOKIE=a;b", []string{"SSE_AUTH_COOKIE", `"a;b" cannot be a cookie's name; give one`}},
		{"TLS_CERT_FILE=" + certFile, []string{"TLS_CERT_FILE", "TLS_KEY_FILE", "set both or neither"}},
		{"TLS_KEY_FILE=" + keyFile, []string{"TLS_CERT_FILE", "TLS_KEY_FILE", "set both or neither"}},
		{"TLS_CERT_FILE=" + absent + " TLS_KEY_FILE=" + keyFile, []string{"TLS_CERT_FILE", absent, "PEM"}},
		{"TLS_CERT_FILE=" + certFile + " TLS_KEY_FILE=" + noPEM, []string{"TLS_KEY_FILE", noPEM, "PEM"}},
		{"TLS_CERT_FILE=" + otherCert + " TLS_KEY_FILE=" + keyFile, []string{"TLS_CERT_FILE", "TLS_KEY_FILE", "does not match"}},
		{"JWT_SECRET=", []string{"JWT_SECRET", "JWT_JWKS_URL"}},
		{"JWT_SECRET= JWT_SECRET_PREVIOUS=" + harness.JWTSecret, []string{"JWT_SECRET"}},
		{jwks, []string{"JWT_ISSUER and JWT_AUDIENCE are required with JWT_JWKS_URL"}},
		{jwks + " JWT_ISSUER=https://issuer.example", []string{"JWT_AUDIENCE"}},
		{jwks + " JWT_AUDIENCE=auditstream", []string{"JWT_ISSUER"}},
		{"JWT_JWKS_URL=keys.json JWT_ISSUER=i JWT_AUDIENCE=a", []string{"JWT_JWKS_URL", `invalid URL "keys.json"; give an https URL`}},
		{"DATABASE_URL=mysql://user:hush-password@127.0.0.1:1/none", []string{"DATABASE_URL", "give one like postgres://user:password@host:5432/database"}},
	} {
		t.Run(strings.ReplaceAll(tt.env, "/", "_"), func(t *testing.T) {
			t.Parallel()
			env := append([]string{nowhere, "JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0"}, strings.Fields(tt.env)...)
			message := wantUsage(t, env, []string{"serve"}, tt.want...)
			harness.WantNoneIn(t, message, "hush", harness.JWTSecret)
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
	i := harness.Serve(t, "postgres://nobody@127.0.0.1:1/none", "--database-url="+db.Serve, "SSE_MAX_DURATION=", "SSE_SOURCE=DB", "SSE_RETRY_MS= 750 ",
		"LOG_LEVEL=DEBUG", "CORS_ALLOWED_ORIGINS=*", "JWT_ISSUER=", "SSE_MAX_STREAMS=0", "DATABASE_LISTEN_URL=", "SSE_AUTH_COOKIE=", "GOMAXPROCS=3")
	i.WantMetric(t, "go_sched_gomaxprocs_threads", 3) // which is half of the processors where nothing is said
	s := i.Watch(t, "1", harness.AliceToken(t), "Origin", "https://anywhere.example")
	s.WantSoFar(t, strings.Replace(harness.FirstEvent, "retry: 5000", "retry: 750", 1))
	s.Cancel()
	harness.Equal(t, s.Response.Header.Get("Access-Control-Allow-Origin"), "*", "Access-Control-Allow-Origin")
}
