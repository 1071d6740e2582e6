package auditstream

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"

	"auditstream/internal/server"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Options configure a [Service]. The zero value of a field means its default. Viewer or Auth is required.
type Options struct {
	// Viewer returns who sends a request. It is called once for each request, concurrently, before anything is read. The stream then lasts
	// while the viewer owns the row, and until the viewer's Expires. Nil: requests carry tokens, and Auth says which are accepted.
	Viewer func(*http.Request) (Viewer, error)
	// Auth says which tokens are accepted. It is used only without a Viewer.
	Auth Auth
	// AuthCookie is the name of a cookie that may carry the token on same-origin requests. Default: none.
	AuthCookie string
	// CORSOrigins are the origins of other sites whose pages may use the API, like https://app.example.com, or "*". Default: none.
	CORSOrigins []string

	// MaxDuration is the longest time that a stream lasts; its client reconnects by itself. Default: 1 hour.
	MaxDuration time.Duration
	// Heartbeat is the time without an event after which a comment is sent, so that proxies keep the connection. Default: 30 s.
	Heartbeat time.Duration
	// Retry is the time that clients are told to wait before they reconnect. Default: 5 s.
	Retry time.Duration
	// PollInterval is the time between two reads of all watched rows. A change that no notification announced is seen that late at most.
	// Default: 10 s.
	PollInterval time.Duration
	// NoFlood keeps notifications on, however many changes there are. By default, when there are so many that notifying makes writers
	// wait for each other, notifications pause, and all watched rows are read every 50 ms instead.
	NoFlood bool

	// MaxStreams and MaxStreamsPerUser limit the open streams. Default: 10,000 and 100; negative: no limit.
	MaxStreams, MaxStreamsPerUser int
	// MaxRefusedPerUser limits the rows that one user may ask for and be refused in a minute; further requests are told to come back
	// later. Default: 1,200; negative: no limit.
	MaxRefusedPerUser int
	// MaxRefusedPerAddress is the same for one client address. Default: no limit, because behind a proxy all have the proxy's.
	MaxRefusedPerAddress int
	// MaxRowBytes limits the text that is shown of a row; longer text is cut. Default: 1 MiB.
	MaxRowBytes int
	// NoHijack leaves all streams to net/http. By default those over HTTP/1.1 without TLS hijack their connections, to save memory.
	NoHijack bool

	// ListenConfig configures direct connections to the primary for LISTEN and for locks. It is needed where the pool connects through a
	// transaction pooler. Make it with pgx.ParseConfig. Default: the pool's own, without its hooks.
	ListenConfig *pgx.ConnConfig
	// Registerer receives the metrics, until Run returns. Two services need two registerers, with different labels, for example.
	// Default: there are no metrics.
	Registerer prometheus.Registerer
	// Logger gets records for operators, without any token, connection string or text of a row. Default: nothing is logged.
	Logger *slog.Logger
	// TracerProvider gets a span for each request and each read, without any text that a client has chosen. Default: no spans.
	TracerProvider trace.TracerProvider
}

// Viewer is the user who asks for rows. With empty fields it sees the rows of public feeds only.
type Viewer struct {
	// UserID is compared with the user_id of rows, byte by byte.
	UserID string
	// Email is compared with the user_email of rows without a user_id, without regard to case. Leave it empty unless the address was verified.
	Email string
	// Groups are compared with the group_id of rows.
	Groups []string
	// Expires is when the viewer's streams end, like the session's end. Zero: streams end at MaxDuration.
	Expires time.Time
}

// Auth says which tokens (JWT) are accepted. Secret or JWKSURL is required; both may be set.
type Auth struct {
	// Secret is the key of HS256 tokens, 32 bytes at least. PreviousSecret is accepted, too, so that the key can be changed.
	Secret, PreviousSecret string
	// JWKSURL is the URL of the keys of RS256 and ES256 tokens: https, or http with a loopback address. It requires Issuer and Audience.
	JWKSURL string
	// Issuer and Audience are the iss and aud claims that tokens must have. Default: any.
	Issuer, Audience string
	// AudienceClaim is the claim that is compared with Audience instead: aud, client_id or azp. Default: aud.
	AudienceClaim string
	// UserClaim is the claim that names the user. Default: sub.
	UserClaim string
	// GroupsClaim is the claim that names the user's groups, a text, a whole number or a list. Default: there are none.
	GroupsClaim string
	// MaxCached is how many verified tokens are cached until they expire. Default: none.
	MaxCached int
}

// server returns the options as the server's Config.
func (o Options) server(logger *slog.Logger, registerer prometheus.Registerer) server.Config {
	cfg := server.Config{
		Auth: server.AuthConfig(o.Auth), AuthCookie: o.AuthCookie, CORSOrigins: o.CORSOrigins,
		MaxDuration: o.MaxDuration, Heartbeat: o.Heartbeat, Retry: o.Retry,
		MaxStreams: limitOrDefault(o.MaxStreams, 10_000), MaxStreamsPerUser: limitOrDefault(o.MaxStreamsPerUser, 100),
		MaxRefusedPerUser: limitOrDefault(o.MaxRefusedPerUser, 1200), MaxRefusedPerAddress: limitOrDefault(o.MaxRefusedPerAddress, 0),
		NoHijack: o.NoHijack, Logger: logger, Registerer: registerer, Tracer: o.TracerProvider,
	}
	if o.Viewer != nil {
		cfg.Viewer = func(r *http.Request) (server.Viewer, error) {
			who, err := o.Viewer(r)
			return server.Viewer{Viewer: store.Viewer{Subject: who.UserID, Email: who.Email, Groups: who.Groups}, Expires: who.Expires}, err
		}
	}
	return cfg
}

// limitOrDefault returns a limit as the server's Config has it, where 0 means no limit.
func limitOrDefault(n, otherwise int) int { return max(cmp.Or(n, otherwise), 0) }

// check validates what server.Config.Validate does not.
func (o Options) check() error {
	switch {
	case o.Viewer != nil && o.Auth != (Auth{}):
		return UsageError{"Options.Viewer and Options.Auth are both set: requests have either a session or a token; set one of them"}
	case o.Viewer != nil && o.AuthCookie != "":
		return UsageError{"Options.AuthCookie is set and Options.Viewer, too: the cookie is one that carries a token; leave it out, and read cookies in Viewer"}
	case o.Viewer == nil && o.Auth == (Auth{}):
		return UsageError{"Options: nothing says who may see what: set Viewer, a function from a request to who asks, or Auth, which tokens are accepted"}
	case o.PollInterval < 0:
		return UsageError{"Options.PollInterval: " + o.PollInterval.String() + " is negative; give a time greater than 0"}
	case o.MaxRowBytes < 0:
		return UsageError{"Options.MaxRowBytes is negative; give a number of bytes, 1000 at least"}
	}
	return nil
}
