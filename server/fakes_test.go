package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"auditstream/store"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSecret = "unit-test-secret-0123456789-abcdefgh"

// subscribeFunc is a Subscriber.
type subscribeFunc func(ctx context.Context, id int64) (<-chan *store.State, func(), error)

// Read is the first state of a subscription.
func (f subscribeFunc) Read(ctx context.Context, id int64) (*store.State, error) {
	states, cancel, err := f(ctx, id)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return <-states, nil
}

// Subscribe wakes who wants to be woken, from a goroutine: the test only sends.
func (f subscribeFunc) Subscribe(ctx context.Context, id int64, wake func()) (<-chan *store.State, func(), error) {
	states, cancel, err := f(ctx, id)
	if err != nil || wake == nil {
		return states, cancel, err
	}
	slot, stop := make(chan *store.State, 1), make(chan struct{})
	slot <- <-states
	var pump sync.WaitGroup
	pump.Go(func() {
		for {
			select {
			case <-stop:
				return
			case state := <-states:
				select {
				case slot <- state:
					wake()
				case <-stop:
					return
				}
			}
		}
	})
	return slot, func() { close(stop); pump.Wait(); cancel() }, nil
}

// groupFunc is a GroupSubscriber; ids is nil for all that the viewer owns. The test puts into the slot and wakes.
type groupFunc func(ctx context.Context, ids []int64, viewer store.Viewer, wake func()) (<-chan []*store.State, func(), error)

func (f groupFunc) SubscribeMany(ctx context.Context, ids []int64, wake func()) (<-chan []*store.State, func(), error) {
	return f(ctx, ids, store.Viewer{}, wake)
}

func (f groupFunc) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (<-chan []*store.State, func(), error) {
	return f(ctx, nil, viewer, wake)
}

// one watches a single audit whose states the test sends.
func one(states ...*store.State) (subscribeFunc, chan *store.State) {
	slot := make(chan *store.State, max(1, len(states)))
	for _, s := range states {
		slot <- s
	}
	return func(context.Context, int64) (<-chan *store.State, func(), error) { return slot, func() {}, nil }, slot
}

func unreachable(ctx context.Context, _ int64) (<-chan *store.State, func(), error) {
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

func text(s string) *string { return &s }

func running(progress int) *store.State {
	return store.NewState(store.Audit{ID: 42, Status: "running", Progress: progress, UserID: text("alice")})
}

func ended(status string) *store.State {
	return store.NewState(store.Audit{ID: 42, Status: status, Progress: 100, UserID: text("alice"), Error: text("boom")})
}

func newTestServer(t *testing.T, sub Subscriber, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{
		Subscriber: sub,
		Groups:     groupFunc(nil),
		Ping:       func(context.Context) error { return nil },
		Listening:  func() bool { return true },
		Auth:       AuthConfig{Secret: testSecret},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return token
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
