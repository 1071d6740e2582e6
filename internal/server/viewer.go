package server

import (
	"errors"
	"net/http"
	"time"

	"auditstream/internal/store"
)

// Viewer is the user who sends a request, whom a token or [Config.Viewer] names.
type Viewer struct {
	store.Viewer
	// Expires is when an open stream ends. Config.Viewer may return zero: at MaxDuration.
	Expires time.Time
}

// key identifies the user for the limits per user: the user claim, or without one the e-mail address, compared as owners are.
func (v Viewer) key() store.Owner {
	if owners := v.Owners(); len(owners) > 0 {
		return owners[0]
	}
	return store.Owner{}
}

// The errors of [Config.Viewer] that refuse a request permanently. Any other counts as temporary: the client is told to come back later.
var (
	// ErrUnauthenticated: the request does not say who sends it; answered 401.
	ErrUnauthenticated = errors.New("nobody is signed in")
	// ErrDenied: the viewer may not see the row; answered 403.
	ErrDenied = errors.New("access is denied")
	// ErrNotFound: there is no such row for this viewer; answered 404.
	ErrNotFound = errors.New("there is no such row")
)

// never is later than the end of any stream.
var never = time.Unix(1<<40, 0)

// viewerOf calls Config.Viewer, and chooses the answer to its error. The error's text goes to the log only.
func (s *Handler) viewerOf(r *http.Request) (Viewer, error) {
	who, err := s.cfg.Viewer(r)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return Viewer{}, withCause(errMissingToken, err)
	case errors.Is(err, ErrDenied):
		return Viewer{}, withCause(errForbidden, err)
	case errors.Is(err, ErrNotFound):
		return Viewer{}, withCause(errNoRow, err)
	case err != nil:
		return Viewer{}, withCause(errUnavailable, err)
	}
	if who.Expires.IsZero() {
		who.Expires = never
	}
	return who, nil
}
