package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

// stream is a client's view of one stream, read by a parser that is not ours.
type stream struct {
	Response *http.Response
	cancel   context.CancelFunc
	events   chan sse.Event // closed at the end of the stream
	raw      *rawBody
}

// progress is the JSON of an event, an audit's or an error's.
type progress struct {
	AuditID    int64    `json:"audit_id"`
	Status     string   `json:"status"`
	Progress   int      `json:"progress"`
	Message    *string  `json:"message"`
	GeoScore   *float64 `json:"geo_score"`
	TotalPages *int     `json:"total_pages"`
	Error      *string  `json:"error"`
}

// request makes a GET request with a token, if it is not empty, and headers given as pairs.
func request(t testing.TB, ctx context.Context, url, token string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for k := 0; k+1 < len(headers); k += 2 {
		r.Header.Add(headers[k], headers[k+1])
	}
	return r
}

// watch opens the stream of an audit, which must be answered 200. Told to come back, for now, it does, as a browser would: on a busy
// machine the database may be too slow for a stream. Told so a third time, it is what it has.
func (i *instance) watch(t testing.TB, id, token string, headers ...string) *stream {
	t.Helper()
	for again := 0; ; again++ {
		s := i.open(t, "/api/v1/sse/audits/"+id+"/progress", token, headers...)
		if s.Response.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %s", s.Response.StatusCode, s.raw.String())
		}
		if again == 2 || !refusedForNow(s.begins(t)) {
			return s
		}
	}
}

// begins waits for the first block.
func (s *stream) begins(t testing.TB) (raw string) {
	t.Helper()
	eventually(t, func() error {
		if raw = s.raw.String(); !strings.Contains(raw, "\n\n") {
			return fmt.Errorf("the stream sent only %q", raw)
		}
		return nil
	})
	return raw
}

// refusedForNow reports whether a stream that was not served begins so.
func refusedForNow(raw string) bool {
	return strings.HasPrefix(raw, "retry: ") && strings.Contains(raw, "\nevent: message\ndata: {\"error\":\"Internal server error\"}\n\n")
}

// open requests a path and reads the answer as a stream, whatever its status. The connection is the stream's own.
func (i *instance) open(t testing.TB, path, token string, headers ...string) *stream {
	t.Helper()
	s := i.openOn(t, newTransport(), path, token, headers...)
	wantVersion(t, s.Response)
	return s
}

// openOn is open on a transport, whose idle connections it closes at the end of the stream.
func (i *instance) openOn(t testing.TB, transport *http.Transport, path, token string, headers ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	resp, err := recorded{transport}.RoundTrip(request(t, ctx, i.URL+path, token, headers...))
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{Response: resp, cancel: cancel, events: make(chan sse.Event, 20000), raw: new(rawBody)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer transport.CloseIdleConnections()
		defer resp.Body.Close()
		defer close(s.events)
		for event, err := range sse.Read(io.TeeReader(resp.Body, s.raw), &sse.ReadConfig{MaxEventSize: 4 << 20}) {
			if err != nil {
				return
			}
			if event.Data == "" { // go-sse tells of blocks without data, which are no events
				continue
			}
			s.events <- event
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// next waits for the next event.
func (s *stream) next(t testing.TB) sse.Event {
	t.Helper()
	select {
	case event, ok := <-s.events:
		if !ok {
			t.Fatalf("the stream has ended; it sent:\n%s", s.raw.String())
		}
		return event
	case <-time.After(patience):
		t.Fatalf("no event; the stream sent:\n%s", s.raw.String())
	}
	panic("unreachable")
}

// nextProgress waits for the next event and parses it.
func (s *stream) nextProgress(t testing.TB) progress {
	t.Helper()
	return parse(t, s.next(t))
}

func parse(t testing.TB, event sse.Event) progress {
	t.Helper()
	var p progress
	if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
		t.Fatalf("event %q: %v", event.Data, err)
	}
	return p
}

// until waits for an event that satisfies accept, passing over others, and returns it.
func (s *stream) until(t testing.TB, accept func(progress) bool) progress {
	t.Helper()
	for {
		if p := s.nextProgress(t); accept(p) {
			return p
		}
	}
}

// ended waits for the end of the stream; no event may come before it.
func (s *stream) ended(t testing.TB) {
	t.Helper()
	select {
	case event, ok := <-s.events:
		if ok {
			t.Fatalf("event %q, want the end of the stream", event.Data)
		}
	case <-time.After(patience):
		t.Fatalf("the stream has not ended; it sent:\n%s", s.raw.String())
	}
}

// rawBody keeps the bytes of a stream, for tests of what is literally sent. Safe for concurrent use.
type rawBody struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *rawBody) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *rawBody) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
