package main

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"auditstream/internal/server"
	"auditstream/internal/testkit"
)

// configure reads serve's configuration from the environment and the arguments and checks all of it, without touching the
// network. It returns what would be used, or the message, and what was logged meanwhile.
func configure(t testing.TB, args ...string) (c *serveCmd, message, log string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that no key set is fetched
	var commands cli
	var out bytes.Buffer
	parser, err := newParser(ctx, &commands, streams{&out, &out}, func(int) { t.Error("the parser ends the program") })
	testkit.NoError(t, err)
	dropEmptyEnv()
	if _, err := parser.Parse(append([]string{"serve"}, args...)); err != nil {
		return nil, err.Error(), out.String()
	}
	c = &commands.Serve
	cfg := c.server()
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	cfg.Hub, cfg.Ping, cfg.Listening = nobody{}, func(context.Context) error { return nil }, func() bool { return false }
	for _, check := range []func() error{
		c.databaseFlags.check,
		func() error { _, err := poolConfig(c.DatabaseURL); return err },
		func() error {
			_, err := parseDatabaseURL("DATABASE_LISTEN_URL", cmp.Or(c.DatabaseListenURL, c.DatabaseURL))
			return err
		},
		func() error { _, err := c.redisFlags.options(); return err },
		func() error { _, err := server.New(ctx, cfg); return err },
	} {
		if err := check(); err != nil {
			return nil, err.Error(), out.String()
		}
	}
	return c, "", out.String()
}

type nobody struct{ server.Hub }

