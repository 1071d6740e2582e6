package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Hub hands out the states of audits. In both methods wake, which may be nil, is called whenever there is something to take, until
// Cancel; it neither blocks nor calls the hub. When ctx ends before the first states are there, the error has its cause.
type Hub interface {
	// Subscribe returns once the first state of each key, read after the call, can be taken, also where there is no such row.
	Subscribe(ctx context.Context, keys []store.Key, wake func()) (Subscription, error)
	// SubscribeOwned is for all audits of the viewer's that have not ended, the newest if there are very many, those included that begin
	// later. It returns once the states of those that there are can be taken; there may be none.
	SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (Subscription, error)
}

// Subscription is a viewer's place in the hub. Its methods do not block, and are safe for concurrent use.
type Subscription interface {
	// Take returns the newest state of each audit that has changed since the last call. A terminal state is never replaced.
	Take() []*store.State
	// Confirm says that what was asked for is the viewer's: from now on writers are told that somebody watches, and what has
	// changed since the first read is read.
	Confirm()
	// More reports whether the viewer has more that has not ended than is shown.
	More() bool
	// Over reports whether nothing follows any more, because the feed was uninstalled or is another one by now; wake says so, too.
	Over() bool
	// Cancel ends the subscription. It is called once.
	Cancel()
}

// Config configures a Server. Zero means the default, except where a field says otherwise. The names in errors are those
// of the environment variables.
type Config struct {
	// Addr is the address to serve on; default :8080. Like the next three fields it is for New and not for NewHandler.
	Addr string
	// AdminAddr is the address of what Admin registers, for operators; empty: it is not served.
	AdminAddr string
	// Admin registers routes, of which other methods are answered 405; nil: there are none.
	Admin func(handle func(path string, h http.HandlerFunc, methods ...string))
	// CertFile and KeyFile make the server speak TLS and HTTP/2. Both or neither.
	CertFile, KeyFile string

	// Hub is that of audits, where Feeds is nil. One of both is required.
	Hub Hub
	// Feeds finds a feed by its name; the error is ErrNoFeed, or why that is not known now.
	Feeds func(name string) (Feed, error)
	// Ping reports whether audits can be read. Required.
	Ping func(context.Context) error
	// Listening reports whether notifications arrive; while they do not, changes are found by polling. Required.
	Listening func() bool
	// Unreadable returns how many rows that somebody asks for cannot be read, for /readyz; nil: none.
	Unreadable func() int
	// Drift returns the kinds of what is not as it was installed, for /readyz, which anybody may read; nil: none.
	Drift func() []string

	// Viewer says who asks, in place of tokens. Its error is made by Refuse, or passes: see there. A viewer's Expires may be zero.
	Viewer func(*http.Request) (Viewer, error)
	// Auth says which tokens are accepted. Required, unless there is a Viewer.
	Auth AuthConfig
	// AuthCookie is the name of a cookie that may carry the token on same-origin requests; empty: none.
	AuthCookie string
	// CORSOrigins are the origins of foreign pages that may use the API, or "*".
	CORSOrigins []string

	// MaxDuration of a stream; default 1 h.
	MaxDuration time.Duration
	// Heartbeat is the time without an event after which a comment is sent; default 30 s.
	Heartbeat time.Duration
	// Retry is what clients are told to wait before they reconnect; default 5 s.
	Retry time.Duration
	// MaxStreams and MaxStreamsPerUser limit open streams; 0: no limit.
	MaxStreams, MaxStreamsPerUser int
	// MaxRefusedPerUser and MaxRefusedPerAddress limit how many audits a minute one user and one client address may ask for and
	// be refused, before further requests are not read for; 0: no limit. Behind a proxy all clients have the proxy's address.
	MaxRefusedPerUser, MaxRefusedPerAddress int
	// NoHijack leaves all streams to net/http. By default those over plain HTTP/1.1 are taken from it: see connection.
	NoHijack bool
	// MaxConnectionsPerAddress limits the open connections of one client address, before any token is looked at; 0: no
	// limit. Behind a proxy all clients have the proxy's address.
	MaxConnectionsPerAddress int

	// Page serves what no route of the API matches; nil: 404.
	Page http.Handler
	// Logger's default discards.
	Logger *slog.Logger
	// AccessLog writes a record about each request to Logger.
	AccessLog bool
	// Registerer receives the metrics; nil: nobody does.
	Registerer prometheus.Registerer
	// Tracer receives a span for each request; nil: none are made.
	Tracer trace.TracerProvider
}

