package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

// Followers are many clients of a balancer that do what a browser does: they come back after the time that they were last
// told, with the id of the last event, and give up for good at any status but 200.
type Followers struct {
	url, token string
	transport  *http.Transport

	Reconnects atomic.Int64
	Refused    atomic.Int64 // answered 200 with an error event
	Newest     []atomic.Int64
	clients    sync.WaitGroup

	mu    sync.Mutex
	wrong []string
	Ended map[string]int // final status: clients
}

// Followed starts clients, spread over the audits. They end with their audits, or with the test.
func (b *Balancer) Followed(t testing.TB, clients int, ids []string) *Followers {
	t.Helper()
	a := &Followers{url: b.URL, token: AliceToken(t), transport: b.transport(false), Newest: make([]atomic.Int64, clients), Ended: map[string]int{}}
	a.transport.DisableKeepAlives = true // a connection for each, as of as many browsers
	ctx, cancel := context.WithCancel(context.Background())
	for n := range clients {
		a.Newest[n].Store(-1)
		a.clients.Go(func() {
			status, err := a.follow(ctx, n, ids[n%len(ids)])
			a.mu.Lock()
			defer a.mu.Unlock()
			if err != nil && ctx.Err() == nil {
				a.wrong = append(a.wrong, fmt.Sprintf("client %d: %v", n, err))
			}
			a.Ended[status]++
		})
	}
	t.Cleanup(func() {
		cancel()
		a.clients.Wait()
	})
	return a
}

// follow returns the terminal status of an audit.
func (a *Followers) follow(ctx context.Context, n int, id string) (status string, err error) {
	lastID, retry := "", 3*time.Second // as Chromium's before it is told
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/api/v1/sse/audits/"+id+"/progress", nil)
		if err != nil {
			return "", err
		}
		r.Header.Set("Authorization", "Bearer "+a.token)
		if lastID != "" {
			r.Header.Set("Last-Event-ID", lastID)
		}
		if status, err = a.once(r, n, &lastID, &retry); err != nil || status != "" {
			return status, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(retry):
		}
		a.Reconnects.Add(1)
	}
}

// once is one connection. It returns the status if that was terminal.
func (a *Followers) once(r *http.Request, n int, lastID *string, retry *time.Duration) (status string, err error) {
	resp, err := a.transport.RoundTrip(r)
	if err != nil {
		return "", fmt.Errorf("the balancer did not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("a native EventSource would have given up: %s", resp.Status)
	}
	for event, err := range sse.Read(io.TeeReader(resp.Body, &RetryField{Retry: retry}), nil) {
		if err != nil {
			return "", fmt.Errorf("the stream broke off: %w", err)
		}
		if event.Data == "" {
			continue
		}
		var p Progress
		if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
			return "", fmt.Errorf("event %q: %w", event.Data, err)
		}
		if p.AuditID == 0 {
			a.Refused.Add(1)
			continue
		}
		if before := a.Newest[n].Swap(int64(*p.TotalPages)); before > int64(*p.TotalPages) {
			return "", fmt.Errorf("the state went back from %d to %d", before, *p.TotalPages)
		}
		*lastID = event.LastEventID
		if p.Status == "completed" || p.Status == "failed" {
			return p.Status, nil
		}
	}
	return "", nil
}

// Behind is how many clients have not seen a state as new as n.
func (a *Followers) Behind(n int) int {
	behind := 0
	for k := range a.Newest {
		if a.Newest[k].Load() < int64(n) {
			behind++
		}
	}
	return behind
}

// Left is how many have not seen the end.
func (a *Followers) Left() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := len(a.Newest)
	for _, n := range a.Ended {
		left -= n
	}
	return left
}

// Check fails the test for whatever a client has found wrong.
func (a *Followers) Check(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.wrong) > 0 {
		t.Errorf("%d of %d clients: %s", len(a.wrong), len(a.Newest), strings.Join(a.wrong[:min(5, len(a.wrong))], "; "))
	}
}
