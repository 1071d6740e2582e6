package harness

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

// Stream is a client's view of one stream, read by a parser that is not ours.
type Stream struct {
	Response *http.Response
	Cancel   context.CancelFunc
	events   chan sse.Event // closed at the end of the stream
	Raw      *RawBody
}

// Progress is the JSON of an event, an audit's or an error's.
type Progress struct {
	AuditID    int64    `json:"audit_id"`
	Status     string   `json:"status"`
	Progress   int      `json:"progress"`
	Message    *string  `json:"message"`
	GeoScore   *float64 `json:"geo_score"`
	TotalPages *int     `json:"total_pages"`
	Error      *string  `json:"error"`
}

// Watch opens the stream of an audit, which must be answered 200. Told to come back, for now, it does, as a browser would: on a busy
// machine the database may be too slow for a stream. Told so a third time, it is what it has.
func (i *Instance) Watch(t testing.TB, id, token string, headers ...string) *Stream {
	t.Helper()
	for again := 0; ; again++ {
		s := i.Open(t, "/api/v1/sse/audits/"+id+"/progress", token, headers...)
		if s.Response.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %s", s.Response.StatusCode, s.Raw.String())
		}
		if again == 2 || !refusedForNow(s.begins(t)) {
			return s
		}
	}
}

// begins waits for the first block.
func (s *Stream) begins(t testing.TB) (raw string) {
	t.Helper()
	Eventually(t, func() error {
		if raw = s.Raw.String(); !strings.Contains(raw, "\n\n") {
			return fmt.Errorf("the stream sent only %q", raw)
		}
		return nil
	})
	return raw
}

// Shown is Watch, after the first event.
func (i *Instance) Shown(t testing.TB, id, token string, headers ...string) *Stream {
	t.Helper()
	s := i.Watch(t, id, token, headers...)
	s.Next(t)
	return s
}

// refusedForNow reports whether a stream that was not served begins so.
func refusedForNow(raw string) bool {
	return strings.HasPrefix(raw, "retry: ") && strings.Contains(raw, "\nevent: message\ndata: {\"error\":\"Internal server error\"}\n\n")
}

// Open requests a path and reads the answer as a stream, whatever its status. The connection is the stream's own.
func (i *Instance) Open(t testing.TB, path, token string, headers ...string) *Stream {
	t.Helper()
	s := i.OpenOn(t, NewTransport(), path, token, headers...)
	wantVersion(t, s.Response)
	return s
}