func (c *Config) setDefaults() {
	if c.MaxDuration == 0 {
		c.MaxDuration = time.Hour
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 30 * time.Second
	}
	if c.Retry == 0 {
		c.Retry = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
}

func (c *Config) validate() error {
	if c.Hub == nil && c.Feeds == nil || c.Ping == nil || c.Listening == nil {
		return errors.New("server: Config.Hub or Feeds, Ping and Listening are required")
	}
	return c.Validate()
}

// Validate says what is wrong with what an operator chooses. It makes no request.
func (c *Config) Validate() error {
	for name, d := range map[string]time.Duration{
		"SSE_MAX_DURATION": c.MaxDuration, "SSE_HEARTBEAT_SECONDS": c.Heartbeat, "SSE_RETRY_MS": c.Retry,
	} {
		if d < 0 {
			return fmt.Errorf("%s: %v is negative; give a time greater than 0", name, d)
		}
	}
	if min(c.MaxStreams, c.MaxStreamsPerUser, c.MaxRefusedPerUser, c.MaxRefusedPerAddress, c.MaxConnectionsPerAddress) < 0 {
		return errors.New("a negative limit: SSE_MAX_STREAMS, SSE_MAX_STREAMS_PER_USER, SSE_MAX_REFUSED_PER_USER, HTTP_MAX_REFUSED_PER_ADDRESS and HTTP_MAX_CONNECTIONS_PER_ADDRESS take a number from 1 on, or 0 for no limit")
	}
	if c.AuthCookie != "" {
		if err := (&http.Cookie{Name: c.AuthCookie}).Valid(); err != nil {
			return fmt.Errorf("SSE_AUTH_COOKIE: %q cannot be a cookie's name; give one like session", c.AuthCookie)
		}
	}
	for _, origin := range c.CORSOrigins {
		if err := checkOrigin(origin); err != nil {
			return err
		}
	}
	if c.Viewer == nil {
		return c.Auth.Validate()
	}
	return nil
}

const defaultAddr = ":8080"

// validateServer is about what New needs beyond NewHandler.
func (c *Config) validateServer() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("TLS_CERT_FILE and TLS_KEY_FILE: only one is set; set both or neither")
	}
	if err := checkAddr("HTTP_ADDR", cmp.Or(c.Addr, defaultAddr)); err != nil {
		return err
	}
	if c.AdminAddr == "" {
		return nil
	}
	return checkAddr("ADMIN_ADDR", c.AdminAddr)
}

func checkAddr(name, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" { // which would be a random one
		return fmt.Errorf("%s: invalid address %q; give HOST:PORT or :PORT", name, addr)
	}
	return nil
}

// placeholders are secrets that people copy from examples.
var placeholders = []string{"changeme", "change-me", "your-secret", "your_secret", "your-256-bit-secret", "secretsecret"}

// Validate says which environment variable is wrong, and what is allowed instead. It makes no request.
func (c AuthConfig) Validate() error {
	if c.Secret == "" && c.JWKSURL == "" {
		return errors.New("no way to verify tokens: set JWT_SECRET (HS256) or JWT_JWKS_URL (RS256, ES256)")
	}
	if c.PreviousSecret != "" && c.Secret == "" {
		return errors.New("JWT_SECRET_PREVIOUS without JWT_SECRET: set the current key too")
	}
	for name, secret := range map[string]string{"JWT_SECRET": c.Secret, "JWT_SECRET_PREVIOUS": c.PreviousSecret} {
		if secret == "" {
			continue
		}
		if len(secret) < MinSecret {
			return fmt.Errorf("%s: the key has %d bytes, and HS256 needs at least %d; make one with: openssl rand -base64 32", name, len(secret), MinSecret)
		}
		for _, p := range placeholders {
			if strings.HasPrefix(strings.ToLower(secret), p) {
				return fmt.Errorf("%s: the key begins with %q, a placeholder that others know; make one with: openssl rand -base64 32", name, p)
			}
		}
	}
	if err := c.checkClaims(); err != nil {
		return err
	}
	if c.JWKSURL == "" {
		return nil
	}
	u, err := url.ParseRequestURI(c.JWKSURL) // as what fetches the keys does
	if err == nil {
		_, err = net.LookupPort("tcp", u.Port())
	}
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))) {
		return fmt.Errorf("JWT_JWKS_URL: invalid URL %q; give an https URL, or an http URL of a loopback address", withoutPassword(c.JWKSURL))
	}
	if c.Issuer == "" || c.Audience == "" {
		return errors.New("JWT_ISSUER and JWT_AUDIENCE are required with JWT_JWKS_URL: without them a token that the issuer made for any other service would be accepted")
	}
	return nil
}

