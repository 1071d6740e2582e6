package auditstreamtest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"auditstream"
)

// Viewer is a client that watches one row, as a browser does: it reconnects when its stream ends. Its methods are safe for concurrent use.
type Viewer struct {
	server *Server
	key    auditstream.Key
	user   string
	path   string
	began  time.Time

	mu      sync.Mutex
	seen    []sighting
	next    int           // index in seen of the state at which the next Wait begins
	refused string        // why no state follows any more; "": one may
	changed chan struct{} // closed and replaced when one of these fields has changed
}

// sighting is a state that came, with its time since Watch began.
type sighting struct {
	auditstream.State
	after time.Duration
}

// WatchOption is an option of [Server.Watch].
type WatchOption func(*Viewer)

// As sets the user who watches: the row's user_id, or another to test that the row is refused.
func As(user string) WatchOption { return func(v *Viewer) { v.user = user } }

// Feed sets the feed of the row. Default: audits.
func Feed(name string) WatchOption { return func(v *Viewer) { v.key.Feed = name } }

// Watch returns once the first state has come, which is the committed one; see the package's guarantee. If it does not come in time, or
// the server refuses to show the row, Watch fails the test and says why. The viewer watches until the test ends.
func (s *Server) Watch(t testing.TB, id string, options ...WatchOption) *Viewer {
	t.Helper()
	v := &Viewer{server: s, key: auditstream.Key{ID: id}, began: time.Now(), changed: make(chan struct{})}
	for _, option := range options {
		option(v)
	}
	v.key.Feed = cmp.Or(v.key.Feed, "audits")
	v.path = s.URL + "/api/v1/sse/" + v.key.Feed + "/" + url.PathEscape(id) + "/progress"
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); v.follow(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if _, ok := v.await(t.Context(), func(auditstream.State) bool { return true }); !ok {
		t.Fatalf("auditstreamtest: Watch: %s", v.explainFailure(t.Context(), "no state came", nil))
	}
	return v
}

// Wait returns the first state that meets a condition: Progress, Status, Ended, or any function. It begins with the state that the last
// Wait returned, the first Wait with the first state. If none comes in time, it fails the test, shows the states that came, and guesses why.
func (v *Viewer) Wait(t testing.TB, condition func(auditstream.State) bool) auditstream.State {
	t.Helper()
	state, ok := v.await(t.Context(), condition)
	if !ok {
		t.Fatalf("auditstreamtest: Wait: %s", v.explainFailure(t.Context(), "no state that is waited for came", condition))
	}
	return state
}

// Progress is the condition that a row has this progress.
func Progress(percent int) func(auditstream.State) bool {
	return func(s auditstream.State) bool { return s.Progress == percent }
}

// Status is the condition that a row has this status, as viewers see it.
func Status(status string) func(auditstream.State) bool {
	return func(s auditstream.State) bool { return s.Status == status }
}

// Ended is the condition that no change of the row is expected any more.
func Ended() func(auditstream.State) bool {
	return func(s auditstream.State) bool { return s.Ended }
}

// States returns all states that have come, the oldest first.
func (v *Viewer) States() []auditstream.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	states := make([]auditstream.State, len(v.seen))
	for k, s := range v.seen {
		states[k] = s.State
	}
	return states
}

func (v *Viewer) await(ctx context.Context, condition func(auditstream.State) bool) (auditstream.State, bool) {
	late := time.NewTimer(v.server.timeout)
	defer late.Stop()
	for {
		v.mu.Lock()
		for k := v.next; k < len(v.seen); k++ {
			if state := v.seen[k].State; condition(state) {
				v.next = k
				v.mu.Unlock()
				return state, true
			}
		}
		changed, refused := v.changed, v.refused
		v.mu.Unlock()
		if refused != "" {
			return auditstream.State{}, false
		}
		select {
		case <-changed:
		case <-late.C:
			return auditstream.State{}, false
		case <-ctx.Done():
			return auditstream.State{}, false
		}
	}
}

// update changes the viewer under its lock, and wakes each Wait.
func (v *Viewer) update(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
	close(v.changed)
	v.changed = make(chan struct{})
}

// follow opens one stream after the other until there is nothing more to see.
func (v *Viewer) follow(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	last := ""
	for ctx.Err() == nil {
		over := v.stream(ctx, client, &last)
		if over {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryDelay):
		}
	}
}

// stream reads one stream to its end, and reports whether it was the last.
func (v *Viewer) stream(ctx context.Context, client *http.Client, last *string) (over bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.path, nil)
	if err != nil {
		v.update(func() { v.refused = err.Error() })
		return true
	}
	r.Header.Set("Authorization", "Bearer "+v.server.Token(v.user))
	if *last != "" {
		r.Header.Set("Last-Event-ID", *last)
	}
	resp, err := client.Do(r)
	if err != nil {
		return false // the next attempt may succeed
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNoContent: // the last state was terminal
		v.update(func() { v.seen[len(v.seen)-1].Ended = true })
		return true
	case resp.StatusCode >= http.StatusInternalServerError:
		return false
	case resp.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // an incomplete one will do
		v.update(func() { v.refused = fmt.Sprintf("status %d: %s", resp.StatusCode, text) })
		return true
	}
	return v.readEvents(resp.Body, last)
}
