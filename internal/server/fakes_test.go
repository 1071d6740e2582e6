package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"auditstream/internal/admin"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSecret = "unit-test-secret-0123456789-abcdefgh"

// hubFunc is a Hub; keys is nil for all that the viewer owns.
type hubFunc func(ctx context.Context, keys []store.Key, viewer store.Viewer, wake func()) (Subscription, error)

func (f hubFunc) Subscribe(ctx context.Context, keys []store.Key, wake func()) (Subscription, error) {
	return f(ctx, keys, store.Viewer{}, wake)
}

func (f hubFunc) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (Subscription, error) {
	return f(ctx, nil, viewer, wake)
}

// slot holds the states that a test puts in for one subscription after the other, and records what they did.
type slot struct {
	filled chan struct{} // capacity 1: states were put

	mu     sync.Mutex
	states []*store.State
	wake   func()
	calls  []string
}

func newSlot(states ...*store.State) *slot {
	return &slot{filled: make(chan struct{}, 1), states: states}
}

// subscribe waits for a first state, as a hub does.
func (s *slot) subscribe(ctx context.Context, wake func()) (Subscription, error) {
	for {
		s.mu.Lock()
		if len(s.states) > 0 {
			s.wake = wake
			s.calls = append(s.calls, "subscribe")
			s.mu.Unlock()
			return s, nil
		}
		s.mu.Unlock()
		select {
		case <-s.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *slot) put(states ...*store.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states, states...)
	if s.wake != nil {
		s.wake()
	}
	select {
	case s.filled <- struct{}{}:
	default:
	}
}

func (s *slot) Take() []*store.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "take")
	states := s.states
	s.states = nil
	return states
}

func (s *slot) Confirm() { s.called("confirm") }

func (s *slot) More() bool { return false }
func (s *slot) Over() bool { return false }

func (s *slot) Cancel() {
	s.called("cancel")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = nil
}

func (s *slot) called(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what)
}

// times is how often something was called.
func (s *slot) times(what string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, call := range s.calls {
		if call == what {
			n++
		}
	}
	return n
}

// one is a hub that serves each subscription from one slot.
func one(states ...*store.State) (hubFunc, *slot) {
	s := newSlot(states...)
	return func(ctx context.Context, _ []store.Key, _ store.Viewer, wake func()) (Subscription, error) {
		return s.subscribe(ctx, wake)
	}, s
}

// unreachable is a hub whose database does not answer.
func unreachable(ctx context.Context, _ []store.Key, _ store.Viewer, _ func()) (Subscription, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("first read: %w", context.Cause(ctx))
}

// openEvents begins a stream on an answer of net/http.
func openEvents(w http.ResponseWriter) *eventStream { return &eventStream{out: newResponse(w)} }

func text(s string) *string { return &s }

func running(progress int) *store.State {
	return store.NewState(store.Row{ID: "42", Status: "running", Progress: progress, UserID: text("alice")})
}

func ended(status string) *store.State {
	return store.NewState(store.Row{ID: "42", Status: status, Progress: 100, UserID: text("alice"), Error: text("boom")})
}

func testConfig(hub Hub) Config {
	registry := prometheus.NewRegistry()
	return Config{
		Registerer: registry, Admin: admin.Routes(registry),
		Hub:       hub,
		Ping:      func(context.Context) error { return nil },
		Listening: func() bool { return true },
		Auth:      AuthConfig{Secret: testSecret},
	}
}

func newTestServer(t *testing.T, hub Hub, change func(*Config)) *Server {
	t.Helper()
	cfg := testConfig(hub)
	if change != nil {
		change(&cfg)
	}
	s, err := New(t.Context(), cfg)
	testkit.NoError(t, err)
	return s
}

// signed returns a token with these claims, and with these members of its header besides.
func signed(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	maps.Copy(token.Header, header)
	text, err := token.SignedString(key)
	testkit.NoError(t, err)
	return text
}

func sign(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	return signed(t, jwt.SigningMethodHS256, []byte(testSecret), claims, nil)
}

// claimsOf returns a user's claims, valid for an hour, as the issuer of newIssuer makes them.
func claimsOf(subject string) jwt.MapClaims {
	return jwt.MapClaims{"sub": subject, "iss": "https://id.example", "aud": "auditstream", "exp": time.Now().Add(time.Hour).Unix()}
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	testkit.NoError(t, err)
	return key
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.NoError(t, err)
	return key
}

func aliceToken(t *testing.T) string {
	t.Helper()
	return sign(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(24 * time.Hour).Unix()})
}

const streamPath = "/api/v1/sse/audits/42/progress"

func get(t *testing.T, path string, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for k := 0; k+1 < len(headers); k += 2 {
		r.Header.Add(headers[k], headers[k+1])
	}
	return r
}

func authorized(t *testing.T, path string, headers ...string) *http.Request {
	t.Helper()
	return get(t, path, append([]string{"Authorization", "Bearer " + aliceToken(t)}, headers...)...)
}

// client is a ResponseWriter with deadlines, which httptest's recorder lacks. When stuck, writes take until the deadline.
type client struct {
	mu       sync.Mutex
	header   http.Header
	status   int
	body     bytes.Buffer
	deadline time.Time
	stuck    bool
	unset    int // writes without a deadline
}

func newClient() *client { return &client{header: make(http.Header)} }

func (c *client) Header() http.Header { return c.header }

func (c *client) WriteHeader(status int) { c.status = status }

func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline.IsZero() {
		c.unset++
	}
	if c.stuck {
		time.Sleep(time.Until(c.deadline)) // fake time, in a bubble
		return 0, os.ErrDeadlineExceeded
	}
	return c.body.Write(p)
}

func (c *client) FlushError() error { return nil }

func (c *client) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *client) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.body.String()
}

var errTest = errors.New("test: a secret cause")
