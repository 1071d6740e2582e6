package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"auditstream/internal/server"

	"github.com/alecthomas/kong"
)

// The flags that commands share. Each flag is also an environment variable: its name in capitals.

type databaseFlags struct {
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"PostgreSQL 14 or later: postgres://user:password@host:5432/database. Required. It may lead through a pooler."`
}

func (f databaseFlags) check() error {
	if f.DatabaseURL == "" {
		return usageError{fmt.Errorf("DATABASE_URL is not set: a connection string like postgres://user:password@host:5432/database is required (to try auditstream without a database: auditstream dev)")}
	}
	return nil
}

type listenFlags struct {
	DatabaseListenURL string `env:"DATABASE_LISTEN_URL" placeholder:"URL" help:"A direct connection for LISTEN and for the locks, when DATABASE_URL leads through a transaction pooler. Default: DATABASE_URL."`
}

type authFlags struct {
	JWTSecret         string `name:"jwt-secret" env:"JWT_SECRET" placeholder:"KEY" help:"Key of HS256 tokens, 32 bytes at least. Prefer the variable: other users of the machine see flags."`
	JWTSecretPrevious string `name:"jwt-secret-previous" env:"JWT_SECRET_PREVIOUS" placeholder:"KEY" help:"The key before, while keys are being changed."`
	JWTJWKSURL        string `name:"jwt-jwks-url" env:"JWT_JWKS_URL" placeholder:"URL" help:"Where the keys of RS256 and ES256 tokens are. Needs JWT_ISSUER and JWT_AUDIENCE."`
	JWTIssuer         string `name:"jwt-issuer" env:"JWT_ISSUER" placeholder:"ISS" help:"The iss claim that tokens must have."`
	JWTAudience       string `name:"jwt-audience" env:"JWT_AUDIENCE" placeholder:"AUD" help:"The aud claim that tokens must have."`
	JWTAudienceClaim  string `name:"jwt-audience-claim" env:"JWT_AUDIENCE_CLAIM" default:"aud" help:"The claim that JWT_AUDIENCE is compared with instead, for issuers whose tokens have no aud: aud, client_id or azp."`
	JWTUserClaim      string `name:"jwt-user-claim" env:"JWT_USER_CLAIM" placeholder:"CLAIM" help:"The claim that names the user, exactly as it is written: a text, or a whole number, which counts as its digits. Default: sub, which must be a text."`
	JWTGroupsClaim    string `name:"jwt-groups-claim" env:"JWT_GROUPS_CLAIM" placeholder:"CLAIM" help:"The claim that names the user's groups, a text, a whole number or a list: they see the rows of theirs where a table has been installed with --column group_id=."`
}

func (f authFlags) config() server.AuthConfig {
	return server.AuthConfig{
		Secret: f.JWTSecret, PreviousSecret: f.JWTSecretPrevious,
		JWKSURL: f.JWTJWKSURL, Issuer: f.JWTIssuer, Audience: f.JWTAudience,
		AudienceClaim: f.JWTAudienceClaim, UserClaim: f.JWTUserClaim, GroupsClaim: f.JWTGroupsClaim,
	}
}

// cacheFlags are flags of serve only; doctor and token have authFlags, too.
type cacheFlags struct {
	JWTCachedTokens limit `name:"jwt-cached-tokens" env:"JWT_CACHED_TOKENS" default:"4096" help:"Most tokens that are remembered, by their hash, once they were found valid: until they expire or keys change. 0: each request verifies its token."`
}

type streamFlags struct {
	SSESource             choice       `name:"sse-source" env:"SSE_SOURCE" default:"db" choices:"db redis" help:"Where hints of changes come from: db (LISTEN/NOTIFY), or redis (channels audit.progress.ID). The safety net runs with both."`
	SSEMaxDuration        seconds      `name:"sse-max-duration" env:"SSE_MAX_DURATION" default:"3600" max:"604800" help:"Longest life of a stream, in seconds; after it clients reconnect."`
	SSEHeartbeat          seconds      `name:"sse-heartbeat-seconds" env:"SSE_HEARTBEAT_SECONDS" default:"30" max:"3600" help:"Silence after which a comment is sent, in seconds."`
	SSEFallbackDBInterval seconds      `name:"sse-fallback-db-interval-seconds" env:"SSE_FALLBACK_DB_INTERVAL_SECONDS" default:"10" max:"3600" help:"The safety net: time between reads of all that is watched, in seconds. Whatever was not announced is at most so late."`
	SSERetry              milliseconds `name:"sse-retry-ms" env:"SSE_RETRY_MS" default:"5000" max:"3600000" help:"What clients are told to wait before they reconnect, in milliseconds."`
	SSEPollHot            choice       `name:"sse-poll-hot" env:"SSE_POLL_HOT" default:"on" choices:"on off" help:"While changes are so many that announcing them makes writers wait for each other, read all that is watched on a timer of 50 ms instead: on, or off (each is announced)."`
	SSEHijack             choice       `name:"sse-hijack" env:"SSE_HIJACK" default:"on" choices:"on off" help:"Take streams over plain HTTP/1.1 from Go's HTTP server, which makes them six times smaller: on, or off."`
	SSEMaxRowBytes        rowBytes     `name:"sse-max-row-bytes" env:"SSE_MAX_ROW_BYTES" default:"1048576" help:"Most text that is shown of a row, in bytes, 1000 to 67108864; a longer error or message is cut and ends with an ellipsis."`
	SSEMaxStreams         limit        `name:"sse-max-streams" env:"SSE_MAX_STREAMS" default:"10000" help:"Most open streams; 0: no limit."`
	SSEMaxStreamsPerUser  limit        `name:"sse-max-streams-per-user" env:"SSE_MAX_STREAMS_PER_USER" default:"100" help:"Most open streams of one user; 0: no limit."`
	SSEMaxRefusedPerUser  limit        `name:"sse-max-refused-per-user" env:"SSE_MAX_REFUSED_PER_USER" default:"1200" help:"Audits a minute that one user may ask for and be refused (403, 404), before further requests are told to come back, unread; 0: no limit."`
}

type httpFlags struct {
	HTTPAddr               string   `name:"http-addr" env:"HTTP_ADDR" default:":8080" help:"Address of the API: HOST:PORT or :PORT."`
	AdminAddr              string   `name:"admin-addr" env:"ADMIN_ADDR" default:"127.0.0.1:9090" help:"Address of /metrics and /debug/pprof; off: none."`
	HTTPMaxConnsPerAddress limit    `name:"http-max-connections-per-address" env:"HTTP_MAX_CONNECTIONS_PER_ADDRESS" default:"0" help:"Most open connections of one client address, before any token is looked at; 0: no limit. Leave it at 0 behind a proxy, whose address all clients have."`
	HTTPMaxRefusedPerAddr  limit    `name:"http-max-refused-per-address" env:"HTTP_MAX_REFUSED_PER_ADDRESS" default:"0" help:"Audits a minute that one client address may ask for and be refused; 0: no limit. Leave it at 0 behind a proxy."`
	TLSCertFile            string   `name:"tls-cert-file" env:"TLS_CERT_FILE" placeholder:"FILE" help:"Serve TLS and HTTP/2 directly, with this certificate."`
	TLSKeyFile             string   `name:"tls-key-file" env:"TLS_KEY_FILE" placeholder:"FILE" help:"The certificate's key."`
	SSEAuthCookie          string   `name:"sse-auth-cookie" env:"SSE_AUTH_COOKIE" placeholder:"NAME" help:"Cookie that carries the token, for pages of the same origin."`
	SSEUI                  toggle   `name:"sse-ui" aliases:"ui" env:"SSE_UI" default:"off" help:"Serve the page of dev at /, without its buttons: on, or off. It asks for a token, which stays in the tab."`
	CORSAllowedOrigins     []string `name:"cors-allowed-origins" env:"CORS_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Origins of other pages that may read the streams, comma separated, each exactly as it is, or *."`
}

// processorFlags are flags of serve only.
type processorFlags struct {
	Processors processors `name:"processors" env:"GOMAXPROCS" default:"0" help:"Processors to use; 0: half of those there are, at least one, because threads that wake each other cost more than they save. On a machine of its own with much TLS: all of them."`
}

// accessFlags are flags of serve only.
type accessFlags struct {
	AccessLog toggle `env:"ACCESS_LOG" default:"off" help:"Log each request at its end, or when its stream begins: on, or off."`
}

type logFlags struct {
	LogLevel  level  `env:"LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
	LogFormat choice `env:"LOG_FORMAT" default:"text" choices:"text json" help:"text, or json for machines."`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	logger, _ := f.leveled(w)
	return logger
}

