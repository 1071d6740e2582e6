package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"auditstream/store"

	"github.com/gorilla/mux"
)

// firstReadTimeout is how long a new stream waits for the database before it is asked to come back later.
const firstReadTimeout = 2 * time.Second

// stream serves GET /api/v1/sse/audits/{audit_id}/progress.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	who, id, err := s.admit(r)
	if err != nil {
		s.refuseStream(w, r, err)
		return
	}
	if !s.limit.acquire(who.key()) {
		s.refuseStream(w, r, errTooManyStreams)
		return
	}
	handed := false // to a stream that outlives this call
	defer func() {
		if !handed {
			s.limit.release(who.key())
		}
	}()

	socket, wake := s.mayHijack(w, r)
	states, cancel, err := s.subscribe(r.Context(), id, wake)
	if err != nil {
		s.refuseStream(w, r, err)
		return
	}
	defer func() {
		if !handed {
			cancel()
		}
	}()
	first := <-states
	if err := mayShow(first, who); err != nil {
		s.refuseStream(w, r, err)
		return
	}
	if first.Terminal() && lastEventID(r) == first.Fingerprint {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent) // the client has seen the end; EventSource stops for good
		return
	}
	f := follower{id: id, who: who, states: states, cancel: cancel, start: time.Now()}
	if socket != nil && !first.Terminal() && socket.hijack(w) {
		handed = true
		socket.begin(f, []*store.State{first})
		return
	}
	s.follow(r.Context(), openEvents(w), f, []*store.State{first})
}

// admit authenticates a request and finds out which audit it is about.
func (s *Server) admit(r *http.Request) (viewer, int64, error) {
	who, err := s.authenticate(r)
	if err != nil {
		return viewer{}, 0, err
	}
	id, err := auditID(mux.Vars(r)["audit_id"])
	return who, id, err
}

func (s *Server) authenticate(r *http.Request) (viewer, error) {
	if isCrowded(r) {
		return viewer{}, errTooManyConns
	}
	token, err := s.token(r)
	if err != nil {
		return viewer{}, err
	}
	return s.verifier.verify(r.Context(), token)
}

// auditID accepts the decimal form alone, as PostgreSQL prints it, so that each audit has one URL.
func auditID(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != text {
		return 0, errAuditID
	}
	return id, nil
}

// subscribe waits for the first state. Failing to get it is the database's fault or a shutdown's: both pass.
func (s *Server) subscribe(ctx context.Context, id int64, wake func()) (<-chan *store.State, func(), error) {
	ctx, stop := context.WithTimeout(ctx, firstReadTimeout)
	defer stop()
	states, cancel, err := s.cfg.Subscriber.Subscribe(ctx, id, wake)
	return states, cancel, cannotSubscribe(err)
}

func cannotSubscribe(err error) error {
	switch {
	case errors.Is(err, errDraining):
		return because(errShuttingDown, err)
	case err != nil:
		return because(errUnavailable, err)
	}
	return nil
}

var errExpired = errors.New("the token expired while its stream was open")

// mayShow reports why a state must not be shown, or nil. It is asked for every state, not only the first: rows change
// owners and disappear, and a token may expire while its stream waits for the database.
func mayShow(state *store.State, who viewer) error {
	switch {
	case !time.Now().Before(who.expires):
		return because(errInvalidToken, errExpired)
	case state.Err != nil:
		return because(errInternal, state.Err)
	case !state.Found:
		return errNoAudit
	case !state.Audit.OwnedBy(who.Viewer):
		return errForbidden
	}
	return nil
}

// lastEventID is the id of the last event that a reconnecting client has seen. Clients that cannot set the header send a
// query parameter, in one of two spellings.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	q := r.URL.Query()
	if id := q.Get("last_event_id"); id != "" {
		return id
	}
	return q.Get("lastEventId")
}

// follower is what a stream knows when it starts.
type follower struct {
	id     int64
	who    viewer
	states <-chan *store.State
	cancel func()
	start  time.Time

	several *several // nil: the stream is of one audit; otherwise id and states are not set
}

// Why a stream ended, for the log and the metrics.
const (
	endTerminal  = "terminal"
	endClient    = "client gone"
	endTimeout   = "timeout"
	endExpired   = "token expired"
	endForbidden = "owner changed"
	endDeleted   = "deleted"
	endShutdown  = "shutdown"
	endError     = "error"
)

