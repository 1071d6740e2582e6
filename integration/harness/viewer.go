package harness

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

// Viewer follows one stream and remembers what matters under load: the newest state, and whether one ever went back.
type Viewer struct {
	ID     string
	Cancel context.CancelFunc
	Done   chan struct{} // closed at the end of the stream

	Mu     sync.Mutex
	more   chan struct{} // closed and replaced at each event
	Last   Progress
	LastID string
	events int
	beats  int
	Back   string // the first step back
	tail   []byte // the last bytes
	Err    error  // of the read that ended the stream; nil: it ended cleanly
	seen   func(p Progress, at time.Time)
}

// View follows an audit's stream as alice. seen, if not nil, is called for each state, by the goroutine that reads.
func (i *Instance) View(t testing.TB, id string, seen func(p Progress, at time.Time)) *Viewer {
	t.Helper()
	return i.ViewWith(t, NewTransport(), id, AliceToken(t), seen)
}

// Crowd opens n streams at once, spread over the audits.
func (i *Instance) Crowd(t testing.TB, n int, ids []string, seen func(p Progress, at time.Time)) []*Viewer {
	t.Helper()
	transport := NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	token := AliceToken(t)
	viewers := make([]*Viewer, n)
	for k := range viewers {
		viewers[k] = i.ViewWith(t, transport, ids[k%len(ids)], token, seen)
	}
	return viewers
}

// ViewWith is View on a transport; seen is called for each state, if it is not nil.
func (i *Instance) ViewWith(t testing.TB, transport *http.Transport, id, token string, seen func(p Progress, at time.Time)) *Viewer {
	t.Helper()
	var v *Viewer
	for again := 0; ; again++ { // as Watch
		var err error
		v, err = i.TryView(transport, Request(t, context.Background(), i.URL+"/api/v1/sse/audits/"+id+"/progress", token), seen)
		NoError(t, err)
		if again == 2 || !refusedForNow(v.begins(t)) {
			break
		}
	}
	v.ID = id
	t.Cleanup(func() {
		v.Cancel()
		<-v.Done
		transport.CloseIdleConnections()
		v.Mu.Lock()
		defer v.Mu.Unlock()
		if v.Back != "" {
			t.Errorf("the stream of audit %s went back: %s", id, v.Back)
		}
	})
	return v
}

// TryView is for goroutines that must not fail the test.
func (i *Instance) TryView(transport *http.Transport, r *http.Request, seen func(p Progress, at time.Time)) (*Viewer, error) {
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
	v := &Viewer{Cancel: cancel, Done: make(chan struct{}), more: make(chan struct{}), seen: seen}
	go func() {
		defer close(v.Done)
		defer cancel()
		defer resp.Body.Close()
		for event, err := range sse.Read(io.TeeReader(resp.Body, (*viewerTail)(v)), &sse.ReadConfig{MaxEventSize: 4 << 20}) {
			if err != nil {
				v.Mu.Lock()
				v.Err = err
				v.Mu.Unlock()
				return
			}
			v.take(event)
		}
	}()
	return v, nil
}

func (v *Viewer) take(event sse.Event) {
	at := time.Now()
	var p Progress
	err := json.Unmarshal([]byte(event.Data), &p)
	v.Mu.Lock()
	switch {
	case err != nil:
		v.Back = "event that is no JSON: " + event.Data
	case v.Last.TotalPages != nil && p.TotalPages != nil && *p.TotalPages < *v.Last.TotalPages && v.Back == "":
		v.Back = fmt.Sprintf("from %d to %d", *v.Last.TotalPages, *p.TotalPages)
	}
	v.Last, v.LastID = p, event.LastEventID
	v.events++
	close(v.more)
	v.more = make(chan struct{})
	v.Mu.Unlock()
	if v.seen != nil {
		v.seen(p, at)
	}
}

// viewerTail keeps the end of the bytes and counts heartbeats.
type viewerTail Viewer

func (v *viewerTail) Write(p []byte) (int, error) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.beats += bytes.Count(p, []byte(": heartbeat\n\n"))
	v.tail = append(v.tail, p...)
	v.tail = v.tail[max(0, len(v.tail)-200):]
	return len(p), nil
}

// Reached waits until the newest state has the number n or a later one.
func (v *Viewer) Reached(t testing.TB, n int) Progress {
	t.Helper()
	deadline := time.After(Patience)
	for {
		v.Mu.Lock()
		last, more := v.Last, v.more
		v.Mu.Unlock()
		if last.TotalPages != nil && *last.TotalPages >= n {
			return last
		}
		select {
		case <-more:
		case <-v.Done:
			v.Mu.Lock()
			last = v.Last
			v.Mu.Unlock()
			if last.TotalPages != nil && *last.TotalPages >= n {
				return last
			}
			t.Fatalf("audit %s: the stream has ended at %s, want state %d; it ended with %q", v.ID, Describe(last), n, v.End())
		case <-deadline:
			t.Fatalf("audit %s: the stream shows %s, want state %d; log of the stream's end: %q", v.ID, Describe(last), n, v.End())
		}
	}
}

// AllReached waits until the newest state of all viewers has the number n or a later one.
func AllReached(t testing.TB, viewers []*Viewer, n int) {
	t.Helper()
	for _, v := range viewers {
		v.Reached(t, n)
	}
}

// Ended waits for the end of the stream, which must be a clean one, and returns the last state.
func (v *Viewer) Ended(t testing.TB) Progress {
	t.Helper()
	select {
	case <-v.Done:
	case <-time.After(Patience):
		t.Fatalf("audit %s: the stream has not ended; its last bytes: %q", v.ID, v.End())
	}
	v.Mu.Lock()
	defer v.Mu.Unlock()
	if v.Err != nil {
		t.Fatalf("audit %s: the stream broke: %v", v.ID, v.Err)
	}
	return v.Last
}

// IsOpen says whether the stream has not ended yet.
func (v *Viewer) IsOpen() bool {
	select {
	case <-v.Done:
		return false
	default:
		return true
	}
}

// End is the last of what the stream has sent.
func (v *Viewer) End() string {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	return string(v.tail)
}

// begins waits for the first bytes.
func (v *Viewer) begins(t testing.TB) (raw string) {
	t.Helper()
	Eventually(t, func() error {
		if raw = v.End(); raw == "" && v.IsOpen() {
			return errors.New("the stream sent nothing")
		}
		return nil
	})
	return raw
}

// Counts are how many events and heartbeats came.
func (v *Viewer) Counts() (events, beats int) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	return v.events, v.beats
}

// Describe is a state in a word.
func Describe(p Progress) string {
	number := "no number"
	if p.TotalPages != nil {
		number = strconv.Itoa(*p.TotalPages)
	}
	return fmt.Sprintf("%s, %d %%, state %s", p.Status, p.Progress, number)
}

// Beating reports whether n more heartbeats have come since it was called: the stream is open and time goes by.
func (v *Viewer) Beating(n int) func() error {
	_, start := v.Counts()
	return func() error {
		if _, now := v.Counts(); now < start+n {
			return fmt.Errorf("audit %s: %d heartbeats came, want %d; the stream's last bytes: %q", v.ID, now-start, n, v.End())
		}
		return nil
	}
}
