package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

// The tests of faults number an audit's states in total_pages, so that a stream that goes back shows it.

// viewer follows one stream and remembers what matters under load: the newest state, and whether one ever went back.
type viewer struct {
	id     string
	cancel context.CancelFunc
	done   chan struct{} // closed at the end of the stream

	mu     sync.Mutex
	more   chan struct{} // closed and replaced at each event
	last   progress
	lastID string
	events int
	beats  int
	back   string // the first step back
	tail   []byte // the last bytes
	err    error  // of the read that ended the stream; nil: it ended cleanly
	seen   func(p progress, at time.Time)
}

// view follows an audit's stream as alice. seen, if not nil, is called for each state, by the goroutine that reads.
func (i *instance) view(t testing.TB, id string, seen func(p progress, at time.Time)) *viewer {
	t.Helper()
	return i.viewWith(t, newTransport(), id, alice(t), seen)
}

// crowd opens n streams at once, spread over the audits.
func (i *instance) crowd(t testing.TB, n int, ids []string, seen func(p progress, at time.Time)) []*viewer {
	t.Helper()
	transport := newTransport()
	t.Cleanup(transport.CloseIdleConnections)
	token := alice(t)
	viewers := make([]*viewer, n)
	for k := range viewers {
		viewers[k] = i.viewWith(t, transport, ids[k%len(ids)], token, seen)
	}
	return viewers
}

func (i *instance) viewWith(t testing.TB, transport *http.Transport, id, token string, seen func(p progress, at time.Time)) *viewer {
	t.Helper()
	var v *viewer
	for again := 0; ; again++ { // as watch
		var err error
		v, err = i.tryView(transport, request(t, context.Background(), i.URL+"/api/v1/sse/audits/"+id+"/progress", token), seen)
		if err != nil {
			t.Fatal(err)
		}
		if again == 2 || !refusedForNow(v.begins(t)) {
			break
		}
	}
	v.id = id
	t.Cleanup(func() {
		v.cancel()
		<-v.done
		transport.CloseIdleConnections()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.back != "" {
			t.Errorf("the stream of audit %s went back: %s", id, v.back)
		}
	})
	return v
}

// tryView is for goroutines that must not fail the test.
func (i *instance) tryView(transport *http.Transport, r *http.Request, seen func(p progress, at time.Time)) (*viewer, error) {
	ctx, cancel := context.WithCancel(r.Context())
	resp, err := transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		cancel()
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if r.URL.Scheme == "https" && resp.ProtoMajor != 2 {
		cancel()
		return nil, fmt.Errorf("answered in %s, want HTTP/2", resp.Proto)
	}
	v := &viewer{cancel: cancel, done: make(chan struct{}), more: make(chan struct{}), seen: seen}
	go func() {
		defer close(v.done)
		defer cancel()
		defer resp.Body.Close()
		for event, err := range sse.Read(io.TeeReader(resp.Body, (*viewerTail)(v)), &sse.ReadConfig{MaxEventSize: 4 << 20}) {
			if err != nil {
				v.mu.Lock()
				v.err = err
				v.mu.Unlock()
				return
			}
			v.take(event)
		}
	}()
	return v, nil
}

func (v *viewer) take(event sse.Event) {
	at := time.Now()
	var p progress
	err := json.Unmarshal([]byte(event.Data), &p)
	v.mu.Lock()
	switch {
	case err != nil:
		v.back = "event that is no JSON: " + event.Data
	case v.last.TotalPages != nil && p.TotalPages != nil && *p.TotalPages < *v.last.TotalPages && v.back == "":
		v.back = fmt.Sprintf("from %d to %d", *v.last.TotalPages, *p.TotalPages)
	}
	v.last, v.lastID = p, event.LastEventID
	v.events++
	close(v.more)
	v.more = make(chan struct{})
	v.mu.Unlock()
	if v.seen != nil {
		v.seen(p, at)
	}
}

// viewerTail keeps the end of the bytes and counts heartbeats.
type viewerTail viewer

func (v *viewerTail) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.beats += bytes.Count(p, []byte(": heartbeat\n\n"))
	v.tail = append(v.tail, p...)
	v.tail = v.tail[max(0, len(v.tail)-200):]
	return len(p), nil
}

// reached waits until the newest state has the number n or a later one.
func (v *viewer) reached(t testing.TB, n int) progress {
	t.Helper()
	deadline := time.After(patience)
	for {
		v.mu.Lock()
		last, more := v.last, v.more
		v.mu.Unlock()
		if last.TotalPages != nil && *last.TotalPages >= n {
			return last
		}
		select {
		case <-more:
		case <-v.done:
			v.mu.Lock()
			last = v.last
			v.mu.Unlock()
			if last.TotalPages != nil && *last.TotalPages >= n {
				return last
			}
			t.Fatalf("audit %s: the stream has ended at %s, want state %d; it ended with %q", v.id, describe(last), n, v.end())
		case <-deadline:
			t.Fatalf("audit %s: the stream shows %s, want state %d; log of the stream's end: %q", v.id, describe(last), n, v.end())
		}
	}
}

// ended waits for the end of the stream, which must be a clean one, and returns the last state.
func (v *viewer) ended(t testing.TB) progress {
	t.Helper()
	select {
	case <-v.done:
	case <-time.After(patience):
		t.Fatalf("audit %s: the stream has not ended; its last bytes: %q", v.id, v.end())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		t.Fatalf("audit %s: the stream broke: %v", v.id, v.err)
	}
	return v.last
}

func (v *viewer) isOpen() bool {
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

func (v *viewer) end() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return string(v.tail)
}

// begins waits for the first bytes.
func (v *viewer) begins(t testing.TB) (raw string) {
	t.Helper()
	eventually(t, func() error {
		if raw = v.end(); raw == "" && v.isOpen() {
			return errors.New("the stream sent nothing")
		}
		return nil
	})
	return raw
}

func (v *viewer) counts() (events, beats int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.events, v.beats
}

func describe(p progress) string {
	number := "no number"
	if p.TotalPages != nil {
		number = strconv.Itoa(*p.TotalPages)
	}
	return fmt.Sprintf("%s, %d %%, state %s", p.Status, p.Progress, number)
}

// beating reports whether n more heartbeats have come since it was called: the stream is open and time goes by.
func (v *viewer) beating(n int) func() error {
	_, start := v.counts()
	return func() error {
		if _, now := v.counts(); now < start+n {
			return fmt.Errorf("audit %s: %d heartbeats came, want %d; the stream's last bytes: %q", v.id, now-start, n, v.end())
		}
		return nil
	}
}
