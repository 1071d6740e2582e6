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

// Hub gives out the states of a feed's rows. Both methods call wake, unless it is nil, whenever there is a state to take, until Cancel;
// wake must neither block nor call the hub. If ctx ends before the first states are there, the error wraps its cause.
type Hub interface {
	// Subscribe returns when the first state of each key can be taken. It was read after the call; a row that does not exist has one, too.
	Subscribe(ctx context.Context, keys []store.Key, wake func()) (Subscription, error)
	// SubscribeOwned subscribes to all rows of the viewer that have not ended, and to those that begin later; of very many to the newest.
	// It returns when the states of the present ones can be taken; there may be none.
	SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (Subscription, error)
}

// Subscription is one stream's subscription to a hub. Its methods do not block, and are safe for concurrent use.
type Subscription interface {
	// Take returns the newest state of each row that has changed since the last call. A terminal state is never replaced.
	Take() []*store.State
	// Confirm says that the viewer may see the rows: from now on writers learn that somebody watches, and the rows are read once more.
	Confirm()
	// More reports whether the viewer has more rows that have not ended than the subscription shows.
	More() bool
	// Over reports whether no state follows, because the feed was uninstalled or replaced; wake is called for that, too.
	Over() bool
	// Cancel ends the subscription. It is called once.
	Cancel()
}

// Config configures a Server. Zero means the default, except where a field says otherwise. The names in errors are those
// of the environment variables.
type Config struct {
	// Addr is the address to serve on; default :8080. This field and the next three are for New, not for NewHandler.
	Addr string
	// AdminAddr is the address for the routes that Admin registers, for operators; empty: they are not served.
	AdminAddr string
	// Admin registers routes with handle, which answers other methods 405; nil: there are none.
	Admin func(handle func(path string, h http.HandlerFunc, methods ...string))
	// CertFile and KeyFile make the server speak TLS and HTTP/2. Both or neither.
	CertFile, KeyFile string

	// Hub is the hub of the feed audits, used if Feeds is nil. One of the two is required.
	Hub Hub
	// Feeds finds a feed by its name; the error is ErrNoFeed, or says why the feeds are not known yet.
	Feeds func(ctx context.Context, name string) (Feed, error)
	// Ping reports whether rows can be read. Required.
	Ping func(context.Context) error
	// Listening reports whether notifications arrive; while they do not, changes are found by polling. Required.
	Listening func() bool
	// Unreadable returns how many watched rows cannot be read, for /readyz; nil: /readyz does not say.
	Unreadable func() int
	// Drift returns the kinds of differences from the install, for /readyz. Anybody may read them. Nil: /readyz does not say.
	Drift func() []string

	// Viewer returns who sends a request, in place of tokens. For its errors see ErrUnauthenticated. A viewer's Expires may be zero.
	Viewer func(*http.Request) (Viewer, error)
	// Auth says which tokens are accepted. Required, unless there is a Viewer.
	Auth AuthConfig
	// AuthCookie is the name of a cookie that may carry the token on same-origin requests; empty: none.
	AuthCookie string
	// CORSOrigins are the origins of other sites whose pages may use the API, or "*".
	CORSOrigins []string

	// MaxDuration of a stream; default 1 h.
	MaxDuration time.Duration
	// Heartbeat is the time without an event after which a comment is sent; default 30 s.
	Heartbeat time.Duration
	// Retry is the time that clients are told to wait before they reconnect; default 5 s.
	Retry time.Duration
	// MaxStreams and MaxStreamsPerUser limit open streams; 0: no limit.
	MaxStreams, MaxStreamsPerUser int
	// MaxRefusedPerUser and MaxRefusedPerAddress limit the rows that one user and one client address may ask for and be refused in a
	// minute; further requests are refused without a read. 0: no limit. Behind a proxy all clients have the proxy's address.
	MaxRefusedPerUser, MaxRefusedPerAddress int
	// NoHijack leaves all streams to net/http. By default those over plain HTTP/1.1 hijack their connections: see connection.
	NoHijack bool
	// MaxConnectionsPerAddress limits the open connections of one client address, before any token is verified; 0: no
	// limit. Behind a proxy all clients have the proxy's address.
	MaxConnectionsPerAddress int

	// Page serves the paths that no route of the API matches; nil: 404.
	Page http.Handler
	// Logger; by default nothing is logged.
	Logger *slog.Logger
	// AccessLog writes a record about each request to Logger.
	AccessLog bool
	// Registerer receives the metrics; nil: there are none.
	Registerer prometheus.Registerer
	// Tracer receives a span for each request; nil: no spans.
	Tracer trace.TracerProvider
}

func (c *Config) setDefaults() {
	c.MaxDuration = cmp.Or(c.MaxDuration, time.Hour)
	c.Heartbeat = cmp.Or(c.Heartbeat, 30*time.Second)
	c.Retry = cmp.Or(c.Retry, 5*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
}

func (c *Config) validate() error {
	if c.Hub == nil && c.Feeds == nil || c.Ping == nil || c.Listening == nil {
		return errors.New("server: Config.Hub or Feeds, Ping and Listening are required")
	}
	return c.Validate()
}

// Validate checks the fields that an operator sets. It makes no request.
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

// validateServer checks the fields that New needs and NewHandler does not.
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
	if err != nil || port == "" { // net.Listen would choose a random port
		return fmt.Errorf("%s: invalid address %q; give HOST:PORT or :PORT", name, addr)
	}
	return nil
}

// placeholders are secrets from examples, which people copy.
var placeholders = []string{"changeme", "change-me", "your-secret", "your_secret", "your-256-bit-secret", "secretsecret"}

// Validate returns an error that names the wrong environment variable and what is allowed. It makes no request.
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
	u, err := url.ParseRequestURI(c.JWKSURL) // as the client that fetches the keys parses it
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

// Warnings returns what is probably wrong with the secrets, without showing them. The secrets are used unchanged: the application may
// sign with the same odd bytes.
func (c AuthConfig) Warnings() []string {
	var warnings []string
	for _, s := range [][2]string{{"JWT_SECRET", c.Secret}, {"JWT_SECRET_PREVIOUS", c.PreviousSecret}} {
		if what := oddEnds(s[1]); what != "" {
			warnings = append(warnings, s[0]+" "+what+", which counts as a part of the key: tokens are refused unless your application signs with it, too; remove it if it was not meant")
		}
	}
	return warnings
}

// oddEnds describes what copying may have left at a secret's ends, or returns "".
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
