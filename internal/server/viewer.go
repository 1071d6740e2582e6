package server

import (
	"errors"
	"net/http"
	"time"

	"auditstream/internal/store"
)

// Viewer is the user who sends a request, as [Config.Viewer] returns it.
type Viewer struct {
	store.Viewer
	// Expires is when an open stream ends; zero: at MaxDuration.
	Expires time.Time
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
func (s *Handler) viewerOf(r *http.Request) (viewer, error) {
	who, err := s.cfg.Viewer(r)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return viewer{}, withCause(errMissingToken, err)
	case errors.Is(err, ErrDenied):
		return viewer{}, withCause(errForbidden, err)
	case errors.Is(err, ErrNotFound):
		return viewer{}, withCause(errNoRow, err)
	case err != nil:
		return viewer{}, withCause(errUnavailable, err)
	}
	if who.Expires.IsZero() {
		who.Expires = never
	}
	return viewer{Viewer: who.Viewer, expires: who.Expires}, nil
}
