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
	// Viewer says who asks. It is called once for each request, concurrently, before anything is read; a stream then lasts as long as the
	// row is the viewer's, and until the viewer's Expires. Nil: requests carry tokens, and Auth says which are accepted.
	Viewer func(*http.Request) (Viewer, error)
	// Auth says which tokens are accepted where there is no Viewer.
	Auth Auth
	// AuthCookie is the name of a cookie that may carry the token on requests of the same origin. Default: none.
	AuthCookie string
	// CORSOrigins are the origins of other pages that may use the API, like https://app.example.com, or "*". Default: none.
	CORSOrigins []string

	// MaxDuration is how long a stream lasts at most; its client comes back by itself. Default: 1 hour.
	MaxDuration time.Duration
	// Heartbeat is the time without an event after which a comment is sent, so that proxies keep the connection. Default: 30 s.
	Heartbeat time.Duration
	// Retry is what clients are told to wait before they reconnect. Default: 5 s.
	Retry time.Duration
	// PollInterval is the time between reads of all that is watched: how late a change is seen at most that no notification announced.
	// Default: 10 s.
	PollInterval time.Duration
	// NoFlood has changes announced one by one however many they are. By default, while they are so many that announcing them makes
	// writers wait for each other, what is watched is read on a timer of 50 ms instead.
	NoFlood bool

	// MaxStreams and MaxStreamsPerUser are how many streams are open at most. Default: 10,000 and 100; negative: no limit.
	MaxStreams, MaxStreamsPerUser int
	// MaxRefusedPerUser is how many rows a minute one user may ask for and be refused before more requests are told to come back.
	// Default: 1,200; negative: no limit.
	MaxRefusedPerUser int
	// MaxRefusedPerAddress is the same for one client address. Default: no limit, because behind a proxy all have the proxy's.
	MaxRefusedPerAddress int
	// MaxRowBytes is how much text is shown of a row; longer text is cut. Default: 1 MiB.
	MaxRowBytes int
	// NoHijack leaves all streams to net/http. By default the connections of those over HTTP/1.1 without TLS are taken from it.
	NoHijack bool

	// ListenConfig is a direct connection to the primary for LISTEN and for locks, needed where the pool leads through a transaction
	// pooler. Make it with pgx.ParseConfig. Default: the pool's own, without its hooks.
	ListenConfig *pgx.ConnConfig
	// Registerer receives the metrics, until Run returns. Two services need registerers that tell them apart, by a label, say.
	// Default: nobody does.
	Registerer prometheus.Registerer
	// Logger is told what operators should know: never a token, a connection string or a row's text. Default: nobody.
	Logger *slog.Logger
	// TracerProvider receives a span for each request and each read, without anything that a client has chosen. Default: none are made.
	TracerProvider trace.TracerProvider
}

// Viewer is who asks for rows. One whose fields are empty sees the rows of public feeds alone.
type Viewer struct {
	// UserID is compared with the user_id of rows, byte by byte.
	UserID string
	// Email is compared with the user_email of rows without a user_id, without regard to case. Leave it empty unless the address was verified.
	Email string
	// Groups are compared with the group_id of rows.
	Groups []string
	// Expires is when the viewer's streams end: that of the session. Zero: not before their time.
	Expires time.Time
}

// Auth says which tokens (JWT) are accepted. Secret or JWKSURL is required; both may be set.
type Auth struct {
	// Secret is the key of HS256 tokens, 32 bytes at least. PreviousSecret is accepted, too, while keys are being changed.
	Secret, PreviousSecret string
	// JWKSURL is where the keys of RS256 and ES256 tokens are: an https URL, or an http URL of a loopback address. It needs Issuer and
	// Audience.
	JWKSURL string
	// Issuer and Audience are the iss and aud claims that tokens must have. Default: any.
	Issuer, Audience string
	// AudienceClaim is the claim that is compared with Audience instead: aud, client_id or azp. Default: aud.
	AudienceClaim string
	// UserClaim is the claim that names the user. Default: sub.
	UserClaim string
	// GroupsClaim is the claim that names the user's groups, a text or a list. Default: there are none.
	GroupsClaim string
	// MaxCached is how many verified tokens are remembered until they expire. Default: none.
	MaxCached int
}

// server is what the server is to do.
func (o Options) server(logger *slog.Logger, registerer prometheus.Registerer) server.Config {
	cfg := server.Config{
		Auth: server.AuthConfig(o.Auth), AuthCookie: o.AuthCookie, CORSOrigins: o.CORSOrigins,
		MaxDuration: o.MaxDuration, Heartbeat: o.Heartbeat, Retry: o.Retry,
		MaxStreams: limit(o.MaxStreams, 10_000), MaxStreamsPerUser: limit(o.MaxStreamsPerUser, 100),
		MaxRefusedPerUser: limit(o.MaxRefusedPerUser, 1200), MaxRefusedPerAddress: limit(o.MaxRefusedPerAddress, 0),
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

// limit is what the server takes for one: 0 is none there.
func limit(n, otherwise int) int { return max(cmp.Or(n, otherwise), 0) }

// check looks at what the server does not.
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
