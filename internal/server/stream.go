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

// stream sends the states of one row, of several, or of all rows that the user owns, to one client, from the first event to the last. It
// has no goroutine of its own. Whatever happens to it sets a bit of due, and the sink makes one goroutine at a time call Run. All fields
// but due belong to that goroutine.
type stream struct {
	server *Handler
	feed   *store.Feed
	who    Viewer
	sub    Subscription // nil once the stream has ended
	events eventStream

	all    bool           // the client asked for all rows that the user owns; open and closed stay empty
	open   []store.Key    // the rows asked for that have not ended
	closed []*store.State // the terminal states sent, of the rows asked for

	start   time.Time
	end     time.Time // when the stream must end
	expires bool      // end is the token's expiry
	timer   *time.Timer

	due atomic.Uint32
}

// The bits of due: what happened to a stream.
const (
	dueState   = 1 << iota // there is a state to take
	dueTime                // the timer has fired
	dueInput               // the client disconnected
	dueDrain               // the server is shutting down
	dueClaimed             // a goroutine calls Run, or is about to; stays set once the stream has ended
)

// The reasons why a stream ended, for the log and the metrics.
const (
	endTerminal  = "terminal"
	endClient    = "client gone"
	endTimeout   = "timeout"
	endExpired   = "token expired"
	endForbidden = "owner changed"
	endDeleted   = "deleted"
	endShutdown  = "shutdown"
	endFeed      = "feed changed" // install changed or uninstall removed it
	endError     = "error"
)

// poke sets a bit of due, and schedules Run unless a goroutine has claimed it. It does not block. Safe for concurrent use.
func (st *stream) poke(what uint32) {
	if st.due.Or(what|dueClaimed)&dueClaimed == 0 {
		st.events.out.Schedule()
	}
}

func (st *stream) wake()      { st.poke(dueState) }
func (st *stream) timeIsDue() { st.poke(dueTime) }

// Input and Drain are called by the code that serves the connection, in any goroutine.
func (st *stream) Input() { st.poke(dueInput) }
func (st *stream) Drain() { st.poke(dueDrain) }

// begin sends the first states, and only then confirms the subscription, so that writers learn that somebody watches. Unless the stream has
// ended then, the caller, which holds the claim, makes a goroutine call Run.
func (st *stream) begin(first []*store.State) {
	defer st.recoverPanic()
	s := st.server
	s.metrics.forFeed(st.feed.Name).streams.Inc()
	if reason, err := st.show(first, opening(s.cfg.Heartbeat, s.cfg.Retry)); reason != "" {
		st.finish(reason, err)
		return
	}
	if st.all && st.sub.More() {
		if err := st.events.more(len(first)); err != nil {
			st.finish(endClient, err)
			return
		}
	}
	st.sub.Confirm()
	left, expires := s.lifetime(st.who)
	st.end, st.expires = time.Now().Add(left), expires
	st.timer = time.AfterFunc(min(left, s.cfg.Heartbeat), st.timeIsDue)
}

// lifetime returns how long a stream may last, and whether the token's expiry limits it and not SSE_MAX_DURATION.
func (s *Handler) lifetime(who Viewer) (left time.Duration, expires bool) {
	left = time.Until(who.Expires)
	return min(left, s.cfg.MaxDuration), left < s.cfg.MaxDuration
}

// Run handles what is due until nothing is, or the stream has ended. One goroutine at a time calls it.
func (st *stream) Run() {
	defer st.recoverPanic()
	for {
		due := st.due.Swap(dueClaimed) &^ dueClaimed
		if due == 0 {
			if st.due.CompareAndSwap(dueClaimed, 0) {
				return
			}
		} else if reason, err := st.step(due); reason != "" {
			st.finish(reason, err)
			return
		}
	}
}

// step decides what a stream does next, and does it. The reason is empty while the stream goes on; the error is a write's.
func (st *stream) step(due uint32) (reason string, err error) {
	s := st.server
	switch {
	case due&dueInput != 0:
		return endClient, nil
	case due&dueDrain != 0:
		return endShutdown, st.events.retry(s.retryDelay())
	case due&dueState != 0 && st.sub.Over():
		return endFeed, st.events.retry(s.retryDelay())
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

// show checks and writes states. before is written in front of the first: a new stream's opening, later "".
func (st *stream) show(states []*store.State, before string) (reason string, err error) {
	metrics := st.server.metrics.forFeed(st.feed.Name)
	for _, state := range states {
		if refused := checkAccess(state, st.who); refused != nil {
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
	if before != "" { // no state was written
		err = st.events.open(before)
	}
	switch {
	case err != nil:
		return endClient, err
	case st.all || len(st.open) > 0:
		return "", nil
	case len(st.closed) > 1: // the last event's id does not say that all rows have ended
		err = st.events.lastID(endID(st.closed))
	}
	return endTerminal, err
}

// leavesOut reports whether a stream goes on without a refused row. A stream of all the user's rows does: a row with a new owner is no
// longer among them, and a row that cannot be read does not end the others. A stream of rows that were asked for by key ends instead.
func (st *stream) leavesOut(refused error) bool {
	if !st.all || answerTo(refused) == errInvalidToken {
		return false
	}
	if answerTo(refused) == errInternal {
		st.server.cfg.Logger.Error("row cannot be shown", "error", refused)
	}
	return true
}

// revoke ends a stream whose row may not be shown any more. It sends a random retry delay only for an internal error: in the other cases the
// client must change something before it reconnects.
func (st *stream) revoke(refused error) (reason string, err error) {
	switch answerTo(refused) {
	case errInvalidToken:
		return endExpired, st.events.fail(textExpired, 0)
	case errForbidden:
		return endForbidden, st.events.fail(errForbidden.text, 0)
	case errNoRow:
		return endDeleted, st.events.fail(wordedFor(st.feed, errNoRow).text, 0)
	}
	st.server.cfg.Logger.Error("row cannot be shown", "error", refused)
	return endError, st.events.fail(errInternal.text, st.server.retryDelay())
}

// endID returns the event id after which a client has seen all these rows end; of one row it is the state's fingerprint. The id of the last
// event would not do for several rows: a client that lost the stream between two ends has the id of one of them, too.
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

// finish releases what the stream holds, logs and counts its end, and ends the answer.
func (st *stream) finish(reason string, err error) {
	s := st.server
	if st.timer != nil {
		st.timer.Stop()
	}
	st.release()
	s.metrics.forFeed(st.feed.Name).streams.Dec()
	s.metrics.ended.WithLabelValues(reason).Inc()
	attrs := []slog.Attr{
		st.subject(), slog.Duration("duration", time.Since(st.start)),
		slog.Int("events", st.events.events), slog.String("reason", reason),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "stream ended", attrs...)
	st.events.out.close(reason, err == nil && reason != endClient)
}

// release cancels the subscription and gives back the place under the stream limit, which open took.
func (st *stream) release() {
	if st.sub != nil {
		st.sub.Cancel()
		st.sub = nil
	}
	st.server.limit.release(st.who.key())
}

// subject returns the log's attribute for what a stream showed.
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
