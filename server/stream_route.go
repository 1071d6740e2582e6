package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"auditstream/store"

	"github.com/gorilla/mux"
)

const (
	// firstReadTimeout is how long a request waits for the database before its client is asked to come back later.
	firstReadTimeout = 2 * time.Second
	// maxIDs is how many audits one stream may be asked for.
	maxIDs = 100
)

// serveStream serves GET /api/v1/sse/audits/{audit_id}/progress and GET /api/v1/sse/audits/progress, which differ in where ids finds
// what is asked for. It opens a stream and sends its first events; then whoever serves it goes on.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, ids func(*http.Request) ([]store.Key, error)) {
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
		w.WriteHeader(http.StatusNoContent) // the client has seen the end; EventSource stops for good
		return
	}
	if !over {
		if c := s.take(w, r); c != nil {
			c.serve(st, first)
			return
		}
	}
	s.endSpan(r.Context())
	newResponse(w).serve(r.Context(), st, first)
}

// open subscribes to the audits, all of the viewer's if nil is asked for, and takes their first states. It is all or nothing: the error
// is why one must not be shown. Writers are told nothing yet.
func (s *Server) open(r *http.Request, asked func(*http.Request) ([]store.Key, error)) (*stream, []*store.State, error) {
	who, err := s.authenticate(r)
	if err != nil {
		return nil, nil, err
	}
	ids, err := asked(r)
	if err != nil {
		return nil, nil, err
	}
	if s.refusals.exceeded(who, r) {
		return nil, nil, errTooManyRefused
	}
	if !s.limit.acquire(who.key()) {
		return nil, nil, errTooManyStreams
	}
	st := &stream{server: s, who: who, open: slices.Clone(ids), all: ids == nil, start: time.Now()}
	st.due.Store(dueClaimed) // by the handler
	opened := false
	defer func() {
		if !opened {
			st.release()
		}
	}()
	if st.sub, err = s.subscribe(r.Context(), who, ids, st.wake); err != nil {
		return nil, nil, err
	}
	first := st.sub.Take()
	if st.all {
		slices.SortFunc(first, byKey)
	} else if err := s.check(r, who, ids, first); err != nil {
		return nil, nil, err
	}
	opened = true
	return st, first, nil
}

// subscribe waits for the first states. Failing to get them is the database's fault or a shutdown's: both pass.
func (s *Server) subscribe(ctx context.Context, who viewer, ids []store.Key, wake func()) (sub Subscription, err error) {
	ctx, stop := context.WithTimeout(ctx, firstReadTimeout)
	defer stop()
	if ids == nil {
		sub, err = s.cfg.Hub.SubscribeOwned(ctx, who.Viewer, wake)
	} else {
		sub, err = s.cfg.Hub.Subscribe(ctx, ids, wake)
	}
	switch {
	case errors.Is(err, errDraining):
		return nil, because(errShuttingDown, err)
	case err != nil:
		return nil, because(errUnavailable, err)
	}
	return sub, nil
}

// check puts first states into the order of ids and returns why one must not be shown, the first in that order.
func (s *Server) check(r *http.Request, who viewer, ids []store.Key, states []*store.State) (refused error) {
	if len(states) < len(ids) { // or nobody would know whose the others are
		return because(errInternal, fmt.Errorf("%d first states of %d audits", len(states), len(ids)))
	}
	slices.SortFunc(states, func(a, b *store.State) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
	count := 0
	for _, state := range states {
		err := mayShow(state, who)
		if answer := answerTo(err); err != nil && (answer == errForbidden || answer == errNoAudit) { // the others are not the asker's fault
			count++
		}
		if refused == nil && err != nil && mux.Vars(r)["audit_id"] == "" { // the URL does not say which
			err = about(state.ID, err)
		}
		refused = cmp.Or(refused, err)
	}
	s.refusals.count(who, r, count)
	return refused
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

func (s *Server) authenticate(r *http.Request) (viewer, error) {
	if isOverLimit(r) {
		return viewer{}, errTooManyConns
	}
	token, err := s.token(r)
	if err != nil {
		if f := faultOf[answerTo(err)]; f != nil {
			s.verifier.faults.log(r.Context(), f)
		}
		return viewer{}, err
	}
	return s.verifier.verify(r.Context(), token)
}

// auditID reads the key in a path.
func auditID(r *http.Request) (store.Key, error) {
	id, ok := store.ParseKey(mux.Vars(r)["audit_id"])
	if !ok {
		return "", errAuditID
	}
	return id, nil
}

// pathIDs are the audits that a path asks for.
func pathIDs(r *http.Request) ([]store.Key, error) {
	id, err := auditID(r)
	return []store.Key{id}, err
}

// queryIDs reads the parameter ids, in its order, without what it repeats; nil: there is none. It reads the query by itself:
// net/url's Query drops what it does not understand, and a list that is lost would be a request for all audits.
func queryIDs(r *http.Request) ([]store.Key, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errIDs
	}
	lists := query["ids"]
	if len(lists) == 0 {
		return nil, nil
	}
	if len(lists) > 1 || strings.Count(lists[0], ",") >= maxIDs {
		return nil, errIDs
	}
	var ids []store.Key
	for text := range strings.SplitSeq(lists[0], ",") {
		id, ok := store.ParseKey(text)
		if !ok {
			return nil, errIDs
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
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
