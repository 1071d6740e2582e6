package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"auditstream/internal/store"
)

const (
	// firstReadTimeout is how long a request waits for the database before its client is asked to come back later.
	firstReadTimeout = 2 * time.Second
	// maxIDs is how many rows a client may ask for on one stream.
	maxIDs = 100
)

// serveStream serves GET /api/v1/sse/{feed}/{id}/progress and GET /api/v1/sse/{feed}/progress; ids finds the keys, in the path or the query.
// It opens a stream, which a hijacked connection or a response then serves.
func (s *Handler) serveStream(w http.ResponseWriter, r *http.Request, ids keyFinder) {
	if !takesDeadlines(w) {
		s.writeError(w, r, withCause(errInternal, errNoDeadlines))
		return
	}
	st, first, err := s.open(r, ids)
	if err != nil {
		s.refuseStream(w, r, err)
		return
	}
	over := !st.all && !slices.ContainsFunc(first, func(state *store.State) bool { return !state.Terminal() })
	if over && lastEventID(r) == endID(first) {
		st.release()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set(AnswerHeader, answerFinal)
		w.WriteHeader(http.StatusNoContent) // the client has seen the last state; 204 stops EventSource for good
		return
	}
	if c := s.hijack(w, r); c != nil {
		c.serve(st, first)
		return
	}
	s.endSpan(r.Context())
	newResponse(w).serve(r.Context(), st, first)
}

var errNoDeadlines = errors.New("a stream can neither be flushed nor bounded: middleware around the handler wraps the http.ResponseWriter; " +
	"give its wrapper the method Unwrap() http.ResponseWriter")

// takesDeadlines reports whether an http.ResponseController could set write deadlines.
func takesDeadlines(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case interface{ SetWriteDeadline(time.Time) error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// open authenticates the viewer, subscribes to the rows that findKeys finds, and takes their first states. It is all or nothing: the error
// says why one row must not be shown. It does not confirm the subscription, so writers do not learn of it yet.
func (s *Handler) open(r *http.Request, findKeys keyFinder) (*stream, []*store.State, error) {
	who, err := s.authenticate(r)
	if err != nil {
		return nil, nil, err
	}
	f, err := s.feed(r)
	if err != nil {
		return nil, nil, err
	}
	ids, err := findKeys(r, f.Feed)
	if err != nil {
		return nil, nil, err
	}
	if s.refusals.exceeded(who, r) {
		return nil, nil, errTooManyRefused
	}
	if !s.limit.acquire(who.key()) {
		return nil, nil, errTooManyStreams
	}
	st := &stream{server: s, feed: f.Feed, who: who, open: slices.Clone(ids), all: ids == nil, start: time.Now()}
	st.due.Store(dueClaimed) // the handler holds the claim
	opened := false
	defer func() {
		if !opened {
			st.release()
		}
	}()
	if st.sub, err = subscribe(r.Context(), f, who, ids, st.wake); err != nil {
		return nil, nil, err
	}
	first := st.sub.Take()
	if st.all {
		slices.SortFunc(first, byKey)
	} else if err := s.check(r, f, who, ids, first); err != nil {
		return nil, nil, err
	}
	opened = true
	return st, first, nil
}

// subscribe waits for the first states. If they do not come, the database is unreachable or the server shuts down: both answers are
// temporary.
func subscribe(ctx context.Context, f Feed, who Viewer, ids []store.Key, wake func()) (sub Subscription, err error) {
	if err := context.Cause(ctx); errors.Is(err, errDraining) {
		return nil, withCause(errShuttingDown, err)
	}
	ctx, stop := context.WithTimeout(ctx, firstReadTimeout)
	defer stop()
	if ids == nil {
		sub, err = f.Hub.SubscribeOwned(ctx, who.Viewer, wake)
	} else {
		sub, err = f.Hub.Subscribe(ctx, ids, wake)
	}
	switch {
	case errors.Is(err, errDraining):
		return nil, withCause(errShuttingDown, err)
	case err != nil:
		return nil, withCause(errUnavailable, err)
	}
	return sub, nil
}

// check sorts the first states in the order of ids, counts the refused rows, and returns the first refusal in that order.
func (s *Handler) check(r *http.Request, f Feed, who Viewer, ids []store.Key, states []*store.State) (refused error) {
	if len(states) < len(ids) { // a row without a state could not be checked
		return withCause(errInternal, fmt.Errorf("%d first states of %d rows", len(states), len(ids)))
	}
	slices.SortFunc(states, func(a, b *store.State) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
	count := 0
	for _, state := range states {
		err := checkAccess(state, who)
		if answer := answerTo(err); err != nil && (answer == errForbidden || answer == errNoRow) { // other errors are not the client's fault
			count++
		}
		if answerTo(err) == errNoRow {
			err = wordedFor(f.Feed, errNoRow)
		}
		if refused == nil && err != nil && pathVar(r, "id") == "" { // the path does not say which row is refused
			err = nameKey(f.Feed, state.ID, err)
		}
		refused = cmp.Or(refused, err)
	}
	s.refusals.count(who, r, count)
	return refused
}

var errExpired = errors.New("the token expired while its stream was open")

// checkAccess returns why a state must not be shown, or nil. It is called for every state, not only the first: rows are deleted or change
// their owner, and a token may expire while its stream waits for the database.
func checkAccess(state *store.State, who Viewer) error {
	switch {
	case !time.Now().Before(who.Expires):
		return withCause(errInvalidToken, errExpired)
	case state.Err != nil:
		return withCause(errInternal, state.Err)
	case !state.Found:
		return errNoRow
	case !state.Row.OwnedBy(who.Viewer):
		return errForbidden
	}
	return nil
}

func (s *Handler) authenticate(r *http.Request) (Viewer, error) {
	if isOverLimit(r) {
		return Viewer{}, errTooManyConns
	}
	if s.cfg.Viewer != nil {
		return s.viewerOf(r)
	}
	token, err := s.token(r)
	if err != nil {
		if f := requestFaults[answerTo(err)]; f != nil {
			s.verifier.faults.log(r.Context(), f)
		}
		return Viewer{}, err
	}
	return s.verifier.verify(r.Context(), token)
}

// lastEventID returns the id of the last event that a reconnecting client has seen. Clients that cannot set the header send a query
// parameter, in one of two spellings.
func lastEventID(r *http.Request) string {
	q := r.URL.Query()
	return cmp.Or(r.Header.Get("Last-Event-ID"), q.Get("last_event_id"), q.Get("lastEventId"))
}
