package auditstream

import (
	"context"
	"encoding/json"
	"iter"

	"auditstream/internal/store"
)

// Key names a row.
type Key struct {
	// Feed is the name under which the row's table was adopted. Default: audits.
	Feed string
	// ID is the row's key as PostgreSQL prints it.
	ID string
}

// State is a row's content at one moment, as viewers see it.
type State struct {
	Key Key
	// Status is the row's, in lower case: pending, running, completed, failed, or whatever else the application stores.
	Status string
	// Progress is in per cent, from 0 to 100.
	Progress int
	// Message is the text for people; "" if there is none.
	Message string
	// Error says what went wrong; "" unless Status is failed.
	Error string
	// Ended reports whether the status is final: no change is expected any more.
	Ended bool
	// JSON is the object that browsers are sent for this state.
	JSON json.RawMessage
	// Fingerprint is the state's event id, 16 hexadecimal digits: equal states have equal fingerprints.
	Fingerprint string
}

// Watch follows a row, whoever owns it: first the state that is committed now, then each different one. When changes come faster than
// they are read, or than the loop takes them, states are skipped, but never the last. Watch ends after a state that has Ended, after one
// error, or when the loop ends. It waits until Run runs, and while the database is unreachable.
//
// The error is ctx's, [ErrNotFound] if there is no such row or it was deleted, [ErrNoFeed], [ErrNotInstalled], [ErrStopped], a
// [UsageError] about the key, or the reason why the row cannot be read.
func (s *Service) Watch(ctx context.Context, key Key) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		for state, err := range s.rows.Watch(ctx, key.Feed, key.ID) {
			switch {
			case err != nil:
				yield(State{}, translateError(err))
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
	state := State{Key: key, Status: s.Row.Status, Progress: s.Row.Progress, Ended: s.Terminal(), JSON: s.JSON, Fingerprint: s.Fingerprint}
	if s.Row.Message != nil {
		state.Message = *s.Row.Message
	}
	if s.Row.Error != nil && state.Status == "failed" {
		state.Error = *s.Row.Error
	}
	return state
}
