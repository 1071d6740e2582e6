package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// checkInterval is the time between looks whether a holder's connection was closed, which cost no round trip.
	checkInterval = 200 * time.Millisecond
	// lookInterval is the time between questions what the triggers ask for, which also find a connection that is silently dead.
	lookInterval = 4 * time.Second
	// noSessionRetry is the time between attempts where a pooler is in the way.
	noSessionRetry = time.Minute
)

// Holder keeps the session in which a Registrar holds its locks. It does not LISTEN, so that it costs writers nothing. Its locks may
// outlive the connection of a Listener, or end before it: writers then announce in vain, or what is watched is read when they are held
// again.
type Holder struct {
	conn      *pgx.ConnConfig
	pool      Pool
	registrar *Registrar
	logger    *slog.Logger
	held      atomic.Bool
	tells     atomic.Bool
	again     bell // look at once

	// Idle reports whether nobody watches, so that nothing is asked meanwhile; nil: never. It is set before Run.
	Idle func() bool
}

// NewHolder returns a Holder that does nothing until Run. conn and pool are NewPostgres's.
func NewHolder(conn *pgx.ConnConfig, pool Pool, registrar *Registrar, logger *slog.Logger) *Holder {
	return &Holder{conn: listenConfig(conn, "auditstream locks"), pool: pool, registrar: registrar, logger: logger, again: newBell()}
}

// Tells reports whether writers are told what is watched. Safe for concurrent use.
func (h *Holder) Tells() bool { return h.tells.Load() }

// Held reports whether there is such a session, of which it is known that the connection keeps it. Safe for concurrent use.
func (h *Holder) Held() bool { return h.held.Load() }

// Look has asked at once what the triggers ask for, which an install may have changed, and whether the connection lives. It does not
// block. Safe for concurrent use.
func (h *Holder) Look() { h.again.ring() }

// Run keeps the session until ctx is done, and returns nil. What cannot be had is tried again for ever. It must run exactly once.
func (h *Holder) Run(ctx context.Context) error {
	var delays Backoff
	var said turn
	var hurried time.Time // the last attempt that did not wait for its turn
	silent, limit := 0, muteSessions
	for {
		began := time.Now()
		proven, err := h.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if proven {
			said, silent, limit = turn{}, 0, muteAfterProof
		}
		if proven && time.Since(began) > noSessionRetry { // and not because locks are refused again and again
			delays = Backoff{}
		}
		if errors.Is(err, ErrSilent) {
			silent++
		}
		delay := delays.Next()
		if silent >= limit { // not after one, which may have been late
			delay = noSessionRetry - mathrand.N(noSessionRetry/10)
		}
		said.bad(func() {
			h.logger.Warn("cannot tell the triggers what is watched, trying on; unless they always ring, the safety net finds changes. DATABASE_LISTEN_URL must be a direct connection to the primary", "error", err)
		})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		case <-h.again: // somebody has a connection again; not as often as anybody can say so
			soon := max(backoffMin, time.Until(hurried.Add(againAfter)))
			hurried = time.Now().Add(soon)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(soon):
			}
		}
	}
}

// session is the life of one connection. It returns why it ended, and whether it was proven.
func (h *Holder) session(ctx context.Context) (proven bool, err error) {
	openCtx, cancel := context.WithTimeout(ctx, openTimeout(h.conn))
	defer cancel()
	conn, err := connectIdle(openCtx, h.conn)
	if err != nil {
		return false, err
	}
	s := &lockSession{conn: conn}
	defer s.close()
	if err := s.prove(openCtx, h.pool); err != nil {
		return false, err
	}
	h.held.Store(true)
	defer h.held.Store(false)
	defer h.tells.Store(false)
	defer h.registrar.Session(nil)
	h.logger.Info("telling the triggers what is watched")
	return true, h.keep(ctx, s)
}

// keep looks what the triggers ask for, and whether the connection lives, until it does not.
func (h *Holder) keep(ctx context.Context, s *lockSession) error {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	var looked time.Time
	var told feed
	for first, again := true, false; ; {
		if since := time.Since(looked); since >= lookInterval && (first || h.Idle == nil || !h.Idle()) || again && since >= againAfter {
			looked, again = time.Now(), false
			f, err := s.ask(ctx)
			if errors.Is(err, errLocksLost) {
				return err
			}
			if err := s.isServerOf(ctx, h.pool); err != nil {
				return err
			}
			if first || f != told {
				h.tell(s, f, err)
			}
			first, told = false, f
		}
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
			if err := s.check(); err != nil {
				return err
			}
		case <-h.again:
			again = true
		}
	}
}

// tell gives the registrar the session, and what the triggers ask for.
func (h *Holder) tell(s *lockSession, f feed, err error) {
	h.tells.Store(err == nil)
	if err != nil {
		h.logger.Warn("the triggers cannot be told what is watched; unless they always ring, the safety net finds changes. Run auditstream doctor", "error", err)
		h.registrar.Session(nil)
		return
	}
	h.registrar.Session(locks{s, f})
}
