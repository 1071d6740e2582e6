package store

import (
	"sync"
	"time"
)

// State is what one read found for one key: the row, or that there is none. All who watch the row share it, so nobody may change it.
type State struct {
	// ID is the key that was read, also when there is no row.
	ID Key
	// Found is false when no committed row has this key. Row, JSON and Fingerprint are then zero.
	Found bool
	// Err says why this one row cannot be read although others can. Everything but ID is then zero.
	Err error
	Row Row
	// JSON is what clients are sent, encoded once.
	JSON []byte
	// Fingerprint names this state: 16 hex digits, the same on every instance and after every restart.
	Fingerprint string
	// Noticed is when this process learnt of the change: when the first notification that led to this read arrived, which PostgreSQL
	// sends right after the commit. It is zero when no notification announced the change.
	Noticed time.Time

	once    sync.Once
	encoded []byte
}

// NewState returns the State of an existing row.
func NewState(a Row) *State {
	text := a.JSON()
	return &State{ID: a.ID, Found: true, Row: a, JSON: text, Fingerprint: fingerprint(text)}
}

// WithoutRow returns the State to show after the row of s was deleted: ended, when its feed sets [Feed.Deleted]; otherwise nil, which
// means that there is no row any more.
func (s *State) WithoutRow() *State {
	if s == nil || !s.Found || s.Row.Feed == nil || s.Row.Feed.Deleted == "" {
		return nil
	}
	if s.Terminal() { // it had ended before: show it as it was
		return NewState(s.Row)
	}
	a := s.Row
	if a.Status = a.Feed.Deleted; a.Status == "completed" {
		a.Progress = 100
	}
	return NewState(a)
}

// Encoded returns encode(s). The first caller computes it and all others share it, so that an event for a thousand streams is formatted
// once. All callers must pass the same function. Safe for concurrent use.
func (s *State) Encoded(encode func(*State) []byte) []byte {
	s.once.Do(func() { s.encoded = encode(s) })
	return s.encoded
}

// Terminal reports whether the row exists and has ended.
func (s *State) Terminal() bool { return s.Found && s.Row.Terminal() }

// EndsByItsWord reports whether the row has ended with one of the feed's own statuses, [Feed.Ends]. Clients know only completed and
// failed, so they must be told that this one ends the stream.
func (s *State) EndsByItsWord() bool {
	return s.Terminal() && s.Row.Status != "completed" && s.Row.Status != "failed"
}

// Same reports whether s and t look the same to every viewer: the same JSON, and the same owner.
func (s *State) Same(t *State) bool {
	return s.Found == t.Found && (s.Err == nil) == (t.Err == nil) && s.Fingerprint == t.Fingerprint &&
		equal(s.Row.UserID, t.Row.UserID) && equal(s.Row.UserEmail, t.Row.UserEmail) && equal(s.Row.GroupID, t.Row.GroupID)
}

func equal(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
