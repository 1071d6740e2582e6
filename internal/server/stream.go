package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"auditstream/internal/store"
)

// stream shows audits to one client, from the first event to the last: one audit, several, or all that the user owns. It has no
// goroutine of its own. Whatever happens to it is noted in due, and its sink has one goroutine at a time call Run, whose fields
// all others are.
type stream struct {
	server *Handler
	feed   *store.Feed
	who    viewer
	sub    Subscription // nil once the stream has ended
	events eventStream

	all    bool           // whatever the user owns is asked for; open and closed stay empty
	open   []store.Key    // of those asked for, the audits that have not ended
	closed []*store.State // of those asked for, the terminal states sent

	start   time.Time
	end     time.Time // of the stream; then of the connection's wait for the next request
	expires bool      // at the end the token does
	timer   *time.Timer

	due atomic.Uint32
}

// What happened to a stream.
const (
	dueState   = 1 << iota // there is a state to take
	dueTime                // the timer has fired
	dueInput               // the client has gone, or, after the stream's end, sent something
	dueDrain               // the server is shutting down
	dueClaimed             // somebody is about to call Run, or does; set for ever once there is nothing left to do
)

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

// poke notes that something has happened. It does not block, and may be called from anywhere.
func (st *stream) poke(what uint32) {
	if st.due.Or(what|dueClaimed)&dueClaimed == 0 {
		st.events.out.Schedule()
	}
}

func (st *stream) wake()      { st.poke(dueState) }
func (st *stream) timeIsDue() { st.poke(dueTime) }

// Input and Drain are for what serves the connection.
func (st *stream) Input() { st.poke(dueInput) }
func (st *stream) Drain() { st.poke(dueDrain) }

// begin sends the first states, and only then has writers told that somebody watches. It reports whether nothing is left to do;
// otherwise the caller, who holds the claim, has Run called.
func (st *stream) begin(first []*store.State) (over bool) {
	defer st.recoverPanic(&over)
	s := st.server
	s.metrics.of(st.feed.Name).streams.Inc()
	if reason, err := st.show(first, opening(s.cfg.Heartbeat, s.cfg.Retry)); reason != "" {
		return st.finish(reason, err)
	}
	if st.all && st.sub.More() {
		if err := st.events.more(len(first)); err != nil {
			return st.finish(endClient, err)
		}
	}
	st.sub.Confirm()
	left, expires := s.lifetime(st.who)
	st.end, st.expires = time.Now().Add(left), expires
	st.timer = time.AfterFunc(min(left, s.cfg.Heartbeat), st.timeIsDue)
	return false
}

// lifetime is how long a stream may last, and whether it is the token's expiry that ends it, and not SSE_MAX_DURATION.
func (s *Handler) lifetime(who viewer) (left time.Duration, expires bool) {
	left = time.Until(who.expires)
	return min(left, s.cfg.MaxDuration), left < s.cfg.MaxDuration
}

// Run sees to what is due until nothing is, and reports whether nothing will be any more.
func (st *stream) Run() (over bool) {
	defer st.recoverPanic(&over)
	for {
		due := st.due.Swap(dueClaimed) &^ dueClaimed
		switch {
		case due == 0:
			if st.due.CompareAndSwap(dueClaimed, 0) {
				return false
			}
		case st.sub == nil:
			if st.events.out.rest(st, due) {
				return true
			}
		default:
			if reason, err := st.step(due); reason != "" && st.finish(reason, err) {
				return true
			}
		}
	}
}

// step decides what a stream does next. The reason is empty while it goes on; the error is that of a write.
func (st *stream) step(due uint32) (reason string, err error) {
	s := st.server
	switch {
	case due&dueInput != 0:
		return endClient, nil
	case due&dueDrain != 0, due&dueState != 0 && st.sub.Over():
		return endShutdown, st.events.retry(s.retryDelay())
	}
	if due&dueState != 0 {
		if reason, err := st.show(st.sub.Take(), ""); reason != "" {
			return reason, err
		}
	}
	if due&dueTime == 0 {
		return "", nil
	}
	now := time.Now()
	switch {
	case !now.Before(st.end) && st.expires:
		return endExpired, st.events.fail(textExpired, 0)
	case !now.Before(st.end):
		return endTimeout, st.events.fail(textTimeout, s.retryDelay())
	case !now.Before(st.events.wrote.Add(s.cfg.Heartbeat)):
		if err := st.events.heartbeat(); err != nil {
			return endClient, err
		}
	}
	st.timer.Reset(min(time.Until(st.end), time.Until(st.events.wrote.Add(s.cfg.Heartbeat))))
	return "", nil
}