func (c AuthConfig) checkClaims() error {
	switch {
	case !slices.Contains([]string{"aud", "client_id", "azp"}, c.audienceClaim()):
		return fmt.Errorf("JWT_AUDIENCE_CLAIM: invalid claim %q; give aud, client_id or azp", c.AudienceClaim)
	case c.audienceClaim() != "aud" && c.Audience == "":
		return fmt.Errorf("JWT_AUDIENCE_CLAIM without JWT_AUDIENCE: nothing is compared with %s; set JWT_AUDIENCE to what it must be", c.AudienceClaim)
	case slices.Contains([]string{"iss", "aud", "exp", "nbf", "iat", "jti", "email_verified"}, c.UserClaim):
		return fmt.Errorf("JWT_USER_CLAIM: the claim %q names no user; give the one that has the user_id of your table, like sub or user_id", c.UserClaim)
	case c.GroupsClaim != strings.TrimSpace(c.GroupsClaim):
		return fmt.Errorf("JWT_GROUPS_CLAIM: %q begins or ends with white space; give the claim's exact name", c.GroupsClaim)
	case c.UserClaim != strings.TrimSpace(c.UserClaim):
		return fmt.Errorf("JWT_USER_CLAIM: %q begins or ends with white space; give the claim's exact name", c.UserClaim)
	}
	return nil
}

func (c AuthConfig) audienceClaim() string { return cmp.Or(c.AudienceClaim, "aud") }
func (c AuthConfig) userClaim() string     { return cmp.Or(c.UserClaim, "sub") }

// Warnings says what is probably wrong with the secrets, and does not show them. They are used as they are: what looks wrong may be
// what the application signs with.
func (c AuthConfig) Warnings() []string {
	var warnings []string
	for _, s := range [][2]string{{"JWT_SECRET", c.Secret}, {"JWT_SECRET_PREVIOUS", c.PreviousSecret}} {
		if what := oddEnds(s[1]); what != "" {
			warnings = append(warnings, s[0]+" "+what+", which counts as a part of the key: tokens are refused unless your application signs with it, too; remove it if it was not meant")
		}
	}
	return warnings
}

// oddEnds says what a secret has at its ends that copying left there, or "".
func oddEnds(secret string) string {
	first, _ := utf8.DecodeRuneInString(secret)
	last, _ := utf8.DecodeLastRuneInString(secret)
	odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) } // Cf: a byte order mark, zero width
	switch {
	case secret == "":
		return ""
	case odd(last):
		return "ends with white space or a character that cannot be seen, a line break, say"
	case odd(first):
		return "begins with white space or a character that cannot be seen"
	case strings.HasSuffix(secret, `\n`), strings.HasSuffix(secret, `\r`):
		return `ends with a backslash and a letter, not with a line break`
	case strings.ContainsRune("\"'`\u201c\u2018", first) && strings.ContainsRune("\"'`\u201d\u2019", last):
		return "is in quotes"
	}
	return ""
}

// withoutPassword is a URL as it may be shown. In a misspelled one the password may stand anywhere before the last @.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "(not shown, it does not parse)"
	case u.User != nil:
		return u.Redacted()
	case strings.Contains(text, "@"):
		return "(not shown, it may hold a password)"
	}
	return text
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
