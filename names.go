package auditstream

import (
	"context"
	"log/slog"
	"strings"
)

// optionNames replaces the names of the command's variables and flags by those of Options and Table. So each error text is written once,
// in an internal package, and still names the setting that the caller knows. A name that begins with another comes before it.
var optionNames = strings.NewReplacer(
	"SSE_MAX_DURATION", "Options.MaxDuration",
	"SSE_HEARTBEAT_SECONDS", "Options.Heartbeat",
	"SSE_RETRY_MS", "Options.Retry",
	"SSE_FALLBACK_DB_INTERVAL_SECONDS", "Options.PollInterval",
	"SSE_MAX_STREAMS_PER_USER", "Options.MaxStreamsPerUser",
	"SSE_MAX_STREAMS", "Options.MaxStreams",
	"SSE_MAX_REFUSED_PER_USER", "Options.MaxRefusedPerUser",
	"HTTP_MAX_REFUSED_PER_ADDRESS", "Options.MaxRefusedPerAddress",
	"SSE_MAX_ROW_BYTES", "Options.MaxRowBytes",
	"SSE_AUTH_COOKIE", "Options.AuthCookie",
	"CORS_ALLOWED_ORIGINS", "Options.CORSOrigins",
	"DATABASE_LISTEN_URL", "Options.ListenConfig",
	"JWT_SECRET_PREVIOUS", "Options.Auth.PreviousSecret",
	"JWT_SECRET", "Options.Auth.Secret",
	"JWT_JWKS_URL", "Options.Auth.JWKSURL",
	"JWT_ISSUER", "Options.Auth.Issuer",
	"JWT_AUDIENCE_CLAIM", "Options.Auth.AudienceClaim",
	"JWT_AUDIENCE", "Options.Auth.Audience",
	"JWT_USER_CLAIM", "Options.Auth.UserClaim",
	"JWT_GROUPS_CLAIM", "Options.Auth.GroupsClaim",

	"--column", "Table.Columns:",
	"--status", "Table.Status:",
	"--ends", "Table.Ends:",
	"--field", "Table.Fields:",
	"--lookup", "Table.Lookups:",
	"--ring", "Table.Rings:",
	"--view", "Table.View",
	"--hide", "Table.Hide",
	"--deleted", "Table.Deleted:",
	"--public", "Table.Public",
	"--feed", "Table.Feed:",
	"--create", "Table.Create",
)

// optionNamesHandler translates the messages of log records with optionNames.
type optionNamesHandler struct{ slog.Handler }

func (h optionNamesHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Message = optionNames.Replace(r.Message)
	return h.Handler.Handle(ctx, r)
}

func (h optionNamesHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return optionNamesHandler{h.Handler.WithAttrs(attrs)}
}
func (h optionNamesHandler) WithGroup(name string) slog.Handler {
	return optionNamesHandler{h.Handler.WithGroup(name)}
}