// leveled returns a logger with the variable that holds its level.
func (f logFlags) leveled(w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(slog.Level(f.LogLevel))
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: hideNamesInErrors(level)}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}

// The types below validate their values; their errors say what is allowed.

type seconds time.Duration

func (s *seconds) Decode(ctx *kong.DecodeContext) error {
	n, err := number(ctx, 1, maximum(ctx))
	*s = seconds(time.Duration(n) * time.Second)
	return err
}

type milliseconds time.Duration

func (m *milliseconds) Decode(ctx *kong.DecodeContext) error {
	n, err := number(ctx, 1, maximum(ctx))
	*m = milliseconds(time.Duration(n) * time.Millisecond)
	return err
}

type limit int

func (l *limit) Decode(ctx *kong.DecodeContext) error {
	n, err := number(ctx, 0, 1_000_000)
	*l = limit(n)
	return err
}

// processors has a maximum above the number in any machine, because Go reserves memory for each.
type processors int

func (p *processors) Decode(ctx *kong.DecodeContext) error {
	n, err := number(ctx, 0, 1024)
	*p = processors(n)
	return err
}

// rowBytes is at least the size of an ordinary message, and at most what a browser should get at a time.
type rowBytes int

func (b *rowBytes) Decode(ctx *kong.DecodeContext) error {
	n, err := number(ctx, 1000, 64<<20)
	*b = rowBytes(n)
	return err
}

