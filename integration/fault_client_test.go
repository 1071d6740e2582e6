package integration

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

// client is a viewer that reconnects by itself, as EventSource does: go-sse's.
type client struct {
	viewer
	stopped *http.Response // the answer that told it to stop; read it after done

	mu   sync.Mutex
	sent []string // the Last-Event-ID of each request
}

// RoundTrip notes what the client sends.
func (c *client) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.sent = append(c.sent, r.Header.Get("Last-Event-ID"))
	c.mu.Unlock()
	return http.DefaultClient.Transport.RoundTrip(r)
}

func (c *client) lastEventIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.sent...)
}

// followAlways follows a stream across reconnects until the server tells it to stop or the test ends.
func followAlways(t testing.TB, r *http.Request) *client {
	t.Helper()
	c := &client{viewer: viewer{done: make(chan struct{}), more: make(chan struct{})}}
	sseClient := &sse.Client{
		HTTPClient: &http.Client{Transport: c},
		Backoff:    sse.Backoff{InitialInterval: 50 * time.Millisecond, Multiplier: 1, MaxInterval: 300 * time.Millisecond},
		ResponseValidator: func(resp *http.Response) error {
			if err := sse.DefaultValidator(resp); err != nil {
				c.stopped = resp
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
		defer close(c.done)
		_ = conn.Connect() // reconnects until it is told to stop
	}()
	t.Cleanup(func() {
		<-c.done
		if c.back != "" {
			t.Errorf("the stream went back: %s", c.back)
		}
	})
	return c
}

var errStopped = errors.New("the server told the client to stop")

type failureEvent struct {
	AuditID int64 `json:"audit_id"`
}