// variables returns all variables that serve reads, so that no test can miss one, and their defaults.
func variables(t testing.TB) (names []string, defaults map[string]string) {
	t.Helper()
	parser, err := newParser(t.Context(), new(cli), streams{os.Stdout, os.Stderr}, func(int) {})
	testkit.NoError(t, err)
	defaults = map[string]string{}
	for _, command := range parser.Model.Children {
		for _, flag := range command.Flags {
			for _, name := range flag.Envs {
				if command.Name == "serve" {
					names, defaults[name] = append(names, name), flag.Default
				}
			}
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %q", names)
	}
	return names, defaults
}

var (
	cookieName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	password   = regexp.MustCompile(`:([^:/?#@]{6,})@`)
	hidden     = []string{"DATABASE_URL", "DATABASE_LISTEN_URL", "REDIS_URL", "JWT_SECRET", "JWT_SECRET_PREVIOUS"}
)

// usable checks the documented values of each variable, with code of its own.
func usable(c *serveCmd, name, value string) bool {
	between := func(n, least, most int) bool { return n >= least && n <= most }
	lasts := func(d time.Duration, unit time.Duration, most int64) bool {
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		return err == nil && n >= 1 && n <= most && d == time.Duration(n)*unit
	}
	address := func(addr string) bool {
		_, port, err := net.SplitHostPort(addr)
		return addr == "" || err == nil && port != "" // nothing is the same as none
	}
	const million = 1_000_000
	if valid, ok := map[string]bool{
		"SSE_MAX_DURATION":                 lasts(time.Duration(c.SSEMaxDuration), time.Second, 604800),
		"SSE_HEARTBEAT_SECONDS":            lasts(time.Duration(c.SSEHeartbeat), time.Second, 3600),
		"SSE_FALLBACK_DB_INTERVAL_SECONDS": lasts(time.Duration(c.SSEFallbackDBInterval), time.Second, 3600),
		"SSE_RETRY_MS":                     lasts(time.Duration(c.SSERetry), time.Millisecond, 3600000),
		"SSE_MAX_ROW_BYTES":                between(int(c.SSEMaxRowBytes), 1000, 64<<20),
		"SSE_MAX_STREAMS":                  between(int(c.SSEMaxStreams), 0, million),
		"SSE_MAX_STREAMS_PER_USER":         between(int(c.SSEMaxStreamsPerUser), 0, million),
		"SSE_MAX_REFUSED_PER_USER":         between(int(c.SSEMaxRefusedPerUser), 0, million),
		"HTTP_MAX_REFUSED_PER_ADDRESS":     between(int(c.HTTPMaxRefusedPerAddr), 0, million),
		"GOMAXPROCS":                       between(int(c.Processors), 0, 1024),
		"SSE_SOURCE":                       c.SSESource == "db" || c.SSESource == "redis",
		"REDIS_RELAY":                      c.RedisRelay == "auto" || c.RedisRelay == "on",
		"ACCESS_LOG":                       c.AccessLog == "on" || c.AccessLog == "off",
		"SSE_UI":                           c.SSEUI == "on" || c.SSEUI == "off",
		"LOG_FORMAT":                       c.LogFormat == "text" || c.LogFormat == "json",
		"HTTP_ADDR":                        address(c.HTTPAddr),
		"ADMIN_ADDR":                       c.AdminAddr == "off" || address(c.AdminAddr),
		"SSE_AUTH_COOKIE":                  cookieName.MatchString(c.SSEAuthCookie),
		"JWT_SECRET":                       len(c.JWTSecret) >= 32 && c.JWTSecret == value,
		"AUDITSTREAM_INSTALL":              string(c.Install) == strings.TrimSpace(value) && c.Install != "",
	}[name]; ok {
		return valid
	}
	switch name {
	case "REDIS_URL":
		u, err := url.Parse(value)
		return err == nil && (u.Scheme == "redis" || u.Scheme == "rediss" || u.Scheme == "unix")
	case "LOG_LEVEL":
		return slices.Contains([]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}, slog.Level(c.LogLevel))
	case "AUDITSTREAM_ENV_FILE": // as a flag, empty is none
		_, err := os.Stat(strings.TrimSpace(value))
		return value == "" || err == nil
	case "CORS_ALLOWED_ORIGINS":
		return !slices.ContainsFunc(c.CORSAllowedOrigins, func(origin string) bool {
			u, err := url.Parse(origin)
			return origin != "*" && (err != nil || u.Hostname() == "" || u.Path+u.RawQuery+u.Fragment != "" || u.User != nil)
		})
	case "JWT_SECRET_PREVIOUS":
		return c.JWTSecretPrevious == "" && strings.TrimSpace(value) == "" || len(c.JWTSecretPrevious) >= 32 && c.JWTSecretPrevious == value
	case "JWT_JWKS_URL":
		u, err := url.Parse(value)
		return err == nil && u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http")
	case "DATABASE_URL":
		cfg, err := poolConfig(value)
		return err == nil && strings.TrimSpace(value) != "" && cfg.HealthCheckPeriod > 0 && cfg.MinConns >= 0 && cfg.MinConns <= cfg.MaxConns
	case "DATABASE_LISTEN_URL":
		if value == "" {
			return c.DatabaseListenURL == "" // nothing is the same as none
		}
		cfg, err := parseDatabaseURL(name, value)
		return err == nil && !slices.ContainsFunc(slices.Collect(maps.Keys(cfg.RuntimeParams)), func(key string) bool { return strings.HasPrefix(key, "pool_") })
	case "TLS_CERT_FILE", "TLS_KEY_FILE":
		return false // nobody's files are a certificate and its key
	}
	return true // any text
}

