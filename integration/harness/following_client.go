package harness

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

// FollowingClient is a viewer that reconnects by itself, as EventSource does: go-sse's.
type FollowingClient struct {
	Viewer
	Stopped *http.Response // the answer that told it to stop; read it after done

	mu   sync.Mutex
	sent []string // the Last-Event-ID of each request
}

// RoundTrip notes what the client sends.
func (c *FollowingClient) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.sent = append(c.sent, r.Header.Get("Last-Event-ID"))
	c.mu.Unlock()
	return http.DefaultClient.Transport.RoundTrip(r)
}

// LastEventIDs are those of the client's requests, in their order; empty where a request had none.
func (c *FollowingClient) LastEventIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.sent...)
}

// FollowAlways follows a stream across reconnects until the server tells it to stop or the test ends.
func FollowAlways(t testing.TB, r *http.Request) *FollowingClient {
	t.Helper()
	c := &FollowingClient{Viewer: Viewer{Done: make(chan struct{}), more: make(chan struct{})}}
	sseClient := &sse.Client{
		HTTPClient: &http.Client{Transport: c},
		Backoff:    sse.Backoff{InitialInterval: 50 * time.Millisecond, Multiplier: 1, MaxInterval: 300 * time.Millisecond},
		ResponseValidator: func(resp *http.Response) error {
			if err := sse.DefaultValidator(resp); err != nil {
				c.Stopped = resp
				return errors.Join(errStopped, err)
			}
			return nil
		},
	}
	conn := sseClient.NewConnection(r)
	conn.SubscribeToAll(func(event sse.Event) {
		if failure := new(failureEvent); json.Unmarshal([]byte(event.Data), failure) == nil && failure.AuditID == 0 {
			return // it says that the stream ends; the client comes back
		}
		c.take(event)
	})
	go func() {
		defer close(c.Done)
		_ = conn.Connect() // reconnects until it is told to stop
	}()
	t.Cleanup(func() {
		<-c.Done
		if c.Back != "" {
			t.Errorf("the stream went back: %s", c.Back)
		}
	})
	return c
}

var errStopped = errors.New("the server told the client to stop")

type failureEvent struct {
	AuditID int64 `json:"audit_id"`
}
