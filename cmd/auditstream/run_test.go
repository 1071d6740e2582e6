package main

import (
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	type test struct {
		args []string
		want string
	}
	testkit.Each(t, map[string]test{
		"unknown command": {[]string{"serv"}, "serv"},
		"unknown flag":    {[]string{"serve", "--http-adr=:1"}, "--http-adr"},
		"no database":     {[]string{"serve"}, "DATABASE_URL is not set"},
		"install without": {[]string{"install"}, "DATABASE_URL is not set"},
		"column":          {[]string{"install", "--database-url=postgres://127.0.0.1:1/x", "--column=error"}, `--column="error" has no equals sign; give OURS=THEIRS`},
		"column twice": {
			[]string{"install", "--database-url=postgres://127.0.0.1:1/x", "--column=error=a", "--column=error=b"}, "maps error a second time; give each column once",
		},
		"token without key":  {[]string{"token", "--sub=a"}, "JWT_SECRET is not set"},
		"token, short key":   {[]string{"token", "--sub=a", "--jwt-secret=short"}, "5 bytes are not enough"},
		"token for nobody":   {[]string{"token", "--jwt-secret=" + testSecret}, "--sub USER or --email ADDRESS"},
		"token without time": {[]string{"token", "--jwt-secret=" + testSecret, "--sub=a", "--ttl=0s"}, "--ttl=0s is not in the future; give"},
		"dev address":        {[]string{"dev", "--http-addr=nowhere"}, "HTTP_ADDR (--http-addr): cannot listen on nowhere"},
		"dev directory":      {[]string{"dev", "--dir="}, `--dir="" names no directory; give one`},
	}, func(t *testing.T, _ string, c test) {
		got := command(t, c.args...).want(t, exitUsage)
		mustContain(t, got.stderr, c.want)
		mustNotContain(t, got.stderr, testSecret)
		testkit.Equal(t, got.out, "", "standard output")
	})
}

// auditstream help was an unexpected argument.
func TestHelpIsACommand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"install"}} {
		want := command(t, append(args, "--help")...).want(t, exitDone).out
		mustContain(t, want, "Usage: auditstream")
		testkit.Equal(t, command(t, append([]string{"help"}, args...)...).want(t, exitDone).out, want, "help of "+strings.Join(args, " "))
	}
	command(t, "help", "nothing").want(t, exitUsage)
}

// TestInvalidVariable is not parallel: it sets the environment.
func TestInvalidVariable(t *testing.T) {
	cases := []struct{ name, value, allowed string }{
		{"SSE_SOURCE", "kafka", "; give db"},
		{"SSE_MAX_DURATION", "abc", "; give a whole number from 1 to 604800"},
		{"SSE_MAX_DURATION", "0", "; give a whole number from 1 to 604800"},
		{"SSE_MAX_DURATION", "604801", "; give a whole number from 1 to 604800"},
		{"SSE_HEARTBEAT_SECONDS", "-1", "; give a whole number from 1 to 3600"},
		{"SSE_FALLBACK_DB_INTERVAL_SECONDS", "3601", "; give a whole number from 1 to 3600"},
		{"SSE_RETRY_MS", "1.5", "; give a whole number from 1 to 3600000"},
		{"SSE_MAX_STREAMS", "-1", "; give a whole number from 0 to 1000000"},
		{"SSE_MAX_STREAMS_PER_USER", "many", "; give a whole number from 0 to 1000000"},
		{"LOG_LEVEL", "loud", "warn"},
		{"LOG_FORMAT", "xml", "json"},
		{"CORS_ALLOWED_ORIGINS", "example.com", "is no origin; give one like https://app.example.com"},
		{"CORS_ALLOWED_ORIGINS", "https://example.com/path", "is no origin; give one like https://app.example.com"},
		{"JWT_JWKS_URL", "http://example.com/keys", "; give an https URL"},
	}
	for _, c := range cases {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			t.Setenv("DATABASE_URL", "postgres://127.0.0.1:1/x")
			t.Setenv("JWT_SECRET", testSecret)
			t.Setenv(c.name, c.value)
			got := command(t, "serve").want(t, exitUsage)
			mustContain(t, got.stderr, c.name, c.value, c.allowed)
		})
	}
}