// Whatever a variable, or its flag, is set to: either the configuration is usable, or one line names the variable, shows
// the value unless it is secret, and says what is allowed.
func FuzzVariable(f *testing.F) {
	names, _ := variables(f)
	for i, name := range names {
		for _, value := range []string{"", " ", "0", "1", "-1", "+1", "1e3", "99999999999999999999", "\n", "a\nb", "é", "@x", "${HOME}", "--help", "a,b", `\`, "off", strings.Repeat("9", 300)} {
			f.Add(byte(i), value, false)
		}
		for _, value := range map[string][]string{
			"DATABASE_URL": {"postgres://user:hush-password@127.0.0.1:1/none?pool_health_check_period=0s", "postgres://user:hush-password@127.0.0.1:1/none?pool_min_conns=-1",
				"postgres://user:hush-password@127.0.0.1:1/none?pool_max_conns=0", "postgres://user:hush-password@127.0.0.1:1/none?pool_min_conns=2147483647", "host=127.0.0.1 password=hush-password port=x"},
			"DATABASE_LISTEN_URL":  {"postgres://user:hush-password@127.0.0.1:port/none"},
			"REDIS_URL":            {"redis://user:hush-password@127.0.0.1:port/0", "rediss://user:hush-password@127.0.0.1/0?pool_size=-1", "redis://user:hush-password@127.0.0.1/x", "http://user:hush-password@127.0.0.1"},
			"JWT_SECRET":           {"hush-password-too-short", "changeme-changeme-changeme-changeme", strings.Repeat("é", 16), strings.Repeat("\xff\xfe", 16), strings.Repeat("\xff", 11)},
			"JWT_SECRET_PREVIOUS":  {"hush-password-too-short", strings.Repeat("p", 32)},
			"JWT_JWKS_URL":         {"https://user:hush-password@id.example#x", "user:hush-password@id.example/keys", "https//user:hush-password@id.example", "https://:443/", "https://id.example:99999/", "http://127.0.0.1/", "https://id.example/%zz"},
			"HTTP_ADDR":            {":", "localhost:", ":http", "[::1]:80", "a b:80", ":-1", "x:65536"},
			"ADMIN_ADDR":           {":", "off", "OFF"},
			"CORS_ALLOWED_ORIGINS": {"*", "https://a.example, https://b.example", ",", "https://:80", "https://a@b", "HTTPS://a.example", "https://a.example\n"},
			"SSE_AUTH_COOKIE":      {"session", "__Host-session", "a b", "a;b"},
			"TLS_CERT_FILE":        {"/no/such\nfile", "."},
			"LOG_LEVEL":            {"WARN", "info "},
		}[name] {
			f.Add(byte(i), value, true)
			f.Add(byte(i), value, false)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, value string, asFlag bool) {
		name := names[int(which)%len(names)]
		if strings.ContainsRune(value, 0) || strings.Contains(value, "/dev/") || strings.Contains(value, "/proc/") {
			return // no environment holds a NUL; a device is a file without an end
		}
		for other, good := range map[string]string{
			"DATABASE_URL": "postgres://user:base-password@127.0.0.1:1/none", "JWT_SECRET": testSecret, "JWT_ISSUER": "iss", "JWT_AUDIENCE": "aud",
		} {
			t.Setenv(other, good)
		}
		var args []string
		spelled := "--" + strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(name), "auditstream_"), "_", "-")
		t.Setenv(name, value)
		if asFlag {
			args = []string{spelled + "=" + value}
		}
		c, message, log := configure(t, args...)
		tells := func(text, secret string) bool { return len(secret) >= 6 && strings.Contains(text, secret) }
		if slices.Contains(hidden, name) && tells(message+log, value) {
			if _, fixed, _ := configure(t, spelled+"=mysql://none"); !strings.Contains(fixed, value) {
				t.Errorf("%s=%q: the message or the log tells it: %s%s", name, value, message, log)
			}
		}
		if found := password.FindStringSubmatch(value); found != nil && name == "JWT_JWKS_URL" && tells(message+log, found[1]) {
			t.Errorf("%s=%q: the message or the log tells the password: %s%s", name, value, message, log)
		}
		if message == "" {
			if (value != "" || asFlag) && !usable(c, name, value) {
				t.Errorf("%s=%q (flag: %v): accepted", name, value, asFlag)
			}
			return
		}
		if strings.ContainsFunc(message, unicode.IsControl) {
			t.Errorf("%s=%q: a message of several lines: %q", name, value, message)
		}
		if !strings.Contains(message, name) && !strings.Contains(message, spelled) {
			t.Errorf("%s=%q: the message does not name it: %s", name, value, message)
		}
		if !regexp.MustCompile(`is allowed|are allowed|is required|are required|set both|set JWT|at least|make one|are, for|; give `).MatchString(message) {
			t.Errorf("%s=%q: the message does not say what is allowed: %s", name, value, message)
		}
		// kong reads the elements of a list by way of JSON, which shows bytes that are no text as U+FFFD.
		shown := !utf8.ValidString(value) || slices.ContainsFunc(append(strings.Split(value, ","), value, strings.TrimSpace(value)), func(part string) bool {
			return strings.Contains(message, strconv.Quote(part))
		})
		if !shown && !slices.Contains(hidden, name) && !strings.Contains(message, "not shown") && !strings.Contains(message, "set both") && !strings.Contains(value, `\`) && !strings.Contains(value, ":") {
			t.Errorf("%s=%q: the message does not show it: %s", name, value, message)
		}
	})
}
