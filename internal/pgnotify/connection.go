package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// muteSessions is how many sessions in a row may end with ErrSilent before we assume that notifications cannot work here.
	muteSessions = 2
	// muteAfterProof is the same after a session that worked; it takes about a minute to reach. It is larger because a stopped database
	// or machine is silent, too, and after such an outage the long pause would only make the outage longer.
	muteAfterProof = 8
	// mutePause is the time between attempts once it seems that notifications, or the locks, cannot work here.
	mutePause = time.Minute
)

// ErrCannot is in the chain of an error that a later attempt will not cure.
var ErrCannot = errors.New("notifications are impossible here")

// ErrSilent is in the chain of the error of a connection on which nothing arrives.
var ErrSilent = errors.New("a canary notification did not come back")

// Texts are the log messages about a permanent connection.
type Texts struct {
	Up   string // it works
	Lost string // it was lost and is retried soon
	Mute string // it seems that it cannot work; the text says what to do
}

// connection keeps a permanent connection: it runs one session after the other.
type connection struct {
	session   func(ctx context.Context) (proven bool, err error) // returns why the session ended, and whether it was proven to work
	texts     Texts
	logger    *slog.Logger
	retryBell Bell // starts the next attempt at once
}

// run runs sessions until ctx is done, and returns nil. It logs a failure once, and again only after a proven session.
func (c connection) run(ctx context.Context) error {
	var delays Backoff
	silent, limit, logged := 0, muteSessions, ""
	for {
		began := time.Now()
		proven, err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if proven {
			silent, limit, logged = 0, muteAfterProof, ""
			if time.Since(began) > backoffMax { // a session that breaks at once does not reset the back-off
				delays = Backoff{}
			}
		}
		if errors.Is(err, ErrSilent) && !proven {
			silent++
		}
		delay := delays.Next()
		switch mute := silent >= limit || errors.Is(err, ErrCannot); {
		case mute:
			delay = mutePause - rand.N(mutePause/10+1)
			if logged != c.texts.Mute {
				c.logger.Error(c.texts.Mute, "error", err, "next_attempt_in", mutePause)
			}
			logged = c.texts.Mute
		case logged == "":
			c.logger.Warn(c.texts.Lost, "error", err)
			logged = c.texts.Lost
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		case <-c.retryBell:
		}
	}
}