// OpenOn is open on a transport, whose idle connections it closes at the end of the stream.
func (i *Instance) OpenOn(t testing.TB, transport *http.Transport, path, token string, headers ...string) *Stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	resp, err := Recorded{transport}.RoundTrip(Request(t, ctx, i.URL+path, token, headers...))
	NoError(t, err)
	s := &Stream{Response: resp, Cancel: cancel, events: make(chan sse.Event, 20000), Raw: new(RawBody)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer transport.CloseIdleConnections()
		defer resp.Body.Close()
		defer close(s.events)
		for event, err := range sse.Read(io.TeeReader(resp.Body, s.Raw), &sse.ReadConfig{MaxEventSize: 4 << 20}) {
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

// Next waits for the next event.
func (s *Stream) Next(t testing.TB) sse.Event {
	t.Helper()
	select {
	case event, ok := <-s.events:
		if !ok {
			t.Fatalf("the stream has ended; it sent:\n%s", s.Raw.String())
		}
		return event
	case <-time.After(Patience):
		t.Fatalf("no event; the stream sent:\n%s", s.Raw.String())
	}
	panic("unreachable")
}

// NextProgress waits for the next event and parses it.
func (s *Stream) NextProgress(t testing.TB) Progress {
	t.Helper()
	return parse(t, s.Next(t))
}

// WantProgress waits for the next event, which must be of a progress.
func (s *Stream) WantProgress(t testing.TB, percent int) {
	t.Helper()
	if got := s.NextProgress(t); got.Progress != percent {
		t.Errorf("the next event is %+v, want progress %d", got, percent)
	}
}

// WantState waits for the next event, which must be of a state's number.
func (s *Stream) WantState(t testing.TB, n int) {
	t.Helper()
	if got := s.NextProgress(t); got.TotalPages == nil || *got.TotalPages != n {
		t.Errorf("the next event is of %s, want state %d", Describe(got), n)
	}
}

func parse(t testing.TB, event sse.Event) Progress {
	t.Helper()
	var p Progress
	if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
		t.Fatalf("event %q: %v", event.Data, err)
	}
	return p
}

// Until waits for an event that satisfies accept, passing over others, and returns it.
func (s *Stream) Until(t testing.TB, accept func(Progress) bool) Progress {
	t.Helper()
	for {
		if p := s.NextProgress(t); accept(p) {
			return p
		}
	}
}

// Ended waits for the end of the stream; no event may come before it.
func (s *Stream) Ended(t testing.TB) {
	t.Helper()
	select {
	case event, ok := <-s.events:
		if ok {
			t.Fatalf("event %q, want the end of the stream", event.Data)
		}
	case <-time.After(Patience):
		t.Fatalf("the stream has not ended; it sent:\n%s", s.Raw.String())
	}
}

// RawBody keeps the bytes of a stream, for tests of what is literally sent. Safe for concurrent use.
type RawBody struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *RawBody) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *RawBody) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// StreamPath is the path of an audit's stream.
func StreamPath(id string) string { return "/api/v1/sse/audits/" + id + "/progress" }

// StatusPath is the path of an audit's status.
func StatusPath(id string) string { return "/api/v1/audits/" + id + "/status" }

// Whole waits for the end of the stream, whatever comes before it, and returns all its bytes.
func (s *Stream) Whole(t testing.TB) string {
	t.Helper()
	for {
		select {
		case _, ok := <-s.events:
			if !ok {
				return s.Raw.String()
			}
		case <-time.After(Patience):
			t.Fatalf("the stream has not ended; it sent:\n%s", s.Raw.String())
		}
	}
}

// WantWhole waits for the end of the stream and compares all its bytes.
func (s *Stream) WantWhole(t testing.TB, want string) {
	t.Helper()
	if got := s.Whole(t); got != want {
		t.Errorf("the stream sent\n%s\nwant\n%s", got, want)
	}
}

// WantEvent waits for the next event and compares it.
func (s *Stream) WantEvent(t testing.TB, want string) {
	t.Helper()
	if got := s.Next(t).Data; got != want {
		t.Errorf("event\n%s\nwant\n%s", got, want)
	}
}

// FirstEvent is what a stream of the audit of NewFirstAuditDatabase begins with.
const FirstEvent = ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: 0249ba9950110425\n" +
	"data: {\"audit_id\":1,\"status\":\"running\",\"progress\":25,\"message\":\"Analyzing pages...\"}\n\n"

// WantSoFar waits until the stream has sent as many bytes, and compares them.
func (s *Stream) WantSoFar(t testing.TB, want string) {
	t.Helper()
	Eventually(t, func() error {
		if got := s.Raw.String(); !strings.HasPrefix(got, want) {
			return fmt.Errorf("the stream sent\n%s\nwant\n%s", got, want)
		}
		return nil
	})
}

// SeveralIDs is what the stream ended with: a block without data, which is no event, with the id of all ends.
func (s *Stream) SeveralIDs(t testing.TB) string {
	t.Helper()
	raw := s.Whole(t)
	blocks := strings.Split(strings.TrimSuffix(raw, "\n\n"), "\n\n")
	id, found := strings.CutPrefix(blocks[len(blocks)-1], "id: ")
	if !found || len(id) != 16 {
		t.Fatalf("the stream sent\n%s\nwant an id at its end", raw)
	}
	return id
}
