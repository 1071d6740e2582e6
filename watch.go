package auditstream

import (
	"context"
	"encoding/json"
	"iter"

	"auditstream/internal/store"
)

// Key names a row.
type Key struct {
	// Feed is the name under which its table was adopted. Default: audits.
	Feed string
	// ID is the row's key as PostgreSQL prints it.
	ID string
}

// State is what a row was at one moment, as viewers see it.
type State struct {
	Key Key
	// Status is the row's, in lower case: pending, running, completed, failed, or whatever else the application stores.
	Status string
	// Progress is in per cent, from 0 to 100.
	Progress int
	// Message is the text for people, "" where there is none.
	Message string
	// Error says what went wrong, "" unless Status is failed.
	Error string
	// Ended reports whether no change is expected any more.
	Ended bool
	// JSON is all that is sent to browsers of this state, one object.
	JSON json.RawMessage
	// Fingerprint names the state: the event's id, 16 hexadecimal digits.
	Fingerprint string
}

// Watch follows a row, whoever it belongs to: first the state that is committed now, then each that differs. Where changes come faster
// than they are read, or taken, the newest counts; the last state of a row is never left out. It ends after a state that has Ended,
// with one error, or when the loop does. It waits for Run to run, and for a database that is away.
//
// The error is ctx's, [ErrNotFound] where there is no such row, also once it was deleted, [ErrNoFeed], [ErrNotInstalled], [ErrStopped], a
// [UsageError] about the key, or says why the row cannot be read.
func (s *Service) Watch(ctx context.Context, key Key) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		for state, err := range s.rows.Watch(ctx, key.Feed, key.ID) {
			switch {
			case err != nil:
				yield(State{}, named(err))
				return
			case state.Err != nil:
				yield(State{}, state.Err)
				return
			case !state.Found:
				yield(State{}, ErrNotFound)
				return
			}
			if !yield(stateOf(key, state), nil) || state.Terminal() {
				return
			}
		}
	}
}

func stateOf(key Key, s *store.State) State {
	state := State{Key: key, Status: s.Audit.Status, Progress: s.Audit.Progress, Ended: s.Terminal(), JSON: s.JSON, Fingerprint: s.Fingerprint}
	if s.Audit.Message != nil {
		state.Message = *s.Audit.Message
	}
	if s.Audit.Error != nil && state.Status == "failed" {
		state.Error = *s.Audit.Error
	}
	return state
}
