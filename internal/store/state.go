package store

import (
	"sync"
	"time"
)

// State is what one read found for one audit id: its row, or that there is none. It is shared by all who watch the
// audit and must not be changed.
type State struct {
	// ID is the audit's id, also when there is no row.
	ID Key
	// Found is false when no row with this id is committed; Audit, JSON and Fingerprint are then zero.
	Found bool
	// Err says why this row, unlike others, cannot be read; everything else is then zero.
	Err   error
	Audit Audit
	// JSON is the audit as sent, encoded once.
	JSON []byte
	// Fingerprint names this state: 16 hex digits, the same on every instance and after every restart.
	Fingerprint string
	// Noticed is when the process learnt that the row had changed: the arrival of the first notification that led to
	// this read, which PostgreSQL sends right after the commit. Zero when no notification announced the change.
	Noticed time.Time

	once    sync.Once
	encoded []byte
}

// NewState returns the state of a row that was found.
func NewState(a Audit) *State {
	text := a.JSON()
	return &State{ID: a.ID, Found: true, Audit: a, JSON: text, Fingerprint: fingerprint(text)}
}

// WithoutRow is what is shown once the row of s is gone: that it has ended, where its feed says so, else that there is none.
func (s *State) WithoutRow() *State {
	if s == nil || !s.Found || s.Audit.Feed == nil || s.Audit.Feed.Deleted == "" {
		return nil
	}
	if s.Terminal() { // the row is shown as it was when it ended
		return NewState(s.Audit)
	}
	a := s.Audit
	if a.Status = a.Feed.Deleted; a.Status == "completed" {
		a.Progress = 100
	}
	return NewState(a)
}

// Encoded returns what encode makes of the state, computed by the first caller and shared by all the others: an event
// that goes to a thousand streams is formatted once. All callers must pass the same function. Safe for concurrent use.
func (s *State) Encoded(encode func(*State) []byte) []byte {
	s.once.Do(func() { s.encoded = encode(s) })
	return s.encoded
}

// Terminal reports whether the audit was found and has ended.
func (s *State) Terminal() bool { return s.Found && s.Audit.Terminal() }

// EndsByItsWord reports whether the row has ended with a status that clients cannot know to be an end: one of [Feed.Ends].
func (s *State) EndsByItsWord() bool {
	return s.Terminal() && s.Audit.Status != "completed" && s.Audit.Status != "failed"
}

// Same reports whether nobody who watches could tell s from t: neither in what is sent nor in who owns the audit.
func (s *State) Same(t *State) bool {
	return s.Found == t.Found && (s.Err == nil) == (t.Err == nil) && s.Fingerprint == t.Fingerprint &&
		same(s.Audit.UserID, t.Audit.UserID) && same(s.Audit.UserEmail, t.Audit.UserEmail) && same(s.Audit.GroupID, t.Audit.GroupID)
}

func same(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
