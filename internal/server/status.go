package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"auditstream/internal/store"
)

// status serves GET /api/v1/{feed}/{id}/status, the polling fallback. The hub batches the reads of all clients that poll.
func (s *Handler) status(w http.ResponseWriter, r *http.Request) {
	state, err := s.read(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	etag := `"` + state.Fingerprint + `"`
	h := w.Header()
	h.Set("Cache-Control", "private, no-cache")
	h.Set("ETag", etag)
	h.Add("Vary", "Authorization, Cookie") // CORS has set Origin
	if etagMatches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if state.EndsByItsWord() { // on a stream, endComment says it
		h.Set(AnswerHeader, answerFinal)
	}
	s.writeJSON(w, r, http.StatusOK, state.JSON)
}

// read subscribes, takes the first state, and unsubscribes. It does not confirm, so writers do not learn of it.
func (s *Handler) read(r *http.Request) (*store.State, error) {
	who, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	f, err := s.feed(r)
	if err != nil {
		return nil, err
	}
	ids, err := pathKey(r, f.Feed)
	if err != nil {
		return nil, err
	}
	if s.refusals.exceeded(who, r) {
		return nil, errTooManyRefused
	}
	sub, err := subscribe(r.Context(), f, who, ids, nil)
	if err != nil {
		return nil, err
	}
	defer sub.Cancel()
	states := sub.Take()
	if err := s.check(r, f, who, ids, states); err != nil {
		return nil, err
	}
	return states[0], nil
}

// etagMatches compares weakly, as RFC 9110, section 13.1.2 requires for If-None-Match.
func etagMatches(headers []string, etag string) bool {
	for _, header := range headers {
		for candidate := range strings.SplitSeq(header, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// healthz serves GET /healthz: the process is alive.
func (s *Handler) healthz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	s.writeJSON(w, r, http.StatusOK, []byte(`{"status":"ok"}`))
}

// readyz serves GET /readyz: whether streams can be served, and whether changes arrive by notification ("up") or are found by polling only
// ("polling").
func (s *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	listener := "polling"
	if s.cfg.Listening() {
		listener = "up"
	}
	status, state, database := http.StatusOK, "ready", "up"
	if err := s.ready.check(r.Context(), s.cfg.Ping); err != nil {
		s.cfg.Logger.DebugContext(r.Context(), "not ready", "error", err)
		status, state, database = http.StatusServiceUnavailable, "unavailable", "down"
	}
	if s.draining.Load() {
		status, state = http.StatusServiceUnavailable, "shutting down"
	}
	w.Header().Set("Cache-Control", "no-store")
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "1")
	}
	rows := ""
	if s.cfg.Unreadable != nil && status == http.StatusOK {
		if n := s.cfg.Unreadable(); n > 0 {
			rows = `,"unreadable_rows":` + strconv.Itoa(n)
		}
	}
	if s.cfg.Drift != nil && status == http.StatusOK {
		if kinds := s.cfg.Drift(); len(kinds) > 0 {
			rows += `,"drift":["` + strings.Join(kinds, `","`) + `"]`
		}
	}
	s.writeJSON(w, r, status, []byte(`{"status":"`+state+`","database":"`+database+`","listener":"`+listener+`"`+rows+`}`))
}

// readiness caches for a second whether the database can be read: /readyz needs no token, so it must not cause load.
type readiness struct {
	mu      sync.Mutex
	checked time.Time
	err     error
}

func (c *readiness) check(ctx context.Context, ping func(context.Context) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < time.Second {
		return c.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), firstReadTimeout) // concurrent requests get this answer, too
	defer cancel()
	c.err = ping(ctx)
	c.checked = time.Now()
	return c.err
}