func maximum(ctx *kong.DecodeContext) int64 {
	n, err := strconv.ParseInt(ctx.Value.Tag.Get("max"), 10, 64)
	if err != nil {
		panic("flag without max: " + ctx.Value.Name) // a mistake in this file, which any test finds
	}
	return n
}

func number(ctx *kong.DecodeContext, low, high int64) (int64, error) {
	text, err := word(ctx)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("invalid value %q; give a whole number from %d to %d", text, low, high)
	}
	return n, nil
}

// choice is one of the words in the flag's tag choices.
type choice string

func (c *choice) Decode(ctx *kong.DecodeContext) error {
	return oneOf(ctx, (*string)(c), strings.Fields(ctx.Value.Tag.Get("choices"))...)
}

// toggle is on or off, and needs no value as a flag.
type toggle string

func (t *toggle) Decode(ctx *kong.DecodeContext) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		*t = "on"
		return nil
	}
	return oneOf(ctx, (*string)(t), "on", "off")
}

// IsBool tells kong that the flag needs no value.
func (*toggle) IsBool() bool { return true }

func oneOf(ctx *kong.DecodeContext, target *string, allowed ...string) error {
	text, err := word(ctx)
	if err != nil {
		return err
	}
	for _, a := range allowed {
		if strings.EqualFold(text, a) {
			*target = a
			return nil
		}
	}
	return fmt.Errorf("invalid value %q; give %s", text, strings.Join(allowed, " or "))
}

type level slog.Level

func (l *level) Decode(ctx *kong.DecodeContext) error {
	var name string
	if err := oneOf(ctx, &name, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return (*slog.Level)(l).UnmarshalText([]byte(name))
}

func word(ctx *kong.DecodeContext) (string, error) {
	text, err := rawText(ctx)
	return strings.TrimSpace(text), err
}

// rawText returns a value byte for byte. kong would pass it through JSON, where every byte that is not UTF-8 becomes the same character: a
// random key would become another key, which is easier to guess.
func rawText(ctx *kong.DecodeContext) (string, error) {
	token, err := ctx.Scan.PopValue("flag")
	if err != nil {
		return "", err
	}
	return fmt.Sprint(token.Value), nil
}

func decodeText(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := rawText(ctx)
	target.SetString(text)
	return err
}

// dropEmptyEnv unsets empty variables, because compose files and unit files pass an unset variable as an empty one.
func dropEmptyEnv() {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" && ourEnv(name) {
			os.Unsetenv(name)
		}
	}
}

func ourEnv(name string) bool {
	for _, prefix := range []string{
		"DATABASE_", "REDIS_", "SSE_", "JWT_", "HTTP_", "ADMIN_ADDR", "TLS_", "CORS_", "LOG_", "ACCESS_LOG",
		"AUDITSTREAM_ENV_FILE", "AUDITSTREAM_INSTALL", "AUDITSTREAM_URL", "AUDITSTREAM_TOKEN", "GOMAXPROCS",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