// show writes states, the first of them after before: the opening of a new stream, and nothing later.
func (st *stream) show(states []*store.State, before string) (reason string, err error) {
	metrics := st.server.metrics.of(st.feed.Name)
	for _, state := range states {
		if refused := mayShow(state, st.who); refused != nil {
			if st.leavesOut(refused) {
				continue
			}
			return st.revoke(refused)
		}
		err := st.events.state(state, before)
		if err != nil {
			return endClient, err
		}
		metrics.sent(state, before != "")
		before = ""
		if k := slices.Index(st.open, state.ID); k >= 0 && state.Terminal() {
			st.open, st.closed = slices.Delete(st.open, k, k+1), append(st.closed, state)
		}
	}
	if before != "" { // nothing is there yet
		err = st.events.open(before)
	}
	switch {
	case err != nil:
		return endClient, err
	case st.all || len(st.open) > 0:
		return "", nil
	case len(st.closed) > 1: // the last event's own id does not say that all have ended
		err = st.events.lastID(endID(st.closed))
	}
	return endTerminal, err
}

// leavesOut reports whether a refusal is about its audit alone: what is no longer the user's is not among all that is, and
// what cannot be read does not end the others. Who has asked for an audit is told, by the end of the stream.
func (st *stream) leavesOut(refused error) bool {
	if !st.all || answerTo(refused) == errInvalidToken {
		return false
	}
	if answerTo(refused) == errInternal {
		st.server.cfg.Logger.Error("audit cannot be shown", "error", refused)
	}
	return true
}

// revoke ends a stream whose audit may not be shown any more. Where the client must change something before it comes back, it
// keeps the delay that it has.
func (st *stream) revoke(refused error) (reason string, err error) {
	switch answerTo(refused) {
	case errInvalidToken:
		return endExpired, st.events.fail(textExpired, 0)
	case errForbidden:
		return endForbidden, st.events.fail(errForbidden.text, 0)
	case errNoAudit:
		return endDeleted, st.events.fail(wordedFor(st.feed, errNoAudit).text, 0)
	}
	st.server.cfg.Logger.Error("audit cannot be shown", "error", refused)
	return endError, st.events.fail(errInternal.text, st.server.retryDelay())
}

// endID names the end of audits, as a fingerprint names that of one: a client that comes back with it has seen them all end.
// The id of the event that came last does not say so: whoever lost the stream after one end and before another has the first
// one's as well. Of one audit it is the fingerprint itself.
func endID(ends []*store.State) string {
	if len(ends) == 1 {
		return ends[0].Fingerprint
	}
	ends = slices.SortedFunc(slices.Values(ends), byKey)
	hash := sha256.New()
	for _, state := range ends {
		hash.Write([]byte(string(state.ID) + " " + state.Fingerprint + "\n"))
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

func byKey(a, b *store.State) int { return a.ID.Compare(b.ID) }

// finish gives back what the stream holds, accounts for its end, and reports whether its sink has nothing left to do either.
func (st *stream) finish(reason string, err error) (over bool) {
	s := st.server
	st.stopTimer()
	st.release()
	s.metrics.of(st.feed.Name).streams.Dec()
	s.metrics.ended.WithLabelValues(reason).Inc()
	attrs := []slog.Attr{
		st.subject(), slog.Duration("duration", time.Since(st.start)),
		slog.Int("events", st.events.events), slog.String("reason", reason),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "stream ended", attrs...)
	st.open, st.closed = nil, nil
	return st.events.out.close(st, reason, err == nil && reason != endClient)
}

func (st *stream) stopTimer() {
	if st.timer != nil {
		st.timer.Stop()
	}
}

// release gives back what open took.
func (st *stream) release() {
	if st.sub != nil {
		st.sub.Cancel()
		st.sub = nil
	}
	st.server.limit.release(st.who.key())
}

// subject is what the log says a stream was about.
func (st *stream) subject() slog.Attr {
	what, n := st.feed.Name, len(st.open)+len(st.closed)
	switch {
	case st.all:
		return slog.String(what, "all of the user's")
	case n > 1:
		return slog.Int(what, n)
	}
	var key store.Key
	if len(st.open) == 1 {
		key = st.open[0]
	} else {
		key = st.closed[0].ID
	}
	switch {
	case what == store.DefaultFeed && st.feed.Key == store.IntegerKeys:
		return slog.Int64("audit", key.Int())
	case what == store.DefaultFeed:
		what = "audit"
	}
	return slog.String(what, string(key))
}
