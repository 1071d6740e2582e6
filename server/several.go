package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"auditstream/store"
)

// maxIDs is how many audits one stream may be asked for.
const maxIDs = 100

// several is what a stream of several audits knows beside a [follower].
type several struct {
	states <-chan []*store.State
	open   map[int64]struct{} // of those asked for, the ones that have not ended; nil: all that the user owns
	ends   []*store.State     // of those asked for, the terminal states sent
}

// streamSeveral serves GET /api/v1/sse/audits/progress.
func (s *Server) streamSeveral(w http.ResponseWriter, r *http.Request) {
	who, err := s.authenticate(r)
	if err != nil {
		s.refuseStream(w, r, err)
		return
	}
	ids, err := auditIDs(r.URL)
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
	states, cancel, err := s.subscribeSeveral(r.Context(), ids, who, wake)
	if err != nil {
		s.refuseStream(w, r, err)
		return
	}
	defer func() {
		if !handed {
			cancel()
		}
	}()
	f := follower{who: who, cancel: cancel, start: time.Now(), several: &several{states: states}}
	first, err := f.several.begin(ids, who)
	if err != nil {
		s.refuseStream(w, r, err)
		return
	}
	over := f.several.over()
	if over && lastEventID(r) == endID(f.several.ends) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if socket != nil && !over && socket.hijack(w) {
		handed = true
		socket.begin(f, first)
		return
	}
	s.follow(r.Context(), openEvents(w), f, first)
}

// auditIDs reads the parameter ids, in its order, without what it repeats; nil: there is none. It reads the query by itself:
// net/url's Query drops what it does not understand, and a list that is lost would be a request for all audits.
func auditIDs(u *url.URL) ([]int64, error) {
	query, err := url.ParseQuery(u.RawQuery)
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
	var ids []int64
	for text := range strings.SplitSeq(lists[0], ",") {
		id, err := auditID(text)
		if err != nil {
			return nil, errIDs
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (s *Server) subscribeSeveral(ctx context.Context, ids []int64, who viewer, wake func()) (<-chan []*store.State, func(), error) {
	ctx, stop := context.WithTimeout(ctx, firstReadTimeout)
	defer stop()
	var (
		states <-chan []*store.State
		cancel func()
		err    error
	)
	if ids != nil {
		states, cancel, err = s.cfg.Groups.SubscribeMany(ctx, ids, wake)
	} else {
		states, cancel, err = s.cfg.Groups.SubscribeOwned(ctx, who.Viewer, wake)
	}
	return states, cancel, cannotSubscribe(err)
}

// begin takes the first states and puts them into the order in which they are sent: that of the request, or else of the ids.
// The error is why one of those asked for must not be shown, the first in that order.
func (v *several) begin(ids []int64, who viewer) (first []*store.State, err error) {
	if ids == nil {
		select {
		case first = <-v.states:
		default: // the user owns none
		}
		slices.SortStableFunc(first, func(a, b *store.State) int { return cmp.Compare(a.ID, b.ID) })
		return first, nil
	}
	first = <-v.states // which are there, but for moments in which the hub adds to them
	v.open = make(map[int64]struct{}, len(ids))
	places := make(map[int64]int, len(ids))
	for k, id := range ids {
		places[id] = k
		v.open[id] = struct{}{}
	}
	slices.SortStableFunc(first, func(a, b *store.State) int { return cmp.Compare(places[a.ID], places[b.ID]) })
	for _, state := range first {
		if err := mayShow(state, who); err != nil {
			return nil, about(state.ID, err)
		}
		v.shown(state)
	}
	return first, nil
}

// shown notes the end of an audit.
func (v *several) shown(state *store.State) {
	if _, ok := v.open[state.ID]; ok && state.Terminal() {
		delete(v.open, state.ID)
		v.ends = append(v.ends, state)
	}
}

// over reports whether all audits that were asked for have ended. Of all that a user owns there may always be another.
func (v *several) over() bool { return v.open != nil && len(v.open) == 0 }

// endID names the end of several audits, as a fingerprint names that of one: a client that comes back with it has seen them
// all end. The id of the event that came last does not say so: whoever lost the stream after one end and before another has
// the first one's as well. Of one audit it is the fingerprint itself.
func endID(ends []*store.State) string {
	ends = slices.SortedFunc(slices.Values(ends), func(a, b *store.State) int { return cmp.Compare(a.ID, b.ID) })
	if len(ends) == 1 {
		return ends[0].Fingerprint
	}
	hash := sha256.New()
	for _, state := range ends {
		hash.Write([]byte(strconv.FormatInt(state.ID, 10) + " " + state.Fingerprint + "\n"))
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// showSeveral writes changed states. The reason is empty while the stream goes on.
func (s *Server) showSeveral(events *eventStream, states []*store.State, f follower) (reason string, err error) {
	for _, state := range states {
		if refused := mayShow(state, f.who); refused != nil {
			if f.several.leaveOut(refused) {
				s.leftOut(refused)
				continue
			}
			return s.revoke(events, refused)
		}
		err := events.state(state)
		s.metrics.sent(state, err)
		if err != nil {
			return endClient, err
		}
		f.several.shown(state)
	}
	if !f.several.over() {
		return "", nil
	}
	if len(f.several.ends) > 1 { // the last event's own id does not say it
		err = events.lastID(endID(f.several.ends))
	}
	return endTerminal, err
}

// showFirstSeveral is showSeveral for the states at the time of connecting, of which there may be none.
func (s *Server) showFirstSeveral(events *eventStream, first []*store.State, f follower) (reason string, err error) {
	for k, state := range first {
		if refused := mayShow(state, f.who); refused != nil {
			if f.several.leaveOut(refused) {
				s.leftOut(refused)
				continue
			}
			break // as showSeveral does
		}
		if err := events.first(state, s.cfg.Retry); err != nil {
			return endClient, err
		}
		s.metrics.events.Inc()
		f.several.shown(state)
		return s.showSeveral(events, first[k+1:], f)
	}
	if err := events.retry(s.cfg.Retry); err != nil {
		return endClient, err
	}
	return s.showSeveral(events, first, f)
}

// leaveOut reports whether a refusal is about its audit alone: what is no longer the user's is not among all that is, and
// what cannot be read does not end the others. Who has asked for an audit is told, by the end of the stream.
func (v *several) leaveOut(refused error) bool {
	return v.open == nil && answerTo(refused) != errInvalidToken
}

func (s *Server) leftOut(refused error) {
	if answerTo(refused) == errInternal {
		s.cfg.Logger.Error("audit cannot be shown", "error", refused)
	}
}