// follow shows what there is until it ends, and accounts for it.
func (s *Server) follow(ctx context.Context, events *eventStream, f follower, first []*store.State) {
	s.metrics.streams.Inc()
	s.endSpan(ctx)
	reason, err := s.show(ctx, events, f, first)
	s.ended(f, events.events, reason, err)
}

// ended accounts for a stream that has ended.
func (s *Server) ended(f follower, events int, reason string, err error) {
	s.metrics.streams.Dec()
	s.metrics.ended.WithLabelValues(reason).Inc()
	attrs := []slog.Attr{
		f.subject(), slog.Duration("duration", time.Since(f.start)),
		slog.Int("events", events), slog.String("reason", reason),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "stream ended", attrs...)
}

// subject is what the log says a stream was about.
func (f follower) subject() slog.Attr {
	switch {
	case f.several == nil:
		return slog.Int64("audit", f.id)
	case f.several.open == nil:
		return slog.String("audits", "all of the user's")
	}
	return slog.Int("audits", len(f.several.open)+len(f.several.ends))
}

// show is a stream that net/http serves: one goroutine, one select. It returns why it ended, and the error of a write that
// failed. hijacked.step is the same for a stream without a goroutine.
func (s *Server) show(ctx context.Context, events *eventStream, f follower, first []*store.State) (reason string, err error) {
	if reason, err := s.showFirst(events, f, first); reason != "" {
		return reason, err
	}
	var group <-chan []*store.State
	if f.several != nil {
		group = f.several.states
	}
	limit, text, reason := s.lifetime(f.who)
	end := time.NewTimer(limit)
	defer end.Stop()
	heartbeat := time.NewTimer(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), errDraining) {
				return endClient, nil
			}
			return endShutdown, events.retry(s.retryDelay())
		case <-end.C:
			return reason, events.fail(text, s.retryAfter(reason))
		case <-heartbeat.C:
			err = events.heartbeat()
		case state := <-f.states:
			reason, err := s.showState(events, state, f.who)
			if reason != "" {
				return reason, err
			}
		case states := <-group:
			reason, err := s.showSeveral(events, states, f)
			if reason != "" {
				return reason, err
			}
		}
		if err != nil {
			return endClient, err
		}
		heartbeat.Reset(s.cfg.Heartbeat)
	}
}

// showFirst writes the states at the time of connecting. The reason is empty unless the stream ends with them.
func (s *Server) showFirst(events *eventStream, f follower, first []*store.State) (reason string, err error) {
	if f.several != nil {
		return s.showFirstSeveral(events, first, f)
	}
	if err := events.first(first[0], s.cfg.Retry); err != nil {
		return endClient, err
	}
	s.metrics.events.Inc()
	if first[0].Terminal() {
		return endTerminal, nil
	}
	return "", nil
}

// showState writes a changed state. The reason is empty while the stream goes on.
func (s *Server) showState(events *eventStream, state *store.State, who viewer) (reason string, err error) {
	if refused := mayShow(state, who); refused != nil {
		return s.revoke(events, refused)
	}
	err = events.state(state)
	s.metrics.sent(state, err)
	switch {
	case err != nil:
		return endClient, err
	case state.Terminal():
		return endTerminal, nil
	}
	return "", nil
}

// lifetime is how long the stream may last, and how it ends then: whichever comes first of the token's expiry and
// SSE_MAX_DURATION.
func (s *Server) lifetime(who viewer) (limit time.Duration, text, reason string) {
	if left := time.Until(who.expires); left < s.cfg.MaxDuration {
		return left, textExpired, endExpired
	}
	return s.cfg.MaxDuration, textTimeout, endTimeout
}

// revoke ends a stream whose audit may not be shown any more.
func (s *Server) revoke(events *eventStream, refused error) (reason string, err error) {
	answer := answerTo(refused)
	switch answer {
	case errInvalidToken:
		return endExpired, events.fail(textExpired, 0)
	case errForbidden:
		reason = endForbidden
	case errNoAudit:
		reason = endDeleted
	default:
		reason = endError
		s.cfg.Logger.Error("audit cannot be shown", "error", refused)
	}
	return reason, events.fail(answer.text, s.retryAfter(reason))
}

// retryAfter is the delay that a client is told when its stream ends: a random one where the server ends it for reasons
// of its own, so that many streams opened together do not come back together. Where the client must change something
// first, it keeps the one it has.
func (s *Server) retryAfter(reason string) time.Duration {
	switch reason {
	case endTimeout, endShutdown, endError:
		return s.retryDelay()
	}
	return 0
}
