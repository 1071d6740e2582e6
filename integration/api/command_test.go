package api

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"
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
			harness.WantIn(t, stdout, tt.want...)
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
		{"uninstall", nil, []string{"DATABASE_URL is not set"}},
		{"install --column id --status x", []string{nowhere}, []string{"--column=\"id\" has no equals sign; give OURS=THEIRS, like error=failure_reason\ninvalid --status \"x\": want WORD=SHOWN"}},
		{"install --lock-wait=soon", []string{nowhere}, []string{"--lock-wait"}},
		{"token --sub alice --ttl=long", []string{"JWT_SECRET=" + harness.JWTSecret}, []string{"--ttl"}},
	} {
		t.Run(fmt.Sprint(tt.args, len(tt.env)), func(t *testing.T) {
			t.Parallel()
			wantUsage(t, tt.env, strings.Fields(tt.args), tt.want...)
		})
	}
}