// TestInvalidSecretIsNotShown is not parallel: it sets the environment.
func TestInvalidSecretIsNotShown(t *testing.T) {
	const password = "geheimnis"
	cases := []struct{ name, value, want string }{
		{"DATABASE_URL", "postgres://u:" + password + "@127.0.0.1:port/x", "give one like postgres://user:password@host:5432/database"},
		{"DATABASE_URL", password, "give one like postgres://user:password@host:5432/database"},
		{"DATABASE_URL", "postgres://u:" + password + "@127.0.0.1:1/x?pool_max_conns=many", "pool"},
		{"DATABASE_LISTEN_URL", "postgres://u:" + password + "@127.0.0.1:port/x", "give one like postgres://user:password@host:5432/database"},
		{"JWT_SECRET", password, "at least 32"},
		{"JWT_SECRET_PREVIOUS", password, "at least 32"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("DATABASE_URL", "postgres://127.0.0.1:1/x")
			t.Setenv("JWT_SECRET", testSecret)
			t.Setenv(c.name, c.value)
			got := command(t, "serve").want(t, exitUsage)
			mustContain(t, got.stderr, c.name, c.want)
			mustNotContain(t, got.stderr, password)
			mustNotContain(t, command(t, "doctor").want(t, exitFailed).out, password)
		})
	}
}

// A key of bytes that are no UTF-8 became one of replacement characters: other tokens were refused, and those of anybody who
// guessed it accepted. It is not parallel: it sets the environment.
func TestKeyOfAnyBytesIsTakenAsItIs(t *testing.T) {
	key := strings.Repeat("\xff\xfe\x80\x01", 8)
	t.Setenv("JWT_SECRET", key)
	got := command(t, "token", "--sub=alice").want(t, exitDone)
	if _, err := jwt.Parse(strings.TrimSpace(got.out), func(*jwt.Token) (any, error) { return []byte(key), nil }); err != nil {
		t.Error(err)
	}
	t.Setenv("JWT_SECRET", "\xff\xfe\x80\x01\xff\xfe\x80\x01\xff\xfe\x80")
	mustContain(t, command(t, "token", "--sub=alice").want(t, exitUsage).stderr, "11 bytes are not enough")
}

// TestEmptyVariableIsNone is not parallel: it sets the environment.
func TestEmptyVariableIsNone(t *testing.T) {
	t.Setenv("SSE_MAX_DURATION", "")
	t.Setenv("DATABASE_URL", "")
	mustContain(t, command(t, "serve").want(t, exitUsage).stderr, "DATABASE_URL is not set")
}

// TestUnreachableDatabase: a password is in no error either when the URL is right and the server is not there.
func TestUnreachableDatabase(t *testing.T) {
	t.Parallel()
	got := command(t, "install", "--database-url=postgres://u:geheimnis@127.0.0.1:1/x").want(t, exitFailed)
	mustContain(t, got.stderr, "cannot connect to the database (DATABASE_URL)")
	mustNotContain(t, got.stderr, "geheimnis")
}

func TestToken(t *testing.T) {
	t.Parallel()
	got := command(t, "token", "--jwt-secret="+testSecret, "--sub=alice", "--email=a@example.com", "--jwt-issuer=me", "--jwt-audience=you", "--ttl=2h").
		want(t, exitDone)
	var claims jwt.MapClaims
	_, err := jwt.ParseWithClaims(strings.TrimSpace(got.out), &claims, func(*jwt.Token) (any, error) { return []byte(testSecret), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer("me"), jwt.WithAudience("you"), jwt.WithSubject("alice"))
	testkit.NoError(t, err)
	if claims["email"] != "a@example.com" {
		t.Errorf("email: %v", claims["email"])
	}
	exp, err := claims.GetExpirationTime()
	testkit.NoError(t, err)
	if left := time.Until(exp.Time); left < 119*time.Minute || left > 120*time.Minute {
		t.Errorf("expires in %v, want 2h", left)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	mustContain(t, command(t, "version").want(t, exitDone).out, "auditstream ", "go1.")
}

func TestInstallAndUninstall(t *testing.T) {
	t.Parallel()
	db := "--database-url=" + pgtest.New(t)
	dry := command(t, "install", db, "--create", "--dry-run").want(t, exitDone)
	mustContain(t, dry.out, "create or replace view auditstream.progress")
	mustContain(t, command(t, "install", db).want(t, exitFailed).stderr, "public.audits") // nothing was made
	mustContain(t, command(t, "install", db, "--create").want(t, exitDone).out, "Installed on", "auditstream serve", "/api/v1/sse/audits/KEY/progress")
	mustContain(t, command(t, "install", db).want(t, exitDone).out, "nothing to change")
	mustContain(t, command(t, "uninstall", db).want(t, exitDone).out, "Uninstalled")
	mustContain(t, command(t, "uninstall", db).want(t, exitDone).out, "nothing to change")
}
